"""A small memory of the whole stream and one network that is conditioned on the task.

The plainest rival of a hypernetwork: a task-conditioned MLP with experience replay (Chaudhry et
al., "On tiny episodic memories in continual learning", 2019), by default at equal bytes with hnet.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from hypercrl.base.settings import choice, number
from hypercrl.methods.base import MethodConfig
from hypercrl.methods.budget import rows_at_equal_bytes, transition_bytes
from hypercrl.methods.gradient import SharedMethod
from hypercrl.methods.networks import ConditionedNetwork
from hypercrl.replay import POLICIES, StreamStore
from hypercrl.replay.transitions import Batch, tensor_bytes


@dataclass
class ReservoirConfig(MethodConfig):
    """What is kept of the stream, and the network that reads the task."""

    capacity: int | None = number(
        None, least=1, help="transitions kept; null is what fits into the bytes hnet keeps"
    )
    policy: str = choice(
        "reservoir", *POLICIES, help="keep a uniform sample of the stream, or its end"
    )
    embedding_size: int = number(10, least=1, help="width of a task embedding")


class Reservoir(SharedMethod):
    """Every update adds a batch drawn from the memory to the batch of the present task."""

    rehearses = True
    config: ReservoirConfig

    def _prepare(self) -> None:
        super()._prepare()
        config, model, extra = self.config, self.model, self._extra_size()
        capacity = config.capacity or rows_at_equal_bytes(
            model, tensor_bytes(self.network.parameters()), transition_bytes(model, extra)
        )
        self.store = StreamStore(
            capacity, model.obs_size, model.action_size, extra, config.policy, self.sampler
        )

    def _network(self) -> ConditionedNetwork:
        return ConditionedNetwork(self.model.layout, self.config.embedding_size, self.generator)

    def _extra_size(self) -> int:
        """Numbers kept beside each transition."""
        return 0

    def observe(self, batch: Batch) -> None:
        self.store.add(batch, self.tasks - 1, batch.obs[:, :0])

    def _rehearse(self, size: int) -> Tensor | None:
        batch, _, weight = self.store.draw(size)
        return weight * self._mixed_losses(batch).sum()

    def _trained(self) -> list[nn.Parameter]:
        """Old embeddings too: they follow the trunk."""
        return [self.network.trunk, *self.network.task_parameters()]
