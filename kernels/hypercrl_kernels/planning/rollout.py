"""Roll a residual ReLU network through a whole horizon for many particles at once."""

import warnings
from functools import cache

import torch
from torch import Tensor

from hypercrl_kernels.planning.packed_layers import (
    PackedLayers,
    Precision,
    layer_sizes,
    mean_layers,
    pack_layers,
    why_not_packed,
)
from hypercrl_kernels.planning.rollout_reference import (
    GaussianLayers,
    Layers,
    LinearPolicies,
    follow_reference,
    rollout_reference,
)


@torch.no_grad()
def rollout(
    layers: Layers | GaussianLayers | PackedLayers,
    state: Tensor,
    controls: Tensor,
    precision: Precision | None = None,
    noise: Tensor | None = None,
    order: Tensor | None = None,
) -> Tensor:
    """Open-loop trajectories s_{t+1} = s_t + f([s_t, u_t]) of a ReLU network f.

    With noise ε_t they are sampled: s_{t+1} = s_t + f + σ ε_t with the σ of `GaussianLayers`.
    With an order the networks of an ensemble take turns: TS1 of Chua et al., "Deep reinforcement
    learning in a handful of trials using probabilistic dynamics models", NeurIPS 2018, section 5.1.

    One Triton kernel on CUDA, torch operations elsewhere and for networks that the kernel does not
    take (float64, no hidden layer, hidden widths above 512), which is said once.

    Args:
        layers: the network f; its input is O + A wide, its output O. Any scaling of inputs and
            outputs is folded into the first and last layer by the caller. Packed once by
            `pack_layers`, or plain layers, which are packed at every call. Of layers with a
            log-variance only the mean is used without noise.
        state: [B, O], one start per robot.
        controls: [B, K, H, A], K particles of horizon H per robot.
        precision: of the products with plain layers, see `prepare_layers`; states are float32
            always.
        noise: [B, K, H, O], standard normal.
        order: [H, B / M, M, K] int64, at each step a permutation of M for every particle: of M
            networks side by side the m-th moves the trajectory order[t, b, m, k]. Layers are plain
            ones, and the operations are torch's.

    Returns:
        [B, K, H + 1, O]: the start, then the H predicted states. The result is a view whose
        horizon axis is outermost in memory. Gradients are not recorded.

    Raises:
        ValueError: shapes that do not fit together, with both named; noise for layers without a
            log-variance; an order for packed layers.
    """
    _check_shapes(layers, state, controls)
    _check_noise(layers, state, controls, noise)
    if order is not None:
        if isinstance(layers, PackedLayers):
            raise ValueError("rollout needs plain layers for an order, one network a robot")
        _check_order(layers, controls, order)
        return rollout_reference(_rounded(layers, precision), state, controls, noise, order)
    if not isinstance(layers, PackedLayers):
        if not _kernel_takes(layers, precision):
            return rollout_reference(_rounded(layers, precision), state, controls, noise)
        layers = pack_layers(layers, precision or "bf16")
    from hypercrl_kernels.planning.rollout_launch import launch_rollout

    return launch_rollout(layers, state, controls, noise)


@torch.no_grad()
def follow(
    layers: Layers | GaussianLayers,
    state: Tensor,
    policies: LinearPolicies,
    noise: Tensor | None = None,
    order: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Closed-loop trajectories s_{t+1} = s_t + f([s_t, u_t]) with u_t = clip(G s_t + o).

    Torch operations on every device.

    Args:
        layers, noise, order: see `rollout`; layers are not packed.
        state: [B, O], one start per robot.
        policies: of K particles per robot, and how long they are followed, H.

    Returns:
        States [B, K, H + 1, O], the start included, and controls [B, K, H, A].

    Raises:
        ValueError: shapes that do not fit together, with both named; noise for layers without a
            log-variance.
    """
    robots, particles, size, width = policies.gains.shape
    controls = policies.offsets[:, :, None].expand(-1, -1, policies.horizon, -1)
    if state.shape != (robots, width) or policies.offsets.shape != (robots, particles, size):
        raise ValueError(
            f"follow needs state [B, O], gains [B, K, A, O] and offsets [B, K, A]; got "
            f"{tuple(state.shape)}, {tuple(policies.gains.shape)} and "
            f"{tuple(policies.offsets.shape)}"
        )
    _check_shapes(layers, state, controls)
    _check_noise(layers, state, controls, noise)
    if order is not None:
        _check_order(layers, controls, order)
    return follow_reference(layers, state, policies, noise, order)


def prepare_layers(
    layers: Layers | GaussianLayers,
    precision: Precision | None = None,
    out: Layers | GaussianLayers | PackedLayers | None = None,
    pack: bool = True,
) -> Layers | GaussianLayers | PackedLayers:
    """What `rollout` is fastest with: packed on CUDA where the kernel takes it, else plain copies.

    Args:
        precision: of the products; None is bf16 in the kernel and the layers' own dtype in torch
            operations. These take "bf16" as bfloat16 weights beyond the first layer: it adds up
            positions, and the others what follows from them.
        out: of an earlier call, written in place, so that a captured CUDA graph sees new weights.
        pack: false for plain copies everywhere, which `follow` needs.

    Raises:
        ValueError: layers of other shapes than `out` holds.
    """
    if pack and _kernel_takes(layers, precision):
        packed = out if isinstance(out, PackedLayers) else None
        return pack_layers(layers, precision or "bf16", packed)
    layers = _rounded(layers, precision)
    if out is None:
        return _copied(layers)
    assert not isinstance(out, PackedLayers)
    for target, value in zip(_tensors(out), _tensors(layers), strict=True):
        if target.shape != value.shape:
            raise ValueError(
                f"out holds a tensor {tuple(target.shape)} where {tuple(value.shape)} is given"
            )
        target.copy_(value)
    return out


def multiplies_bfloat16() -> bool:
    """Whether this processor has instructions for products of bfloat16 (AVX512_BF16, AMX).

    With them torch operations take 0.6 to 0.8 of the time in float32, without them ten times that.
    """
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def _copied(layers: Layers | GaussianLayers) -> Layers | GaussianLayers:
    if isinstance(layers, GaussianLayers):
        weight, bias = layers.head
        return GaussianLayers(
            [(w.clone(), b.clone()) for w, b in layers.mean],
            (weight.clone(), bias.clone()),
            layers.bounds.clone(),
        )
    return [(weight.clone(), bias.clone()) for weight, bias in layers]


def _tensors(layers: Layers | GaussianLayers) -> list[Tensor]:
    own = [*layers.head, layers.bounds] if isinstance(layers, GaussianLayers) else []
    return [*(tensor for layer in mean_layers(layers) for tensor in layer), *own]


def _kernel_takes(layers: Layers | GaussianLayers, precision: Precision | None) -> bool:
    if mean_layers(layers)[0][0].device.type != "cuda":
        return False
    reason = why_not_packed(layers, precision or "bf16")
    if reason is not None:
        _notice(reason)
    return reason is None


def _rounded(
    layers: Layers | GaussianLayers, precision: Precision | None
) -> Layers | GaussianLayers:
    if precision != "bf16":
        return layers
    first, *others = mean_layers(layers)
    mean = [first, *((w.bfloat16(), b.bfloat16()) for w, b in others)]
    if not isinstance(layers, GaussianLayers):
        return mean
    weight, bias = layers.head
    return GaussianLayers(mean, (weight.bfloat16(), bias.bfloat16()), layers.bounds)


def _check_shapes(
    layers: Layers | GaussianLayers | PackedLayers, state: Tensor, controls: Tensor
) -> None:
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


def _check_noise(
    layers: Layers | GaussianLayers | PackedLayers,
    state: Tensor,
    controls: Tensor,
    noise: Tensor | None,
) -> None:
    if noise is None:
        return
    packed = isinstance(layers, PackedLayers) and layers.head is not None
    if not packed and not isinstance(layers, GaussianLayers):
        raise ValueError("rollout samples with noise only from layers with a log-variance")
    wanted = (*controls.shape[:3], state.shape[1])
    if noise.shape != wanted:
        raise ValueError(
            f"rollout needs noise [B, K, H, O], here {wanted}; got {tuple(noise.shape)}"
        )


def _check_order(layers: Layers | GaussianLayers, controls: Tensor, order: Tensor) -> None:
    robots, particles, horizon = controls.shape[:3]
    weight = mean_layers(layers)[0][0]
    own = weight.dim() == 3 and len(weight) == robots
    steps, groups, members, each = order.shape if order.dim() == 4 else (0, 0, 0, 0)
    if not own or (steps, groups * members, each) != (horizon, robots, particles):
        raise ValueError(
            f"rollout needs an order [H, B / M, M, K] for {horizon} steps and {particles} "
            f"particles of {robots} robots with a network each; got {tuple(order.shape)} and "
            f"weights {tuple(weight.shape)}"
        )


@cache
def _notice(reason: str) -> None:
    warnings.warn(f"rollout runs as torch operations instead of one kernel: {reason}", stacklevel=3)
