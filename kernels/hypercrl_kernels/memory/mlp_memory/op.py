"""The MLP memory's kernels as operators of torch: autograd, torch.compile, CUDA graphs."""

from __future__ import annotations

import torch
from torch import Tensor

from hypercrl_kernels.derivatives import first_order
from hypercrl_kernels.memory.mlp_memory.launch import (
    final_weights,
    gradients_of,
    in_rows,
    kept_of_chunks,
    launch_backward,
    launch_forward,
    one_chunk,
    shared,
    weight_gradients,
)
from hypercrl_kernels.memory.mlp_memory.naive import MLPState
from hypercrl_kernels.memory.operators import (
    contiguous,
    differentiable,
    for_operator,
    in_dtypes_of,
    unless_traced,
    wants_gradient,
)

_ARGUMENTS = (
    "Tensor q, Tensor k, Tensor v, Tensor? log_decay, Tensor? beta, Tensor? log_momentum, "
    "Tensor? cu_seqlens, Tensor w1, Tensor w2, Tensor? s1, Tensor? s2, "
    "bool silu, int chunk, bool unit"
)


mlp_op = torch.library.custom_op(
    "hypercrl::chunk_mlp_memory",
    for_operator(launch_forward),
    mutates_args=(),
    schema=f"({_ARGUMENTS}, bool save) -> ({', '.join(['Tensor'] * 13)})",
)
mlp_backward_op = torch.library.custom_op(
    "hypercrl::chunk_mlp_memory_backward",
    for_operator(launch_backward),
    mutates_args=(),
    schema=f"({_ARGUMENTS}, Tensor d_o, Tensor?[] d_final, Tensor?[] kept, bool momenta) -> "
    f"({', '.join(['Tensor'] * 10)})",
)
_run_backward = unless_traced(mlp_backward_op, launch_backward)


@mlp_op.register_fake
@for_operator
def _(*arguments):
    *tensors, _, chunk, unit, save = arguments
    q, v, weights = tensors[0], tensors[2], tensors[7:]
    kept = kept_of_chunks(q, v, tensors[6], weights, chunk, unit, save)
    return (v.new_empty(v.shape), *final_weights(weights, tensors[5] is not None), *kept)


@mlp_backward_op.register_fake
@for_operator
def _(*arguments):
    q, cu_seqlens, weights, chunk = arguments[0], arguments[6], arguments[7:11], arguments[12]
    *_, d_final, _, momenta = arguments
    fresh = one_chunk(q, cu_seqlens, chunk) and all(d is None for d in d_final)
    return (*gradients_of(*arguments[:6]), *weight_gradients(weights, d_final, fresh, momenta))


def _setup_context(ctx, inputs, output) -> None:
    *tensors, silu, chunk, unit, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*(x for x in output[5:] if x is not None))
    ctx.save_for_backward(*tensors, *output[5:])
    ctx.options = silu, chunk, unit


@first_order
def _backward(ctx, d_o, *d_final):
    saved = ctx.saved_tensors
    tensors, kept = saved[:11], list(saved[11:])
    d_o = torch.zeros_like(tensors[2]) if d_o is None else d_o
    momenta = tensors[5] is not None and any(ctx.needs_input_grad[9:11])
    found = _run_backward(*tensors, *ctx.options, d_o, list(d_final[:4]), kept, momenta)
    pairs = zip(tensors[7:], found[6:], strict=True)
    d_weights = (None if w is None or d.numel() == 0 else d for w, d in pairs)
    return (*in_dtypes_of(tensors[:6], found[:6]), None, *d_weights, None, None, None, None)


mlp_op.register_autograd(_backward, setup_context=_setup_context)
_run = unless_traced(mlp_op, differentiable(launch_forward, _setup_context, _backward, results=5))


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
    unit: bool = False,
) -> tuple[Tensor, MLPState]:
    """`chunk_mlp_memory` by the kernels; with `unit`, q and k are brought to length 1 first."""
    rests = state.s1 is None and state.s2 is None and one_chunk(q, cu_seqlens, chunk)
    weights = state if rests else state.in_full()
    if not shared(weights):
        weights = [None if w is None else w.contiguous() for w in weights]
    if not (unit and in_rows(q) and in_rows(k) and q.stride() == k.stride()):
        q, k = q.contiguous(), k.contiguous()
    v = v if in_rows(v) else v.contiguous()
    gates, save = contiguous((log_decay, beta, log_momentum, cu_seqlens))
    tensors = (q, k, v, *gates)
    save = save or wants_gradient((q, k, v, *weights))
    o, *final = _run(*tensors, *weights, silu, chunk, unit, save)
    return o, MLPState(*final[:4])
