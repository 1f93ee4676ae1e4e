"""The regularised last layer on a CPU: a few passes over memory.

The layer is cut into chunks of rows, of which the step ahead stays in a core's cache. θ, Adam's two
moments and the targets are read once, the gradient is written twice.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hypercrl_kernels.training.adam_chunked import CHUNK, fused_adam
from hypercrl_kernels.training.adam_reference import AdamMoments, AdamSettings
from hypercrl_kernels.training.regularised_head_reference import HeadGradients


def regularised_head_chunked(
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
    """`regularised_head` in torch operations, a share for each chunk."""
    size, width, count = len(written_gradient), len(hidden), max(len(old), 1)
    matrix, bias = slice(0, size * width), slice(size * width, None)
    moments = moments._replace(step=moments.step + 1)
    slopes = head.new_empty(1 + len(old), size)
    slopes[0] = written_gradient
    shift = _ahead(head[bias], written_gradient, moments.part(bias.start), settings)
    targets = targets if tasks is None else targets[tasks]
    weight, weight_gradient, mean, square = (
        flat[matrix].view(size, width) for flat in (head, gradient, moments.mean, moments.square)
    )

    def chunk(rows: slice) -> tuple[Tensor, Tensor]:
        """Write the gradient of these rows; R, and its gradient of old last hidden layers."""
        found = torch.outer(written_gradient[rows], hidden, out=weight_gradient[rows])
        if not len(old):
            return head.new_zeros(()), old
        own = AdamMoments(moments.step, mean[rows], square[rows])
        ahead = _ahead(weight[rows], found, own, settings)
        difference = torch.addmm(shift[rows], old, ahead.mT).sub_(targets[:, rows])
        slope = torch.mul(difference, 2 * strength / count, out=slopes[1:, rows])
        found.addmm_(slope.mT, old)
        return difference.square().sum() / count, slope @ ahead

    step = max(1, CHUNK // width)
    pieces = [chunk(slice(start, start + step)) for start in range(0, size, step)]
    regulariser, below = (torch.stack(part) for part in zip(*pieces, strict=True))
    torch.sum(slopes, 0, out=gradient[bias])
    # The gradient is slopesᵀ [inputs, 1], whose squares need not be looked at one by one.
    inputs = torch.cat([hidden[None], old]).double()
    products = slopes.double() @ slopes.double().mT
    squares = (products * (inputs @ inputs.mT + 1)).sum()
    return HeadGradients(regulariser, squares[None].to(head), below)


def _ahead(
    parameter: Tensor, gradient: Tensor, moments: AdamMoments, settings: AdamSettings
) -> Tensor:
    """Where Adam's step leads; the moments count it already."""
    ahead, mean, square = (t.clone() for t in (parameter, moments.mean, moments.square))
    fused_adam(ahead, gradient, AdamMoments(moments.step, mean, square), settings)
    return ahead
