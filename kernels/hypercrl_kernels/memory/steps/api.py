"""One step of each memory, its state updated in place: what a controller calls between actions.

All take what the sequence operation takes at one time step, without the axis T, and return the
reading. Gradients are not recorded. The state keeps its address, so that a CUDA graph can hold it.

Example:
    >>> state = torch.zeros(2, 4, 16, 16)  # of 2 robots, 4 heads; or what `chunk_memory` returned
    >>> q, k, v = torch.randn(3, 2, 4, 16)
    >>> o = memory_step(q, k, v, state=state, beta=torch.rand(2, 4), error="before_decay")
    >>> tuple(o.shape)
    (2, 4, 16)
"""

from __future__ import annotations

import torch
from torch import Tensor

from hypercrl_kernels.memory.arguments import (
    check_gates,
    check_log_gates,
    check_shape,
    step_as_kernel,
)
from hypercrl_kernels.memory.based.naive import EPSILON, feature_count
from hypercrl_kernels.memory.chunk_memory.naive import Error
from hypercrl_kernels.memory.mlp_memory.naive import Activation, MLPState
from hypercrl_kernels.memory.steps.naive import (
    based_step_reference,
    gla_step_reference,
    memory_step_reference,
    mlp_memory_step_reference,
)


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
        q: [B, G, K].
        k: [B, G, K], or [B, n, G, K] with n writes.
        v: [B, H, V] or [B, n, H, V].
        state: [B, H, K, V], float32; as `chunk_memory` returns it, and written in place.
        log_decay: [H], [B, H] or [B, H, K].
        beta: [B, H] or [B, n, H].
        log_momentum: [B, H].
        unit_keys: q and k are brought to length 1 first.

    Returns:
        [B, H, V] in the dtype of v.

    Raises:
        ValueError: shapes that do not fit together; on a CPU, log gates above zero.
    """
    name = "memory_step"
    several = k.dim() == 4 and v.dim() == 4 and k.shape[:2] == v.shape[:2] and k.shape[1] > 0
    first = (k[:, 0], v[:, 0]) if several else (k, v)
    _check_step(name, q, *first, grouped=True)
    (batch, keys), heads = (q.shape[0], q.shape[2]), v.shape[-2]
    letters = "BHKV" if log_momentum is None else "BH2KV"
    sizes = {"B": batch, "H": heads, "K": keys, "V": v.shape[-1] + normalise, "2": 2}
    check_shape(name, "state", state, letters, **sizes)
    check_gates(
        name,
        "B",
        log_decay=log_decay,
        beta=beta,
        log_momentum=log_momentum,
        error=error,
        writes=k.shape[1] if several else None,
        **sizes,
    )
    check_log_gates(name, log_decay=log_decay, log_momentum=log_momentum)
    factor = keys**-0.5 if scale is None else scale
    if step_as_kernel("memory_step", state):
        from hypercrl_kernels.memory.steps.launch import launch_step

        gates = (log_decay, beta, log_momentum)
        return launch_step(q, k, v, *gates, state, factor, error, normalise, unit_keys)
    return memory_step_reference(
        q, k, v, log_decay, beta, log_momentum, state, factor, error, normalise, unit_keys
    )


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
    return gla_step_reference(q, k, v, log_decay, state, factor)


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
    return based_step_reference(q, k, v, state)


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
        state: weights and momenta, none of which may be None, written in place.
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
        part = getattr(state, field)
        if part is None:
            raise ValueError(f"{name} writes {field} in place: give zeros instead of None")
        check_shape(name, field, part, letters, **sizes)
    for gate, x in (("log_decay", log_decay), ("beta", beta), ("log_momentum", log_momentum)):
        if x is not None:
            check_shape(name, gate, x, "BH", **sizes)
    check_log_gates(name, log_decay=log_decay, log_momentum=log_momentum)
    full = state.in_full()
    if step_as_kernel(name, *full):
        from hypercrl_kernels.memory.steps.launch import launch_mlp_step

        gates = (log_decay, beta, log_momentum)
        return launch_mlp_step(q, k, v, *gates, full, activation == "silu")
    return mlp_memory_step_reference(q, k, v, log_decay, beta, log_momentum, state, activation)


def _check_step(operation: str, q: Tensor, k: Tensor, v: Tensor, *, grouped: bool = False) -> None:
    heads = q.shape[:-1] == v.shape[:-1]
    if grouped and q.dim() == 3 and q.shape[:1] == v.shape[:-2] and q.shape[1] > 0:
        heads = v.shape[1] % q.shape[1] == 0
    if q.dim() != 3 or v.dim() != 3 or q.shape != k.shape or not heads:
        raise ValueError(
            f"{operation} needs q and k [B, H, K] and v [B, H, V] with one B and H; got "
            f"{tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}"
        )
