"""Launches of the training kernels; imported only where Triton is used."""

import itertools
from dataclasses import dataclass
from math import log
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from hypercrl_kernels.training.adam_reference import AdamMoments, AdamSettings
from hypercrl_kernels.training.adam_triton import adam_kernel
from hypercrl_kernels.training.clipped_adam_triton import (
    clipped_adam_kernel,
    gradient_norms_kernel,
)
from hypercrl_kernels.training.network_gradient_triton import (
    network_layer_back_kernel,
    network_layer_kernel,
)
from hypercrl_kernels.training.regularised_head_reference import HeadGradients
from hypercrl_kernels.training.regularised_head_triton import regularised_head_kernel
from hypercrl_kernels.training.scaled_error_triton import scaled_error_kernel
from hypercrl_kernels.training.step_parts import (
    NetworkGradient,
    Scales,
    Shares,
    Trained,
    TrunkAhead,
    WrittenGradient,
)
from hypercrl_kernels.training.trunk import Trunk
from hypercrl_kernels.training.trunk_triton import trunk_ahead_kernel, trunk_back_kernel
from hypercrl_kernels.training.written_weights_triton import (
    written_gradient_kernel,
    written_weights_kernel,
)


@dataclass
class Tuning:
    """How the kernels are cut, as measured on an H200."""

    write_block: int = 128
    write_warps: int = 4
    back_block: int = 128
    back_warps: int = 4
    ahead_taken: int = 16
    ahead_warps: int = 8
    ahead_chunk: int = 64
    trunk_taken: int = 2
    trunk_warps: int = 4
    trunk_chunk: int = 32
    network_rows: int = 16
    network_columns: int = 16
    network_block: int = 32
    network_stages: int = 3
    network_warps: int = 2
    norm_block: int = 4096
    norm_warps: int = 16
    adam_block: int = 512
    adam_warps: int = 8


TUNING = Tuning()


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


def launch_adam(
    parameter: Tensor,
    gradient: Tensor,
    moments: AdamMoments,
    settings: AdamSettings,
    out: Tensor,
    norm: Tensor | None = None,
    limit: float = 0.0,
) -> None:
    """Write the parameter after the step to `out`; with a norm, clipped, and moments too."""
    block = 1024
    size = parameter.numel()
    adam_kernel[(triton.cdiv(size, block),)](
        parameter,
        gradient.contiguous(),
        moments.step if norm is None else norm,
        *moments,
        out,
        size,
        UPDATE=norm is not None,
        LIMIT=limit,
        BLOCK=block,
        **_constants(settings),
        num_warps=4,  # pyright: ignore[reportCallIssue]
    )


def launch_written_weights(theta: Tensor, embedding: Tensor, trunk: Trunk) -> tuple[Tensor, Tensor]:
    """`written_weights` by the kernel."""
    tuning = TUNING
    size = (len(theta) - trunk.numel) // (trunk.sizes[-1] + 1)
    outputs, written = theta.new_empty(trunk.outputs), theta.new_empty(size)
    shape = _shape(trunk)
    del shape["STARTS"]
    written_weights_kernel[(triton.cdiv(size, tuning.write_block),)](
        theta,
        theta[trunk.numel :],
        embedding,
        outputs,
        written,
        size,
        **shape,
        BLOCK=tuning.write_block,
        num_warps=tuning.write_warps,  # pyright: ignore[reportCallIssue]
    )
    return outputs, written


def launch_written_gradient(
    head: Tensor, partials: Tensor, written: Tensor, width: int, l1: float
) -> WrittenGradient:
    """`written_gradient` by the kernel."""
    tuning = TUNING
    parts, size = partials.shape
    programs = triton.cdiv(size, tuning.back_block)
    found = WrittenGradient(head.new_empty(size), head.new_empty(programs, width))
    written_gradient_kernel[(programs,)](
        head,
        partials.contiguous(),
        written.contiguous(),
        *found,
        size,
        parts,
        l1,
        WIDTH=width,
        PADDED=triton.next_power_of_2(width),
        L1=l1 != 0,
        BLOCK=tuning.back_block,
        num_warps=tuning.back_warps,  # pyright: ignore[reportCallIssue]
    )
    return found


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
    tuning = TUNING
    found = TrunkAhead(
        torch.empty_like(flat),
        flat.new_empty(len(old) * trunk.outputs),
        torch.empty_like(embedding),
    )
    trunk_ahead_kernel[(max(1, triton.cdiv(len(old), tuning.ahead_taken)),)](
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
        **_shape(trunk),
        TAKEN=tuning.ahead_taken,
        ROWS=max(16, tuning.ahead_taken),
        CHUNK=tuning.ahead_chunk,
        **_constants(settings),
        num_warps=tuning.ahead_warps,  # pyright: ignore[reportCallIssue]
    )
    return found


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
        **_constants(settings),
        num_warps=cut.warps,  # pyright: ignore[reportCallIssue]
        maxnreg=cut.registers,  # pyright: ignore[reportCallIssue]
    )
    return found


def launch_trunk_back(
    flat: Tensor, x: Tensor, outputs: Tensor, slopes: Tensor, trunk: Trunk
) -> Tensor:
    """`trunk_back` by the kernel."""
    tuning = TUNING
    programs = triton.cdiv(len(x), tuning.trunk_taken)
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
            **_shape(trunk),
            TAKEN=tuning.trunk_taken,
            ROWS=max(16, tuning.trunk_taken),
            CHUNK=tuning.trunk_chunk,
            num_warps=tuning.trunk_warps,  # pyright: ignore[reportCallIssue]
        )
    return gradients


def launch_network_gradient(
    weights: Tensor,
    sizes: tuple[int, ...],
    obs: Tensor,
    action: Tensor,
    next_obs: Tensor,
    scales: Scales,
) -> NetworkGradient:
    """`network_gradient` by the kernels, one launch a layer forward and one backward."""
    tuning, weights, last = TUNING, weights.contiguous(), len(sizes) - 2
    cut: dict[str, Any] = {
        "ROWS": tuning.network_rows,
        "COLUMNS": tuning.network_columns,
        "BLOCK": tuning.network_block,
        "STAGES": tuning.network_stages,
    }
    rows = triton.cdiv(len(obs), tuning.network_rows)
    columns = [triton.cdiv(size, tuning.network_columns) for size in sizes]
    values = [weights.new_empty(len(obs), size) for size in sizes]
    slopes = [*map(torch.empty_like, values[:-1]), values[-1]]
    losses, gradient = weights.new_empty(rows * columns[-1]), torch.empty_like(weights)
    obs, action, next_obs = (
        x if x.stride(1) == 1 else x.contiguous() for x in (obs, action, next_obs)
    )
    scales = Scales(*(scale.contiguous() for scale in scales))
    layers = list(enumerate(zip(_offsets(sizes), itertools.pairwise(sizes), strict=True)))
    for i, (offset, (fan_in, fan_out)) in layers:
        network_layer_kernel[(rows, columns[i + 1])](
            weights[offset:],
            values[i],
            obs,
            action,
            next_obs,
            *scales,
            values[i + 1],
            losses,
            len(obs),
            1 / (sizes[-1] * len(obs)),
            obs.stride(0),
            action.stride(0),
            next_obs.stride(0),
            O=sizes[-1],
            IN=fan_in,
            OUT=fan_out,
            FIRST=i == 0,
            LAST=i == last,
            **cut,
            num_warps=tuning.network_warps,  # pyright: ignore[reportCallIssue]
        )
    for i, (offset, (fan_in, fan_out)) in reversed(layers):
        network_layer_back_kernel[(columns[i + 1] + (rows if i else 0), columns[i])](
            weights[offset:],
            values[i],
            slopes[i + 1],
            gradient[offset:],
            slopes[i],
            len(obs),
            IN=fan_in,
            OUT=fan_out,
            FIRST=i == 0,
            **cut,
            num_warps=tuning.network_warps,  # pyright: ignore[reportCallIssue]
        )
    return NetworkGradient(losses, gradient[None])


def launch_gradient_norms(
    trunk_gradient: Tensor,
    embedding_gradient: Tensor,
    shares: Shares,
    steps: tuple[Tensor, Tensor],
) -> Tensor:
    """`gradient_norms` by the kernel."""
    tuning, size = TUNING, len(embedding_gradient)
    norms = trunk_gradient.new_empty(4)
    gradient_norms_kernel[(1,)](
        trunk_gradient,
        embedding_gradient,
        *shares,
        *steps,
        norms,
        len(shares.losses),
        len(shares.regularisers),
        len(shares.squares),
        len(shares.trunk),
        NUMEL=len(trunk_gradient),
        SIZE=size,
        PADDED=triton.next_power_of_2(size),
        BLOCK=tuning.norm_block,
        num_warps=tuning.norm_warps,  # pyright: ignore[reportCallIssue]
    )
    return norms


def launch_clipped_adam(
    theta: Trained, embedding: Trained, settings: AdamSettings, norms: Tensor, limit: float
) -> None:
    """`clipped_adam` by the kernel."""
    tuning, size = TUNING, len(embedding.parameter)
    clipped_adam_kernel[(triton.cdiv(len(theta.parameter), tuning.adam_block) + 1,)](
        theta.parameter,
        theta.gradient,
        *theta.moments,
        embedding.parameter,
        embedding.gradient,
        *embedding.moments,
        norms,
        len(theta.parameter),
        SIZE=size,
        PADDED=triton.next_power_of_2(size),
        LIMIT=limit,
        BLOCK=tuning.adam_block,
        **_constants(settings),
        num_warps=tuning.adam_warps,  # pyright: ignore[reportCallIssue]
    )


def launch_scaled_error(
    outputs: Tensor, obs: Tensor, next_obs: Tensor, mean: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor]:
    """The loss [] and its gradient with respect to the outputs."""
    loss = outputs.new_empty(())
    slope = torch.empty_like(outputs, memory_format=torch.contiguous_format)
    scaled_error_kernel[(1,)](
        outputs.contiguous(),
        obs.contiguous(),
        next_obs.contiguous(),
        mean.contiguous(),
        scale.contiguous(),
        loss,
        slope,
        outputs.numel(),
        SIZE=outputs.shape[-1],
        BLOCK=1024,
        num_warps=8,  # pyright: ignore[reportCallIssue]
    )
    return loss, slope


def _offsets(sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Of each layer's weight among the parameters."""
    numbers = [(fan_in + 1) * fan_out for fan_in, fan_out in itertools.pairwise(sizes)]
    return tuple(itertools.accumulate(numbers[:-1], initial=0))


def _shape(trunk: Trunk) -> dict[str, Any]:
    return {
        "SIZES": trunk.sizes,
        "OFFSETS": _offsets(trunk.sizes),
        "STARTS": tuple(itertools.accumulate(trunk.sizes[1:-1], initial=0)),
        "PADDED": max(16, triton.next_power_of_2(max(trunk.sizes))),
        "ELU": trunk.activation == "elu",
    }


def _constants(settings: AdamSettings) -> dict[str, Any]:
    return {
        "RATE": settings.rate,
        "BETA1": settings.beta1,
        "BETA2": settings.beta2,
        "EPSILON": settings.epsilon,
        "LOG_BETA1": log(settings.beta1),
        "LOG_BETA2": log(settings.beta2),
    }
