"""What the kernels' operators have in common; imported only where Triton is used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import forward_ad

Unwritten = tuple[Sequence[int], torch.dtype] | None
"""Shape and dtype of an output, None for one that is not wanted."""


def blocks(size: int, block: int) -> int:
    """How many hold `size` numbers; `triton.cdiv` takes microseconds."""
    return -(-size // block)


def power_of_2(size: int) -> int:
    """The least from `size` on; `triton.next_power_of_2` takes microseconds."""
    return 1 << (int(size) - 1).bit_length()


def padded(size: int) -> int:
    """Width of a block that holds `size` numbers: a power of two, 16 at least for its products."""
    return max(16, power_of_2(size))


def product_precision(dtype: torch.dtype) -> str:
    """How products of such blocks are taken: float32 in three passes, half precision as it is."""
    return "tf32x3" if dtype == torch.float32 else "tf32"


class Sized(Protocol):
    """What is known of all sequences that a kernel walks along."""

    @property
    def length(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def keys(self) -> int: ...
    @property
    def values(self) -> int: ...
    @property
    def dtype(self) -> torch.dtype: ...


def sizes_of(problem: Sized) -> dict[str, int | float | str]:
    """The constants of kernels that say it."""
    return {
        "length": problem.length,
        "HEADS": problem.heads,
        "KEYS": problem.keys,
        "WIDTH": padded(problem.keys),
        "VALUES": problem.values,
        "DOT": product_precision(problem.dtype),
    }


def unwritten(outputs: Sequence[Unwritten], device: torch.device) -> list[Tensor | None]:
    """Memory for the outputs."""
    return [None if x is None else torch.empty(x[0], dtype=x[1], device=device) for x in outputs]


def for_operator(body: Callable) -> Callable:
    """The body with an empty tensor for each None it returns: operators have no such output."""

    def call(*arguments: Any) -> tuple[Tensor, ...]:
        return tuple(arguments[0].new_empty(0) if x is None else x for x in body(*arguments))

    return call


def chunk_slots(q: Tensor, cu_seqlens: Tensor | None, chunk: int) -> int:
    """Places for chunks: enough for all of them, known without looking at the offsets."""
    batch, length = q.shape[:2]
    if cu_seqlens is None:
        return batch * ((length + chunk - 1) // chunk)
    return length // chunk + len(cu_seqlens) - 1


def contiguous(tensors: Sequence[Tensor | None]) -> tuple[list[Tensor | None], bool]:
    """The tensors as kernels read them, and whether a gradient is wanted of any of them."""
    laid = [None if x is None else x.contiguous() for x in tensors]
    return laid, wants_gradient(laid)


def wants_gradient(arguments: Sequence[Any]) -> bool:
    """Whether autograd records what comes of any of them."""
    return torch.is_grad_enabled() and any(
        isinstance(x, Tensor) and x.requires_grad for x in arguments
    )


def in_dtypes_of(
    tensors: Sequence[Tensor | None], gradients: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """The gradients in the dtypes of what they are of; None for what is not there."""
    pairs = zip(tensors, gradients, strict=True)
    # A conversion to the same dtype takes a microsecond.
    return [
        None if x is None or d is None else d if d.dtype == x.dtype else d.to(x.dtype)
        for x, d in pairs
    ]


def unless_traced(operator: Callable, body: Callable) -> Callable:
    """The body where nothing traces the call: dispatch to an operator takes longer than kernels."""

    def call(*arguments: Any) -> Any:
        traced = torch.compiler.is_compiling() or type(arguments[0]) is not Tensor
        return operator(*arguments) if traced else body(*arguments)

    return call


def differentiable(
    forward: Callable, setup_context: Callable, backward: Callable, results: int | None = None
) -> Callable:
    """The same autograd as `register_autograd` gives to an operator, for its body.

    Where no derivative is wanted the body alone runs. The forward pass calls `setup_context`, since
    torch inspects the signatures of a Function that has one at every call. With `results` only so
    many of the outputs come back: what is kept for the backward pass needs no history.
    """

    def forward_with_context(ctx: Any, *arguments: Any) -> Any:
        output = forward(*arguments)
        setup_context(ctx, arguments, output)
        return output if results is None else output[:results]

    methods = {"forward": forward_with_context, "backward": backward}
    static = {name: staticmethod(method) for name, method in methods.items()}
    apply = type("Kernels", (torch.autograd.Function,), static).apply

    def call(*arguments: Any) -> Any:
        # With forward-mode derivatives a Function says that it has none; the body would drop them.
        if wants_gradient(arguments) or forward_ad._current_level >= 0:
            return apply(*arguments)
        return forward(*arguments)

    return call
