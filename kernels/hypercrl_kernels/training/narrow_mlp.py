"""A small MLP whose cost on a GPU is the number of kernels: one forward and one backward."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hypercrl_kernels.derivatives import first_order

WIDEST = 128
MOST_ROWS = 64
_ACTIVATIONS = {"elu": F.elu, "relu": F.relu}


def narrow_mlp(flat: Tensor, x: Tensor, sizes: Sequence[int], activation: str) -> Tensor:
    """[rows, sizes[0]] → [rows, sizes[-1]], with the activation after every layer.

    Two Triton kernels on CUDA, for up to `MOST_ROWS` rows and widths up to `WIDEST` in float32;
    torch operations elsewhere and for more.

    Args:
        flat: the layers' weight [out, in] and bias [out], one after another.
        activation: "elu" or "relu".
    """
    small = len(x) <= MOST_ROWS and max(sizes) <= WIDEST and flat.dtype == torch.float32
    if flat.is_cuda and small:
        return NarrowMLP.apply(flat, x, tuple(sizes), activation)
    return narrow_mlp_reference(flat, x, sizes, activation)


def narrow_mlp_reference(flat: Tensor, x: Tensor, sizes: Sequence[int], activation: str) -> Tensor:
    """`narrow_mlp` in torch operations."""
    for fan_in, fan_out in itertools.pairwise(sizes):
        weight, bias, flat = flat.tensor_split([fan_in * fan_out, (fan_in + 1) * fan_out])
        x = _ACTIVATIONS[activation](F.linear(x, weight.view(fan_out, fan_in), bias))
    return x


class NarrowMLP(torch.autograd.Function):
    """`narrow_mlp` by the kernels."""

    @staticmethod
    def forward(
        ctx: Any, flat: Tensor, x: Tensor, sizes: tuple[int, ...], activation: str
    ) -> Tensor:
        from hypercrl_kernels.training.launch import launch_narrow_mlp

        flat, x = flat.contiguous(), x.contiguous()
        outputs = launch_narrow_mlp(flat, x, sizes, activation)
        ctx.save_for_backward(flat, x, outputs)
        ctx.settings = (sizes, activation)
        return outputs[-len(x) * sizes[-1] :].view(len(x), sizes[-1])

    @staticmethod
    @first_order
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, Tensor, None, None]:
        from hypercrl_kernels.training.launch import launch_narrow_mlp_back

        flat, x, outputs = ctx.saved_tensors
        return (*launch_narrow_mlp_back(flat, x, outputs, slopes[0], *ctx.settings), None, None)
