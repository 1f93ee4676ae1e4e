"""Action sequences through a few knots: a search in fewer numbers, and of smooth sequences.

Howell et al., "Predictive sampling: real-time behaviour synthesis with MuJoCo", 2022, sample the
knots of a spline instead of all actions. White noise averages out over the steps of a horizon
before a robot has gone anywhere; the noise of a knot acts on all steps around it.
"""

import torch
from torch import Tensor

INTERPOLATIONS = ("linear", "cubic")


class Knots:
    """Evenly spaced over the horizon: knot k stands at step k (H - 1) / (K - 1); one knot holds.

    Both interpolations are linear in the knots, so that each is one fixed matrix.

    Args:
        count: K, from 1 to H.
        horizon: H, steps of a sequence.
        interpolation: "linear", or "cubic", the natural spline; two knots make a line anyway.
        low, high: [A] action bounds: where a cubic swings beyond them, it is clipped.
    """

    def __init__(
        self, count: int, horizon: int, interpolation: str, low: Tensor, high: Tensor
    ) -> None:
        self.low, self.high = low, high
        every = torch.arange(horizon, dtype=torch.float64)
        own = torch.linspace(0, horizon - 1, count, dtype=torch.float64)
        later = (own + 1).clamp_max(horizon - 1)
        self._every = interpolation_matrix(own, every, interpolation).to(low)
        self._later = interpolation_matrix(own, later, interpolation).to(low)

    def actions(self, knots: Tensor) -> Tensor:
        """[B, N, K, A] → [B, N, H, A], the sequences through them."""
        return self._at(self._every, knots)

    def moved_on(self, knots: Tensor) -> Tensor:
        """[B, N, K, A] one step later, on the same sequences, whose last action is repeated."""
        return self._at(self._later, knots)

    def _at(self, matrix: Tensor, knots: Tensor) -> Tensor:
        values = torch.einsum("hk,bnka->bnha", matrix, knots)
        return values.clamp(self.low, self.high).contiguous()


def interpolation_matrix(knots: Tensor, times: Tensor, interpolation: str) -> Tensor:
    """[T, K]: values at `times` [T] of the function through values at `knots` [K] are its product.

    Cubic is the natural spline, whose second derivatives M are 0 at both ends: for distances h
    between knots that are all alike M_{k−1} + 4 M_k + M_{k+1} = 6 (y_{k−1} − 2 y_k + y_{k+1}) / h².
    """
    count = len(knots)
    values = torch.eye(count, dtype=knots.dtype)
    if count == 1:
        return values.expand(len(times), 1).clone()
    width = knots[1] - knots[0]
    left = ((times - knots[0]) / width).floor().long().clamp(0, count - 2)
    b = (times - knots[left])[:, None] / width
    a = 1 - b
    line = a * values[left] + b * values[left + 1]
    if interpolation == "linear" or count == 2:
        return line
    inner = values[:-2] - 2 * values[1:-1] + values[2:]
    system = 4 * torch.eye(count - 2, dtype=knots.dtype)
    system.diagonal(1).fill_(1)
    system.diagonal(-1).fill_(1)
    bend = torch.zeros_like(values)  # M h² / 6
    bend[1:-1] = torch.linalg.solve(system, inner)
    return line + (a**3 - a) * bend[left] + (b**3 - b) * bend[left + 1]
