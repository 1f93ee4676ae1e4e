# own_method.py
"""L2: a penalty holds all weights alike where the last task left them.

The plainest of the baselines in Kirkpatrick et al., PNAS 2017.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hypercrl.base.settings import number
from hypercrl.methods import Batch, MethodConfig
from hypercrl.methods.gradient import SharedMethod


@dataclass
class L2Config(MethodConfig):
    """Settings of L2; `help` is what `hypercrl train method=own_method:L2 --help` says of one."""

    strength: float = number(1.0, least=0, help="λ of the penalty λ Σ_i (θ_i − θ*_i)²")


class L2(SharedMethod):
    """One trunk θ for all tasks, held at θ*, and a head for each task."""

    config: L2Config
    anchor: Tensor

    def _prepare(self) -> None:
        super()._prepare()
        # A buffer, so that it is in the checkpoint and counts among the bytes kept.
        self.register_buffer("anchor", self.network.trunk.detach().clone())

    @torch.no_grad()
    def _protect(self, size: int) -> Tensor | None:
        if self.tasks == 1:
            return None
        alike = torch.ones_like(self.anchor)
        return self._hold(alike, self.anchor, self.config.strength * size)

    @torch.no_grad()
    def end_task(self, batch: Batch) -> None:
        self.anchor.copy_(self.network.trunk)
