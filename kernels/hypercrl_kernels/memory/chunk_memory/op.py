"""The matrix-memory kernels as operators of torch: autograd, torch.compile, CUDA graphs."""

from __future__ import annotations

import torch
from torch import Tensor

from hypercrl_kernels.derivatives import first_order
from hypercrl_kernels.memory.chunk_memory import launch as fused
from hypercrl_kernels.memory.chunk_memory import split_launch
from hypercrl_kernels.memory.chunk_memory.launch import Problem, problem_of
from hypercrl_kernels.memory.operators import (
    Unwritten,
    contiguous,
    differentiable,
    for_operator,
    in_dtypes_of,
    unless_traced,
    unwritten,
)

_ARGUMENTS = (
    "Tensor q, Tensor k, Tensor v, Tensor? log_decay, Tensor? beta, Tensor? log_momentum, "
    "Tensor? initial, Tensor? cu_seqlens, int error, float scale, int chunk"
)


def _outputs(p: Problem, save: bool) -> tuple[Unwritten, ...]:
    """o, the final state, and what the backward pass is given again."""
    if split_launch.choose_split(p, save) is not None:
        return split_launch.outputs(p, save)
    return (*p.outputs(save), None, None)


def _forward(*arguments):
    """`_outputs`, written."""
    *tensors, error, scale, chunk, save = arguments
    p = problem_of(tensors, error, scale, chunk)
    split = split_launch.choose_split(p, save)
    if split is not None:
        return tuple(split_launch.launch_forward(p, split, tensors, save))
    return (*fused.launch_forward(p, tensors, save), None, None)


def _backward_kernels(*arguments):
    """Gradients of the first seven arguments; None for one that is not there."""
    *tensors, error, scale, chunk, d_o, d_final, states, inverse, sums, errors = arguments
    p = problem_of(tensors, error, scale, chunk)
    split = split_launch.choose_split(p)
    if split is not None:
        kept = (states, inverse, sums, errors)
        return split_launch.launch_backward(p, split, tensors, d_o, d_final, kept)
    return fused.launch_backward(p, tensors, d_o, d_final, (states, inverse))


memory_op = torch.library.custom_op(
    "hypercrl::chunk_memory",
    for_operator(_forward),
    mutates_args=(),
    schema=f"({_ARGUMENTS}, bool save) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
memory_backward_op = torch.library.custom_op(
    "hypercrl::chunk_memory_backward",
    for_operator(_backward_kernels),
    mutates_args=(),
    schema=f"({_ARGUMENTS}, Tensor d_o, Tensor? d_final, Tensor? states, Tensor? inverse, "
    "Tensor? sums, Tensor? errors) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
_run_backward = unless_traced(memory_backward_op, _backward_kernels)


@memory_op.register_fake
@for_operator
def _(*arguments):
    *tensors, error, scale, chunk, save = arguments
    p = problem_of(tensors, error, scale, chunk)
    return unwritten(_outputs(p, save), p.device)


@memory_backward_op.register_fake
@for_operator
def _(*arguments):
    p = problem_of(arguments[:8], *arguments[8:11])
    return unwritten(p.gradients(), p.device)


def _setup_context(ctx, inputs, output) -> None:
    *problem, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*(x for x in output[2:] if x is not None))
    ctx.save_for_backward(*problem[:8], *output[2:])
    ctx.options = problem[8:]


@first_order
def _backward(ctx, d_o, d_final, *_):
    tensors, kept = ctx.saved_tensors[:8], ctx.saved_tensors[8:]
    if d_o is None:
        d_o = torch.zeros_like(tensors[2])
    problem = (*tensors, *ctx.options)
    gradients = _run_backward(*problem, d_o, d_final, *kept)
    if tensors[3] is not None and tensors[3].dim() == 1:
        gradients = (*gradients[:3], gradients[3].sum((0, 1)), *gradients[4:])
    return (*in_dtypes_of(tensors[:7], gradients), None, None, None, None, None)


memory_op.register_autograd(_backward, setup_context=_setup_context)
_run = unless_traced(memory_op, differentiable(_forward, _setup_context, _backward, results=2))


def memory_kernels(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    beta: Tensor | None,
    log_momentum: Tensor | None,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
    error: int,
    scale: float,
    chunk: int,
) -> tuple[Tensor, Tensor]:
    """`chunk_memory` by the kernels; an error is its place in `Error`.

    Without an error log_decay may be [H].
    """
    given = (q, k, v, log_decay, beta, log_momentum, initial_state, cu_seqlens)
    tensors, save = contiguous(given)
    o, final, *_ = _run(*tensors, error, scale, chunk, save)
    return o, final
