"""Triton's interpreter with the arithmetic of a GPU's tensor cores, so that tests see its rounding.

By itself the interpreter (Triton 3.9) takes products of float32 whole, where a GPU splits their
operands; it multiplies the bits of bfloat16 numbers, and truncates to bfloat16 instead of rounding.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import triton.language as tl
from triton._C.libtriton import ir
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle


def _as_float32(x: TensorHandle) -> np.ndarray:
    if x.dtype.scalar == tl.bfloat16:
        return (x.data.astype(np.uint32) << 16).view(np.float32)
    return x.data.astype(np.float32)


def _as_bfloat16(x: np.ndarray) -> np.ndarray:
    """The bits of the nearest bfloat16 numbers, as the interpreter keeps them."""
    return torch.from_numpy(np.ascontiguousarray(x)).bfloat16().view(torch.uint16).numpy()


def _as_tf32(x: np.ndarray) -> np.ndarray:
    """Rounded to ten bits of mantissa, halves away from zero, as `cvt.rna.tf32.f32` does."""
    return ((x.view(np.uint32) + np.uint32(1 << 12)) & np.uint32(0xFFFFE000)).view(np.float32)


def _added(sums: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """sums + left right, eight terms at a time; each sum is cut off to float32, not rounded."""
    for k in range(0, left.shape[-1], 8):
        terms = left[..., k : k + 8].astype(np.float64) @ right[..., k : k + 8, :]
        exact = sums + terms
        sums = exact.astype(np.float32)
        sums = np.where(np.abs(sums) > np.abs(exact), np.nextafter(sums, np.float32(0)), sums)
    return sums


def _dot(self, a, b, d, input_precision, max_num_imprecise_acc):
    left, right = _as_float32(a), _as_float32(b)
    if a.dtype.scalar == tl.float32 and input_precision == ir.INPUT_PRECISION.TF32x3:
        high_left, high_right = _as_tf32(left), _as_tf32(right)
        low_left, low_right = _as_tf32(left - high_left), _as_tf32(right - high_right)
        product = _added(np.zeros_like(d.data), low_left, high_right)
        product = _added(product, high_left, low_right)
        product = _added(product, high_left, high_right)
    else:
        product = left @ right
    return TensorHandle(product + d.data, d.dtype.scalar)


def use_tensor_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the interpreter round as a GPU does: products of float32 in three of TF32, bfloat16."""
    plain = InterpreterBuilder.cast_impl

    def cast(self, source, kind):
        places = source.dtype.scalar, kind.scalar
        if places == (tl.float32, tl.bfloat16):
            return TensorHandle(_as_bfloat16(source.data), tl.bfloat16)
        if places == (tl.bfloat16, tl.float32):
            return TensorHandle(_as_float32(source), tl.float32)
        return plain(self, source, kind)

    monkeypatch.setattr(InterpreterBuilder, "cast_impl", cast)
    monkeypatch.setattr(InterpreterBuilder, "create_dot", _dot)
