"""Roll a residual ReLU network through a whole horizon for many particles at once."""

import warnings
from functools import cache

import torch
from torch import Tensor

from hypercrl_kernels.planning.packed_layers import (
    PackedLayers,
    Precision,
    layer_sizes,
    pack_layers,
    why_not_packed,
)
from hypercrl_kernels.planning.rollout_reference import Layers, rollout_reference


@torch.no_grad()
def rollout(
    layers: Layers | PackedLayers,
    state: Tensor,
    controls: Tensor,
    precision: Precision | None = None,
) -> Tensor:
    """Open-loop trajectories s_{t+1} = s_t + f([s_t, u_t]) of a ReLU network f.

    One Triton kernel on CUDA, torch operations elsewhere and for networks that the kernel does not
    take (float64, no hidden layer, hidden widths above 512), which is said once.

    Args:
        layers: the network f; its input is O + A wide, its output O. Any scaling of inputs and
            outputs is folded into the first and last layer by the caller. Packed once by
            `pack_layers`, or plain layers, which are packed at every call.
        state: [B, O], one start per robot.
        controls: [B, K, H, A], K particles of horizon H per robot.
        precision: of the products with plain layers, see `prepare_layers`; states are float32
            always.

    Returns:
        [B, K, H + 1, O]: the start, then the H predicted states. The result is a view whose
        horizon axis is outermost in memory. Gradients are not recorded.

    Raises:
        ValueError: shapes that do not fit together, with both named.
    """
    _check_shapes(layers, state, controls)
    if not isinstance(layers, PackedLayers):
        if not _kernel_takes(layers, precision):
            return rollout_reference(_rounded(layers, precision), state, controls)
        layers = pack_layers(layers, precision or "bf16")
    from hypercrl_kernels.planning.rollout_launch import launch_rollout

    return launch_rollout(layers, state, controls)


def prepare_layers(
    layers: Layers,
    precision: Precision | None = None,
    out: Layers | PackedLayers | None = None,
) -> Layers | PackedLayers:
    """What `rollout` is fastest with: packed on CUDA where the kernel takes it, else plain copies.

    Args:
        precision: of the products; None is bf16 in the kernel and the layers' own dtype in torch
            operations. These take "bf16" as bfloat16 weights beyond the first layer: it adds up
            positions, and the others what follows from them.
        out: of an earlier call, written in place, so that a captured CUDA graph sees new weights.

    Raises:
        ValueError: layers of other shapes than `out` holds.
    """
    if _kernel_takes(layers, precision):
        packed = out if isinstance(out, PackedLayers) else None
        return pack_layers(layers, precision or "bf16", packed)
    layers = _rounded(layers, precision)
    if out is None:
        return [(weight.clone(), bias.clone()) for weight, bias in layers]
    assert not isinstance(out, PackedLayers)
    for kept, given in zip(out, layers, strict=True):
        for target, value in zip(kept, given, strict=True):
            if target.shape != value.shape:
                raise ValueError(
                    f"out holds a tensor {tuple(target.shape)} where {tuple(value.shape)} is given"
                )
            target.copy_(value)
    return out


def _kernel_takes(layers: Layers, precision: Precision | None) -> bool:
    if layers[0][0].device.type != "cuda":
        return False
    reason = why_not_packed(layers, precision or "bf16")
    if reason is not None:
        _notice(reason)
    return reason is None


def _rounded(layers: Layers, precision: Precision | None) -> Layers:
    if precision != "bf16":
        return layers
    first, *others = layers
    return [first, *((w.bfloat16(), b.bfloat16()) for w, b in others)]


def _check_shapes(layers: Layers | PackedLayers, state: Tensor, controls: Tensor) -> None:
    if state.dim() != 2 or controls.dim() != 4 or state.shape[0] != controls.shape[0]:
        raise ValueError(
            f"rollout needs state [B, O] and controls [B, K, H, A] with one B; got "
            f"{tuple(state.shape)} and {tuple(controls.shape)}"
        )
    packed = isinstance(layers, PackedLayers)
    sizes = layers.sizes if packed else layer_sizes(layers)
    wanted = state.shape[1] + controls.shape[3]
    if sizes[0] != wanted or sizes[-1] != state.shape[1]:
        raise ValueError(
            f"rollout needs a network from {wanted} inputs (state and control) to "
            f"{state.shape[1]} outputs (state); its layers go from {sizes[0]} to {sizes[-1]}"
        )
    if packed and layers.networks not in (1, len(state)):
        raise ValueError(
            f"rollout needs one network or one per robot; got {layers.networks} networks for "
            f"{len(state)} robots"
        )


@cache
def _notice(reason: str) -> None:
    warnings.warn(f"rollout runs as torch operations instead of one kernel: {reason}", stacklevel=3)
