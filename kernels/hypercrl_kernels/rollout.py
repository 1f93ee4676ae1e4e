"""Roll a residual ReLU network through a whole horizon for many particles at once.

This module knows nothing of robots: a state, a control, and layers that map both to the change of
the state. The torch reference lives here; it is the CPU path and, captured in a CUDA graph, the GPU
path.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

Layers = Sequence[tuple[Tensor, Tensor]]
"""Per layer (weight, bias): weight [out, in] and bias [out], shared by all robots, or weight
[B, out, in] and bias [B, out], one network a robot."""


@torch.no_grad()
def rollout(layers: Layers, state: Tensor, controls: Tensor) -> Tensor:
    """Open-loop trajectories s_{t+1} = s_t + f([s_t, u_t]) of a ReLU network f.

    Args:
        layers: the network f; its input is O + A wide, its output O. Any scaling of inputs and
            outputs is folded into the first and last layer by the caller.
        state: [B, O], one start per robot.
        controls: [B, K, H, A], K particles of horizon H per robot.

    Returns:
        [B, K, H + 1, O]: the start, then the H predicted states. The result is a view whose
        horizon axis is outermost in memory. Gradients are not recorded.

    Raises:
        ValueError: shapes that do not fit together, with both named.
    """
    _check_shapes(layers, state, controls)
    robots, particles, horizon, _ = controls.shape
    width = state.shape[-1]
    per_robot = layers[0][0].dim() == 3
    rows = (robots, particles) if per_robot else (robots * particles,)

    # One buffer holds [state, control] for every step: a layer reads a row block of it in place.
    inputs = controls.new_empty(horizon + 1, robots, particles, width + controls.shape[-1])
    inputs[:horizon, ..., width:] = controls.permute(2, 0, 1, 3)
    inputs[0, ..., :width] = state[:, None]
    flat = inputs.view(horizon + 1, *rows, -1)
    for t in range(horizon):
        change = _forward(layers, flat[t])
        torch.add(flat[t, ..., :width], change, out=flat[t + 1, ..., :width])
    return inputs[..., :width].permute(1, 2, 0, 3)


def _forward(layers: Layers, x: Tensor) -> Tensor:
    last = len(layers) - 1
    for i, (weight, bias) in enumerate(layers):
        if weight.dim() == 3:
            x = torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))
        else:
            x = torch.addmm(bias, x, weight.t())
        if i < last:
            x.relu_()
    return x


def _check_shapes(layers: Layers, state: Tensor, controls: Tensor) -> None:
    if state.dim() != 2 or controls.dim() != 4 or state.shape[0] != controls.shape[0]:
        raise ValueError(
            f"rollout needs state [B, O] and controls [B, K, H, A] with one B; got "
            f"{tuple(state.shape)} and {tuple(controls.shape)}"
        )
    fan_in, fan_out = layers[0][0].shape[-1], layers[-1][0].shape[-2]
    wanted = state.shape[1] + controls.shape[3]
    if fan_in != wanted or fan_out != state.shape[1]:
        raise ValueError(
            f"rollout needs a network from {wanted} inputs (state and control) to "
            f"{state.shape[1]} outputs (state); its layers go from {fan_in} to {fan_out}"
        )
