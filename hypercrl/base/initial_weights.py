"""What networks begin with."""

from collections.abc import Sequence
from math import sqrt

import torch
from torch import Tensor


def xavier_uniform(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """U(−a, a) with a = √(6 / (fan_in + fan_out)) for a matrix [out, in]; zeros for a vector."""
    if len(shape) < 2:
        return torch.zeros(*shape)
    bound = sqrt(6.0 / (shape[0] + shape[1]))
    return (torch.rand(*shape, generator=generator) * 2 - 1) * bound
