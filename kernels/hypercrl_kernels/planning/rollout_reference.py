"""The rollout in torch operations: the CPU path, and what the kernel is compared with."""

from collections.abc import Sequence

import torch
from torch import Tensor

Layers = Sequence[tuple[Tensor, Tensor]]
"""Per layer (weight, bias): weight [out, in] and bias [out], shared by all robots, or weight
[B, out, in] and bias [B, out], one network a robot."""


def rollout_reference(layers: Layers, state: Tensor, controls: Tensor) -> Tensor:
    """Trajectories [B, K, H + 1, O] in the precision of the tensors; see `rollout`.

    A layer computes in the dtype of its weights, and states have that of the controls.
    """
    robots, particles, horizon, _ = controls.shape
    width = state.shape[-1]
    per_robot = layers[0][0].dim() == 3
    rows = (robots, particles) if per_robot else (robots * particles,)

    # One buffer holds [state, control] for every step: a layer reads a row block of it in place.
    inputs = controls.new_empty(horizon + 1, robots, particles, width + controls.shape[-1])
    inputs[:horizon, ..., width:] = controls.permute(2, 0, 1, 3)
    inputs[0, ..., :width] = state[:, None]
    flat = inputs.view(horizon + 1, *rows, -1)
    steps, states = flat.unbind(), flat[..., :width].unbind()
    *hidden, (weight, bias) = layers
    units = [(w.mT, b[..., None, :], w.dtype, w.new_empty(*rows, w.shape[-2])) for w, b in hidden]
    # Few outputs are multiplied faster as the rows of a product than as its columns.
    offset, change = bias[..., None], weight.new_empty(*weight.shape[:-2], width, rows[-1])
    affine = torch.baddbmm if per_robot else torch.addmm
    for t in range(horizon):
        x = steps[t]
        for matrix, shift, dtype, out in units:
            x = affine(shift, x.to(dtype), matrix, out=out).relu_()
        affine(offset, weight, x.to(weight.dtype).mT, out=change)
        torch.add(states[t], change.mT, out=states[t + 1])
    return inputs[..., :width].permute(1, 2, 0, 3)
