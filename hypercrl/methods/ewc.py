"""Elastic weight consolidation: stay near where the old tasks left the weights that matter.

Kirkpatrick et al., PNAS 2017, equation 3; online: Schwarz et al., "Progress & Compress", ICML 2018.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hypercrl.base.settings import number
from hypercrl.methods.base import MethodConfig
from hypercrl.methods.fisher import fisher_diagonal
from hypercrl.methods.gradient import SharedMethod
from hypercrl.methods.networks import MultiHeadNetwork
from hypercrl.replay.transitions import Batch


@dataclass
class EWCConfig(MethodConfig):
    """Strength 1 is the quadratic model of the old tasks' losses, had they been averaged in."""

    strength: float = number(10.0, least=0, help="λ of the penalty")
    fisher_samples: int = number(
        1000,
        least=1,
        most=1_000_000,
        help="transitions that the Fisher information is the mean over",
    )
    decay: float = number(
        1.0,
        least=0,
        most=1,
        only_with=("name=online_ewc",),
        help="of old Fisher information at a task's end; online_ewc alone",
    )


class EWC(SharedMethod):
    """Penalty (λ/O) Σ_j Σ_i F_ji (θ_i − θ*_ji)² on the trunk; heads belong to one task each.

    (1/O) Σ F (θ − θ*)² is the second-order model of the squared loss around θ*, with the Fisher
    information F for its curvature. Quadratics add up to a quadratic: the terms of all tasks are
    kept as one, F = Σ_j F_j around θ* = Σ_j F_j θ*_j / F, which has the same gradient.
    """

    network: MultiHeadNetwork
    config: EWCConfig
    fisher: Tensor
    anchor: Tensor

    def _prepare(self) -> None:
        super()._prepare()
        self.register_buffer("fisher", torch.zeros_like(self.network.trunk))
        self.register_buffer("anchor", torch.zeros_like(self.network.trunk))

    @torch.no_grad()
    def _protect(self, size: int) -> Tensor:
        strength = self.config.strength * size / self.model.obs_size
        return self._hold(self.fisher, self.anchor, strength)

    @torch.no_grad()
    def end_task(self, batch: Batch) -> None:
        trunk, head = self.network.trunk.detach(), self.network.heads[-1].detach()
        layout = self.model.layout

        def network(trunk: Tensor, x: Tensor) -> Tensor:
            return layout.apply(torch.cat([trunk, head]), x)

        new = fisher_diagonal(
            network, trunk, self.model, batch, self.config.fisher_samples, self.sampler
        )
        self._consolidate(new, trunk)

    def _consolidate(self, new: Tensor, trunk: Tensor) -> None:
        """Add the term of the task that has just ended, F = `new` around `trunk`."""
        total = self.fisher + new
        share = torch.where(total > 0, new / total, 0)
        self.anchor.lerp_(trunk, share)
        self.fisher.copy_(total)


class OnlineEWC(EWC):
    """One quadratic around the latest weights, F ← γ F + F_new: old tasks fade."""

    def _consolidate(self, new: Tensor, trunk: Tensor) -> None:
        self.anchor.copy_(trunk)
        self.fisher.mul_(self.config.decay).add_(new)
