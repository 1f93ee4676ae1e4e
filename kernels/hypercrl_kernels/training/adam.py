"""Adam in one pass over memory: where its next step leads, and the step itself."""

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


@torch.no_grad()
def adam_ahead(
    parameter: Tensor,
    gradient: Tensor,
    moments: AdamMoments,
    settings: AdamSettings,
    out: Tensor | None = None,
) -> Tensor:
    """θ + Δθ for the step that Adam would take on this gradient; nothing but `out` is changed.

    One Triton kernel on CUDA, torch operations elsewhere. All tensors are flat and alike.
    """
    out = torch.empty_like(parameter) if out is None else out
    if parameter.device.type == "cuda":
        from hypercrl_kernels.training.launch import launch_adam

        launch_adam(parameter, gradient, moments, settings, out)
        return out
    return out.copy_(adam_reference(parameter, gradient, moments, settings)[0])


@torch.no_grad()
def adam_step(
    parameter: Tensor,
    gradient: Tensor,
    moments: AdamMoments,
    settings: AdamSettings,
    norm: Tensor,
    limit: float,
) -> None:
    """Take Adam's step, in place, on gradient · min(1, limit / (norm + 10⁻⁶)).

    Args:
        norm: [], what is to be clipped to `limit`: as `torch.nn.utils.clip_grads_with_norm_`.
    """
    if parameter.device.type == "cuda":
        from hypercrl_kernels.training.launch import launch_adam

        launch_adam(parameter, gradient, moments, settings, parameter, norm, limit)
    else:
        scale = (limit / (norm + 1e-6)).clamp(max=1.0)
        new = adam_reference(parameter, scale * gradient, moments, settings)
        for target, value in zip((parameter, moments.mean, moments.square), new, strict=True):
            target.copy_(value)
    moments.step.add_(1)


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
