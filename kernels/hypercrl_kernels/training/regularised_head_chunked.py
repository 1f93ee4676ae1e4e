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
    """`regularised_head` in torch operations; R's gradient of old tasks has a share a chunk."""
    size, width, count = written_gradient.shape[-1], hidden.shape[-1], max(len(old), 1)
    written_gradient, hidden = written_gradient.view(-1, size), hidden.view(-1, width)
    total = written_gradient.sum(0)
    cut, factor = size * width, 2 * strength / count
    targets = targets if tasks is None else targets[tasks]
    moments = moments._replace(step=moments.step + 1)
    matrices = [
        flat[:cut].view(size, width).split(max(1, CHUNK // width))
        for flat in (gradient, head, moments.mean, moments.square)
    ]
    lengths = [len(chunk) for chunk in matrices[0]]
    slopes = written_gradient.split(lengths, 1)
    if not len(old):
        for found, slope in zip(matrices[0], slopes, strict=True):
            _outer(slope, hidden, found)
        gradient[cut:] = total
        every, inputs = written_gradient.double(), hidden.double()
        squares = ((every @ every.mT) * (inputs @ inputs.mT + 1)).sum()
        return HeadGradients(head.new_zeros(1), squares[None].to(head), old[None])

    shift = _bias_ahead(head[cut:], total, moments.part(cut), settings)
    differences = shift - targets  # [T, P], plus the products with the matrix ahead
    below = old.new_empty(len(lengths), len(old), width)
    scratch = [torch.empty_like(chunk[0]) for chunk in matrices[1:]]
    chunks = zip(lengths, slopes, differences.split(lengths, 1), below, *matrices, strict=True)
    for rows, slope, difference, own_below, found, *values in chunks:
        _outer(slope, hidden, found)
        ahead, mean, square = copies = [part[:rows] for part in scratch]
        for copy, value in zip(copies, values, strict=True):
            copy.copy_(value)
        fused_adam(ahead, found, AdamMoments(moments.step, mean, square), settings)
        difference.addmm_(old, ahead.mT)
        found.addmm_(difference.mT, old, alpha=factor)
        torch.mm(difference, ahead, out=own_below)
    every = torch.cat([written_gradient, factor * differences])
    torch.sum(every, 0, out=gradient[cut:])
    # The gradient is everyᵀ [inputs, 1], whose squares need not be looked at one by one.
    inputs, every = torch.cat([hidden, old]).double(), every.double()
    squares = ((every @ every.mT) * (inputs @ inputs.mT + 1)).sum()
    regulariser = differences.view(-1).dot(differences.view(-1)) / count
    return HeadGradients(regulariser[None], squares[None].to(head), factor * below)


def _bias_ahead(
    bias: Tensor, gradient: Tensor, moments: AdamMoments, settings: AdamSettings
) -> Tensor:
    """Where Adam's step leads; the moments count it already."""
    ahead, mean, square = (t.clone() for t in (bias, moments.mean, moments.square))
    fused_adam(ahead, gradient, AdamMoments(moments.step, mean, square), settings)
    return ahead


def _outer(slopes: Tensor, inputs: Tensor, out: Tensor) -> None:
    """Σ_m slopes_m inputs_mᵀ of slopes [M, rows] and inputs [M, w]."""
    if len(slopes) == 1:
        torch.outer(slopes[0], inputs[0], out=out)
    else:
        torch.mm(slopes.mT, inputs, out=out)
