"""Gated linear attention's kernels as operators of torch: autograd, torch.compile, CUDA graphs."""

from __future__ import annotations

import torch
from torch import Tensor

from hypercrl_kernels.derivatives import first_order
from hypercrl_kernels.memory.chunk_gla.launch import (
    gla_problem,
    gradients_of,
    launch_backward,
    launch_forward,
    outputs_of,
)
from hypercrl_kernels.memory.operators import (
    contiguous,
    differentiable,
    for_operator,
    in_dtypes_of,
    unless_traced,
    unwritten,
)

_ARGUMENTS = (
    "Tensor q, Tensor k, Tensor v, Tensor log_decay, Tensor? beta, Tensor? initial, "
    "Tensor? cu_seqlens, float scale"
)


def _forward(*arguments):
    """o, the final state, and what `_backward_kernels` takes as the last two arguments."""
    *tensors, scale, save = arguments
    return tuple(launch_forward(gla_problem(tensors, scale), tensors, save))


def _backward_kernels(*arguments):
    """Gradients of the first six arguments; None for one that is not there."""
    *tensors, scale, d_o, d_final, states, inverse = arguments
    problem = gla_problem(tensors, scale)
    return launch_backward(problem, tensors, d_o, d_final, (states, inverse))


gla_op = torch.library.custom_op(
    "hypercrl::chunk_gla",
    for_operator(_forward),
    mutates_args=(),
    schema=f"({_ARGUMENTS}, bool save) -> (Tensor, Tensor, Tensor, Tensor)",
)
gla_backward_op = torch.library.custom_op(
    "hypercrl::chunk_gla_backward",
    for_operator(_backward_kernels),
    mutates_args=(),
    schema=f"({_ARGUMENTS}, Tensor d_o, Tensor? d_final, Tensor? states, Tensor? inverse) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
_run_backward = unless_traced(gla_backward_op, _backward_kernels)


@gla_op.register_fake
@for_operator
def _(*arguments):
    p = gla_problem(arguments[:7], arguments[7])
    return unwritten(outputs_of(p, arguments[-1]), p.device)


@gla_backward_op.register_fake
@for_operator
def _(*arguments):
    p = gla_problem(arguments[:7], arguments[7])
    return unwritten(gradients_of(p, arguments[3].dtype), p.device)


def _setup_context(ctx, inputs, output) -> None:
    *tensors, scale, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*(x for x in output[2:] if x is not None))
    ctx.save_for_backward(*tensors, *output[2:])
    ctx.scale = scale


@first_order
def _backward(ctx, d_o, d_final, *_):
    *tensors, states, inverse = ctx.saved_tensors
    if d_o is None:
        d_o = torch.zeros_like(tensors[2])
    gradients = _run_backward(*tensors, ctx.scale, d_o, d_final, states, inverse)
    return (*in_dtypes_of(tensors[:6], gradients), None, None, None)


gla_op.register_autograd(_backward, setup_context=_setup_context)
_run = unless_traced(gla_op, differentiable(_forward, _setup_context, _backward, results=2))


def gla_kernels(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    beta: Tensor | None,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """`chunk_gla` by the kernels; with write strengths `beta`, the delta rule after the decay."""
    tensors, save = contiguous((q, k, v, log_decay, beta, initial_state, cu_seqlens))
    o, final, *_ = _run(*tensors, scale, save)
    return o, final
