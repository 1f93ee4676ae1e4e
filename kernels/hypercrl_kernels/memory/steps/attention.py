"""One step of softmax attention: the state keeps the latest keys and values themselves."""

from __future__ import annotations

import torch
from torch import Tensor

from hypercrl_kernels.memory.arguments import check_shape, step_as_kernel
from hypercrl_kernels.memory.attention import hopfield_retrieval
from hypercrl_kernels.memory.rotation import rotate


@torch.no_grad()
def attention_step(
    q: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    keys: Tensor,
    values: Tensor,
    seen: Tensor,
    rates: Tensor | None = None,
    persistent: Tensor | None = None,
    segments: bool = False,
    updates: int = 1,
    beta: float | None = None,
) -> Tensor:
    """Put the present keys and values in place of the oldest, then `hopfield_retrieval` from all.

    A step brings E of them, so that keys and values are a ring of W = S / E steps: step t lies at
    t mod W. With `segments` the ring is empty again whenever it is full, and positions count from
    there.

    Args:
        q: [B, H, K].
        key: [B, E, H, K].
        value: [B, E, H, V].
        keys: [B, S, H, K], written in place, as all of the state.
        values: [B, S, H, V].
        seen: [B] int64, the steps before this one.
        rates: [K / 2], turns q and key by the position (see `rotate`) before anything else; keys
            lie turned in the ring.
        persistent: [2, P, H, K], keys and values that every step sees besides; V = K.
        updates, beta: see `hopfield_retrieval`.

    Returns:
        [B, H, V].

    Raises:
        ValueError: shapes that do not fit together, or no update.
    """
    name = "attention_step"
    if q.dim() != 3 or key.dim() != 4 or value.dim() != 4:
        raise ValueError(
            f"{name} needs q [B, H, K], key [B, E, H, K] and value [B, E, H, V]; got "
            f"{tuple(q.shape)}, {tuple(key.shape)} and {tuple(value.shape)}"
        )
    (batch, heads, width), entries = q.shape, key.shape[1]
    sizes = {"B": batch, "E": entries, "H": heads, "K": width, "V": value.shape[3]}
    check_shape(name, "key", key, "BEHK", **sizes)
    check_shape(name, "value", value, "BEHV", **sizes)
    check_shape(name, "keys", keys, "BSHK", **sizes)
    sizes["S"] = keys.shape[1]
    check_shape(name, "values", values, "BSHV", **sizes)
    check_shape(name, "seen", seen, "B", **sizes)
    if rates is not None and (rates.dim() != 1 or 2 * len(rates) != width):
        raise ValueError(f"{name} needs rates [K / 2], here K={width}; got {tuple(rates.shape)}")
    if persistent is not None:
        check_shape(name, "persistent", persistent, "2PHK", **sizes, **{"2": 2})
    if keys.shape[1] % entries:
        raise ValueError(
            f"{name} needs keys of whole steps of {entries}; got {keys.shape[1]} of them"
        )
    if updates < 1:
        raise ValueError(f"{name} needs at least 1 update, not {updates}")
    if step_as_kernel(name, keys, values):
        from hypercrl_kernels.memory.steps.launch import launch_attention_step

        factor = width**-0.5 if beta is None else beta
        state = (keys, values, seen)
        return launch_attention_step(
            q, key, value, *state, rates, persistent, segments, updates, factor
        )
    place = seen % (keys.shape[1] // entries)
    position = place if segments else seen
    if rates is not None:
        every = torch.cat([q[:, None], key], 1)
        every = rotate(every, position[:, None].expand(-1, entries + 1), rates)
        q, key = every[:, 0], every[:, 1:]
    slot = place[:, None] * entries + torch.arange(entries, device=q.device)
    for kept, new in ((keys, key), (values, value)):
        kept.scatter_(1, slot[..., None, None].expand_as(new), new)
    filled = entries * (position[:, None] + 1)
    mask = torch.arange(keys.shape[1], device=q.device) < filled
    seen.add_(1)
    options = {"persistent": persistent, "updates": updates, "beta": beta}
    return hopfield_retrieval(q[:, None], keys, values, mask=mask, **options)[:, 0]
