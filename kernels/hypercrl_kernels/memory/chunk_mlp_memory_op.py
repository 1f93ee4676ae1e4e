"""Launches of the MLP-memory kernels, and their registration with torch."""

from __future__ import annotations

# pyright: reportCallIssue=false
import torch
from torch import Tensor

from hypercrl_kernels.memory.chunk_mlp_memory_reference import MLPState
from hypercrl_kernels.memory.chunk_mlp_memory_triton import mlp_walk_back_kernel, mlp_walk_kernel
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
    "Tensor q, Tensor k, Tensor v, Tensor? log_decay, Tensor? beta, Tensor? log_momentum, "
    "Tensor? cu_seqlens, Tensor w1, Tensor w2, Tensor s1, Tensor s2, bool silu, int chunk"
)


def _constants(q, _, v, log_decay, beta, log_momentum, cu_seqlens, w1, *__, silu, chunk) -> dict:
    keys, hidden, values = q.shape[3], w1.shape[3], v.shape[3]
    return {
        "HEADS": q.shape[2],
        "KEYS": keys,
        "WIDTH": padded(keys),
        "VALUES": values,
        "OUT": padded(values),
        "HIDDEN": hidden,
        "BLOCK": min(32, padded(hidden)),
        "CHUNK": chunk,
        "DECAY": log_decay is not None,
        "STRENGTH": beta is not None,
        "MOMENTUM": log_momentum is not None,
        "SILU": silu,
        "VARLEN": cu_seqlens is not None,
        "DOT": product_precision(q),
        "num_warps": 4,
        "num_stages": 1,
    }


def _saved(q, cu_seqlens, weights, chunk: int, save: bool) -> list[Tensor]:
    """Unwritten: the weights at each chunk's start, in the dtype of q."""
    if not save:
        return [q.new_empty(0) for _ in weights]
    slots = chunk_slots(q, cu_seqlens, chunk)
    return [q.new_empty(slots, *w.shape[1:]) for w in weights]


def _forward(*arguments):
    """o, the final weights and momenta, and those at each chunk's start (empty unless `save`)."""
    *tensors, silu, chunk, save = arguments
    q, v, cu_seqlens, weights = tensors[0], tensors[2], tensors[6], tensors[7:]
    o, final = torch.empty_like(v), [w.clone() for w in weights]
    saved = _saved(q, cu_seqlens, weights, chunk, save)
    mlp_walk_kernel[(weights[0].shape[0] * q.shape[2],)](
        *tensors[:7], o, *final, *saved, q.shape[1],
        **_constants(*tensors, silu=silu, chunk=chunk), SAVE=save,
    )  # fmt: skip
    return (o, *final, *saved)


def _backward_kernels(*arguments):
    """Gradients of q, k, v, the three gates (empty for one that is not there) and four weights."""
    *tensors, silu, chunk, d_o, d_final, saved = arguments
    q, weights = tensors[0], tensors[7:]
    d_weights = [
        torch.zeros_like(w) if d is None else d.clone()
        for w, d in zip(weights, d_final, strict=True)
    ]
    gradients = _gradients(*tensors[:6])
    mlp_walk_back_kernel[(weights[0].shape[0] * q.shape[2],)](
        *tensors[:7], d_o, *saved, *d_weights, *gradients, q.shape[1],
        **_constants(*tensors, silu=silu, chunk=chunk),
    )  # fmt: skip
    return (*gradients, *d_weights)


def _gradients(q, k, v, *gates) -> list[Tensor]:
    shapes = [0 if gate is None else gate.shape for gate in gates]
    of_gates = [q.new_empty(shape, dtype=torch.float32) for shape in shapes]
    return [*(torch.empty_like(x) for x in (q, k, v)), *of_gates]


mlp_op = torch.library.custom_op(
    "hypercrl::chunk_mlp_memory",
    _forward,
    mutates_args=(),
    schema=f"({_ARGUMENTS}, bool save) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
mlp_backward_op = torch.library.custom_op(
    "hypercrl::chunk_mlp_memory_backward",
    _backward_kernels,
    mutates_args=(),
    schema=f"({_ARGUMENTS}, Tensor d_o, Tensor?[] d_final, Tensor[] saved) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
_run_backward = unless_traced(mlp_backward_op, _backward_kernels)


@mlp_op.register_fake
def _(*arguments):
    *tensors, _, chunk, save = arguments
    weights = tensors[7:]
    final = [torch.empty_like(w) for w in weights]
    saved = _saved(tensors[0], tensors[6], weights, chunk, save)
    return (torch.empty_like(tensors[2]), *final, *saved)


@mlp_backward_op.register_fake
def _(*arguments):
    return (*_gradients(*arguments[:6]), *(torch.empty_like(w) for w in arguments[7:11]))


def _setup_context(ctx, inputs, output) -> None:
    *tensors, silu, chunk, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[5:])
    ctx.save_for_backward(*tensors, *output[5:])
    ctx.options = silu, chunk


def _backward(ctx, d_o, *d_final):
    saved = ctx.saved_tensors
    tensors, kept = saved[:11], list(saved[11:])
    d_o = torch.zeros_like(tensors[2]) if d_o is None else d_o.contiguous()
    found = _run_backward(*tensors, *ctx.options, d_o, list(d_final[:4]), kept)
    return (*in_dtypes_of(tensors[:6], found[:6]), None, *found[6:], None, None, None)


mlp_op.register_autograd(_backward, setup_context=_setup_context)
_run = unless_traced(mlp_op, differentiable(_forward, _setup_context, _backward))


def mlp_memory_kernels(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor | None,
    beta: Tensor | None,
    log_momentum: Tensor | None,
    state: MLPState,
    cu_seqlens: Tensor | None,
    silu: bool,
    chunk: int,
) -> tuple[Tensor, MLPState]:
    """`chunk_mlp_memory` by the kernels."""
    given = (q, k, v, log_decay, beta, log_momentum, cu_seqlens, *state)
    tensors, save = contiguous(given)
    o, *final = _run(*tensors, silu, chunk, save)
    return o, MLPState(*final[:4])
