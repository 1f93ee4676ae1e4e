"""Whether the assembler that Triton uses can be trusted with a kernel.

ptxas before CUDA 12.9 miscompiles loops that hold several of Hopper's warp-group products: part of
an operand's descriptor is read from a uniform register which only the end of the loop's body
writes. In the first iteration it holds whatever was there, and the product reads other numbers, or
beyond shared memory. `scripts/check_assembly.py` finds such code; docs/results/memory_kernels.md
has an example.

Imported only where there is a GPU: what marks a constant for torch.compile imports Triton.
"""

from functools import cache

import torch
from triton import knobs

FIRST_SOUND = (12, 9)
HOPPER = 9


@torch.compiler.assume_constant_result
def unsound_assembler(device: torch.device) -> str | None:
    """Why kernels with products in loops shall not run on this CUDA device; None: they may."""
    return _verdict(device)


@cache
def _verdict(device: torch.device) -> str | None:
    if torch.cuda.get_device_capability(device)[0] != HOPPER:
        return None
    version = _ptxas_version()
    if tuple(map(int, version.split("."))) >= FIRST_SOUND:
        return None
    first = ".".join(map(str, FIRST_SOUND))
    return (
        f"ptxas {version} miscompiles them for this GPU; set TRITON_PTXAS_PATH to the ptxas of "
        f"CUDA {first} or later, or install a newer Triton"
    )


def _ptxas_version() -> str:
    return knobs.nvidia.ptxas.version
