"""Launches of the BASED kernels, and their registration with torch."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hypercrl_kernels.derivatives import first_order
from hypercrl_kernels.memory.based.chunked import CHUNK, taylor_features_backward
from hypercrl_kernels.memory.based.naive import feature_count, taylor_features
from hypercrl_kernels.memory.based.triton import based_back_kernel, based_kernel, based_state_kernel
from hypercrl_kernels.memory.operators import (
    blocks,
    differentiable,
    padded,
    precision_of,
    unless_traced,
)
from hypercrl_kernels.memory.prepared import KEPT, PreparedKernel


class Sizes(NamedTuple):
    """Of sequences, and their dtype."""

    batch: int
    length: int
    heads: int
    keys: int
    values: int
    dtype: torch.dtype

    @property
    def block(self) -> int:
        """Steps a program."""
        widest = max(padded(self.keys), padded(self.values))
        return 64 if widest * self.dtype.itemsize <= 256 else 32

    @property
    def programs(self) -> int:
        return self.batch * self.heads

    def prepared(self, kernel: Any, columns: int, **own: float) -> PreparedKernel:
        """With a grid of [columns, programs], and constants that this kernel alone has."""
        constants = {
            "length": self.length,
            "HEADS": self.heads,
            "KEYS": self.keys,
            "WIDTH": padded(self.keys),
            "VALUES": self.values,
            "OUT": padded(self.values),
            "BLOCK": self.block,
            "DOT": precision_of(self.dtype),
            **own,
        }
        return PreparedKernel(kernel, (columns, self.programs), constants, {"num_warps": 4})


def _sizes(k: Tensor, v: Tensor) -> Sizes:
    batch, length, heads, keys = k.shape
    return Sizes(batch, length, heads, keys, v.shape[3], k.dtype)


@lru_cache(KEPT)
def _prepare_forward(sizes: Sizes, starts: bool, epsilon: float) -> PreparedKernel:
    columns, factor = blocks(sizes.length, sizes.block), sizes.keys**-0.5
    return sizes.prepared(based_kernel, columns, factor=factor, epsilon=epsilon, STARTS=starts)


@lru_cache(KEPT)
def _prepare_backward(sizes: Sizes) -> PreparedKernel:
    columns = blocks(sizes.length, sizes.block)
    return sizes.prepared(based_back_kernel, columns, factor=sizes.keys**-0.5)


@lru_cache(KEPT)
def _prepare_state(sizes: Sizes, starts: bool) -> PreparedKernel:
    group = max(1, 64 // padded(sizes.keys))  # products of 64 rows, as many as an instruction takes
    columns = blocks(sizes.keys + 1, group)
    return sizes.prepared(based_state_kernel, columns, GROUP=group, STARTS=starts)


def _forward(q, k, v, before, epsilon):
    """o, and the denominators [B, T, H]; `before` [B, T, H, V + 1] is added to both sums."""
    o, below = torch.empty_like(v), q.new_empty(q.shape[:3], dtype=torch.float32)
    _prepare_forward(_sizes(k, v), before is not None, epsilon)((q, k, v, before, o, below))
    return o, below


def _backward_kernels(q, k, v, d_above, d_below):
    """Gradients of q, k, v, from those of numerators and denominators."""
    gradients = tuple([torch.empty_like(x) for x in (q, k, v)])
    _prepare_backward(_sizes(k, v))((q, k, v, d_above, d_below, *gradients))
    return gradients


based_op = torch.library.custom_op(
    "hypercrl::based",
    _forward,
    mutates_args=(),
    schema="(Tensor q, Tensor k, Tensor v, Tensor? before, float epsilon) -> (Tensor, Tensor)",
)
based_backward_op = torch.library.custom_op(
    "hypercrl::based_backward",
    _backward_kernels,
    mutates_args=(),
    schema="(Tensor q, Tensor k, Tensor v, Tensor d_above, Tensor d_below) -> "
    "(Tensor, Tensor, Tensor)",
)
_run_backward = unless_traced(based_backward_op, _backward_kernels)


@based_op.register_fake
def _(q, k, v, *_):
    del k
    return torch.empty_like(v), q.new_empty(q.shape[:3], dtype=torch.float32)


@based_backward_op.register_fake
def _(q, k, v, *_):
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _setup_context(ctx, inputs, output) -> None:
    q, k, v, before, _ = inputs
    o, below = output
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(below)
    ctx.save_for_backward(q, k, v, o, below)
    ctx.starts = before is not None


@first_order
def _backward(ctx, d_o, _):
    if d_o is None:
        return (None,) * 5
    q, k, v, o, below = ctx.saved_tensors
    d_above = d_o.float() / below[..., None]
    d_below = -(d_above * o).sum(-1)
    found = _run_backward(q, k, v, d_above.to(v.dtype), d_below)
    d_before = torch.cat([d_above, d_below[..., None]], -1) if ctx.starts else None
    return (*found, d_before, None)


based_op.register_autograd(_backward, setup_context=_setup_context)
_run = unless_traced(based_op, differentiable(_forward, _setup_context, _backward))


def _state(k, v, initial):
    """Σ φ(k) [v, 1]ᵀ [B, H, F, V + 1], added to the initial state where there is one."""
    shape = (k.shape[0], k.shape[2], feature_count(k.shape[3]), v.shape[3] + 1)
    state = k.new_empty(shape, dtype=torch.float32)
    _prepare_state(_sizes(k, v), initial is not None)((k, v, initial, state))
    return state


based_state_op = torch.library.custom_op(
    "hypercrl::based_state",
    _state,
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
_run_state = unless_traced(based_state_op, differentiable(_state, _setup_state, _state_backward))


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
    o, _ = _run(q, k, v, before, epsilon)
    return o, _run_state(k, v, initial_state)
