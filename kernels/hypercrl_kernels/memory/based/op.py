"""The BASED kernels as operators of torch: autograd, torch.compile, CUDA graphs."""

from __future__ import annotations

import torch
from torch import Tensor

from hypercrl_kernels.derivatives import first_order
from hypercrl_kernels.memory.based.chunked import CHUNK, taylor_features_backward
from hypercrl_kernels.memory.based.launch import (
    before_gradient,
    launch_backward,
    launch_forward,
    launch_state,
)
from hypercrl_kernels.memory.based.naive import feature_count, taylor_features
from hypercrl_kernels.memory.operators import differentiable, for_operator, unless_traced

based_op = torch.library.custom_op(
    "hypercrl::based",
    launch_forward,
    mutates_args=(),
    schema="(Tensor q, Tensor k, Tensor v, Tensor? before, float epsilon) -> (Tensor, Tensor)",
)
based_backward_op = torch.library.custom_op(
    "hypercrl::based_backward",
    for_operator(launch_backward),
    mutates_args=(),
    schema="(Tensor q, Tensor k, Tensor v, Tensor o, Tensor below, Tensor d_o, bool starts) -> "
    "(Tensor, Tensor, Tensor, Tensor)",
)
_run_backward = unless_traced(based_backward_op, launch_backward)


@based_op.register_fake
def _(q, k, v, *_):
    del k
    return torch.empty_like(v), q.new_empty(q.shape[:3], dtype=torch.float32)


@based_backward_op.register_fake
@for_operator
def _(q, k, v, _, below, __, starts):
    gradients = [torch.empty_like(x) for x in (q, k, v)]
    return (*gradients, before_gradient(below, v) if starts else None)


def _setup_context(ctx, inputs, output) -> None:
    q, k, v, before, _ = inputs
    o, below = output
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(below)
    ctx.save_for_backward(q, k, v, o, below)
    ctx.starts = before is not None


@first_order
def _backward(ctx, d_o, *_):
    if d_o is None:
        return (None,) * 5
    *gradients, d_before = _run_backward(*ctx.saved_tensors, d_o, ctx.starts)
    return (*gradients, d_before if ctx.starts else None, None)


based_op.register_autograd(_backward, setup_context=_setup_context)
_run = unless_traced(based_op, differentiable(launch_forward, _setup_context, _backward, results=1))


based_state_op = torch.library.custom_op(
    "hypercrl::based_state",
    launch_state,
    mutates_args=(),
    schema="(Tensor k, Tensor v, Tensor? initial) -> Tensor",
)


@based_state_op.register_fake
def _(k, v, _):
    shape = (len(k), k.shape[2], feature_count(k.shape[3]), v.shape[3] + 1)
    return k.new_empty(shape, dtype=torch.float32)


def _setup_state(ctx, inputs, output) -> None:
    del output
    ctx.save_for_backward(*inputs[:2])
    ctx.starts = inputs[2] is not None


@first_order
def _state_backward(ctx, d_state):
    """In torch operations, a chunk at a time: few train through the final state."""
    k, v = ctx.saved_tensors
    d_keys, d_values = [], []
    for keys, values in zip(k.split(CHUNK, 1), v.split(CHUNK, 1), strict=True):
        features = taylor_features(keys.float())
        d_values.append(torch.einsum("bthf,bhfv->bthv", features, d_state[..., :-1]))
        d_features = torch.einsum("bthv,bhfv->bthf", values.float(), d_state[..., :-1])
        d_features = d_features + d_state[:, None, :, :, -1]
        d_keys.append(taylor_features_backward(keys.float(), d_features))
    d_k, d_v = torch.cat(d_keys, 1).to(k.dtype), torch.cat(d_values, 1).to(v.dtype)
    return d_k, d_v, d_state if ctx.starts else None


based_state_op.register_autograd(_state_backward, setup_context=_setup_state)
_run_state = unless_traced(
    based_state_op, differentiable(launch_state, _setup_state, _state_backward)
)


def based_kernels(
    q: Tensor, k: Tensor, v: Tensor, initial_state: Tensor | None, epsilon: float
) -> tuple[Tensor, Tensor]:
    """`based` by the kernels, sequences of one length.

    Features of a whole sequence are formed only for reads from an initial state, chunk by chunk.
    """
    q, k, v = (x.contiguous() for x in (q, k, v))
    before = None
    if initial_state is not None:
        initial_state = initial_state.contiguous()
        parts = (taylor_features(part.float()) for part in q.split(CHUNK, 1))
        before = torch.cat([torch.einsum("bthf,bhfv->bthv", p, initial_state) for p in parts], 1)
    o, *_ = _run(q, k, v, before, epsilon)
    return o, _run_state(k, v, initial_state)
