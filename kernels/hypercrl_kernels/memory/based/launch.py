"""How the BASED kernels are launched; imported only where Triton is used."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hypercrl_kernels.memory.arguments import KEPT
from hypercrl_kernels.memory.based.naive import feature_count
from hypercrl_kernels.memory.based.triton import (
    based_back_kernel,
    based_kernel,
    based_state_kernel,
    quotient_back_kernel,
)
from hypercrl_kernels.memory.operators import blocks, padded, power_of_2, sizes_of
from hypercrl_kernels.memory.prepared import PreparedKernel


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
            **sizes_of(self),
            "OUT": padded(self.values),
            "BLOCK": self.block,
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
def _prepare_quotient(rows: int, values: int, starts: bool) -> PreparedKernel:
    out = power_of_2(values)
    block = max(1, 2048 // out)  # 16 numbers a thread
    constants = {"rows": rows, "VALUES": values, "OUT": out, "BLOCK": block, "STARTS": starts}
    grid = (blocks(rows, block),)
    return PreparedKernel(quotient_back_kernel, grid, constants, {"num_warps": 4})


@lru_cache(KEPT)
def _prepare_backward(sizes: Sizes) -> PreparedKernel:
    columns = blocks(sizes.length, sizes.block)
    return sizes.prepared(based_back_kernel, columns, factor=sizes.keys**-0.5)


@lru_cache(KEPT)
def _prepare_state(sizes: Sizes, starts: bool) -> PreparedKernel:
    group = max(1, 64 // padded(sizes.keys))  # products of 64 rows, as many as an instruction takes
    columns = blocks(sizes.keys + 1, group)
    return sizes.prepared(based_state_kernel, columns, GROUP=group, STARTS=starts)


def launch_forward(q, k, v, before, epsilon):
    """o, and the denominators [B, T, H]; `before` [B, T, H, V + 1] is added to both sums."""
    o, below = torch.empty_like(v), q.new_empty(q.shape[:3], dtype=torch.float32)
    _prepare_forward(_sizes(k, v), before is not None, epsilon)((q, k, v, before, o, below))
    return o, below


def launch_backward(q, k, v, o, below, d_o, starts):
    """Gradients of q, k, v and, if `starts` says that there was one, of `before`."""
    d_above, d_below = torch.empty_like(o), torch.empty_like(below)
    d_before = before_gradient(below, v) if starts else None
    divide = _prepare_quotient(below.numel(), v.shape[3], starts)
    divide((o, below, d_o, d_above, d_below, d_before))
    gradients = [torch.empty_like(x) for x in (q, k, v)]
    _prepare_backward(_sizes(k, v))((q, k, v, d_above, d_below, *gradients))
    return (*gradients, d_before)


def before_gradient(below: Tensor, v: Tensor) -> Tensor:
    """Unwritten."""
    return below.new_empty(*below.shape, v.shape[3] + 1)


def launch_state(k, v, initial):
    """Σ φ(k) [v, 1]ᵀ [B, H, F, V + 1], added to the initial state where there is one."""
    shape = (k.shape[0], k.shape[2], feature_count(k.shape[3]), v.shape[3] + 1)
    state = k.new_empty(shape, dtype=torch.float32)
    _prepare_state(_sizes(k, v), initial is not None)((k, v, initial, state))
    return state
