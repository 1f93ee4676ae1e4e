"""What all memory operations have in common: layout, shape checks and variable lengths.

Sequences are [B, T, H, D], gates [B, T, H], states [N, H, …]. With `cu_seqlens`, the N + 1 offsets
of N segments, sequences of all segments lie one after another in a batch of one, [1, total, H, D],
and a segment may be empty; without it N = B.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import NamedTuple, TypeVar, overload

import torch
from torch import Tensor
from torch.nn import Parameter

MAX_KEYS = 128  # a kernel's program holds a state's keys in registers
KEPT = 1024  # problems that stay known, or prepared; sequences come in many lengths

Result = TypeVar("Result")


class Layout(NamedTuple):
    """What there is to check of a tensor but for its numbers."""

    shape: torch.Size
    dtype: torch.dtype


def once_for_each(check: Callable[..., Result]) -> Callable[..., Result]:
    """A check of layouts and options, called with tensors and options: once for the same ones.

    What it raises it raises again. Sizes that are symbols, as where torch traces, are checked each
    time.
    """

    def look(layouts: tuple[tuple | None, ...], *options: object) -> Result:
        return check(*[None if x is None else Layout(*x) for x in layouts], *options)

    kept = lru_cache(KEPT)(look)

    def call(tensors: Sequence[Tensor | None], *options: object) -> Result:
        layouts = tuple([None if x is None else (x.shape, x.dtype) for x in tensors])
        if torch.compiler.is_compiling():
            return look(layouts, *options)
        try:
            return kept(layouts, *options)
        except TypeError:  # a symbol has no hash
            return look(layouts, *options)

    return call


def work_dtype(x: Tensor) -> torch.dtype:
    """States and sums are float32, or float64 where the sequences are."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def check_shape(operation: str, name: str, x: Tensor | Layout, letters: str, **sizes: int) -> None:
    """`x` has one axis per letter and the size that `sizes` gives for it.

    Raises:
        ValueError: it has not; the message names both shapes.
    """
    wanted = tuple([sizes.get(letter, -1) for letter in letters])
    if x.shape == wanted:
        return
    if len(x.shape) == len(wanted) and all(
        w in (-1, s) for w, s in zip(wanted, x.shape, strict=True)
    ):
        return
    axes = ", ".join(
        letter if size == -1 else f"{letter}={size}"
        for letter, size in zip(letters, wanted, strict=True)
    )
    raise ValueError(f"{operation} needs {name} [{axes}]; got {tuple(x.shape)}")


def check_sequences(
    operation: str,
    q: Tensor | Layout,
    k: Tensor | Layout,
    v: Tensor | Layout,
    *,
    grouped: bool = False,
) -> tuple[int, int, int]:
    """q, k [B, T, H, K] and v [B, T, H, V] of one floating dtype; returns B, T, H.

    Where they may be `grouped`, q and k have as many heads, or a divisor of them.
    """
    heads = v.shape[:-1] == q.shape[:-1]
    if grouped and v.shape[:-2] == q.shape[:-2] and len(q.shape) == 4 and q.shape[2] > 0:
        heads = v.shape[2] % q.shape[2] == 0
    if len(q.shape) != 4 or len(v.shape) != 4 or q.shape != k.shape or not heads:
        raise ValueError(
            f"{operation} needs q and k [B, T, H, K] and v [B, T, H, V] with one B, T and H; got "
            f"{tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}"
        )
    if not q.dtype == k.dtype == v.dtype or not q.dtype.is_floating_point:
        raise ValueError(
            f"{operation} needs q, k and v of one floating dtype; got {q.dtype}, {k.dtype} and "
            f"{v.dtype}. Cast them to one"
        )
    batch, length, count, _ = v.shape
    return batch, length, count


def check_gates(
    operation: str,
    axes: str,
    *,
    log_decay: Tensor | Layout | None,
    beta: Tensor | Layout | None,
    log_momentum: Tensor | Layout | None,
    error: str,
    writes: int | None,
    **sizes: int,
) -> None:
    """Gates of an outer-product memory: their shapes, and which of them go together.

    Args:
        axes: those before heads, "BT" of sequences and "B" of a step.
        error: as of `chunk_memory`.
        writes: how many a step has, where k and v have an axis of them.
        sizes: of the letters B, T, H and K.

    Raises:
        ValueError: they do not fit together.
    """
    if writes is not None and (error == "chunk_start" or log_momentum is not None):
        raise ValueError(
            f"{operation} with several writes a step needs another error, and no momentum"
        )
    if log_decay is not None:
        letters = {1: "H", len(axes) + 2: f"{axes}HK"}.get(len(log_decay.shape), f"{axes}H")
        check_shape(operation, "log_decay", log_decay, letters, **sizes)
        simple = error in ("none", "after_decay") and log_momentum is None
        if letters.endswith("K") and not simple:
            raise ValueError(
                f"{operation} with a decay of every key needs error='none' or 'after_decay' and no "
                f"momentum"
            )
    if beta is not None:
        each = {} if writes is None else {"n": writes}
        check_shape(operation, "beta", beta, f"{axes}{''.join(each)}H", **sizes, **each)
    if log_momentum is not None:
        check_shape(operation, "log_momentum", log_momentum, f"{axes}H", **sizes)


def check_log_gates(operation: str, **gates: Tensor | None) -> None:
    """Each gate is at most one, its logarithm at most zero.

    Of tensors on a CPU alone: on a GPU, looking at numbers would wait for all work before. There
    the chunked kernels assert it when compiled with TRITON_DEBUG=1.

    Raises:
        ValueError: a log gate above zero.
    """
    for name, gate in gates.items():
        if gate is None or gate.device.type != "cpu" or gate.numel() == 0:
            continue
        if torch.compiler.is_compiling() or type(gate) not in (Tensor, Parameter):
            continue
        highest = gate.detach().max()
        if highest > 0:
            raise ValueError(
                f"{operation} needs {name} ≤ 0, the logarithm of what is kept; got "
                f"{highest.item():.4g}. Use log_sigmoid(x) or −softplus(x) for any x"
            )


def check_offsets(operation: str, cu_seqlens: Tensor | None, batch: int, total: int) -> int:
    """The number of segments N. Offsets on the CPU are checked in full, others not: no waiting."""
    count = check_segments(operation, cu_seqlens, batch)
    check_ends(operation, cu_seqlens, total)
    return count


def check_segments(operation: str, cu_seqlens: Tensor | Layout | None, batch: int) -> int:
    """The number of segments N, by their layout alone."""
    if cu_seqlens is None:
        return batch
    shape = cu_seqlens.shape
    if len(shape) != 1 or shape[0] < 2 or cu_seqlens.dtype.is_floating_point:
        raise ValueError(
            f"{operation} needs cu_seqlens [N + 1] of integers; got {tuple(shape)} of "
            f"{cu_seqlens.dtype}"
        )
    if batch != 1:
        raise ValueError(
            f"{operation} with cu_seqlens needs all segments in a batch of one, [1, total, …]; "
            f"got a batch of {batch}. Use x.flatten(0, 1)[None]"
        )
    return shape[0] - 1


def check_ends(operation: str, cu_seqlens: Tensor | None, total: int) -> None:
    """Offsets rise from zero to the length; on the CPU alone."""
    if cu_seqlens is None or torch.compiler.is_compiling():
        return
    if cu_seqlens.device.type == "cpu":
        steps = cu_seqlens.diff()
        if cu_seqlens[0] != 0 or cu_seqlens[-1] != total or (steps < 0).any():
            raise ValueError(
                f"{operation} needs cu_seqlens that rise from 0 to the length {total}; got "
                f"{cu_seqlens.tolist()}"
            )


def runs_as_kernel(
    operation: str, x: Tensor, reason: str | None = None, *, products: bool = True
) -> bool:
    """Whether it does on this device; why not is said once.

    Args:
        x: one of the arguments.
        reason: that it has already not to.
        products: whether the kernels multiply matrices, which takes a sound assembler.
    """
    if not x.is_cuda or x.dtype == torch.float64 or x.numel() == 0:
        return False
    if reason is None and products:
        from hypercrl_kernels.assembler import unsound_assembler

        reason = unsound_assembler(x.device)
    if reason is not None:
        _notice(operation, reason)
    return reason is None


def step_as_kernel(operation: str, *state: Tensor) -> bool:
    """Whether a step that writes into this state, or has these weights, runs as a kernel.

    Why not on a GPU is said once.
    """
    if not all(x.is_cuda for x in state) or any(x.dtype == torch.float64 for x in state):
        return False
    for x in state:
        if x.dtype != torch.float32 or not x.is_contiguous():
            _notice(operation, f"its state is {x.dtype}, strides {x.stride()}")
            return False
    return True


@cache
def _notice(operation: str, reason: str) -> None:
    warnings.warn(f"{operation} runs as torch operations, not as kernels: {reason}", stacklevel=4)


class Padding:
    """Segments of different lengths as a padded batch, and back."""

    def __init__(self, cu_seqlens: Tensor) -> None:
        lengths = cu_seqlens.diff()
        longest = max(int(lengths.max()), 1)
        time = torch.arange(longest, device=cu_seqlens.device)
        self.valid = time < lengths[:, None]  # [N, longest]

    @overload
    def split(self, x: Tensor) -> Tensor: ...
    @overload
    def split(self, x: None) -> None: ...
    def split(self, x: Tensor | None) -> Tensor | None:
        """[1, total, …] → [N, longest, …], zeros beyond the ends."""
        if x is None:
            return None
        padded = x.new_zeros(*self.valid.shape, *x.shape[2:])
        return padded.index_put(self.valid.nonzero(as_tuple=True), x[0])

    def join(self, x: Tensor) -> Tensor:
        """[N, longest, …] → [1, total, …]."""
        return x[self.valid][None]


def each_segment(
    recurrence: Callable[..., tuple[Tensor, Tensor]],
    tensors: Sequence[Tensor | None],
    state: Tensor,
    cu_seqlens: Tensor,
) -> tuple[Tensor, Tensor]:
    """`recurrence(*tensors, state)` → outputs and state, over each segment from its own state."""
    parts = [
        recurrence(*(None if x is None else x[:, at] for x in tensors), own)
        for at, own in zip(segments(cu_seqlens), state.split(1), strict=True)
    ]
    return torch.cat([o for o, _ in parts], 1), torch.cat([s for _, s in parts])


def segments(cu_seqlens: Tensor) -> list[slice]:
    """Of each segment, where it lies on the time axis."""
    ends = cu_seqlens.tolist()
    return [slice(a, b) for a, b in itertools.pairwise(ends)]


def zero_state(
    q: Tensor, v: Tensor, log_momentum: Tensor | None, cu_seqlens: Tensor | None
) -> Tensor:
    """[N, H, K, V], with momentum [N, H, 2, K, V]."""
    count = len(q) if cu_seqlens is None else len(cu_seqlens) - 1
    two = () if log_momentum is None else (2,)
    shape = (count, q.shape[2], *two, q.shape[-1], v.shape[-1])
    return torch.zeros(shape, dtype=work_dtype(q), device=q.device)
