"""The regularised last layer in torch operations: what its kernel is to compute."""

from typing import NamedTuple

import torch
from torch import Tensor

from hypercrl_kernels.training.adam_reference import AdamMoments, AdamSettings, adam_reference


class HeadGradients(NamedTuple):
    """Shares of what the whole layer comes to.

    Attributes:
        regulariser: [n], of R.
        squares: [n], of the squared norm of the layer's gradient.
        old: [n, T, w], of R's gradient with respect to the old tasks' last hidden layer.
    """

    regulariser: Tensor
    squares: Tensor
    old: Tensor


def regularised_head_reference(
    head: Tensor,
    gradient: Tensor,
    moments: AdamMoments,
    settings: AdamSettings,
    written_gradient: Tensor,
    hidden: Tensor,
    old: Tensor,
    targets: Tensor,
    tasks: Tensor | None,
    strength: float,
) -> HeadGradients:
    """`regularised_head` in torch operations, one share."""
    size, width, count = written_gradient.shape[-1], hidden.shape[-1], max(len(old), 1)
    slopes, inputs = written_gradient.view(-1, size), hidden.view(-1, width)
    torch.mm(slopes.mT, inputs, out=gradient[: size * width].view(size, width))
    gradient[size * width :] = slopes.sum(0)
    ahead = adam_reference(head, gradient, moments, settings)[0]
    weight, bias = ahead[: size * width].view(size, width), ahead[size * width :]
    difference = torch.addmm(bias, old, weight.mT) - (targets if tasks is None else targets[tasks])
    slope = difference * (2 * strength / count)
    gradient[: size * width].view(size, width).addmm_(slope.mT, old)
    gradient[size * width :] += slope.sum(0)
    regulariser = difference.square().sum() / count
    return HeadGradients(regulariser[None], gradient.square().sum()[None], (slope @ weight)[None])
