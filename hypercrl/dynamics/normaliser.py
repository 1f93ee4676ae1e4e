"""Affine scaling of inputs and targets that never moves under trained weights."""

import torch
from torch import Tensor, nn

STILL = 1e-3
"""Of the largest motion: a dimension that moves less has not moved yet."""

SMALLEST = 1e-2
"""Of the largest motion: the smallest scale, so that noise is not blown up."""


class Normaliser(nn.Module):
    """Maps x to (x − mean) / scale with one pair of numbers a dimension, shared by all tasks.

    Chosen: a dimension is fitted on the random steps of the **first task in which it moves**, and
    is frozen from then on, for every task.
    Why: trained weights are a function of scaled inputs, so refreshing a scale changes every old
    task's model although no weight moved; and a scale per task would leak the task's identity and
    make a model look as if it had forgotten when only its ruler changed. A dimension that stood
    still in all tasks so far (the knob of a door with a bar, zeros of padding) was an input of 0 to
    every model: giving it its scale later changes none of them, and without one its first motion
    would be hundreds of units long.
    """

    mean: Tensor
    scale: Tensor
    fitted: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.register_buffer("fitted", torch.zeros(width, dtype=torch.bool))

    def fit(self, x: Tensor) -> None:
        """Fit to x [N, width], in place, what is not frozen.

        The mean is that of the first x ever. The scale is the root mean square of x − mean: at
        first the standard deviation. Dimensions that move are frozen; one that stands still is
        scaled by the largest motion for the time being, which leaves it still.
        """
        self.mean.copy_(torch.where(self.fitted.any(), self.mean, x.mean(0)))
        motion = (x - self.mean).square().mean(0).sqrt()
        largest = motion.max().clamp_min(1e-8)
        moves = motion > STILL * largest
        scale = torch.where(moves, motion.clamp_min(SMALLEST * largest), largest)
        self.scale.copy_(torch.where(self.fitted, self.scale, scale))
        self.fitted.logical_or_(moves)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.scale
