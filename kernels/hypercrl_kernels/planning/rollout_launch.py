"""How the rollout kernel is cut into programs; imported only where Triton is used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from hypercrl_kernels.planning.cache_share import leave_to_cache
from hypercrl_kernels.planning.packed_layers import PackedLayers
from hypercrl_kernels.planning.rollout_triton import rollout_kernel
from hypercrl_kernels.planning.rows_launch import launch_rows, takes_rows

_WIDEST_FRAGMENTS = 256  # of a hidden layer: wider ones do not fit a thread's registers
_HOPPER = (132, 232448)  # multiprocessors and bytes of shared memory: what the CPU stands in for


@dataclass(frozen=True)
class Launch:
    """Sizes of one launch.

    Attributes:
        tile: particles a program.
        warps: warps a program; those of the packed layers where fragments are read.
        registers: hidden weight matrices kept in registers for the whole horizon (bf16 only).
        shared: further ones kept in shared memory.
        ends: whether the first and the last matrix are kept in shared memory too.
        groups: parts of the last product's sum that warps compute side by side; 0 for one
            product with its rows padded to a matrix instruction's.
        chunks: 1 or 2, that the remaining matrices are loaded in as fragments at each step (bf16
            only); 0 to read them through shared memory.
        block: columns of such a one read from L2 at a time.
        stages: such blocks on their way at once.

    Raises:
        ValueError: hidden matrices kept beside others that go through shared memory at each step.
            Assembled by ptxas 12.8, such kernels read beyond their shared memory
            (`hypercrl_kernels.assembler`).
    """

    tile: int
    warps: int
    registers: int
    shared: int
    ends: bool
    groups: int
    chunks: int
    block: int
    stages: int

    def __post_init__(self) -> None:
        if self.registers + self.shared > 0 and self.chunks == 0:
            raise ValueError("matrices are kept only where the others are loaded as fragments")


def choose_launch(
    packed: PackedLayers,
    particles: int,
    processors: int = 132,
    shared_memory: int = 232448,
    sampled: bool = False,
) -> Launch:
    """Small tiles until every multiprocessor has a program; weights as near as they fit.

    8 particles are too few for Hopper's instructions of a whole warp group, and Triton takes those
    of a single warp, which wait for less: faster as long as programs are no more than processors.

    Args:
        packed: the network.
        particles: of all robots together.
        processors, shared_memory: of the device; bytes a program may use.
        sampled: whether next states are sampled.
    """
    width, rounded = packed.width, packed.precision == "bf16"
    # Accumulator and start take 2 · width · tile registers of 32 bits in all, fragments as many.
    roomy = rounded and packed.matrices <= 1
    largest = max(16, min(64, (16384 if roomy else 8192) // width))
    tile = 8 if rounded and width <= _WIDEST_FRAGMENTS else 16
    while tile < largest and particles > tile * processors:
        tile *= 2
    for registers, shared, chunks, block, stages in _preferences(packed, tile) if rounded else ():
        launch = Launch(
            tile=tile,
            warps=packed.warps,
            registers=registers,
            shared=shared,
            ends=True,
            groups=_groups(packed, tile),
            chunks=chunks,
            block=min(block, width),
            stages=stages,
        )
        if shared_bytes(packed, launch, sampled) <= shared_memory:
            return launch
    return Launch(tile, packed.warps, 0, 0, False, 1, 0, min(32, width), 2)


def _groups(packed: PackedLayers, tile: int) -> int:
    """Parts of the last product's sum, each 64 units or more."""
    if tile == 8:  # no rows are padded: instructions of a single warp are 16 rows high
        return max(1, min(4, packed.width // 64))
    return 0 if packed.width >= 128 and packed.matrices > 1 else 1


def _preferences(packed: PackedLayers, tile: int) -> Iterator[tuple[int, int, int, int, int]]:
    """(registers, shared, chunks, block, stages), the fastest first, by H100 and H200."""
    matrices, width = packed.matrices, packed.width
    if width <= _WIDEST_FRAGMENTS:
        chunks = 2 if width >= 32 * packed.warps else 1
        # One matrix of 200 takes 104 of a thread's 255 registers; larger tiles, and the fragments
        # of further matrices, need the rest. Beside fragments a matrix in shared memory gains
        # nothing, until many particles a program wait for it.
        if matrices == 1 and tile <= 16:
            yield 1, 0, chunks, 16, 1
        if matrices == 1 or (matrices > 1 and tile > 16):
            yield 0, 1, chunks, 16, 1
        yield 0, 0, chunks, 16, 1
    yield 0, 0, 0, 64, 3
    yield 0, 0, 0, 32, 3
    yield 0, 0, 0, 32, 2


def shared_bytes(packed: PackedLayers, launch: Launch, sampled: bool = False) -> int:
    """Shared memory of a program, as Triton 3.6 lays it out for Hopper."""
    item, width = packed.last.element_size(), packed.width
    work = 4 * launch.tile * max(width, launch.groups * packed.rows)
    if not launch.chunks:
        work = max(work, launch.stages * launch.block * (width + launch.tile) * item)
    outputs = packed.rows if launch.groups else max(64, packed.rows)
    rows = packed.rows + (2 if sampled else 1) * outputs
    return width * rows * item + work + launch.shared * width * width * item


def launch_rollout(
    packed: PackedLayers,
    state: Tensor,
    controls: Tensor,
    noise: Tensor | None = None,
    launch: Launch | None = None,
) -> Tensor:
    """`rollout` by the kernel, cut as `launch` says; without it, many particles are rows."""
    robots, samples, horizon, control = controls.shape
    total, size = robots * samples, state.shape[1]
    state, controls = state.float().contiguous(), controls.float().contiguous()
    if launch is None:
        limits = _device_limits(state.device)
        if noise is None and takes_rows(packed, robots, samples, *limits):
            return launch_rows(packed, state, controls)
        launch = choose_launch(packed, total, *limits, sampled=noise is not None)
    particles = total // packed.networks
    grid = (triton.cdiv(particles, launch.tile), packed.networks)
    states = state.new_empty(horizon + 1, robots, samples, size)
    remaining = launch.registers + launch.shared < packed.matrices
    scratch = packed.last
    if (remaining and not launch.chunks) or not launch.ends:
        deepest = max(packed.width, packed.rows)
        scratch = packed.last.new_empty(grid[0] * grid[1], deepest, launch.tile)
    sampled = noise is not None
    head = (packed.head if sampled else None) or (packed.last, packed.last_bias, packed.last_bias)
    compiled = rollout_kernel[grid](
        packed.first,
        packed.first_exact,
        packed.hidden,
        packed.hidden if packed.fragments is None else packed.fragments,
        packed.last,
        packed.bias,
        packed.last_bias,
        *head,
        state,
        controls,
        controls if noise is None else noise.float().contiguous(),
        states,
        scratch,
        particles,
        samples,
        horizon,
        total,
        STATE=size,
        CONTROL=control,
        ROWS=packed.rows,
        USED=packed.used,
        WIDTH=packed.width,
        LAYERS=packed.matrices,
        REGISTERS=launch.registers,
        SHARED=launch.shared,
        KEEP_ENDS=launch.ends,
        GROUPS=launch.groups,
        CHUNKS=launch.chunks,
        BLOCK=launch.block,
        TILE=launch.tile,
        WARPS=launch.warps,
        SAMPLED=sampled,
        DOT="tf32" if packed.precision == "bf16" else packed.precision,
        UPCAST=state.device.type != "cuda",
        num_warps=launch.warps,  # pyright: ignore[reportCallIssue]
        num_stages=launch.stages,  # pyright: ignore[reportCallIssue]
    )
    if launch.chunks and compiled is not None:
        leave_to_cache(compiled, state.device)
    return states.permute(1, 2, 0, 3)


def _device_limits(device: torch.device) -> tuple[int, int]:
    if device.type != "cuda":
        return _HOPPER
    properties = torch.cuda.get_device_properties(device)
    return properties.multi_processor_count, properties.shared_memory_per_block_optin
