# own_rehearsal.py
"""Rehearsal: some transitions of old tasks are trained on beside those of the present one."""

from dataclasses import dataclass

from torch import Tensor, nn

from hypercrl.base.settings import number
from hypercrl.methods import Batch, MethodConfig
from hypercrl.methods.gradient import SharedMethod
from hypercrl.replay import StreamStore


@dataclass
class RehearsalConfig(MethodConfig):
    """Settings of Rehearsal."""

    capacity: int = number(500, least=1, help="transitions kept of all old tasks together")
    strength: float = number(1.0, least=0, help="of the loss on old ones beside that on new ones")


class Rehearsal(SharedMethod):
    """One trunk, a head for each task, and a uniform sample of the tasks that have ended."""

    rehearses = True
    config: RehearsalConfig

    def _prepare(self) -> None:
        super()._prepare()
        sizes = self.model.obs_size, self.model.action_size
        self.store = StreamStore(self.config.capacity, *sizes, 0, "reservoir", self.sampler)

    def end_task(self, batch: Batch) -> None:
        self.store.add(batch, self.tasks - 1, batch.obs[:, :0])

    def _rehearse(self, size: int) -> Tensor | None:
        old, _, held = self.store.draw(size)
        return self.config.strength * held * self._mixed_losses(old).sum()

    def _trained(self) -> list[nn.Parameter]:
        return [self.network.trunk, *self.network.task_parameters()]
