"""Launches of the regularised last layer; imported only where Triton is used."""

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from hypercrl_kernels.training.adam_launch import adam_constants
from hypercrl_kernels.training.adam_reference import AdamMoments, AdamSettings
from hypercrl_kernels.training.regularised_head_reference import HeadGradients
from hypercrl_kernels.training.regularised_head_triton import regularised_head_kernel


class HeadCut(NamedTuple):
    """How the regularised head's kernel is cut, as measured on an H200.

    Attributes:
        tasks: old tasks at a time; block: written numbers at a time.
        registers: of a thread at most, so that more programs fit beside one another; None: all.
    """

    tasks: int
    block: int
    warps: int
    programs: int
    registers: int | None = None


_HEAD_CUTS = {
    16: HeadCut(16, 16, 4, 528, 128),
    32: HeadCut(32, 16, 4, 396, 168),
    64: HeadCut(64, 16, 4, 396, 168),
    128: HeadCut(128, 32, 8, 132),
}


def launch_regularised_head(
    head: Tensor,
    gradient: Tensor,
    moments: AdamMoments,
    settings: AdamSettings,
    written_gradient: Tensor,
    hidden: Tensor,
    old: Tensor,
    targets: Tensor,
    tasks: Tensor | None,
    strength: float,
) -> HeadGradients:
    """`regularised_head` by the kernel."""
    size, (count, width) = written_gradient.shape[-1], old.shape
    padded = max(16, triton.next_power_of_2(width))
    cut = _head_cut(count, padded, head.device)
    programs = min(cut.programs, triton.cdiv(size, cut.block))
    found = HeadGradients(
        head.new_empty(programs), head.new_empty(programs), head.new_empty(programs, count, width)
    )
    regularised_head_kernel[(programs,)](
        head,
        gradient,
        moments.mean,
        moments.square,
        moments.step,
        written_gradient.contiguous(),
        hidden.contiguous(),
        old.contiguous(),
        targets.contiguous(),
        targets if tasks is None else tasks.contiguous(),
        *found,
        size,
        count,
        2 * strength / max(count, 1),
        WIDTH=width,
        PADDED=padded,
        MEMBERS=written_gradient.numel() // size,
        TASKS=cut.tasks,
        OLD=count > 0,
        CHOSEN=tasks is not None,
        BLOCK=cut.block,
        **adam_constants(settings),
        num_warps=cut.warps,  # pyright: ignore[reportCallIssue]
        maxnreg=cut.registers,  # pyright: ignore[reportCallIssue]
    )
    return found


def _head_cut(count: int, padded: int, device: torch.device) -> HeadCut:
    """For so many old tasks, and a width of so many columns."""
    tasks = max(16, min(triton.next_power_of_2(max(count, 1)), 128))
    if padded <= 64:
        return _HEAD_CUTS[tasks]
    if tasks <= 32:
        return HeadCut(tasks, 16, 4, 264)
    if padded == 128 and _has_room(device):
        return HeadCut(128, 16, 8, 132)
    return HeadCut(64, 16, 8, 132)


def _has_room(device: torch.device) -> bool:
    """Whether a program may have more than 99 KiB of shared memory, as on an H100 or a B200."""
    return device.type != "cuda" or torch.cuda.get_device_capability(device)[0] in (9, 10)
