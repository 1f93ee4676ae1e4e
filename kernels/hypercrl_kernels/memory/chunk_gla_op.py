"""Launches of the gated-linear-attention kernels, and their registration with torch."""

from __future__ import annotations

from dataclasses import dataclass

# pyright: reportCallIssue=false
import torch
import triton
from torch import Tensor

from hypercrl_kernels.memory.chunk_gla_triton import (
    gla_finish_kernel,
    gla_prepare_kernel,
    gla_walk_back_kernel,
    gla_walk_kernel,
)
from hypercrl_kernels.memory.chunk_memory_launch import Problem
from hypercrl_kernels.memory.operators import (
    chunk_slots,
    contiguous,
    in_dtypes_of,
    padded,
    product_precision,
)

_ARGUMENTS = (
    "Tensor q, Tensor k, Tensor v, Tensor log_decay, Tensor? initial, Tensor? cu_seqlens, "
    "float scale"
)


@dataclass(frozen=True)
class Launch:
    """Sizes of the kernels; all powers of two, chunks and blocks from 16 on.

    Attributes:
        chunk: steps a chunk.
        block: values that a program of the walks holds.
        finish_block: values that `gla_finish_kernel` takes at a time.
        prepare_warps, walk_warps, finish_warps: warps a program.
        stages: loads under way at once in the walks.
    """

    chunk: int
    block: int
    finish_block: int
    prepare_warps: int = 1
    walk_warps: int = 1
    finish_warps: int = 4
    stages: int = 2


def choose_launch(p: Problem) -> Launch:
    """Short chunks and a warp a program: the walk is a chain of small products."""
    keys, values = padded(p.q.shape[3]), padded(p.v.shape[3])
    block, finish = (min(values, max(16, size // keys)) for size in (1024, 2048))
    return Launch(chunk=16, block=block, finish_block=finish)


def _problem(q, k, v, log_decay, initial, cu_seqlens, scale) -> Problem:
    return Problem(q, k, v, log_decay, None, None, initial, cu_seqlens, 0, scale, 16)


def _constants(p: Problem) -> dict:
    return {
        "HEADS": p.q.shape[2],
        "KEYS": p.q.shape[3],
        "WIDTH": padded(p.q.shape[3]),
        "CHUNK": choose_launch(p).chunk,
        "VARLEN": p.cu_seqlens is not None,
        "DOT": product_precision(p.q),
    }


def _search(p: Problem) -> dict:
    return {
        "LEVELS": choose_launch(p).chunk.bit_length() - 1,
        "SEARCH": p.segments.bit_length() if p.cu_seqlens is not None else 0,
    }


@torch.library.custom_op(
    "hypercrl::chunk_gla",
    mutates_args=(),
    schema=f"({_ARGUMENTS}, bool save) -> (Tensor, Tensor, Tensor, Tensor)",
)
def gla_op(*arguments):
    """o, the final state, and what `gla_backward_op` takes as the last two arguments."""
    *problem, save = arguments
    p = _problem(*problem)
    launch, values, heads = choose_launch(p), p.v.shape[3], p.q.shape[2]
    outputs = o, final, states, reading = _outputs(p, save)
    gla_prepare_kernel[(chunk_slots(p.q, p.cu_seqlens, launch.chunk), heads)](
        p.q, p.k, p.log_decay, p.cu_seqlens, reading, p.q.shape[1], p.segments,
        **_constants(p), **_search(p), num_warps=launch.prepare_warps,
    )  # fmt: skip
    gla_walk_kernel[(triton.cdiv(values, launch.block), p.segments * heads)](
        p.q, p.k, p.v, p.log_decay, reading, p.initial, p.cu_seqlens, o, final, states, p.scale,
        p.q.shape[1], **_constants(p), VALUES=values, BLOCK=launch.block,
        STARTS=p.initial is not None, SAVE=save,
        num_warps=launch.walk_warps, num_stages=launch.stages,
    )  # fmt: skip
    return outputs


@torch.library.custom_op(
    "hypercrl::chunk_gla_backward",
    mutates_args=(),
    schema=f"({_ARGUMENTS}, Tensor d_o, Tensor? d_final, Tensor states, Tensor reading) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor)",
)
def gla_backward_op(*arguments):
    """Gradients of the first five arguments; empty for an initial state that is not there."""
    *problem, d_o, d_final, states, reading = arguments
    p = _problem(*problem)
    launch, values, heads = choose_launch(p), p.v.shape[3], p.q.shape[2]
    gradients = d_q, d_k, d_v, d_decay, d_initial = _gradients(p)
    d_states = torch.empty_like(states)
    gla_walk_back_kernel[(triton.cdiv(values, launch.block), p.segments * heads)](
        p.q, p.log_decay, d_o, d_final, p.cu_seqlens, d_initial, d_states, p.scale,
        p.q.shape[1], **_constants(p), VALUES=values, BLOCK=launch.block,
        STARTS=p.initial is not None, ENDS=d_final is not None,
        num_warps=launch.walk_warps, num_stages=launch.stages,
    )  # fmt: skip
    gla_finish_kernel[(chunk_slots(p.q, p.cu_seqlens, launch.chunk), heads)](
        p.q, p.k, p.v, p.log_decay, d_o, reading, states, d_states, p.cu_seqlens, d_q, d_k, d_v,
        d_decay, p.scale, p.q.shape[1], p.segments, **_constants(p), **_search(p),
        VALUES=values, BLOCK=launch.finish_block, num_warps=launch.finish_warps, num_stages=1,
    )  # fmt: skip
    return gradients


def _outputs(p: Problem, save: bool) -> tuple[Tensor, ...]:
    """Unwritten: o, the final state, states of each chunk (empty unless `save`), and A."""
    chunk, q, heads = choose_launch(p).chunk, p.q, p.q.shape[2]
    slots = chunk_slots(q, p.cu_seqlens, chunk)
    return (
        torch.empty_like(p.v),
        q.new_empty(p.state_shape(p.segments), dtype=torch.float32),
        q.new_empty(p.state_shape(slots if save else 0)),
        q.new_empty(slots, heads, chunk, chunk),
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
    *tensors, states, reading = ctx.saved_tensors
    if d_o is None:
        d_o = torch.zeros_like(tensors[2])
    gradients = gla_backward_op(*tensors, ctx.scale, d_o.contiguous(), d_final, states, reading)
    return (*in_dtypes_of(tensors[:5], gradients), None, None, None)


gla_op.register_autograd(_backward, setup_context=_setup_context)


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
    o, final, *_ = gla_op(*tensors, scale, save)
    return o, final
