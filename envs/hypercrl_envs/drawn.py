"""A parameter of a task: numbers, or ranges of which every episode draws one anew.

A task lists those that an episode may draw in `SimulatedTask.drawn`, which draws them with the
task's own generator and appends them to the saved physics. The law of a draw is its class.
"""

from __future__ import annotations

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from numbers import Real

import numpy as np

from hypercrl_envs.checked import is_number

Value = float | Sequence[float]
"""A number, or a range [low, high]."""


class Drawn(ABC):
    """N numbers, each fixed or drawn for every episode.

    Attributes:
        name: of the parameter, for messages.
        low, high: [N] ends of the ranges, equal where a number is fixed.
        varies: whether an episode draws: then all N are drawn, so that a range takes the same
            numbers from the generator wherever it stands.
        values: [N] of this episode; before the first, the middle of the ranges.
    """

    def __init__(self, name: str, low: np.ndarray, high: np.ndarray) -> None:
        self.name = name
        self.low, self.high = low, high
        self.varies = bool((low < high).any())
        self.values = (low + high) / 2

    @abstractmethod
    def _sample(self, rng: np.random.Generator) -> np.ndarray:
        """Values [N] for one episode."""

    @property
    def value(self) -> float:
        """The number of a parameter that is one (N = 1)."""
        return float(self.values.item())

    def text(self, unit: str = "", to: str = "–") -> str:
        """For captions: "500", "100–1000", "100 | 500" or, with its unit, "-90° to 90°"."""
        return " | ".join(
            f"{low:g}{unit}" if low == high else f"{low:g}{unit}{to}{high:g}{unit}"
            for low, high in zip(self.low, self.high, strict=True)
        )

    def draw(self, rng: np.random.Generator) -> None:
        """Draw the values of an episode; what is fixed stays, and takes nothing from `rng`."""
        if self.varies:
            self.values = self._sample(rng)

    def state(self) -> np.ndarray:
        """What a saved state has of it: the values [N] if episodes draw them, else nothing."""
        return self.values if self.varies else self.values[:0]

    def split(self, physics: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What stands before the values in a saved state, and the values [N].

        Raises:
            ValueError: they are not values that an episode may have.
        """
        if not self.varies:
            return physics, self.values
        rest, values = physics[: -self.low.size], physics[-self.low.size :].copy()
        if values.size < self.low.size or not self._allows(values):
            raise ValueError(f"a state of this task ends in its {self.name}, not {values}")
        return rest, values

    def _allows(self, values: np.ndarray) -> bool:
        return bool(((self.low <= values) & (values <= self.high)).all())


class LogUniform(Drawn):
    """A positive quantity whose ratios count: drawn uniformly in its logarithm.

    An observation shows the logarithm, from -1 at the least value that the task takes to 1 at the
    largest.
    """

    def __init__(
        self,
        name: str,
        given: Value | Sequence[Value],
        limits: tuple[float, float],
        wanted: str,
        count: int = 1,
    ) -> None:
        """
        Args:
            given: a number or range; a sequence of them if `count` (N) is more than one.
            limits: least and largest value that the task takes.
            wanted: ends the message "`name` must be …".

        Raises:
            ValueError: values that are neither numbers nor ranges, or beyond `limits`.
        """
        self._limits = limits
        super().__init__(name, *_ends(name, given, limits, wanted, count))

    def _sample(self, rng: np.random.Generator) -> np.ndarray:
        # Rounding may step over an end.
        exponents = rng.uniform(np.log(self.low), np.log(self.high))
        return np.exp(exponents).clip(self.low, self.high)

    def told(self) -> np.ndarray:
        """What an observation shows of it: [N]."""
        low, high = np.log(self._limits)
        return 2.0 * (np.log(self.values) - low) / (high - low) - 1.0


class Angle(Drawn):
    """An angle in degrees, drawn uniformly; an observation shows its cosine and sine."""

    def __init__(self, name: str, given: Value, wanted: str) -> None:
        """
        Args:
            given: a number or range.
            wanted: ends the message "`name` must be …".

        Raises:
            ValueError: it is neither, or not finite.
        """
        finite = -sys.float_info.max, sys.float_info.max
        super().__init__(name, *_ends(name, given, finite, wanted))

    def _sample(self, rng: np.random.Generator) -> np.ndarray:
        return rng.uniform(self.low, self.high)

    def told(self) -> np.ndarray:
        """What an observation shows of it: [2]."""
        angle = math.radians(self.value)
        return np.array([math.cos(angle), math.sin(angle)])


class Choice(Drawn):
    """Which of several things an episode has, by its number; at first it is number 0."""

    def __init__(self, name: str, count: int, least: int = 0) -> None:
        """
        Args:
            count: things are numbered from 0 to `count` - 1.
            least: number that the draws begin at, where thing 0 is what an episode starts with.
        """
        super().__init__(name, np.array([float(min(least, count - 1))]), np.array([count - 1.0]))
        self.varies = count > 1
        self.values = np.zeros(1)

    def _sample(self, rng: np.random.Generator) -> np.ndarray:
        return np.array([float(rng.integers(int(self.low[0]), int(self.high[0]) + 1))])

    def _allows(self, values: np.ndarray) -> bool:
        return values.item() in range(int(self.high[0]) + 1)


def _ends(
    name: str,
    given: Value | Sequence[Value],
    limits: tuple[float, float],
    wanted: str,
    count: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest value [N] of each number."""
    try:
        ranges = [_range(given)] if count == 1 else [_range(each) for each in given]  # type: ignore[reportGeneralTypeIssues]
    except (TypeError, ValueError):
        ranges = []
    least, most = limits
    if len(ranges) != count or not all(least <= low <= high <= most for low, high in ranges):
        raise ValueError(f"{name} must be {wanted}, not {given!r}")
    low, high = np.transpose(ranges)
    return low, high


def _range(value: object) -> tuple[float, float]:
    low, high = (value, value) if isinstance(value, Real) else value  # type: ignore[reportGeneralTypeIssues]
    if not (is_number(low) and is_number(high)):
        raise ValueError(f"not a number: {value!r}")
    return float(low), float(high)
