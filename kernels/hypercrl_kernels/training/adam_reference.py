"""Adam's step in torch operations, its settings and its state."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True)
class AdamSettings:
    """Learning rate, decay rates of the two moments, and ε (Kingma and Ba 2015, algorithm 1)."""

    rate: float
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8


class AdamMoments(NamedTuple):
    """State of Adam: steps taken [] float32, and running means of g and g², as the parameter."""

    step: Tensor
    mean: Tensor
    square: Tensor

    def part(self, start: int, stop: int | None = None) -> "AdamMoments":
        """Those of a slice of a flat parameter."""
        return AdamMoments(self.step, self.mean[start:stop], self.square[start:stop])


def adam_reference(
    parameter: Tensor, gradient: Tensor, moments: AdamMoments, settings: AdamSettings
) -> tuple[Tensor, Tensor, Tensor]:
    """Parameter and moments after one step."""
    steps = moments.step.double() + 1
    mean = torch.lerp(moments.mean, gradient, 1 - settings.beta1)
    square = settings.beta2 * moments.square + (1 - settings.beta2) * gradient.square()
    corrected = square.sqrt() / (1 - settings.beta2**steps).sqrt().to(square)
    rate = (settings.rate / (1 - settings.beta1**steps)).to(mean)
    return parameter - rate * mean / (corrected + settings.epsilon), mean, square
