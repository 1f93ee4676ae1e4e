"""The rollout in torch operations: the CPU path, and what the kernel is compared with."""

from collections.abc import Sequence

import torch
from torch import Tensor

Layers = Sequence[tuple[Tensor, Tensor]]
"""Per layer (weight, bias): weight [out, in] and bias [out], shared by all robots, or weight
[B, out, in] and bias [B, out], one network a robot."""


def rollout_reference(layers: Layers, state: Tensor, controls: Tensor) -> Tensor:
    """Trajectories [B, K, H + 1, O] in the precision of the tensors; see `rollout`."""
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
