"""Where a search stands between two iterations, and what can be seen of each of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True)
class Search:
    """What an iteration starts from: the distribution fitted by the last one, and its best samples.

    Attributes:
        mean, std: [B, H, A] of the action sequences; at first the start, and `planner.std`.
        best: [B, H, A], the best sample of the last iteration; at first the mean.
        kept: [B, N − 1, H, A], what the planner carries beside the mean.
        iteration: how many there have been.
    """

    mean: Tensor
    std: Tensor
    best: Tensor
    kept: Tensor
    iteration: int = 0

    @property
    def carried(self) -> Tensor:
        """[B, N, H, A]: the mean and what is kept."""
        mean = self.mean[:, None]
        return torch.cat([mean, self.kept], dim=1) if self.kept.shape[1] else mean


@dataclass(frozen=True)
class Iteration:
    """What one iteration came to, for each robot: every value is [B], left on the device.

    Attributes:
        elite_return: mean return of the best `planner.elites` samples.
        best_return: the best sample's.
        spread: standard deviation that was fitted, its mean over steps and actions.
        shift: root mean square of what the mean was moved by, over steps and actions.

    Spread and shift are in units of half the action range, as `planner.std` is.
    """

    elite_return: Tensor
    best_return: Tensor
    spread: Tensor
    shift: Tensor


Watch = Callable[[Iteration], None]
"""Called after every iteration, in order. In a CUDA graph it must not wait for the device."""

Stop = Callable[[], bool]
"""Whether a search ends with the iterations that it has had; may wait for the device."""

VALUES = tuple(field.name for field in fields(Iteration))


def stacked(iterations: Sequence[Iteration]) -> Tensor:
    """[M, 4, B] of M iterations, the values in the order of `VALUES`."""
    return torch.stack([torch.stack([getattr(one, name) for name in VALUES]) for one in iterations])


def medians(searches: Sequence[Tensor]) -> list[dict[str, float]]:
    """Of each iteration the median of every value over searches, each [M, 4, B], and robots."""
    if not searches:
        return []
    middle = torch.cat(list(searches), -1).nanmedian(-1).values
    return [dict(zip(VALUES, row, strict=True)) for row in middle.tolist()]
