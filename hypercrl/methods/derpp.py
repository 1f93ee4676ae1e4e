"""Dark experience replay ++: rehearse what the network said, beside what happened.

Buzzega et al., "Dark experience for general continual learning: a strong, simple baseline",
NeurIPS 2020, equation 6.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hypercrl.base.settings import number
from hypercrl.methods.reservoir import Reservoir, ReservoirConfig
from hypercrl.replay.transitions import Batch, MixedBatch


@dataclass
class DERConfig(ReservoirConfig):
    """Weights of the stored outputs (α of the paper) and of the stored targets (β)."""

    outputs_weight: float = number(0.5, least=0, help="α, of the distance to stored outputs")
    targets_weight: float = number(0.5, least=0, help="β, of the loss on stored targets")


class DERpp(Reservoir):
    """Adds α ‖h(x) − z‖² / O on one drawn batch and β times the task loss on another.

    z are the raw outputs at the time at which the transition came into the memory.
    """

    config: DERConfig  # type: ignore[reportIncompatibleVariableOverride]

    def _extra_size(self) -> int:
        return self.model.layout.sizes[-1]

    @torch.no_grad()
    def _bring_along(self, ratio: Tensor) -> None:
        """What was said of a motion stays the same motion; of what stood still it stays nothing.

        So does its variance, as far as the bounds of the log-variance let it.
        """
        size = self.model.obs_size
        self.store.extra[:, :size] *= ratio
        if self.model.probabilistic:
            self.store.extra[:, size:] += 2 * ratio.log()

    @torch.no_grad()
    def observe(self, batch: Batch) -> None:
        task = self.tasks - 1
        label = torch.full((len(batch),), task, device=batch.obs.device)
        said = self._mixed_outputs(MixedBatch(batch.obs, batch.action, batch.next_obs, label))
        self.store.add(batch, task, said)

    def _rehearse(self, size: int) -> Tensor | None:
        batch, said, weight = self.store.draw(size)
        distance = (self._mixed_outputs(batch) - said).square().sum() / self.model.obs_size
        loss = self.config.outputs_weight * distance
        batch, _, _ = self.store.draw(size)
        return weight * (loss + self.config.targets_weight * self._mixed_losses(batch).sum())
