"""How the MLP memory's kernels are launched; imported only where Triton is used."""

from __future__ import annotations

# pyright: reportCallIssue=false
import torch
from torch import Tensor

from hypercrl_kernels.memory.mlp_memory.backward_triton import mlp_walk_back_kernel
from hypercrl_kernels.memory.mlp_memory.forward_triton import mlp_walk_kernel
from hypercrl_kernels.memory.operators import chunk_slots, padded, product_precision


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


def shared(weights) -> bool:
    """All sequences start from the same weights, which lie in memory once."""
    return all(w.stride(0) == 0 and w[:1].is_contiguous() for w in weights)


def one_chunk(q, cu_seqlens, chunk: int) -> bool:
    """Each sequence is one chunk: its weights at the chunk's start are the initial ones."""
    return cu_seqlens is None and q.shape[1] <= chunk


def saved_weights(q, cu_seqlens, weights, chunk: int, save: bool) -> list[Tensor]:
    """Unwritten: the weights at each chunk's start, in the dtype of q."""
    if not save or one_chunk(q, cu_seqlens, chunk):
        return [q.new_empty(0) for _ in weights]
    slots = chunk_slots(q, cu_seqlens, chunk)
    return [q.new_empty(slots, *w.shape[1:]) for w in weights]


def final_weights(weights, momentum: bool) -> list[Tensor]:
    """Unwritten, but for momenta that nothing changes."""
    first, second = (w.new_empty(w.shape) for w in weights[:2])
    if momentum:
        return [first, second, *(s.new_empty(s.shape) for s in weights[2:])]
    return [first, second, *(s.contiguous().clone() for s in weights[2:])]


def launch_forward(*arguments):
    """o, the final weights and momenta, and those at each chunk's start (empty unless `save`)."""
    *tensors, silu, chunk, save = arguments
    q, v, cu_seqlens, weights = tensors[0], tensors[2], tensors[6], tensors[7:]
    o, final = torch.empty_like(v), final_weights(weights, tensors[5] is not None)
    saved = saved_weights(q, cu_seqlens, weights, chunk, save)
    mlp_walk_kernel[(weights[0].shape[0] * q.shape[2],)](
        *tensors, o, *final, *saved, q.shape[1],
        **_constants(*tensors, silu=silu, chunk=chunk), SHARED=shared(weights),
        SAVE=saved[0].numel() > 0,
    )  # fmt: skip
    return (o, *final, *saved)


def launch_backward(*arguments):
    """Gradients of q, k, v, the three gates (empty for one that is not there) and four weights."""
    *tensors, silu, chunk, d_o, d_final, saved, momenta = arguments
    q, cu_seqlens, weights = tensors[0], tensors[6], tensors[7:]
    single = one_chunk(q, cu_seqlens, chunk)
    ends = any(d is not None for d in d_final)
    d_weights = weight_gradients(weights, d_final, single and not ends, momenta)
    gradients = gradients_of(*tensors[:6])
    starts = weights if single else saved
    mlp_walk_back_kernel[(weights[0].shape[0] * q.shape[2],)](
        *tensors[:7], *starts, d_o, *d_weights, *gradients, q.shape[1],
        **_constants(*tensors, silu=silu, chunk=chunk), SHARED=single and shared(weights),
        FADES=ends or not single, MOMENTA=momenta or not single,
    )  # fmt: skip
    return (*gradients, *d_weights)


def weight_gradients(weights, d_final, fresh: bool, momenta: bool) -> list[Tensor]:
    """Gradients of the final weights, to become those of the initial ones; unwritten if `fresh`."""
    if fresh:
        sizes = [w.shape if i < 2 or momenta else 0 for i, w in enumerate(weights)]
        return [w.new_empty(size) for w, size in zip(weights, sizes, strict=True)]
    return [
        w.new_zeros(w.shape) if d is None else d.clone()
        for w, d in zip(weights, d_final, strict=True)
    ]


def gradients_of(q, k, v, *gates) -> list[Tensor]:
    shapes = [0 if gate is None else gate.shape for gate in gates]
    of_gates = [q.new_empty(shape, dtype=torch.float32) for shape in shapes]
    return [*(torch.empty_like(x) for x in (q, k, v)), *of_gates]
