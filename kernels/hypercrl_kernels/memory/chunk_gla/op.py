"""Launches of the gated-linear-attention kernels, and their registration with torch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from hypercrl_kernels.derivatives import first_order
from hypercrl_kernels.memory.chunk_gla.triton import gla_backward_kernel, gla_forward_kernel
from hypercrl_kernels.memory.chunk_memory.launch import Launch, Problem, problem_of
from hypercrl_kernels.memory.operators import (
    Unwritten,
    blocks,
    contiguous,
    differentiable,
    for_operator,
    in_dtypes_of,
    padded,
    precision_of,
    unless_traced,
    unwritten,
)
from hypercrl_kernels.memory.prepared import KEPT, PreparedKernel

_ARGUMENTS = (
    "Tensor q, Tensor k, Tensor v, Tensor log_decay, Tensor? initial, Tensor? cu_seqlens, "
    "float scale"
)


MANY = 528
"""Sequences and heads with which there is more than one warp for each quarter of an H100's
multiprocessors."""


def choose_launches(p: Problem) -> tuple[Launch, Launch]:
    """Of the forward and the backward pass, with one chunk size."""
    wide = max(padded(p.keys), padded(p.values))
    if wide > 64 or p.dtype == torch.float32:
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
    """Of q, k, v, log_decay, the initial state and cu_seqlens."""
    q, k, v, log_decay, initial, cu_seqlens = tensors
    return problem_of((q, k, v, log_decay, None, None, initial, cu_seqlens), 0, scale, 16, launches)


def _outputs(p: Problem, save: bool) -> tuple[Unwritten, ...]:
    """o, the final state, and with `save` states of each chunk."""
    launch, _ = p.launches or choose_launches(p)
    return (
        ((p.batch, p.length, p.heads, p.values), p.dtype),
        (p.state_shape(p.segments), torch.float32),
        (p.state_shape(p.slots(launch.chunk)), p.dtype) if save else None,
    )


def _gradients(p: Problem) -> tuple[Unwritten, ...]:
    """Those of q, k, v, log_decay and the initial state."""
    d_q, d_k, d_v, *_, d_initial = p.gradients()
    d_decay = ((p.batch, p.length, p.heads, p.keys), torch.float32)
    return d_q, d_k, d_v, d_decay, d_initial


def _constants(p: Problem, chunk: int) -> dict[str, int | float | str]:
    return {
        "scale": p.scale,
        "length": p.length,
        "HEADS": p.heads,
        "KEYS": p.keys,
        "WIDTH": padded(p.keys),
        "VALUES": p.values,
        "CHUNK": chunk,
        "LEVELS": chunk.bit_length() - 1,
        "STARTS": p.starts,
        "VARLEN": p.varlen,
        "DOT": precision_of(p.dtype),
    }


@lru_cache(KEPT)
def prepare_forward(p: Problem, save: bool) -> tuple[PreparedKernel, tuple[Unwritten, ...]]:
    """The kernel, and what it writes."""
    launch, _ = p.launches or choose_launches(p)
    block = p.block(launch)
    grid = (blocks(p.values, block), p.segments * p.heads)
    constants = {**_constants(p, launch.chunk), "BLOCK": block, "SAVE": save}
    return PreparedKernel(gla_forward_kernel, grid, constants, launch.options()), _outputs(p, save)


@lru_cache(KEPT)
def prepare_backward(p: Problem, ends: bool) -> tuple[PreparedKernel, tuple[Unwritten, ...]]:
    """The kernel and what it writes; `ends` if the final state has a gradient."""
    _, launch = p.launches or choose_launches(p)
    grid = (p.segments * p.heads,)
    constants = {**_constants(p, launch.chunk), "BLOCK": padded(p.values), "ENDS": ends}
    return PreparedKernel(gla_backward_kernel, grid, constants, launch.options()), _gradients(p)


def launch_forward(p: Problem, tensors: Sequence[Tensor | None], save: bool) -> list[Tensor | None]:
    """`_outputs`, written; the tensors as `gla_problem` takes them."""
    kernel, outputs = prepare_forward(p, save)
    written = unwritten(outputs, p.device)
    kernel((*tensors, *written))
    return written


def launch_backward(
    p: Problem,
    tensors: Sequence[Tensor | None],
    d_o: Tensor,
    d_final: Tensor | None,
    states: Tensor | None,
) -> list[Tensor | None]:
    """`_gradients`, written; `states` is the third of what `launch_forward` returned."""
    kernel, gradients = prepare_backward(p, d_final is not None)
    *sequences, _, cu_seqlens = tensors
    written = unwritten(gradients, p.device)
    kernel((*sequences, d_o, d_final, states, cu_seqlens, *written))
    return written


def _forward(*arguments):
    """o, the final state, and what `_backward_kernels` takes as the last argument."""
    *tensors, scale, save = arguments
    return tuple(launch_forward(gla_problem(tensors, scale), tensors, save))


def _backward_kernels(*arguments):
    """Gradients of the first five arguments; None for an initial state that is not there."""
    *tensors, scale, d_o, d_final, states = arguments
    return launch_backward(gla_problem(tensors, scale), tensors, d_o, d_final, states)


gla_op = torch.library.custom_op(
    "hypercrl::chunk_gla",
    for_operator(_forward),
    mutates_args=(),
    schema=f"({_ARGUMENTS}, bool save) -> (Tensor, Tensor, Tensor)",
)
gla_backward_op = torch.library.custom_op(
    "hypercrl::chunk_gla_backward",
    for_operator(_backward_kernels),
    mutates_args=(),
    schema=f"({_ARGUMENTS}, Tensor d_o, Tensor? d_final, Tensor? states) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor)",
)
_run_backward = unless_traced(gla_backward_op, _backward_kernels)


@gla_op.register_fake
@for_operator
def _(*arguments):
    p = gla_problem(arguments[:6], arguments[6])
    return unwritten(_outputs(p, arguments[-1]), p.device)


@gla_backward_op.register_fake
@for_operator
def _(*arguments):
    p = gla_problem(arguments[:6], arguments[6])
    return unwritten(_gradients(p), p.device)


def _setup_context(ctx, inputs, output) -> None:
    *tensors, scale, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*(x for x in output[2:] if x is not None))
    ctx.save_for_backward(*tensors, *output[2:])
    ctx.scale = scale


@first_order
def _backward(ctx, d_o, d_final, *_):
    *tensors, states = ctx.saved_tensors
    if d_o is None:
        d_o = torch.zeros_like(tensors[2])
    gradients = _run_backward(*tensors, ctx.scale, d_o, d_final, states)
    return (*in_dtypes_of(tensors[:5], gradients), None, None, None)


gla_op.register_autograd(_backward, setup_context=_setup_context)
_run = unless_traced(gla_op, differentiable(_forward, _setup_context, _backward))


def gla_kernels(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """`chunk_gla` by the kernels."""
    tensors, save = contiguous((q, k, v, log_decay, initial_state, cu_seqlens))
    o, final, *_ = _run(*tensors, scale, save)
    return o, final
