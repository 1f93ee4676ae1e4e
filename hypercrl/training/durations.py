"""How long something took each time, in bounded room however often that was."""

from dataclasses import dataclass, field
from math import floor, log

RATIO = 1.01
"""Of a bin's limits: a median is off by half a per cent at most."""
SHORTEST, LONGEST = 1e-9, 1e9


@dataclass
class Durations:
    """A histogram over the logarithm of the seconds, of 4167 bins at most.

    Attributes:
        counts: bin → how many; those of bin b took from RATIO^b to RATIO^(b + 1) seconds.
    """

    counts: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.counts = {int(place): number for place, number in self.counts.items()}

    def __len__(self) -> int:
        return sum(self.counts.values())

    def add(self, seconds: float) -> None:
        """One more."""
        place = floor(log(min(max(seconds, SHORTEST), LONGEST)) / log(RATIO))
        self.counts[place] = self.counts.get(place, 0) + 1

    def extend(self, seconds: list[float]) -> None:
        """All of a list."""
        for each in seconds:
            self.add(each)

    def median(self) -> float:
        """Of all of them, in seconds.

        Raises:
            ValueError: there are none.
        """
        number = len(self)
        if not number:
            raise ValueError("no durations have a median")
        middle = (self._ordered((number - 1) // 2), self._ordered(number // 2))
        return sum(middle) / 2

    def _ordered(self, rank: int) -> float:
        """The one with so many below it, to within its bin."""
        for place in sorted(self.counts):
            rank -= self.counts[place]
            if rank < 0:
                return RATIO ** (place + 0.5)
        raise IndexError(rank)
