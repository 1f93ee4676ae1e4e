"""How a flat vector of generated numbers becomes the weights of an MLP."""

import itertools
from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor
from torch.nn import functional as F

from hypercrl.base.initial_weights import xavier_uniform


class MLPLayout:
    """The tensors of a ReLU MLP, in order W1 b1 W2 b2 …, inside one flat vector.

    Args:
        sizes: widths from input to output, e.g. [12, 200, 200, 10].
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        if len(sizes) < 2 or min(sizes) < 1:
            raise ValueError(f"an MLP needs an input and an output width of at least 1: {sizes}")
        self.sizes = tuple(sizes)
        self.shapes: list[tuple[int, ...]] = []
        for fan_in, fan_out in itertools.pairwise(sizes):
            self.shapes += [(fan_out, fan_in), (fan_out,)]
        self.lengths = [prod(shape) for shape in self.shapes]
        self.numel = sum(self.lengths)
        self.head_numel = sum(self.lengths[-2:])
        """Numbers in the last layer: what a task's own head holds."""

    def split(self, flat: Tensor) -> list[tuple[Tensor, Tensor]]:
        """[numel] → (weight [out, in], bias [out]) per layer, as views; [B, numel] → B of each.

        A trunk [numel − head_numel] is split into all layers but the last.
        """
        count = len(self.lengths) if flat.shape[-1] == self.numel else len(self.lengths) - 2
        parts = flat.split(self.lengths[:count], -1)
        tensors = [
            part.view(*flat.shape[:-1], *shape)
            for part, shape in zip(parts, self.shapes, strict=False)
        ]
        return list(zip(tensors[::2], tensors[1::2], strict=True))

    def apply(self, flat: Tensor, x: Tensor) -> Tensor:
        """The MLP with weights `flat` [numel] on x [..., in] → [..., out].

        With [T, numel] T MLPs, each on its own rows of x [T, N, in].
        """
        return apply_layers(self.split(flat), x)

    def features(self, trunk: Tensor, x: Tensor) -> Tensor:
        """The last hidden layer of the MLP with that trunk, x [..., in] → [..., width].

        x itself where there is none.
        """
        layers = self.split(trunk)
        return torch.relu(apply_layers(layers, x)) if layers else x

    def initial(self, generator: torch.Generator, networks: int = 1) -> Tensor:
        """[numel] fresh weights on the CPU: matrices Xavier-uniform, biases 0.

        Of several networks [networks, numel].
        """
        if networks > 1:
            return torch.stack([self.initial(generator) for _ in range(networks)])
        return torch.cat([xavier_uniform(shape, generator).flatten() for shape in self.shapes])


def hidden_layers(layers: Sequence[tuple[Tensor, Tensor]], x: Tensor) -> list[Tensor]:
    """What `apply_layers` makes of x in each layer but the last, [..., width]."""
    found: list[Tensor] = []
    for layer in layers[:-1]:
        x = torch.relu(_affine(layer, x))
        found.append(x)
    return found


def apply_layers(layers: Sequence[tuple[Tensor, Tensor]], x: Tensor) -> Tensor:
    """A ReLU MLP of one network's layers on x [..., in], or of T networks' on x [T, N, in].

    A layer is weight [out, in] and bias [out], or one of each per network.
    """
    *hidden, last = layers
    for layer in hidden:
        x = torch.relu(_affine(layer, x))
    return _affine(last, x)


def _affine(layer: tuple[Tensor, Tensor], x: Tensor) -> Tensor:
    weight, bias = layer
    if weight.dim() == 2:
        return F.linear(x, weight, bias)
    return torch.baddbmm(bias[:, None], x, weight.mT)
