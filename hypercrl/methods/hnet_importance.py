"""HyperCRL that holds the written weights the more firmly, the more they matter.

In the regulariser every written weight of an old task counts by its importance, scaled to mean 1 in
each task so that β keeps its meaning: by the Fisher information of the task's network (Kirkpatrick
et al., PNAS 2017), or by its path integral (Zenke et al., ICML 2017).
"""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from hypercrl.base.settings import number
from hypercrl.methods.fisher import fisher_diagonal
from hypercrl.methods.hnet import Hnet, HnetConfig
from hypercrl.replay.transitions import Batch


class HnetImportance(Hnet):
    """R = (1/t) Σ_j Σ_i ω_ji (W*_ji − h_i(e_j, θ + Δθ))²."""

    ensembles = False
    conditionings = ()
    own_terms = "R weighs every written weight by its importance"
    importance: Tensor

    def _prepare(self) -> None:
        super()._prepare()
        self.register_buffer("importance", torch.zeros(0, self.model.layout.numel))

    def _distance(self, written: Tensor, rows: Tensor | slice) -> Tensor:
        return (self.importance[rows] * (self.targets[rows] - written).square()).sum()

    @torch.no_grad()
    def end_task(self, batch: Batch) -> None:
        new = self._importance(self.weights(self.tasks - 1), batch)
        new = new / new.mean().clamp_min(torch.finfo(new.dtype).tiny)
        self.importance = torch.cat([self.importance, new[None]])

    @abstractmethod
    def _importance(self, weights: Tensor, batch: Batch) -> Tensor:
        """[P] importance ≥ 0 of the weights of the task that ends, in any unit."""


@dataclass
class HnetFisherConfig(HnetConfig):
    """Settings of hnet, and of how many transitions the Fisher information is the mean."""

    fisher_samples: int = number(
        1000,
        least=1,
        most=1_000_000,
        help="transitions that the Fisher information is the mean over",
    )


class HnetFisher(HnetImportance):
    """ω_j = diagonal of the Fisher information of task j's network at its end."""

    config: HnetFisherConfig  # type: ignore[reportIncompatibleVariableOverride]

    def _importance(self, weights: Tensor, batch: Batch) -> Tensor:
        return fisher_diagonal(
            self.model.layout.apply,
            weights,
            self.model,
            batch,
            self.config.fisher_samples,
            self.sampler,
        )


@dataclass
class HnetSIConfig(HnetConfig):
    """Settings of hnet, and the damping ξ of written weights that hardly moved."""

    damping: float = number(1e-3, least=1e-12, help="ξ of written weights that hardly moved")


class HnetSI(HnetImportance):
    """ω_j = path integral of the task loss along the written weights, over (their change)² + ξ."""

    conditionings = ("input", "film")
    config: HnetSIConfig  # type: ignore[reportIncompatibleVariableOverride]
    path: Tensor
    start: Tensor
    latest: Tensor
    gradient: Tensor

    def _prepare(self) -> None:
        super()._prepare()
        for name in ("path", "start", "latest", "gradient"):
            self.register_buffer(name, torch.zeros(self.model.layout.numel))

    @torch.no_grad()
    def begin_task(self) -> None:
        super().begin_task()
        weights = self.weights(self.tasks - 1)
        self.path.zero_()
        self.gradient.zero_()
        self.start.copy_(weights)
        self.latest.copy_(weights)

    def _task_loss(self, weights: Tensor, batch: Batch) -> Tensor:
        """The loss; also the part of the path that the last step has gone, and the new gradient."""
        self._go_along(weights.detach())
        loss = super()._task_loss(weights, batch)
        (gradient,) = torch.autograd.grad(loss, weights, retain_graph=True)
        self.gradient.copy_(gradient / len(batch))
        return loss

    def _go_along(self, weights: Tensor) -> None:
        self.path -= self.gradient * (weights - self.latest)
        self.latest.copy_(weights)

    def _importance(self, weights: Tensor, batch: Batch) -> Tensor:  # noqa: ARG002
        self._go_along(weights)
        change = (weights - self.start).square()
        return self.path.clamp_min(0) / (change + self.config.damping)
