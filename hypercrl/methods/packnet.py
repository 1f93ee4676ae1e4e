"""PackNet: every task owns some of the weights, and what is owned is frozen.

Mallya, Lazebnik, "PackNet: Adding multiple tasks to a single network by iterative pruning",
CVPR 2018.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hypercrl.base.settings import number
from hypercrl.methods.base import MethodConfig
from hypercrl.methods.gradient import SharedMethod
from hypercrl.replay.transitions import Batch, random_rows


@dataclass
class PackNetConfig(MethodConfig):
    """What a task keeps, and how it is trained on."""

    keep: float = number(0.5, least=0, most=1, help="share of the free weights that a task keeps")
    retrain_updates: int = number(
        500, least=0, help="training steps at a task's end on what it keeps"
    )
    retrain_batch: int = number(
        100, least=1, only_with=("retrain_updates",), help="transitions in each of them"
    )


class PackNet(SharedMethod):
    """A task trains the free weights on top of the frozen ones, then gives most of them back.

    At its end the largest in each tensor are kept, the others set to zero, and the kept ones are
    trained on for `retrain_updates` further updates. The next task starts its free weights afresh.
    """

    config: PackNetConfig
    owner: Tensor

    def _prepare(self) -> None:
        super()._prepare()
        # The task that owns a weight; what is free belongs to the task in training.
        self.register_buffer("owner", torch.zeros_like(self.network.trunk, dtype=torch.int16))

    def begin_task(self) -> None:
        super().begin_task()
        trunk = self.network.trunk
        if self.tasks > 1:
            fresh = self.model.layout.initial(self.generator)[: len(trunk)].to(trunk)
            trunk.data = torch.where(self.owner == self.tasks - 1, fresh, trunk.data)

    def _weights(self, task: int) -> Tensor:
        weights = self.network.weights(task)
        shared = len(self.network.trunk)
        return torch.cat([weights[:shared] * (self.owner <= task), weights[shared:]])

    @torch.no_grad()
    def _protect(self, size: int) -> None:  # noqa: ARG002
        trunk = self.network.trunk
        assert trunk.grad is not None
        trunk.grad *= self.owner == self.tasks - 1

    def end_task(self, batch: Batch) -> None:
        self._prune()
        for _ in range(self.config.retrain_updates):
            rows = random_rows(len(batch), self.config.retrain_batch, self.sampler)
            self.training_step(batch.at(rows))
        self.extra_updates += self.config.retrain_updates

    @torch.no_grad()
    def _prune(self) -> None:
        current = self.tasks - 1
        lengths = self.model.layout.lengths[:-2]
        tensors = zip(self.network.trunk.split(lengths), self.owner.split(lengths), strict=True)
        for values, owner in tensors:
            free = (owner == current).nonzero()[:, 0]
            smallest = values[free].abs().argsort()[: round(len(free) * (1 - self.config.keep))]
            owner[free[smallest]] = current + 1
