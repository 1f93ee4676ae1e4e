"""Figures of docs/results/evidence.md. A method has one colour in all of them."""

from __future__ import annotations

import itertools
import textwrap
import warnings
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from evidence_grid import METHODS, SEQUENCES, variants_of
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from hypercrl.metrics import (
    Array,
    as_matrix,
    just_trained,
    mean_interval,
)
from hypercrl.report.benchmark import Benchmark
from hypercrl.report.comparison import SEEDS_FOR_INTERVAL
from hypercrl.report.formats import fixed
from hypercrl.report.style import INK, MUTED, STYLE, WIDTH, Look, looks

OTHERS = (
    *("#9970ab", "#8c510a", "#b2182b", "#7fbf7b", "#1b7837", "#bf812d", "#35978f", "#c51b7d"),
    *("#542788", "#6a3d9a", "#4d4d4d"),
)
"""Colours of a method's other settings, by their place among those of the sequence."""
LOOKS = looks(METHODS) | {
    SEQUENCES[name].label(method): Look(OTHERS[place % len(OTHERS)], "-")
    for base in SEQUENCES
    for place, name in enumerate(variants_of(base))
    for method in SEQUENCES[name].methods
    if SEQUENCES[name].said
}
PANELS = 3
"""Sequences side by side."""
TENTHS = 20
"""Tasks from which on a curve is drawn through the means of tenths of it: of so many tasks, few are
evaluated after each, and others each time."""


def in_order(labels: Iterable[str]) -> list[str]:
    """Methods in the grid's order, each with its other settings behind it."""
    return sorted(dict.fromkeys(labels), key=lambda label: METHODS.index(label.split(",")[0]))


def overview(benchmarks: Mapping[str, Benchmark]) -> Figure:
    """Success at the end, one panel a sequence and one row a method: the mean, and over whole runs
    its 95 % bootstrap interval.

    A hollow point has fewer seeds than an interval takes. Side by side are PANELS sequences, and
    below one another all methods that one of these has.
    """
    names = list(benchmarks)
    rows = [names[i : i + PANELS] for i in range(0, len(names), PANELS)]
    of_row = [in_order(m for name in row for m in benchmarks[name].methods) for row in rows]
    heights = [len(methods) for methods in of_row]
    with rc_context({**STYLE, "axes.grid.axis": "both"}):
        size = WIDTH, 0.24 * sum(heights) + 0.9 * len(rows)
        figure = Figure(figsize=size, layout="constrained")
        ratios = {"height_ratios": heights}
        panels = figure.subplots(len(rows), PANELS, sharey="row", squeeze=False, gridspec_kw=ratios)
        for line, row, methods in zip(panels, rows, of_row, strict=True):
            line[0].set_yticks(range(len(methods)), [textwrap.fill(m, 20) for m in methods])
            line[0].set_ylim(len(methods) - 0.5, -0.5)
            for axes, name in itertools.zip_longest(line, row):
                if name is None:
                    axes.set_axis_off()
                    continue
                benchmark = benchmarks[name]
                axes.set_title(f"{name}, {len(benchmark.tasks)} tasks", fontsize=9.5, color=INK)
                axes.set_xlim(-0.04, 1.04)
                for place, method in enumerate(methods):
                    final = benchmark.matrices(method, "success")[:, -1]
                    _point(axes, place, LOOKS[method].colour, final)
        figure.supxlabel(
            "success after the last task, mean and 95 % interval over runs",
            fontsize=9.5,
            color=MUTED,
        )
    return figure


def _point(axes: Axes, row: int, colour: str, final: Array) -> None:
    if not len(final):
        return
    filled = len(final) >= SEEDS_FOR_INTERVAL
    if filled:
        bounds = mean_interval(final.mean(1), np.random.default_rng(0))
        axes.plot(bounds, [row, row], color=colour, lw=5, alpha=0.35, solid_capstyle="butt")
    face = colour if filled else "white"
    axes.plot([final.mean()], [row], "o", color=colour, mfc=face, ms=5)


def over_tasks_seen(benchmark: Benchmark) -> Figure:
    """After each task: success on those seen so far, and how their prediction errors have grown.

    Reckoned from those that were evaluated. Bands are 95 % bootstrap intervals of the mean over
    seeds; a dot is the end, where all tasks are evaluated.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        finals = _curves(left, benchmark, "success", on_seen)
        _curves(right, benchmark, "prediction_error", error_against_learned)
        left.set_ylim(-0.04, 1.04)
        left.set_ylabel("success on all tasks so far", color=INK)
        errors_axis(right, "error on earlier tasks, 1 = as just learned")
        for axes in (left, right):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
            axes.set_xlabel("tasks learned so far")
        lines = dict(zip(finals, left.get_lines(), strict=False))
        best_first = sorted(finals, key=lambda method: -finals[method])
        figure.legend(
            [lines[method] for method in best_first],
            [f"{method}: {fixed(finals[method])}" for method in best_first],
            loc="outside lower center",
            ncols=3 if len(finals) < 6 else 4,
            frameon=False,
            title="success on all of them at the end",
        )
    return figure


def errors_axis(axes: Axes, text: str) -> None:
    """Logarithmic, with plain numbers."""
    axes.set_yscale("log")
    axes.set_ylabel(text, color=INK)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(lambda *_: "")


def _curves(
    axes: Axes, benchmark: Benchmark, quantity: str, curve: Callable[[Array], Array]
) -> dict[str, float]:
    """A line for each method, then a dot where it ends; where that is."""
    ends = {}
    for method in benchmark.methods:
        curves = np.array([curve(m) for m in benchmark.matrices(method, quantity)])
        if not len(curves):
            continue
        band(axes, method, curves)
        ends[method] = float(curves[:, -1].mean())
    for method, end in ends.items():
        axes.plot([len(benchmark.tasks)], [end], "o", color=LOOKS[method].colour, ms=4)
    return ends


def band(
    axes: Axes, label: str, curves: Array, shown: Callable[[Array], Array] = np.asarray
) -> None:
    """Means of curves [S, N] at `tenths`, and their intervals; `shown` is drawn of each."""
    stages, means = tenths(curves)
    colour, dash, width, layer = LOOKS[label]
    axes.plot(stages, shown(means.mean(0)), color=colour, ls=dash, lw=width, zorder=layer)
    if len(means) >= SEEDS_FOR_INTERVAL:
        generator = np.random.default_rng(0)
        bounds = np.array([mean_interval(values, generator) for values in means.T])
        axes.fill_between(stages, *shown(bounds).T, color=colour, alpha=0.15, lw=0)


def tenths(curves: Array) -> tuple[Array, Array]:
    """Of curves [S, N]: where points are drawn, from 1, and the means there, [P] and [S, P].

    Every point of fewer than TENTHS tasks, of more of them the means of tenths, in their middles.
    """
    parts = np.array_split(np.arange(curves.shape[1]), 10)
    if curves.shape[1] < TENTHS:
        return np.arange(1, curves.shape[1] + 1), curves
    means = np.stack([np.nanmean(curves[:, part], 1) for part in parts], 1)
    return np.array([1 + part.mean() for part in parts]), means


def on_seen(success: Array) -> Array:
    """[N], success on the tasks learned so far after each of N, reckoned from those evaluated.

    The newest task always is evaluated, of the earlier ones perhaps a sample: its mean stands for
    all of them.
    """
    seen = []
    for stage, row in enumerate(success[1:], start=1):
        old = row[: stage - 1]
        earlier = np.nanmean(old) if np.isfinite(old).any() else row[stage - 1]
        seen.append(((stage - 1) * earlier + row[stage - 1]) / stage)
    return np.array(seen)


def error_against_learned(errors: Array) -> Array:
    """[N], geometric mean of E[i, j] / E[j, j] over tasks j < i that were evaluated, after each i.

    1 after the first task, and NaN where none of the earlier ones was evaluated.
    """
    errors = as_matrix(errors)
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice")
        logs = np.log(errors[1:] / just_trained(errors))
        grown = [np.nanmean(row[:stage]) for stage, row in enumerate(logs[1:], start=1)]
    return np.exp([0.0, *grown])
