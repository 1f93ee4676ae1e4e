"""How the delta rules' kernels for many chunks are launched; imported only where Triton is used.

Four kernels in place of two: see `walk_triton.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from hypercrl_kernels.memory.arguments import KEPT
from hypercrl_kernels.memory.chunk_memory.gradients_triton import gradients_kernel
from hypercrl_kernels.memory.chunk_memory.inverse_triton import inverse_kernel
from hypercrl_kernels.memory.chunk_memory.launch import Launch, Problem
from hypercrl_kernels.memory.chunk_memory.walk_triton import walk_back_kernel, walk_kernel
from hypercrl_kernels.memory.operators import Unwritten, blocks, padded, sizes_of, unwritten
from hypercrl_kernels.memory.prepared import PreparedKernel

CHUNK = 64  # rows of one of Hopper's warp-group products
BEFORE, AFTER = 2, 3  # decay, an error's place in `Error`


@dataclass(frozen=True)
class Split:
    """Launches of the four kernels, for keys and values of a head up to `widest`."""

    widest: int
    inverse: Launch
    walk: Launch
    walk_back: Launch
    gradients: Launch


SPLITS = (  # the first that is wide enough; the fastest on an H200 by scripts/tune_split.py
    Split(
        widest=64,
        inverse=Launch(CHUNK, 4, registers=128),
        walk=Launch(CHUNK, 4, stages=2, block=64),
        walk_back=Launch(CHUNK, 4, stages=2, block=64),
        gradients=Launch(CHUNK, 4, block=64),
    ),
    Split(
        widest=128,
        inverse=Launch(CHUNK, 4, registers=128),
        walk=Launch(CHUNK, 4, stages=2, block=64),
        walk_back=Launch(CHUNK, 4, stages=2, block=64),
        gradients=Launch(CHUNK, 8, block=64),
    ),
)
NARROW = 32  # heads up to here were not timed so


def choose_split(p: Problem, save: bool = True) -> Split | None:
    """Launches for a problem that is cut so, with `save` for a backward pass too; None: it takes
    the fused kernels.

    Those are for momentum, for float32, whose refinement needs L, for sequences of one chunk, for
    narrow heads, and where they are as fast.
    """
    width = max(p.keys, p.values)
    if p.error not in (BEFORE, AFTER) or p.momentum or p.dtype == torch.float32:
        return None
    mean = p.length / p.segments if p.varlen else p.length
    if p.launches is not None or mean <= CHUNK or width <= NARROW:
        return None
    if not save and not p.decay and width <= 64:  # 101 µs fused, 105 so
        return None
    return next((split for split in SPLITS if width <= split.widest), None)


def inverse_dtype(p: Problem) -> torch.dtype:
    """What T is kept in: one that loses less than its products do."""
    return torch.float16 if p.dtype == torch.bfloat16 else torch.float32


def outputs(p: Problem, save: bool) -> tuple[Unwritten, ...]:
    """o, the final state; with `save` the chunks' states, T, sums of log decays and errors."""
    slots = p.slots(CHUNK)
    made = _made_before(p) if save else (None, None)
    sequence = ((p.batch, p.length, p.heads, p.values), p.dtype)
    return (
        sequence,
        (p.state_shape(p.segments), torch.float32),
        (p.state_shape(slots), p.dtype) if save else None,
        *made,
        sequence if save else None,
    )


def _made_before(p: Problem) -> tuple[Unwritten, Unwritten]:
    """T and the sums of log decays."""
    rows = (p.slots(CHUNK), p.heads, CHUNK)
    return (
        ((*rows, CHUNK), inverse_dtype(p)),
        (rows, torch.float32) if p.decay else None,
    )


# Once for each problem, where its sizes are numbers and not symbols of a trace.
_outputs_once = lru_cache(KEPT)(outputs)
_made_before_once = lru_cache(KEPT)(_made_before)
_gradients_once = lru_cache(KEPT)(Problem.gradients)


def _block(p: Problem, launch: Launch) -> int:
    """Values of one program of a walk: fewer where sequences are few."""
    return min(p.block(Launch(CHUNK, launch.warps)), launch.block or p.values)


def _constants(p: Problem) -> dict[str, int | float | str]:
    return {
        **sizes_of(p),
        "scale": p.scale,
        "segments": p.segments,
        "CHUNK": CHUNK,
        "DECAY": p.decay,
        "STRENGTH": p.strength,
        "BEFORE": p.error == BEFORE,
        "STARTS": p.starts,
        "VARLEN": p.varlen,
        "WHOLE": not p.varlen and p.length % CHUNK == 0,
        "SEARCH": p.segments.bit_length() if p.varlen else 0,
        "PARTS": p.parts,
    }


def _prepared(kernel, grid: Sequence[int], constants: dict, launch: Launch) -> PreparedKernel:
    own = {name: value for name, value in constants.items() if name in kernel.arg_names}
    return PreparedKernel(kernel, grid, own, launch.options())


@lru_cache(KEPT)
def prepare_forward(p: Problem, split: Split, save: bool) -> tuple[PreparedKernel, PreparedKernel]:
    """What makes T and the sums, and the walk."""
    constants, block = _constants(p), _block(p, split.walk)
    chunks = (p.slots(CHUNK) * p.heads,)
    walks = (blocks(p.values, block), p.segments * p.heads)
    return (
        _prepared(inverse_kernel, chunks, constants, split.inverse),
        _prepared(walk_kernel, walks, constants | {"BLOCK": block, "SAVE": save}, split.walk),
    )


@lru_cache(KEPT)
def prepare_backward(p: Problem, split: Split, ends: bool) -> tuple[PreparedKernel, PreparedKernel]:
    """The walk back and the gradients of all chunks; `ends` if the final state has a gradient."""
    constants, block = _constants(p), _block(p, split.walk_back)
    chunks = (p.slots(CHUNK) * p.heads,)
    walks = (blocks(p.values, block), p.segments * p.heads)
    taken = min(split.gradients.block or p.values, padded(p.values))
    back = constants | {"BLOCK": block, "ENDS": ends}
    return (
        _prepared(walk_back_kernel, walks, back, split.walk_back),
        _prepared(gradients_kernel, chunks, constants | {"BLOCK": taken}, split.gradients),
    )


def launch_forward(
    p: Problem, split: Split, tensors: Sequence[Tensor | None], save: bool
) -> list[Tensor | None]:
    """`outputs`, written; the tensors as `problem_of` takes them."""
    q, k, v, log_decay, beta, _, initial, cu_seqlens = tensors
    make, walk = prepare_forward(p, split, save)
    o, final, states, inverse, sums, errors = unwritten(_outputs_once(p, save), p.device)
    made = (inverse, sums) if save else unwritten(_made_before_once(p), p.device)
    make((k, log_decay, beta, cu_seqlens, *made))
    walk((q, k, v, beta, initial, cu_seqlens, *made, o, final, states, errors))
    return [o, final, states, inverse, sums, errors]


def launch_backward(
    p: Problem,
    split: Split,
    tensors: Sequence[Tensor | None],
    d_o: Tensor,
    d_final: Tensor | None,
    kept: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """`Problem.gradients`, written; `kept` is what `launch_forward` returned from its third on."""
    q, k, _, _, beta, _, _, cu_seqlens = tensors
    states, inverse, sums, errors = kept
    walk, rest = prepare_backward(p, split, d_final is not None)
    d_q, d_k, d_v, d_decay, d_beta, _, d_initial = written = unwritten(_gradients_once(p), p.device)
    assert states is not None
    d_states = torch.empty_like(states)
    walk((q, k, beta, d_o, d_final, cu_seqlens, inverse, sums, d_v, d_states, d_initial))
    ends = (d_q, d_k, d_decay, d_beta)
    rest((q, k, beta, d_o, d_v, cu_seqlens, sums, states, d_states, errors, *ends))
    return written
