"""How numbers are written, the same on the terminal, in figures and on the page."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

UNDEFINED = "—"
FAILED = "failed"


def fixed(value: float, decimals: int = 2) -> str:
    """A decimal number; a dash where it is undefined. No negative zero.

    Means that are equal but for the order of their sums are written alike, halves too.
    """
    return UNDEFINED if math.isnan(value) else f"{round(value, 9):z.{decimals}f}"


def significant(value: float, digits: int = 3) -> str:
    """A number with that many significant digits and no exponent; a dash where undefined."""
    if math.isnan(value):
        return UNDEFINED
    if math.isinf(value):  # an error that diverged
        return str(value)
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])
    places = digits - 1 - exponent
    return f"{round(value, places):.{max(places, 0)}f}"


def decimals(values: ArrayLike) -> int:
    """Decimals with which the largest of `values` shows three digits, so that columns align."""
    magnitudes = np.abs(np.asarray(values, np.float64))
    largest = np.max(magnitudes, initial=0.0, where=np.isfinite(magnitudes))
    return 2 if largest == 0 else int(np.clip(2 - math.floor(math.log10(largest)), 0, 4))


def mean(values: Sequence[float]) -> float:
    """Mean over seeds; NaN, which is shown as undefined, where no seed has finished."""
    return float(np.mean(values)) if len(values) else math.nan


def spread(values: Sequence[float], decimals: int = 2) -> str:
    """Mean over seeds, with the sample standard deviation where there are two seeds or more."""
    middle = fixed(mean(values), decimals)
    if len(values) < 2 or middle == UNDEFINED:
        return middle
    return f"{middle} ± {fixed(float(np.std(values, ddof=1)), decimals)}"


def count(value: float) -> str:
    """A whole number in groups of three digits."""
    return f"{value:,.0f}".replace(",", "\u202f")


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if math.isnan(seconds):
        return UNDEFINED
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def size(count: float) -> str:
    """Bytes in binary units."""
    if math.isnan(count):
        return UNDEFINED
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
