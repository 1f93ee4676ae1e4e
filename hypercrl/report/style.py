"""How every figure of a report looks, and how it becomes a file."""

import io
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from hypercrl.report.benchmark import REFERENCE

INK, MUTED, RULE, BAND = "#1f2328", "#6b7280", "#d5d9df", "#f1f3f6"
ALARM = "#b42318"
REFERENCE_COLOUR = "#7a7f87"
# Okabe and Ito's palette without yellow, which is too pale for lines on white.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.solid_capstyle": "round",
    "figure.constrained_layout.w_pad": 0.09,
    "figure.constrained_layout.h_pad": 0.07,
    "figure.dpi": 160,
    "savefig.dpi": 160,
}
WIDTH = 9.6
"""Inches; every figure of curves is as wide."""

MOST_TICKS = 5
"""Of a scale of costs, whose labels are long."""
OCTAVES = tuple(2.0**power for power in range(61))
"""Round numbers of bytes."""
CLOCK = (*(m * 10.0**k for k in (-1, 0) for m in (1, 2, 5)), 10.0, 20.0, 30.0)
CLOCK += tuple(60.0 * m for m in (1, 2, 5, 10, 20, 30))
CLOCK += tuple(3600.0 * m for m in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000))
"""Round numbers of seconds."""

_ZEROS = re.compile(r"\.0(?= )| 00 (s|min)$")


THIN, STEP, NESTED = 1.4, 1.2, 5
"""Points: of the line that is drawn last, and by which those before it are wider; and how many
widths the eye tells apart. More methods than that are drawn alike."""


class Look(NamedTuple):
    """How the line of one method is drawn."""

    colour: str
    dash: Any
    width: float = 1.8
    layer: int = 3


def looks(methods: Sequence[str]) -> dict[str, Look]:
    """Colour, dash and width of each method; colours return dashed.

    The reference is grey and behind. Of few methods what is drawn later is thinner, so that of
    lines and points that coincide each shows beside the next one.
    """
    dashes = ("-", (0, (4, 1.6)), (0, (1.2, 1.4)))
    drawn = sorted(methods, key=lambda method: method != REFERENCE)
    nested = 1 < len(drawn) <= NESTED
    widths = {m: THIN + STEP * place for place, m in enumerate(reversed(drawn)) if nested}
    chosen = {REFERENCE: Look(REFERENCE_COLOUR, "-", widths.get(REFERENCE, 1.3), layer=2)}
    for index, method in enumerate(m for m in methods if m != REFERENCE):
        dash = dashes[index // len(PALETTE) % len(dashes)]
        colour = PALETTE[index % len(PALETTE)]
        chosen[method] = Look(colour, dash, widths.get(method, 1.8))
    return chosen


def log_scale(
    axes: Axes, values: Sequence[float], round_numbers: Sequence[float], write: Callable[..., str]
) -> None:
    """Logarithmic x, with room beside the values and few ticks, at numbers that are round.

    Where fewer than two of those are among the values, the least and the largest one are marked.
    """
    positive = [value for value in values if value > 0] or [1.0]
    low, high = min(positive), max(positive)
    axes.set_xscale("log")
    margin = max((high / low) ** 0.1, 1.02)
    axes.set_xlim(low / margin, high * margin)
    inside = [n for n in round_numbers if low / margin <= n <= high * margin]
    ticks = inside[:: math.ceil(len(inside) / MOST_TICKS)] if len(inside) > 1 else [low, high]
    ticks = sorted(set(ticks))
    axes.set_xticks(ticks, [_ZEROS.sub("", write(tick)) for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())


def to_png(figure: Figure) -> bytes:
    """The figure as a PNG file, on white."""
    buffer = io.BytesIO()
    with rc_context(STYLE):
        FigureCanvasAgg(figure).print_figure(buffer, format="png", facecolor="white")
    return buffer.getvalue()


def shown_tasks(count: int, most: int) -> list[int]:
    """Tasks, from 0, that there is room for: all, or the first, the last and some between."""
    if count <= most:
        return list(range(count))
    return [round(place * (count - 1) / (most - 1)) for place in range(most)]
