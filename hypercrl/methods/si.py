"""Synaptic intelligence: a weight matters as much as its path lowered the loss.

Zenke, Poole, Ganguli, "Continual learning through synaptic intelligence", ICML 2017, equations 4
and 5.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from hypercrl.base.settings import number
from hypercrl.methods.base import MethodConfig
from hypercrl.methods.gradient import SharedMethod
from hypercrl.replay.transitions import Batch


@dataclass
class SIConfig(MethodConfig):
    """Strength c of the penalty, and the damping ξ of weights that hardly moved."""

    strength: float = number(1.0, least=0, help="c of the penalty")
    damping: float = number(1e-3, least=1e-12, help="ξ of weights that hardly moved")


class SI(SharedMethod):
    """Penalty c Σ_i Ω_i (θ_i − θ*_i)² on the trunk, Ω_i = Σ_tasks ω_i / ((Δθ_i)² + ξ).

    ω_i sums −(∂L/∂θ_i) · (step of θ_i) over the updates of a task, with the gradient of the task
    loss alone. θ* is the trunk at the end of the latest task.
    """

    conditionings = ("input", "film")
    config: SIConfig
    importance: Tensor
    anchor: Tensor
    path: Tensor
    gradient: Tensor
    before: Tensor

    def _prepare(self) -> None:
        super()._prepare()
        trunk = self.network.trunk.detach()
        for name in ("importance", "path", "gradient"):
            self.register_buffer(name, torch.zeros_like(trunk))
        for name in ("anchor", "before"):
            self.register_buffer(name, trunk.clone())

    @torch.no_grad()
    def _protect(self, size: int) -> Tensor:
        trunk = self.network.trunk
        assert trunk.grad is not None
        self.gradient.copy_(trunk.grad / size)
        self.before.copy_(trunk)
        return self._hold(self.importance, self.anchor, self.config.strength * size)

    @torch.no_grad()
    def _stepped(self) -> None:
        self.path -= self.gradient * (self.network.trunk - self.before)

    @torch.no_grad()
    def end_task(self, batch: Batch) -> None:  # noqa: ARG002
        trunk = self.network.trunk
        # Minibatch noise can make a weight's share negative; importance is not.
        gained = self.path.clamp_min(0)
        self.importance += gained / ((trunk - self.anchor).square() + self.config.damping)
        self.anchor.copy_(trunk)
        self.path.zero_()
