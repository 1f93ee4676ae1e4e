"""Launches of the MLP-memory kernels, and their registration with torch."""

from __future__ import annotations

# pyright: reportCallIssue=false
import torch
from torch import Tensor

from hypercrl_kernels.derivatives import first_order
from hypercrl_kernels.memory.mlp_memory.naive import MLPState
from hypercrl_kernels.memory.mlp_memory.forward_triton import mlp_walk_back_kernel, mlp_walk_kernel
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
    # Of float32, more would not fit into shared memory.
    block = 16 if q.dtype == torch.float32 and chunk == 64 else 32
    return {
        "HEADS": q.shape[2],
        "KEYS": keys,
        "WIDTH": padded(keys),
        "VALUES": values,
        "OUT": padded(values),
        "HIDDEN": hidden,
        "BLOCK": min(block, padded(hidden)),
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


def _shared(weights) -> bool:
    """All sequences start from the same weights, which lie in memory once."""
    return all(w.stride(0) == 0 and w[:1].is_contiguous() for w in weights)


def _single(q, cu_seqlens, chunk: int) -> bool:
    """Each sequence is one chunk: its weights at the chunk's start are the initial ones."""
    return cu_seqlens is None and q.shape[1] <= chunk


def _saved(q, cu_seqlens, weights, chunk: int, save: bool) -> list[Tensor]:
    """Unwritten: the weights at each chunk's start, in the dtype of q."""
    if not save or _single(q, cu_seqlens, chunk):
        return [q.new_empty(0) for _ in weights]
    slots = chunk_slots(q, cu_seqlens, chunk)
    return [q.new_empty(slots, *w.shape[1:]) for w in weights]


def _final(weights, momentum: bool) -> list[Tensor]:
    """Unwritten, but for momenta that nothing changes."""
    first, second = (w.new_empty(w.shape) for w in weights[:2])
    if momentum:
        return [first, second, *(s.new_empty(s.shape) for s in weights[2:])]
    return [first, second, *(s.contiguous().clone() for s in weights[2:])]


def _forward(*arguments):
    """o, the final weights and momenta, and those at each chunk's start (empty unless `save`)."""
    *tensors, silu, chunk, save = arguments
    q, v, cu_seqlens, weights = tensors[0], tensors[2], tensors[6], tensors[7:]
    o, final = torch.empty_like(v), _final(weights, tensors[5] is not None)
    saved = _saved(q, cu_seqlens, weights, chunk, save)
    mlp_walk_kernel[(weights[0].shape[0] * q.shape[2],)](
        *tensors, o, *final, *saved, q.shape[1],
        **_constants(*tensors, silu=silu, chunk=chunk), SHARED=_shared(weights),
        SAVE=saved[0].numel() > 0,
    )  # fmt: skip
    return (o, *final, *saved)


def _backward_kernels(*arguments):
    """Gradients of q, k, v, the three gates (empty for one that is not there) and four weights."""
    *tensors, silu, chunk, d_o, d_final, saved, momenta = arguments
    q, cu_seqlens, weights = tensors[0], tensors[6], tensors[7:]
    single = _single(q, cu_seqlens, chunk)
    ends = any(d is not None for d in d_final)
    d_weights = _d_weights(weights, d_final, single and not ends, momenta)
    gradients = _gradients(*tensors[:6])
    starts = weights if single else saved
    mlp_walk_back_kernel[(weights[0].shape[0] * q.shape[2],)](
        *tensors[:7], *starts, d_o, *d_weights, *gradients, q.shape[1],
        **_constants(*tensors, silu=silu, chunk=chunk), SHARED=single and _shared(weights),
        FADES=ends or not single, MOMENTA=momenta or not single,
    )  # fmt: skip
    return (*gradients, *d_weights)


def _d_weights(weights, d_final, fresh: bool, momenta: bool) -> list[Tensor]:
    """Gradients of the final weights, to become those of the initial ones; unwritten if `fresh`."""
    if fresh:
        sizes = [w.shape if i < 2 or momenta else 0 for i, w in enumerate(weights)]
        return [w.new_empty(size) for w, size in zip(weights, sizes, strict=True)]
    return [
        w.new_zeros(w.shape) if d is None else d.clone()
        for w, d in zip(weights, d_final, strict=True)
    ]


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
    schema=f"({_ARGUMENTS}, Tensor d_o, Tensor?[] d_final, Tensor[] saved, bool momenta) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)
_run_backward = unless_traced(mlp_backward_op, _backward_kernels)


@mlp_op.register_fake
def _(*arguments):
    *tensors, _, chunk, save = arguments
    weights = tensors[7:]
    saved = _saved(tensors[0], tensors[6], weights, chunk, save)
    return (torch.empty_like(tensors[2]), *_final(weights, tensors[5] is not None), *saved)


@mlp_backward_op.register_fake
def _(*arguments):
    q, cu_seqlens, weights, chunk = arguments[0], arguments[6], arguments[7:11], arguments[12]
    *_, d_final, _, momenta = arguments
    fresh = _single(q, cu_seqlens, chunk) and all(d is None for d in d_final)
    return (*_gradients(*arguments[:6]), *_d_weights(weights, d_final, fresh, momenta))


def _setup_context(ctx, inputs, output) -> None:
    *tensors, silu, chunk, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*output[5:])
    ctx.save_for_backward(*tensors, *output[5:])
    ctx.options = silu, chunk


@first_order
def _backward(ctx, d_o, *d_final):
    saved = ctx.saved_tensors
    tensors, kept = saved[:11], list(saved[11:])
    d_o = torch.zeros_like(tensors[2]) if d_o is None else d_o
    momenta = tensors[5] is not None and any(ctx.needs_input_grad[9:11])
    found = _run_backward(*tensors, *ctx.options, d_o, list(d_final[:4]), kept, momenta)
    d_weights = (d if d.numel() else None for d in found[6:])
    return (*in_dtypes_of(tensors[:6], found[:6]), None, *d_weights, None, None, None)


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
    weights = state if _shared(state) else tuple(w.contiguous() for w in state)
    tensors, save = contiguous((q, k, v, log_decay, beta, log_momentum, cu_seqlens))
    save = save or (torch.is_grad_enabled() and any(w.requires_grad for w in weights))
    o, *final = _run(*tensors, *weights, silu, chunk, save)
    return o, MLPState(*final[:4])
