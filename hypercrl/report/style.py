"""How every figure of a report looks, and how it becomes a file."""

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

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


class Look(NamedTuple):
    """How the line of one method is drawn."""

    colour: str
    dash: Any
    width: float = 1.8
    layer: int = 3


def looks(methods: Sequence[str]) -> dict[str, Look]:
    """Colour and dash of each method; the reference is grey and behind, colours return dashed."""
    dashes = ("-", (0, (4, 1.6)), (0, (1.2, 1.4)))
    chosen = {REFERENCE: Look(REFERENCE_COLOUR, "-", width=1.3, layer=2)}
    for index, method in enumerate(m for m in methods if m != REFERENCE):
        dash = dashes[index // len(PALETTE) % len(dashes)]
        chosen[method] = Look(PALETTE[index % len(PALETTE)], dash)
    return chosen


def to_png(figure: Figure) -> bytes:
    """The figure as a PNG file, on white."""
    buffer = io.BytesIO()
    with rc_context(STYLE):
        FigureCanvasAgg(figure).print_figure(buffer, format="png", facecolor="white")
    return buffer.getvalue()
