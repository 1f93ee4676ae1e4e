"""The trunk of a hypernetwork, the small MLP below its last layer, and its gradients by hand."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

WIDEST = 128
"""Width of a layer that the kernels' programs hold whole; wider trunks are torch operations."""

_ACTIVATIONS = {"elu": F.elu, "relu": F.relu}


@dataclass(frozen=True)
class Trunk:
    """Widths from the embedding to the last hidden layer, and the activation after every layer.

    Its parameters are flat: weight [out, in] and bias [out] of one layer after another.
    """

    sizes: tuple[int, ...]
    activation: str

    @property
    def numel(self) -> int:
        """Numbers of its parameters."""
        return sum((fan_in + 1) * fan_out for fan_in, fan_out in itertools.pairwise(self.sizes))

    @property
    def outputs(self) -> int:
        """Numbers of all layers' outputs for one row."""
        return sum(self.sizes[1:])

    def fits(self, x: Tensor) -> bool:
        """Whether kernels compute it where x lies."""
        return fits(x, max(self.sizes))


def layer_offsets(sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Where each layer's weight begins among the flat parameters of an MLP of these widths."""
    numbers = [(fan_in + 1) * fan_out for fan_in, fan_out in itertools.pairwise(sizes)]
    return tuple(itertools.accumulate(numbers[:-1], initial=0))


def fits(x: Tensor, width: int) -> bool:
    """Whether kernels compute layers of this width where x lies."""
    return x.is_cuda and x.dtype == torch.float32 and width <= WIDEST


def trunk_outputs(flat: Tensor, x: Tensor, trunk: Trunk) -> Tensor:
    """All layers' outputs, [T, width] one after another, flat; x [T, E]."""
    outputs = []
    for weight, bias in _layers(flat, trunk):
        x = _ACTIVATIONS[trunk.activation](F.linear(x, weight, bias))
        outputs.append(x.flatten())
    return torch.cat(outputs)


def trunk_gradients(
    flat: Tensor, x: Tensor, outputs: Tensor, slope: Tensor, trunk: Trunk
) -> tuple[Tensor, Tensor]:
    """Gradients of the parameters and of x, from `slope` [T, width] of the last layer's outputs."""
    found = []
    values = [x, *_rows(outputs, len(x), trunk)]
    layers = list(zip(_layers(flat, trunk), itertools.pairwise(values), strict=True))
    for (weight, _), (below, h) in reversed(layers):
        slope = slope * torch.where(h > 0, 1.0, h + 1.0 if trunk.activation == "elu" else 0.0)
        found += [slope.sum(0), (slope.mT @ below).flatten()]
        slope = slope @ weight
    return torch.cat(found[::-1]), slope


def _layers(flat: Tensor, trunk: Trunk) -> list[tuple[Tensor, Tensor]]:
    layers = []
    for fan_in, fan_out in itertools.pairwise(trunk.sizes):
        weight, bias, flat = flat.tensor_split([fan_in * fan_out, (fan_in + 1) * fan_out])
        layers.append((weight.view(fan_out, fan_in), bias))
    return layers


def _rows(outputs: Tensor, count: int, trunk: Trunk) -> list[Tensor]:
    """[count, width] of each layer."""
    widths = trunk.sizes[1:]
    parts = outputs.split([count * width for width in widths])
    return [part.view(count, width) for part, width in zip(parts, widths, strict=True)]
