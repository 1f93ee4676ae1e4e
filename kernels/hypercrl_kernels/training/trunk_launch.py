"""Launches of a trunk's kernels; imported only where Triton is used.

How the kernels are cut was measured on an H200.
"""

from itertools import accumulate
from typing import Any

import torch
import triton
from torch import Tensor

from hypercrl_kernels.training.adam_launch import adam_constants
from hypercrl_kernels.training.adam_reference import AdamMoments, AdamSettings
from hypercrl_kernels.training.step_parts import TrunkAhead
from hypercrl_kernels.training.trunk import Trunk, layer_offsets
from hypercrl_kernels.training.trunk_triton import trunk_ahead_kernel, trunk_back_kernel

_AHEAD_TAKEN = 16
_AHEAD_WARPS = 8
_AHEAD_CHUNK = 64
_BACK_TAKEN = 2
_BACK_WARPS = 4
_BACK_CHUNK = 32


def launch_trunk_ahead(
    flat: Tensor,
    gradient: Tensor,
    moments: AdamMoments,
    settings: AdamSettings,
    embedding: Tensor,
    outputs: Tensor,
    products: Tensor,
    old: Tensor,
    trunk: Trunk,
) -> TrunkAhead:
    """`trunk_ahead` by the kernel."""
    found = TrunkAhead(
        torch.empty_like(flat),
        flat.new_empty(len(old) * trunk.outputs),
        torch.empty_like(embedding),
    )
    trunk_ahead_kernel[(max(1, triton.cdiv(len(old), _AHEAD_TAKEN)),)](
        flat,
        moments.mean,
        moments.square,
        moments.step,
        embedding,
        outputs,
        products.contiguous(),
        old.contiguous(),
        gradient,
        found.embedding_gradient,
        found.ahead,
        found.old_outputs,
        len(products),
        len(old),
        **trunk_constants(trunk),
        STARTS=_starts(trunk),
        TAKEN=_AHEAD_TAKEN,
        ROWS=max(16, _AHEAD_TAKEN),
        CHUNK=_AHEAD_CHUNK,
        **adam_constants(settings),
        num_warps=_AHEAD_WARPS,  # pyright: ignore[reportCallIssue]
    )
    return found


def launch_trunk_back(
    flat: Tensor, x: Tensor, outputs: Tensor, slopes: Tensor, trunk: Trunk
) -> Tensor:
    """`trunk_back` by the kernel."""
    programs = triton.cdiv(len(x), _BACK_TAKEN)
    gradients = flat.new_empty(programs, trunk.numel)
    if programs:
        trunk_back_kernel[(programs,)](
            flat,
            x.contiguous(),
            outputs,
            slopes.contiguous(),
            gradients,
            len(slopes),
            len(x),
            NUMEL=trunk.numel,
            **trunk_constants(trunk),
            STARTS=_starts(trunk),
            TAKEN=_BACK_TAKEN,
            ROWS=max(16, _BACK_TAKEN),
            CHUNK=_BACK_CHUNK,
            num_warps=_BACK_WARPS,  # pyright: ignore[reportCallIssue]
        )
    return gradients


def trunk_constants(trunk: Trunk) -> dict[str, Any]:
    """Those of every kernel that walks through a trunk."""
    return {
        "SIZES": trunk.sizes,
        "OFFSETS": layer_offsets(trunk.sizes),
        "PADDED": max(16, triton.next_power_of_2(max(trunk.sizes))),
        "ELU": trunk.activation == "elu",
    }


def _starts(trunk: Trunk) -> tuple[int, ...]:
    """Where each layer's outputs begin among those of one row."""
    return tuple(accumulate(trunk.sizes[1:-1], initial=0))
