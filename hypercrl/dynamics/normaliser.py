"""Affine scaling of inputs and targets that never moves under trained weights."""

import torch
from torch import Tensor, nn

STILL = 1e-3
"""Of the largest motion: a dimension that moves less has not moved yet."""

SMALLEST = 1e-2
"""Of the largest motion: the smallest scale, so that noise is not blown up."""


NEVER = 2**62
"""The task in which a dimension that has not moved yet moves."""


class Normaliser(nn.Module):
    """Maps x to (x − mean) / scale with one pair of numbers a dimension, shared by all tasks.

    Chosen: a dimension is fitted on the random steps of the **first task in which it moves**, and
    is frozen from then on, for every task.
    Why: trained weights are a function of scaled inputs, so refreshing a scale changes every old
    task's model although no weight moved; and a scale per task would leak the task's identity and
    make a model look as if it had forgotten when only its ruler changed. A dimension that stood
    still in all tasks so far (the knob of a door with a bar, zeros of padding) was an input of 0 to
    every model: giving it its scale later changes none of them, and without one its first motion
    would be hundreds of units long. As a target it is `moving` only from that task on.
    """

    mean: Tensor
    scale: Tensor
    since: Tensor
    fits: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.register_buffer("since", torch.full((width,), NEVER))
        self.register_buffer("fits", torch.zeros((), dtype=torch.int64))

    def fit(self, x: Tensor) -> None:
        """Fit to x [N, width] of the next task, in place, what is not frozen.

        The mean is that of the first x ever. The scale is the root mean square of x − mean: at
        first the standard deviation. Dimensions that move are frozen; one that stands still is
        scaled by the largest motion for the time being, which leaves it still.
        """
        self.mean.copy_(torch.where(self.fits > 0, self.mean, x.mean(0)))
        motion = (x - self.mean).square().mean(0).sqrt()
        largest = motion.max().clamp_min(1e-8)
        moves = motion > STILL * largest
        scale = torch.where(moves, motion.clamp_min(SMALLEST * largest), largest)
        self.scale.copy_(torch.where(self.since < NEVER, self.scale, scale))
        self.since.copy_(torch.where(moves, self.since.minimum(self.fits), self.since))
        self.fits.add_(1)

    def moving(self, task: int) -> Tensor:
        """[width] whether a dimension had moved by the end of task `task` (from 0)."""
        return self.since <= task

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.scale
