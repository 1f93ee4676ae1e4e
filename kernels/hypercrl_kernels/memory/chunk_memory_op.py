"""The matrix-memory kernels as operators of torch: autograd, torch.compile, CUDA graphs."""

from __future__ import annotations

import torch
from torch import Tensor

from hypercrl_kernels.memory.chunk_memory_launch import Problem, launch_backward, launch_forward
from hypercrl_kernels.memory.operators import contiguous, in_dtypes_of

_ARGUMENTS = (
    "Tensor q, Tensor k, Tensor v, Tensor? log_decay, Tensor? beta, Tensor? log_momentum, "
    "Tensor? initial, Tensor? cu_seqlens, int error, float scale, int chunk"
)


@torch.library.custom_op(
    "hypercrl::chunk_memory",
    mutates_args=(),
    schema=f"({_ARGUMENTS}, bool save) -> (Tensor, Tensor, Tensor, Tensor)",
)
def memory_op(*arguments):
    """o, the final state, and what `memory_backward_op` takes as the last two arguments."""
    *problem, save = arguments
    return launch_forward(Problem(*problem), save)


@torch.library.custom_op(
    "hypercrl::chunk_memory_backward",
    mutates_args=(),
    schema=f"({_ARGUMENTS}, Tensor d_o, Tensor? d_final, Tensor states, Tensor inverse) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def memory_backward_op(*arguments):
    """Gradients of the first seven arguments; empty for one that is not there."""
    *problem, d_o, d_final, states, inverse = arguments
    return launch_backward(Problem(*problem), d_o, d_final, (states, inverse))


@memory_op.register_fake
def _(*arguments):
    *problem, save = arguments
    p = Problem(*problem)
    return p.outputs(save)


@memory_backward_op.register_fake
def _(*arguments):
    return Problem(*arguments[:11]).gradients()


def _setup_context(ctx, inputs, output) -> None:
    *problem, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[2:])
    ctx.save_for_backward(*problem[:8], *output[2:])
    ctx.options = problem[8:]


def _backward(ctx, d_o, d_final, *_):
    *tensors, states, inverse = ctx.saved_tensors
    if d_o is None:
        d_o = torch.zeros_like(tensors[2])
    problem = (*tensors, *ctx.options)
    gradients = memory_backward_op(*problem, d_o.contiguous(), d_final, states, inverse)
    return (*in_dtypes_of(tensors[:7], gradients), None, None, None, None, None)


memory_op.register_autograd(_backward, setup_context=_setup_context)


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
    """`chunk_memory` by the kernels; an error is its place in `Error`."""
    given = (q, k, v, log_decay, beta, log_momentum, initial_state, cu_seqlens)
    tensors, save = contiguous(given)
    o, final, *_ = memory_op(*tensors, error, scale, chunk, save)
    return o, final
