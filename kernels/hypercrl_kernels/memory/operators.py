"""What the kernels' operators have in common; imported only where Triton is used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import triton
from torch import Tensor


def padded(size: int) -> int:
    """Width of a block that holds `size` numbers: a power of two, 16 at least for its products."""
    return max(16, triton.next_power_of_2(int(size)))


def product_precision(x: Tensor) -> str:
    """How products of blocks of x are taken: float32 in three passes, half precision as it is."""
    return "tf32x3" if x.dtype == torch.float32 else "tf32"


def chunk_slots(q: Tensor, cu_seqlens: Tensor | None, chunk: int) -> int:
    """Places for chunks: enough for all of them, known without looking at the offsets."""
    batch, length = q.shape[:2]
    if cu_seqlens is None:
        return batch * ((length + chunk - 1) // chunk)
    return length // chunk + len(cu_seqlens) - 1


def contiguous(tensors: Sequence[Tensor | None]) -> tuple[list[Tensor | None], bool]:
    """The tensors as kernels read them, and whether a gradient is wanted of any of them."""
    laid = [None if x is None else x.contiguous() for x in tensors]
    wanted = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in laid)
    return laid, wanted


def in_dtypes_of(
    tensors: Sequence[Tensor | None], gradients: Sequence[Tensor]
) -> list[Tensor | None]:
    """The gradients in the dtypes of what they are of; None for what is not there."""
    pairs = zip(tensors, gradients, strict=True)
    return [None if x is None else gradient.to(x.dtype) for x, gradient in pairs]


def unless_traced(operator: Callable, body: Callable) -> Callable:
    """The body where nothing traces the call: dispatch to an operator takes longer than kernels."""

    def call(*arguments: Any) -> Any:
        traced = torch.compiler.is_compiling() or type(arguments[0]) is not Tensor
        return operator(*arguments) if traced else body(*arguments)

    return call


def differentiable(forward: Callable, setup_context: Callable, backward: Callable) -> Callable:
    """The same autograd as `register_autograd` gives to an operator, for its body."""
    methods = {"forward": forward, "setup_context": setup_context, "backward": backward}
    static = {name: staticmethod(method) for name, method in methods.items()}
    return type("Kernels", (torch.autograd.Function,), static).apply
