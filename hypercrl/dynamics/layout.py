"""How a flat vector of generated numbers becomes the weights of an MLP."""

import itertools
from collections.abc import Sequence
from math import prod, sqrt

import torch
from torch import Tensor
from torch.nn import functional as F


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
        """[numel] → (weight [out, in], bias [out]) per layer, as views."""
        parts = flat.split(self.lengths)
        tensors = [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]
        return list(zip(tensors[::2], tensors[1::2], strict=True))

    def apply(self, flat: Tensor, x: Tensor) -> Tensor:
        """The MLP with weights `flat` [numel] on x [..., in] → [..., out]."""
        *hidden, (weight, bias) = self.split(flat)
        for w, b in hidden:
            x = torch.relu(F.linear(x, w, b))
        return F.linear(x, weight, bias)

    def initial(self, generator: torch.Generator) -> Tensor:
        """[numel] fresh weights on the CPU: matrices Xavier-uniform, biases 0."""
        return torch.cat([xavier_uniform(shape, generator).flatten() for shape in self.shapes])


def xavier_uniform(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """U(−a, a) with a = √(6 / (fan_in + fan_out)) for a matrix [out, in]; zeros for a vector."""
    if len(shape) < 2:
        return torch.zeros(*shape)
    bound = sqrt(6.0 / (shape[0] + shape[1]))
    return (torch.rand(*shape, generator=generator) * 2 - 1) * bound
