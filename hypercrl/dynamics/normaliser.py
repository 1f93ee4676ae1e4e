"""Affine scaling of inputs and targets that never moves under trained weights."""

import torch
from torch import Tensor, nn

ROUNDINGS = 2.0
"""Of a dimension's largest number in float32: what moves less stands still."""

OUTGROWN = 10.0
"""In scales: a dimension that moves so much was only trembling when its scale was fitted."""

TREMBLED = 1e4
"""In scales: the same of a dimension that trembled in tasks before. More than it, as those are to
be left alone: no task's motion is so much another's."""

NEVER = 2**62
"""The task in which a dimension that has not moved yet moves."""

_FLOAT32 = torch.finfo(torch.float32)


class Normaliser(nn.Module):
    """Maps x to (x − mean) / scale with one pair of numbers a dimension, shared by all tasks.

    Whether a dimension moves, and its scale, come from its own numbers alone: it moves if it moves
    by more than rounding does, and its scale is the root mean square of x − mean. So the unit that
    it is measured in is of no account, and what is small beside another dimension is not left out.

    A dimension is fitted on the random steps of the **first task in which it moves**, and is frozen
    from then on, for every task. Trained weights are a function of scaled inputs, so refreshing a
    scale changes every old task's model although no weight moved; and a scale per task would leak
    the task's identity and make a model look as if it had forgotten when only its ruler changed.

    What has stood still in all tasks so far (a latch, the knob of a door with a bar, zeros of
    padding) has the scale ∞: it is an input of 0 and a target of 0 to every model. Giving it a
    scale changes none of them, as its mean, the constant, stays. So this may happen in the middle
    of a task too, by `follow`: the scale of what first moves after the random steps follows the
    data until the task has ended. As a target, and to a planner as an input, it is `moving` only
    from that task on.

    Attributes:
        since: [width] the first task in which a dimension moved, or `NEVER`.
        following: [width] whether its scale follows the data of the present task.
        fits: tasks begun.
    """

    mean: Tensor
    scale: Tensor
    since: Tensor
    following: Tensor
    fits: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(width))
        self.register_buffer("since", torch.full((width,), NEVER))
        self.register_buffer("following", torch.ones(width, dtype=torch.bool))
        self.register_buffer("fits", torch.zeros((), dtype=torch.int64))

    def fit(self, x: Tensor, size: Tensor | None = None, least: Tensor | None = None) -> None:
        """Fit to the random steps of the next task, in place, what has not moved before.

        The mean is that of the first x ever.

        Args:
            x: [N, width].
            size: [width] the largest of the numbers that x was computed from, which says how
                finely it is known; without it, of x.
            least: [width] the smallest scale.
        """
        if not self.fits:
            # A sum of constants is rounded, and their mean would not be the constant.
            self.mean.copy_(x.mean(0).clamp(x.amin(0), x.amax(0)))
        motion = self._motion(x)
        scale = motion if least is None else motion.maximum(least)
        scale = torch.where(motion > _rounding(x, size), scale, torch.inf)
        fitted = (self.since < NEVER) & (motion <= TREMBLED * self.scale)
        self.since.copy_(torch.where(fitted, self.since, self.fits))
        self.scale.copy_(torch.where(fitted, self.scale, scale))
        self.since.masked_fill_(self.scale == torch.inf, NEVER)
        self.following.copy_(self.since == NEVER)
        self.fits.add_(1)

    def follow(self, x: Tensor, size: Tensor | None = None, least: Tensor | None = None) -> None:
        """Take on, in place, the scales that are `wanted` by what the present task has shown."""
        wanted = self.wanted(x, size, least)
        changed = wanted != self.scale
        self.following |= changed
        self.scale.copy_(wanted)
        self.since.copy_(torch.where(changed, self.fits - 1, self.since))

    def wanted(self, x: Tensor, size: Tensor | None = None, least: Tensor | None = None) -> Tensor:
        """[width] the scales that x [N, width], all of the present task so far, asks for.

        New are those of dimensions that stood still during its random steps, of those that first
        moved in it and have outgrown their scale, and of those that only trembled before. With
        d = x − mean the new scale is √(Σ d⁴ / Σ d²), the size of the motion while there is some:
        the root mean square over mostly still steps would make outliers of the few in which it
        moves.
        """
        motion = self._motion(x)
        outgrown = (self.since == self.fits - 1) & (motion > OUTGROWN * self.scale)
        distance = (x - self.mean).abs()
        largest = distance.amax(0).clamp_min(_FLOAT32.tiny)
        squares = (distance / largest).square()
        share = squares.square().mean(0) / squares.mean(0).clamp_min(_FLOAT32.tiny)
        moving = largest * share.sqrt()
        scale = moving if least is None else moving.maximum(least)
        moves = moving > _rounding(x, size)
        trembled = moving > TREMBLED * self.scale
        return torch.where((self.following | outgrown | trembled) & moves, scale, self.scale)

    def _motion(self, x: Tensor) -> Tensor:
        """[width] root mean square of x − mean."""
        return (x - self.mean).square().mean(0).sqrt()

    def moving(self, task: int | None = None) -> Tensor:
        """[width] whether a dimension had moved by the end of task `task` (from 0), or by now."""
        return self.scale < torch.inf if task is None else self.since <= task

    def reach(self, task: int | None = None) -> Tensor:
        """[width] what turns scaled motion back: the scale, 0 of what was not `moving`."""
        return torch.where(self.moving(task), self.scale, 0.0)

    def since_then(self, scale: Tensor) -> Tensor:
        """[width] what turns numbers in units of an earlier scale into the present ones.

        1 where there was none: 0 was all that stood still.
        """
        return torch.where(scale.isfinite(), scale / self.scale, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.scale


def _rounding(x: Tensor, size: Tensor | None) -> Tensor:
    """[width] motion below which float32 does not tell it from standing still."""
    size = x.abs().amax(0) if size is None else size
    return (ROUNDINGS * _FLOAT32.eps * size).clamp_min(_FLOAT32.tiny)
