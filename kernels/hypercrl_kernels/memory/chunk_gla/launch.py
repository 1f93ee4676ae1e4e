"""How the kernels of gated linear attention are launched; imported only where Triton is used.

With write strengths they are those of the delta rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from hypercrl_kernels.memory.arguments import KEPT
from hypercrl_kernels.memory.chunk_gla.delta_triton import (
    delta_backward_kernel,
    delta_forward_kernel,
)
from hypercrl_kernels.memory.chunk_gla.triton import gla_backward_kernel, gla_forward_kernel
from hypercrl_kernels.memory.chunk_memory.launch import Launch, Problem, problem_of
from hypercrl_kernels.memory.operators import Unwritten, blocks, padded, sizes_of, unwritten
from hypercrl_kernels.memory.prepared import PreparedKernel

MANY = 528
"""Sequences and heads with which there is more than one warp for each quarter of an H100's
multiprocessors."""


def choose_launches(p: Problem) -> tuple[Launch, Launch]:
    """Of the forward and the backward pass, with one chunk size."""
    wide = max(padded(p.keys), padded(p.values))
    if p.strength:  # by the compiler's report, not by time: chunks of 32 and fewer warps spill more
        launch = Launch(16, 8 if wide > 64 or p.dtype == torch.float32 else 4)
    elif wide > 64 or p.dtype == torch.float32:
        launch = Launch(16, 4)
    elif p.segments * p.heads >= MANY:
        launch = Launch(16, 2)
    else:
        launch = Launch(32, 4)
    return launch, launch


def gla_problem(
    tensors: Sequence[Tensor | None],
    scale: float,
    launches: tuple[Launch, Launch] | None = None,
) -> Problem:
    """Of q, k, v, log_decay, beta, the initial state and cu_seqlens."""
    q, k, v, log_decay, beta, *others = tensors
    error = 0 if beta is None else 3
    return problem_of((q, k, v, log_decay, beta, None, *others), error, scale, 16, launches)


def outputs_of(p: Problem, save: bool) -> tuple[Unwritten, ...]:
    """o, the final state; with `save` states and, for the delta rule, inverses of each chunk."""
    launch, _ = p.launches or choose_launches(p)
    slots, chunk = p.slots(launch.chunk), launch.chunk
    inverse = (slots, p.heads, p.parts, chunk, chunk)
    return (
        ((p.batch, p.length, p.heads, p.values), p.dtype),
        (p.state_shape(p.segments), torch.float32),
        (p.state_shape(slots), p.dtype) if save else None,
        (inverse, p.dtype) if save and p.strength else None,
    )


def gradients_of(p: Problem, decay: torch.dtype) -> tuple[Unwritten, ...]:
    """Those of q, k, v, log_decay, beta and the initial state, with the dtype of log_decay.

    The kernels round as they write: there are as many of these as of queries.
    """
    d_q, d_k, d_v, _, d_beta, _, d_initial = p.gradients()
    d_decay = ((p.batch, p.length, p.heads, p.keys), decay)
    return d_q, d_k, d_v, d_decay, d_beta, d_initial


def _constants(p: Problem, chunk: int) -> dict[str, int | float | str]:
    delta: dict[str, int | float | str] = {"PARTS": p.parts} if p.strength else {}
    return delta | {
        **sizes_of(p),
        "scale": p.scale,
        "CHUNK": chunk,
        "LEVELS": chunk.bit_length() - 1,
        "STARTS": p.starts,
        "VARLEN": p.varlen,
    }


@lru_cache(KEPT)
def prepare_forward(p: Problem, save: bool) -> tuple[PreparedKernel, tuple[Unwritten, ...]]:
    """The kernel, and what it writes."""
    launch, _ = p.launches or choose_launches(p)
    block = p.block(launch)
    grid = (blocks(p.values, block), p.segments * p.heads)
    constants = {**_constants(p, launch.chunk), "BLOCK": block, "SAVE": save}
    function = delta_forward_kernel if p.strength else gla_forward_kernel
    kernel = PreparedKernel(function, grid, constants, launch.options())
    return kernel, outputs_of(p, save)


@lru_cache(KEPT)
def prepare_backward(
    p: Problem, ends: bool, decay: torch.dtype
) -> tuple[PreparedKernel, tuple[Unwritten, ...]]:
    """The kernel and what it writes; `ends` if the final state has a gradient."""
    _, launch = p.launches or choose_launches(p)
    grid = (p.segments * p.heads,)
    constants = {**_constants(p, launch.chunk), "BLOCK": padded(p.values), "ENDS": ends}
    function = delta_backward_kernel if p.strength else gla_backward_kernel
    kernel = PreparedKernel(function, grid, constants, launch.options())
    return kernel, gradients_of(p, decay)


def launch_forward(p: Problem, tensors: Sequence[Tensor | None], save: bool) -> list[Tensor | None]:
    """`outputs_of`, written; the tensors as `gla_problem` takes them."""
    kernel, outputs = prepare_forward(p, save)
    written = unwritten(outputs, p.device)
    kernel(_taken(p, tensors, 4) + _taken(p, written, 3))
    return written


def launch_backward(
    p: Problem,
    tensors: Sequence[Tensor | None],
    d_o: Tensor,
    d_final: Tensor | None,
    kept: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """`gradients_of`, written; `kept` is what `launch_forward` returned from its third on."""
    *sequences, _, cu_seqlens = tensors
    assert sequences[3] is not None
    kernel, gradients = prepare_backward(p, d_final is not None, sequences[3].dtype)
    written = unwritten(gradients, p.device)
    sequences, kept = _taken(p, sequences, 4), _taken(p, kept, 1)
    kernel((*sequences, d_o, d_final, *kept, cu_seqlens, *_taken(p, written, 4)))
    return written


def _taken(p: Problem, tensors: Sequence[Tensor | None], place: int) -> tuple[Tensor | None, ...]:
    """The tensors without the one at that place, if that is the delta rule's alone."""
    return tuple(x for i, x in enumerate(tensors) if p.strength or i != place)
