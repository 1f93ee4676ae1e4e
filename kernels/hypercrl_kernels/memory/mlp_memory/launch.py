"""How the MLP memory's kernels are launched; imported only where Triton is used."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hypercrl_kernels.memory.arguments import KEPT
from hypercrl_kernels.memory.mlp_memory.backward_triton import mlp_walk_back_kernel
from hypercrl_kernels.memory.mlp_memory.forward_triton import mlp_walk_kernel
from hypercrl_kernels.memory.operators import chunk_slots, padded, sizes_of
from hypercrl_kernels.memory.prepared import PreparedKernel


class Problem(NamedTuple):
    """What both launches depend on."""

    segments: int
    length: int
    heads: int
    keys: int
    values: int
    hidden: int
    dtype: torch.dtype  # of the sequences
    decay: bool  # whether there are those gates
    strength: bool
    momentum: bool
    varlen: bool
    silu: bool
    chunk: int
    unit: bool
    key_row: int  # numbers from one step of q and k to the next
    value_row: int

    def prepared(self, kernel: Any, **own: int) -> PreparedKernel:
        """With constants that this kernel alone has."""
        # Of float32, more would not fit into shared memory.
        block = 16 if self.dtype == torch.float32 and self.chunk == 64 else 32
        constants = {
            **sizes_of(self),
            "OUT": padded(self.values),
            "HIDDEN": self.hidden,
            "BLOCK": min(block, padded(self.hidden)),
            "CHUNK": self.chunk,
            "DECAY": self.decay,
            "STRENGTH": self.strength,
            "MOMENTUM": self.momentum,
            "SILU": self.silu,
            "UNIT": self.unit,
            "QK_ROW": self.key_row,
            "VARLEN": self.varlen,
            **own,
        }
        options = {"num_warps": 4, "num_stages": 1}
        return PreparedKernel(kernel, (self.segments * self.heads,), constants, options)


def _problem(tensors: Sequence[Tensor | None], silu: bool, chunk: int, unit: bool) -> Problem:
    q, _, v, log_decay, beta, log_momentum, cu_seqlens, w1, *_ = tensors
    assert q is not None
    assert v is not None
    assert w1 is not None
    _, length, heads, keys = q.shape
    return Problem(
        w1.shape[0],
        length,
        heads,
        keys,
        v.shape[3],
        w1.shape[3],
        q.dtype,
        log_decay is not None,
        beta is not None,
        log_momentum is not None,
        cu_seqlens is not None,
        silu,
        chunk,
        unit,
        _row(q),
        _row(v),
    )


def _row(x: Tensor) -> int:
    return x.shape[2] * x.shape[3] if x.is_contiguous() else x.stride(1)


def in_rows(x: Tensor) -> bool:
    """Heads lie side by side and steps at equal distances, as in a projection of several."""
    batch, step, *inner = x.stride()
    return inner == [x.shape[3], 1] and batch == x.shape[1] * step and step >= x.shape[2] * inner[0]


@lru_cache(KEPT)
def _prepare_forward(p: Problem, common: bool, save: bool, rest: bool) -> PreparedKernel:
    row = p.value_row
    return p.prepared(mlp_walk_kernel, V_ROW=row, SHARED=common, SAVE=save, REST=rest)


@lru_cache(KEPT)
def _prepare_backward(
    p: Problem, common: bool, fades: bool, momenta: bool, rest: bool
) -> PreparedKernel:
    return p.prepared(mlp_walk_back_kernel, SHARED=common, FADES=fades, MOMENTA=momenta, REST=rest)


Weights = Sequence[Tensor | None]
"""w1, w2, s1, s2; None for momenta of a single chunk that are zero."""


def shared(weights: Weights) -> bool:
    """All sequences start from the same weights, which lie in memory once."""
    there = [w for w in weights if w is not None]
    return all(w.stride() == (0, w.shape[2] * w.shape[3], w.shape[3], 1) for w in there)


def one_chunk(q: Tensor, cu_seqlens: Tensor | None, chunk: int) -> bool:
    """Each sequence is one chunk: its weights at the chunk's start are the initial ones."""
    return cu_seqlens is None and q.shape[1] <= chunk


def kept_of_chunks(
    q: Tensor,
    v: Tensor,
    cu_seqlens: Tensor | None,
    weights: Weights,
    chunk: int,
    unit: bool,
    save: bool,
) -> list[Tensor | None]:
    """Unwritten, in the dtype of q: the weights at each chunk's start; the errors of predictions;
    the chunks' squares; q and k at length 1. None for what is not needed."""
    slots = chunk_slots(q, cu_seqlens, chunk)
    starts: list[Tensor | None] = [None] * len(weights)
    if save and not one_chunk(q, cu_seqlens, chunk):
        starts = [None if w is None else q.new_empty(slots, *w.shape[1:]) for w in weights]
    squares = q.new_empty(slots, q.shape[2], 2, chunk, chunk)
    return [*starts, v.new_empty(v.shape), squares, *_as_q(q, unit)]


def _as_q(q: Tensor, wanted: bool) -> list[Tensor | None]:
    return [q.new_empty(q.shape), q.new_empty(q.shape)] if wanted else [None, None]


def final_weights(weights: Weights, momentum: bool) -> list[Tensor]:
    """Unwritten, but for momenta that nothing changes."""
    w1, w2, *momenta = weights
    assert w1 is not None
    assert w2 is not None
    first, second = w1.new_empty(w1.shape), w2.new_empty(w2.shape)
    if momentum:
        return [first, second, first.new_empty(w1.shape), second.new_empty(w2.shape)]
    pairs = zip(momenta, (w1, w2), strict=True)
    still = [w.new_zeros(w.shape) if s is None else s.contiguous().clone() for s, w in pairs]
    return [first, second, *still]


def launch_forward(*arguments):
    """o, the final weights and momenta, and `kept_of_chunks`."""
    *tensors, silu, chunk, unit, save = arguments
    q, k, v, *gates, w1, w2, s1, s2 = tensors
    weights = (w1, w2, s1, s2)
    o, final = v.new_empty(v.shape), final_weights(weights, tensors[5] is not None)
    kept = kept_of_chunks(q, v, tensors[6], weights, chunk, unit, save)
    problem = _problem(tensors, silu, chunk, unit)
    kernel = _prepare_forward(problem, shared(weights), kept[0] is not None, s1 is None)
    units = (kept[6], kept[7], q, k) if unit else (q, k, None, None)
    kernel((*units[:2], v, *gates, *weights, o, *final, *kept[:6], *units[2:]))
    return (o, *final, *kept)


def launch_backward(*arguments):
    """Gradients of q, k, v, the three gates (None for one that is not there) and four weights."""
    *tensors, silu, chunk, unit, d_o, d_final, kept, momenta = arguments
    q, k, _, *gates, cu_seqlens, w1, _, s1, _ = tensors
    weights = tensors[7:]
    *starts, errors, squares, unit_q, unit_k = kept
    single = one_chunk(q, cu_seqlens, chunk)
    ends = any(d is not None for d in d_final)
    d_weights = weight_gradients(weights, d_final, single and not ends, momenta)
    gradients = gradients_of(*tensors[:6])
    common, momenta = single and shared(weights), momenta or not single
    problem = _problem(tensors, silu, chunk, unit)
    kernel = _prepare_backward(problem, common, ends or not single, momenta, s1 is None)
    between = q.new_empty(*w1.shape[:2], 2 * w1.shape[3] + chunk, chunk)
    starts = weights if single else starts
    units = (unit_q, unit_k, q, k) if unit else (q, k, None, None)
    sequences = (*units[:2], errors, squares, *gates, cu_seqlens)
    kernel((*sequences, *starts, d_o, *d_weights, *gradients, *units[2:], between))
    return (*gradients, *d_weights)


def weight_gradients(
    weights: Weights, d_final: Sequence[Tensor | None], fresh: bool, momenta: bool
) -> list[Tensor]:
    """Gradients of the final weights, to become those of the initial ones; unwritten if `fresh`."""
    w1, w2, *_ = weights
    assert w1 is not None
    assert w2 is not None
    like = (w1, w2, w1, w2)
    if fresh:
        # The kernel moves its pointers to them all: empty, not None.
        return [w.new_empty(w.shape if i < 2 or momenta else 0) for i, w in enumerate(like)]
    return [
        w.new_zeros(w.shape) if d is None else d.clone() for w, d in zip(like, d_final, strict=True)
    ]


def gradients_of(q: Tensor, k: Tensor, v: Tensor, *gates: Tensor | None) -> list[Tensor | None]:
    """Unwritten; those of gates in float32."""
    of_gates = [None if g is None else torch.empty_like(g, dtype=torch.float32) for g in gates]
    return [*[x.new_empty(x.shape) for x in (q, k, v)], *of_gates]
