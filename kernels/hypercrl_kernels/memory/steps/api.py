"""One step of each memory, its state updated in place: what a controller calls between actions.

All take what the sequence operation takes at one time step, without the axis T, and return the
reading. Gradients are not recorded. The state keeps its address, so that a CUDA graph can hold it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from hypercrl_kernels.memory.arguments import check_log_gates, check_shape, step_as_kernel
from hypercrl_kernels.memory.based.naive import EPSILON, feature_count, taylor_features
from hypercrl_kernels.memory.chunk_memory.naive import Error, normalised
from hypercrl_kernels.memory.mlp_memory.chunked import mlp_memory_chunks
from hypercrl_kernels.memory.mlp_memory.naive import Activation, MLPState

LEAST_LENGTH = 1e-6
"""What a key is divided by at least when it is brought to length 1."""


@torch.no_grad()
def memory_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    state: Tensor,
    log_decay: Tensor | None = None,
    beta: Tensor | None = None,
    log_momentum: Tensor | None = None,
    error: Error = "none",
    normalise: bool = False,
    unit_keys: bool = False,
    scale: float | None = None,
) -> Tensor:
    """`chunk_memory` for one step; an error at the start of the chunk is one before decay.

    Args:
        q, k: [B, H, K].
        v: [B, H, V].
        state: [B, H, K, V], float32; as `chunk_memory` returns it, and written in place.
        log_decay: [H] or [B, H].
        beta, log_momentum: [B, H].
        unit_keys: q and k are brought to length 1 first.

    Returns:
        [B, H, V] in the dtype of v.

    Raises:
        ValueError: shapes that do not fit together; on a CPU, log gates above zero.
    """
    _check_step("memory_step", q, k, v)
    (batch, heads, keys), values = q.shape, v.shape[2] + normalise
    letters = "BHKV" if log_momentum is None else "BH2KV"
    sizes = {"B": batch, "H": heads, "K": keys, "V": values, "2": 2}
    check_shape("memory_step", "state", state, letters, **sizes)
    if log_decay is not None:
        letters = "H" if log_decay.dim() == 1 else "BH"
        check_shape("memory_step", "log_decay", log_decay, letters, **sizes)
    for gate, x in (("beta", beta), ("log_momentum", log_momentum)):
        if x is not None:
            check_shape("memory_step", gate, x, "BH", **sizes)
    check_log_gates("memory_step", log_decay=log_decay, log_momentum=log_momentum)
    factor = keys**-0.5 if scale is None else scale
    if step_as_kernel("memory_step", state):
        from hypercrl_kernels.memory.steps.launch import launch_step

        gates = (log_decay, beta, log_momentum)
        return launch_step(q, k, v, *gates, state, factor, error, normalise, unit_keys)
    memory, velocity = (state, None) if log_momentum is None else state.unbind(2)
    read, key, value = (x.to(state.dtype) for x in (q, k, v))
    if unit_keys:
        read, key = functional.normalize(torch.stack([read, key]), dim=-1, eps=LEAST_LENGTH)
    if normalise:
        value = torch.cat([value, torch.ones_like(value[..., :1])], -1)
    decay = None if log_decay is None else log_decay.to(state.dtype).exp()[..., None, None]
    if decay is not None and error != "before_decay" and error != "chunk_start":
        memory.mul_(decay)
    if error != "none":
        value = value - _apply(memory, key)
    if decay is not None and error in ("before_decay", "chunk_start"):
        memory.mul_(decay)
    if beta is not None:
        value = beta[..., None] * value
    written = key[..., None] * value[..., None, :]
    if velocity is not None and log_momentum is not None:
        velocity.mul_(log_momentum.to(state.dtype).exp()[..., None, None]).add_(written)
        written = velocity
    memory.add_(written)
    o = _apply(memory, read * factor)
    if normalise:
        o = normalised(o)
    return o.to(v.dtype)


@torch.no_grad()
def gla_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    log_decay: Tensor,
    state: Tensor,
    scale: float | None = None,
) -> Tensor:
    """`chunk_gla` for one step.

    Args:
        q, k, log_decay: [B, H, K].
        v: [B, H, V].
        state: [B, H, K, V], written in place.

    Returns:
        [B, H, V] in the dtype of v.

    Raises:
        ValueError: shapes that do not fit together; on a CPU, log gates above zero.
    """
    _check_step("gla_step", q, k, v)
    batch, heads, keys = q.shape
    check_shape("gla_step", "log_decay", log_decay, "BHK", B=batch, H=heads, K=keys)
    check_log_gates("gla_step", log_decay=log_decay)
    sizes = {"B": batch, "H": heads, "K": keys, "V": v.shape[2]}
    check_shape("gla_step", "state", state, "BHKV", **sizes)
    factor = keys**-0.5 if scale is None else scale
    if step_as_kernel("gla_step", state):
        from hypercrl_kernels.memory.steps.launch import launch_step

        return launch_step(q, k, v, log_decay, None, None, state, factor)
    read, key, value = (x.to(state.dtype) for x in (q, k, v))
    state.mul_(log_decay.to(state.dtype).exp()[..., None])
    state.addcmul_(key[..., None], value[..., None, :])
    return _apply(state, read * factor).to(v.dtype)


@torch.no_grad()
def scan_step(x: Tensor, *, log_decay: Tensor, state: Tensor) -> Tensor:
    """`scan` for one step: x, log_decay and state [B, H, D]; the state is written in place.

    Raises:
        ValueError: shapes that do not fit together; on a CPU, log gates above zero.
    """
    if not x.shape == log_decay.shape == state.shape:
        raise ValueError(
            f"scan_step needs x, log_decay and state of one shape; got {tuple(x.shape)}, "
            f"{tuple(log_decay.shape)} and {tuple(state.shape)}"
        )
    check_log_gates("scan_step", log_decay=log_decay)
    return state.mul_(log_decay.to(state.dtype).exp()).add_(x).to(x.dtype, copy=True)


@torch.no_grad()
def based_step(q: Tensor, k: Tensor, v: Tensor, *, state: Tensor) -> Tensor:
    """`based` for one step.

    Args:
        q, k: [B, H, K].
        v: [B, H, V].
        state: [B, H, F, V + 1], written in place.

    Returns:
        [B, H, V] in the dtype of v.

    Raises:
        ValueError: shapes that do not fit together.
    """
    _check_step("based_step", q, k, v)
    (batch, heads, keys), values = q.shape, v.shape[2] + 1
    sizes = {"B": batch, "H": heads, "F": feature_count(keys), "V": values}
    check_shape("based_step", "state", state, "BHFV", **sizes)
    if step_as_kernel("based_step", state):
        from hypercrl_kernels.memory.steps.launch import launch_based_step

        return launch_based_step(q, k, v, state, EPSILON)
    read, key = (taylor_features(x.to(state.dtype)) for x in (q, k))
    value = torch.cat([v, torch.ones_like(v[..., :1])], -1).to(state.dtype)
    o = _apply(state.addcmul_(key[..., None], value[..., None, :]), read)
    return (o[..., :-1] / (o[..., -1:] + EPSILON)).to(v.dtype)


@torch.no_grad()
def mlp_memory_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    state: MLPState,
    log_decay: Tensor | None = None,
    beta: Tensor | None = None,
    log_momentum: Tensor | None = None,
    activation: Activation = "gelu",
) -> Tensor:
    """`chunk_mlp_memory` for one step, with the gradient at the present weights.

    Args:
        q, k: [B, H, K].
        v: [B, H, V].
        state: weights and momenta, written in place.
        log_decay, beta, log_momentum: [B, H].

    Returns:
        [B, H, V] in the dtype of v.

    Raises:
        ValueError: shapes that do not fit together; on a CPU, log gates above zero.
    """
    name = "mlp_memory_step"
    _check_step(name, q, k, v)
    sizes = {"B": q.shape[0], "H": q.shape[1], "K": q.shape[2], "V": v.shape[2]}
    sizes["F"] = state.w1.shape[-1]
    for field, letters in (("w1", "BHKF"), ("w2", "BHFV"), ("s1", "BHKF"), ("s2", "BHFV")):
        check_shape(name, field, getattr(state, field), letters, **sizes)
    for gate, x in (("log_decay", log_decay), ("beta", beta), ("log_momentum", log_momentum)):
        if x is not None:
            check_shape(name, gate, x, "BH", **sizes)
    check_log_gates(name, log_decay=log_decay, log_momentum=log_momentum)
    if step_as_kernel(name, *state):
        from hypercrl_kernels.memory.steps.launch import launch_mlp_step

        gates = (log_decay, beta, log_momentum)
        return launch_mlp_step(q, k, v, *gates, state, activation == "silu")
    gates = {"log_decay": log_decay, "beta": beta, "log_momentum": log_momentum}
    o, final = mlp_memory_chunks(
        *(x[:, None] for x in (q, k, v)),
        state=state,
        **{name: None if gate is None else gate[:, None] for name, gate in gates.items()},
        activation=activation,
        chunk=1,
    )
    for kept, new in zip(state, final, strict=True):
        kept.copy_(new)
    return o[:, 0]


def _apply(memory: Tensor, key: Tensor) -> Tensor:
    """[B, H, K, V] and [B, H, K] → [B, H, V]."""
    return torch.matmul(key[..., None, :], memory)[..., 0, :]


def _check_step(operation: str, q: Tensor, k: Tensor, v: Tensor) -> None:
    if q.dim() != 3 or v.dim() != 3 or q.shape != k.shape or q.shape[:2] != v.shape[:2]:
        raise ValueError(
            f"{operation} needs q and k [B, H, K] and v [B, H, V] with one B and H; got "
            f"{tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}"
        )
