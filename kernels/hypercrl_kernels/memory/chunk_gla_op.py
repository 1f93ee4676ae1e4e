"""Launches of the gated-linear-attention kernels, and their registration with torch."""

from __future__ import annotations

# pyright: reportCallIssue=false, reportArgumentType=false
import torch
import triton
from torch import Tensor

from hypercrl_kernels.memory.chunk_gla_triton import gla_backward_kernel, gla_forward_kernel
from hypercrl_kernels.memory.chunk_memory_launch import Launch, Problem
from hypercrl_kernels.memory.operators import (
    chunk_slots,
    contiguous,
    differentiable,
    in_dtypes_of,
    padded,
    product_precision,
    unless_traced,
)

_ARGUMENTS = (
    "Tensor q, Tensor k, Tensor v, Tensor log_decay, Tensor? initial, Tensor? cu_seqlens, "
    "float scale"
)


MANY = 528
"""Sequences and heads with which there is more than one warp for each quarter of an H100's
multiprocessors."""


def choose_launches(p: Problem) -> tuple[Launch, Launch]:
    """Of the forward and the backward pass, with one chunk size."""
    wide = max(padded(p.q.shape[3]), padded(p.v.shape[3]))
    if wide > 64 or p.q.dtype == torch.float32:
        launch = Launch(16, 4)
    elif p.segments * p.q.shape[2] >= MANY:
        launch = Launch(16, 2)
    else:
        launch = Launch(32, 4)
    return launch, launch


def _problem(q, k, v, log_decay, initial, cu_seqlens, scale) -> Problem:
    return Problem(q, k, v, log_decay, None, None, initial, cu_seqlens, 0, scale, 16)


def _constants(p: Problem, chunk: int) -> dict:
    return {
        "HEADS": p.q.shape[2],
        "KEYS": p.q.shape[3],
        "WIDTH": padded(p.q.shape[3]),
        "VALUES": p.v.shape[3],
        "CHUNK": chunk,
        "LEVELS": chunk.bit_length() - 1,
        "STARTS": p.initial is not None,
        "VARLEN": p.cu_seqlens is not None,
        "DOT": product_precision(p.q),
    }


def launch_forward(p: Problem, save: bool) -> tuple[Tensor, ...]:
    """`_outputs`, written."""
    launch, _ = p.launches or choose_launches(p)
    outputs = o, final, states = _outputs(p, save)
    block = p.block(launch)
    gla_forward_kernel[(triton.cdiv(p.v.shape[3], block), p.segments * p.q.shape[2])](
        p.q, p.k, p.v, p.log_decay, p.initial, p.cu_seqlens, o, final, states, p.scale,
        p.q.shape[1], **_constants(p, launch.chunk), BLOCK=block, SAVE=save, **launch.options(),
    )  # fmt: skip
    return outputs


def launch_backward(
    p: Problem, d_o: Tensor, d_final: Tensor | None, states: Tensor
) -> tuple[Tensor, ...]:
    """`_gradients`, written; `states` is the third of what `launch_forward` returned."""
    _, launch = p.launches or choose_launches(p)
    gradients = _gradients(p)
    gla_backward_kernel[(p.segments * p.q.shape[2],)](
        p.q, p.k, p.v, p.log_decay, d_o, d_final, states, p.cu_seqlens, *gradients, p.scale,
        p.q.shape[1], **_constants(p, launch.chunk), BLOCK=padded(p.v.shape[3]),
        ENDS=d_final is not None, **launch.options(),
    )  # fmt: skip
    return gradients


def _forward(*arguments):
    """o, the final state, and what `_backward_kernels` takes as the last argument."""
    *problem, save = arguments
    return launch_forward(_problem(*problem), save)


def _backward_kernels(*arguments):
    """Gradients of the first five arguments; empty for an initial state that is not there."""
    *problem, d_o, d_final, states = arguments
    return launch_backward(_problem(*problem), d_o, d_final, states)


gla_op = torch.library.custom_op(
    "hypercrl::chunk_gla",
    _forward,
    mutates_args=(),
    schema=f"({_ARGUMENTS}, bool save) -> (Tensor, Tensor, Tensor)",
)
gla_backward_op = torch.library.custom_op(
    "hypercrl::chunk_gla_backward",
    _backward_kernels,
    mutates_args=(),
    schema=f"({_ARGUMENTS}, Tensor d_o, Tensor? d_final, Tensor states) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor)",
)
_run_backward = unless_traced(gla_backward_op, _backward_kernels)


def _outputs(p: Problem, save: bool) -> tuple[Tensor, ...]:
    """Unwritten: o, the final state, and states of each chunk, empty unless `save`."""
    launch, _ = p.launches or choose_launches(p)
    slots = chunk_slots(p.q, p.cu_seqlens, launch.chunk) if save else 0
    return (
        torch.empty_like(p.v),
        p.q.new_empty(p.state_shape(p.segments), dtype=torch.float32),
        p.q.new_empty(p.state_shape(slots)),
    )


def _gradients(p: Problem) -> tuple[Tensor, ...]:
    d_q, d_k, d_v, d_decay, _, _, d_initial = p.gradients()
    return d_q, d_k, d_v, d_decay, d_initial


@gla_op.register_fake
def _(*arguments):
    *problem, save = arguments
    return _outputs(_problem(*problem), save)


@gla_backward_op.register_fake
def _(*arguments):
    return _gradients(_problem(*arguments[:7]))


def _setup_context(ctx, inputs, output) -> None:
    *tensors, scale, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[2:])
    ctx.save_for_backward(*tensors, *output[2:])
    ctx.scale = scale


def _backward(ctx, d_o, d_final, *_):
    *tensors, states = ctx.saved_tensors
    if d_o is None:
        d_o = torch.zeros_like(tensors[2])
    gradients = _run_backward(*tensors, ctx.scale, d_o.contiguous(), d_final, states)
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
