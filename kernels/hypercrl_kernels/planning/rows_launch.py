"""When particles are rows, and how that kernel is cut; imported only where Triton is used."""

import triton
from torch import Tensor

from hypercrl_kernels.planning.packed_layers import PackedLayers
from hypercrl_kernels.planning.rows_triton import rows_kernel

TILE = 128  # particles a program: 64 rows of a matrix instruction for each of two warp groups
_FEWEST = 32  # particles a multiprocessor, below which smaller tiles of the other kernel are faster


def takes_rows(
    packed: PackedLayers, robots: int, samples: int, processors: int, shared_memory: int
) -> bool:
    """Whether particles shall be rows: there are many, and all weights fit shared memory."""
    if packed.precision != "bf16" or packed.width > 256:  # a row's numbers are a thread's registers
        return False
    padding = -samples % TILE
    busy = robots * samples > _FEWEST * processors and 4 * padding <= samples
    return busy and shared_bytes(packed) <= shared_memory


def shared_bytes(packed: PackedLayers) -> int:
    """Shared memory of a program, as Triton 3.6 lays it out for Hopper."""
    weights = packed.matrices * packed.width**2 + 2 * packed.rows * packed.width
    return packed.last.element_size() * weights + 4 * TILE * packed.rows


def launch_rows(packed: PackedLayers, state: Tensor, controls: Tensor) -> Tensor:
    """`rollout` without noise by the kernel of rows."""
    robots, samples, horizon, control = controls.shape
    state, controls = state.float().contiguous(), controls.float().contiguous()
    size = state.shape[1]
    grid = (triton.cdiv(samples, TILE), robots)
    states = state.new_empty(horizon + 1, robots, samples, size)
    rows_kernel[grid](
        packed.first,
        packed.first_exact,
        packed.hidden,
        packed.last,
        packed.bias,
        packed.last_bias,
        state,
        controls,
        states,
        state.new_empty(grid[0] * grid[1], packed.width),
        samples,
        horizon,
        robots * samples,
        OWN=packed.networks > 1,
        STATE=size,
        CONTROL=control,
        ROWS=packed.rows,
        WIDTH=packed.width,
        LAYERS=packed.matrices,
        TILE=TILE,
        DOT="tf32",
        UPCAST=state.device.type != "cuda",
        num_warps=TILE // 16,  # pyright: ignore[reportCallIssue]
        num_stages=1,  # pyright: ignore[reportCallIssue]
    )
    return states.permute(1, 2, 0, 3)
