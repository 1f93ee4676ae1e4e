"""How the rollout kernel is cut into programs; imported only where Triton is used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from hypercrl_kernels.planning.packed_layers import PackedLayers
from hypercrl_kernels.planning.rollout_triton import rollout_kernel

_HOPPER = (132, 232448)  # multiprocessors and bytes of shared memory: what the CPU stands in for


@dataclass(frozen=True)
class Launch:
    """Sizes of one launch.

    Attributes:
        tile: particles a program.
        warps: warps a program.
        registers: hidden weight matrices kept in registers for the whole horizon (bf16 only).
        shared: further ones kept in shared memory.
        ends: whether the first and the last matrix are kept in shared memory too.
        groups: parts of the last product's sum that warps compute side by side.
        block: columns of the remaining ones read from L2 at a time.
        stages: such blocks on their way at once.
    """

    tile: int
    warps: int
    registers: int
    shared: int
    ends: bool
    groups: int
    block: int
    stages: int


def choose_launch(
    packed: PackedLayers, particles: int, processors: int = 132, shared_memory: int = 232448
) -> Launch:
    """Small tiles until every multiprocessor has a program; weights as near as they fit.

    Args:
        packed: the network.
        particles: of all robots together.
        processors, shared_memory: of the device; bytes a program may use.
    """
    width, rounded = packed.width, packed.precision == "bf16"
    # Accumulator and start take 2 · width · tile registers of 32 bits in all.
    largest = max(16, min(64, (16384 if rounded else 8192) // width))
    tile = 16
    while tile < largest and particles > tile * processors:
        tile *= 2
    warps = 8 if width >= 128 else 4
    for registers, shared, block, stages in _preferences(packed, tile) if rounded else ():
        launch = Launch(
            tile=tile,
            warps=warps,
            registers=registers,
            shared=shared,
            ends=True,
            groups=min(warps, width // 16) if shared and packed.hidden.shape[1] > 1 else 1,
            block=min(block, width),
            stages=stages,
        )
        if shared_bytes(packed, launch) <= shared_memory:
            return launch
    return Launch(tile, warps, 0, 0, False, 1, min(32, width), 2)


def _preferences(packed: PackedLayers, tile: int) -> Iterator[tuple[int, int, int, int]]:
    """(registers, shared, block, stages), the fastest on an H100 first (docs/results.md)."""
    matrices = packed.hidden.shape[1]
    if matrices == 1:
        # One matrix of 256 takes 128 of a thread's 255 registers, and larger tiles need the rest.
        if packed.width == 256 and tile == 16:
            yield 1, 0, 32, 3
        yield 0, 1, 32, 1
    elif matrices > 1:
        registers = int(packed.width == 256 and tile <= 32)
        for shared in range(matrices - registers, -1, -1):
            if registers + shared > 0:
                yield registers, shared, 32, 3
    yield 0, 0, 64, 3
    yield 0, 0, 32, 3
    yield 0, 0, 32, 2


def shared_bytes(packed: PackedLayers, launch: Launch) -> int:
    """Shared memory of a program, as Triton 3.6 lays it out for Hopper."""
    item, width = packed.last.element_size(), packed.width
    matrix = width * width * item
    work = 4 * launch.tile * max(width, launch.groups * packed.rows)
    if launch.registers + launch.shared < packed.hidden.shape[1]:
        work = max(work, launch.stages * launch.block * (width + launch.tile) * item)
    # A matrix passes through shared memory on its way to registers, before the others come.
    staged = matrix if launch.registers else 0
    return max(staged, 2 * width * packed.rows * item + work + launch.shared * matrix)


def launch_rollout(
    packed: PackedLayers, state: Tensor, controls: Tensor, launch: Launch | None = None
) -> Tensor:
    """`rollout` by the kernel, cut as `launch` says."""
    robots, samples, horizon, control = controls.shape
    total, size = robots * samples, state.shape[1]
    state, controls = state.float().contiguous(), controls.float().contiguous()
    if launch is None:
        launch = choose_launch(packed, total, *_device_limits(state.device))
    layers = packed.hidden.shape[1]
    particles = total // packed.networks
    grid = (triton.cdiv(particles, launch.tile), packed.networks)
    states = state.new_empty(horizon + 1, robots, samples, size)
    scratch = packed.last
    if launch.registers + launch.shared < layers or not launch.ends:
        deepest = max(packed.width, packed.rows)
        scratch = packed.last.new_empty(grid[0] * grid[1], deepest, launch.tile)
    bits = packed.hidden.view(torch.int16) if launch.registers else packed.hidden
    rollout_kernel[grid](
        packed.first,
        packed.first_exact,
        packed.hidden,
        bits,
        packed.last,
        packed.bias,
        packed.last_bias,
        state,
        controls,
        states,
        scratch,
        particles,
        samples,
        horizon,
        total,
        STATE=size,
        CONTROL=control,
        ROWS=packed.rows,
        USED=max(packed.sizes[1:-1]),
        WIDTH=packed.width,
        LAYERS=layers,
        REGISTERS=launch.registers,
        SHARED=launch.shared,
        KEEP_ENDS=launch.ends,
        GROUPS=launch.groups,
        BLOCK=launch.block,
        TILE=launch.tile,
        DOT="tf32" if packed.precision == "bf16" else packed.precision,
        UPCAST=state.device.type != "cuda",
        num_warps=launch.warps,  # pyright: ignore[reportCallIssue]
        num_stages=launch.stages,  # pyright: ignore[reportCallIssue]
    )
    return states.permute(1, 2, 0, 3)


def _device_limits(device: torch.device) -> tuple[int, int]:
    if device.type != "cuda":
        return _HOPPER
    properties = torch.cuda.get_device_properties(device)
    return properties.multi_processor_count, properties.shared_memory_per_block_optin
