"""What backward passes of kernels have in common."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

_REFUSAL = (
    "gradients that Triton kernels took cannot be differentiated again: take second derivatives in "
    "float64 or on a CPU, where the same operation runs as torch operations, which have them"
)


class _Final(torch.autograd.Function):
    """Hands on the first `count` tensors, and refuses to be differentiated by any of them all."""

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:  # noqa: ARG004
        return tuple([x.view_as(x) for x in tensors[:count]])

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> None:  # noqa: ARG004
        raise RuntimeError(_REFUSAL)


def first_order(backward: Callable) -> Callable:
    """A backward pass by kernels, for incoming gradients of any strides; it has no derivative.

    Autograd hands gradients on as they lie in memory: transposed, or one number expanded, as from a
    sum. Kernels read them as contiguous.

    With `create_graph=True`, what the gradients depend on, the incoming ones and all saved tensors,
    stays connected with them, to raise a RuntimeError. torch's own `once_differentiable` cuts that
    connection: it raises only where the whole graph is walked, not in `torch.autograd.grad` for
    some inputs, and not where the saved tensors alone have gradients.
    """

    @wraps(backward)
    def call(ctx: Any, *gradients: Tensor | None) -> Any:
        laid = [None if d is None else d.contiguous() for d in gradients]
        if not torch.is_grad_enabled():  # without create_graph: no_grad takes a microsecond
            return backward(ctx, *laid)
        with torch.no_grad():
            found = backward(ctx, *laid)
        tensors = [d for d in found if d is not None]
        sources = [x for x in (*gradients, *ctx.saved_tensors) if x is not None]
        final = iter(_Final.apply(len(tensors), *tensors, *sources))  # pyright: ignore
        return tuple([None if d is None else next(final) for d in found])

    return call
