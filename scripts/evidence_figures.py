"""Figures of docs/results/evidence.md. A method has one colour in all of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

import numpy as np
from evidence_grid import METHODS
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hypercrl.metrics import (
    Array,
    as_matrix,
    interquartile_mean,
    interquartile_mean_interval,
    just_trained,
    mean_interval,
)
from hypercrl.report.benchmark import Benchmark
from hypercrl.report.formats import fixed
from hypercrl.report.style import INK, MUTED, STYLE, WIDTH, looks
from hypercrl.report.tables import SEEDS_FOR_INTERVAL

LOOKS = looks(METHODS)
MARKS = "sD^vPX*"
"""Of other settings, one after another."""
PANELS = 4
"""Sequences side by side."""


def overview(benchmarks: Mapping[str, Benchmark]) -> Figure:
    """Success at the end, one panel a sequence and one row a method: IQM with its interval.

    A hollow point has fewer seeds than an interval takes.
    """
    methods = [m for m in METHODS if any(m in b.methods for b in benchmarks.values())]
    rows = -(-len(benchmarks) // PANELS)
    with rc_context({**STYLE, "axes.grid.axis": "both"}):
        size = WIDTH, rows * (0.24 * len(methods) + 0.9)
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(rows, PANELS, sharex=True, sharey=True, squeeze=False).ravel()
        for axes in panels[len(benchmarks) :]:
            axes.set_axis_off()
        for axes, (name, benchmark) in zip(panels, benchmarks.items(), strict=False):
            axes.set_title(f"{name}, {len(benchmark.tasks)} tasks", fontsize=9.5, color=INK)
            for row, method in enumerate(methods):
                _point(axes, row, method, benchmark.matrices(method, "success")[:, -1])
        panels[0].set_yticks(range(len(methods)), methods)
        panels[0].set_ylim(len(methods) - 0.5, -0.5)
        panels[0].set_xlim(-0.04, 1.04)
        figure.supxlabel("success after the last task (IQM)", fontsize=9.5, color=MUTED)
    return figure


def _point(axes: Axes, row: int, method: str, final: Array) -> None:
    if not len(final):
        return
    colour, filled = LOOKS[method].colour, len(final) >= SEEDS_FOR_INTERVAL
    if filled:
        bounds = interquartile_mean_interval(final, np.random.default_rng(0))
        axes.plot(bounds, [row, row], color=colour, lw=5, alpha=0.35, solid_capstyle="butt")
    face = colour if filled else "white"
    axes.plot([interquartile_mean(final)], [row], "o", color=colour, mfc=face, ms=5)


def over_tasks_seen(benchmark: Benchmark, others: Mapping[str, Benchmark]) -> Figure:
    """After each task: success on those seen so far, and how their prediction errors have grown.

    Of them, those that were evaluated. Bands are 95 % bootstrap intervals of the mean over seeds.

    Args:
        others: the sequence with other settings, by what they are; a mark each, at the end alone,
            where all tasks are evaluated.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        finals = _curves(left, benchmark, "success", on_seen)
        _curves(right, benchmark, "prediction_error", error_against_learned)
        left.set_ylim(-0.04, 1.04)
        left.set_ylabel("success on the tasks seen", color=INK)
        right.set_yscale("log")
        right.set_ylabel("their prediction error, 1 = as just learned", color=INK)
        right.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        right.yaxis.set_minor_formatter(lambda *_: "")
        for axes in (left, right):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
            axes.set_xlabel("tasks seen")
        lines = dict(zip(finals, left.get_lines(), strict=True))
        for name, other in others.items():
            for method in other.methods:
                label = method if name == method else f"{method}, {name}"
                finals[label] = float(np.mean(other.matrices(method, "success")[:, -1]))
                (lines[label],) = left.plot(
                    [len(benchmark.tasks)],
                    [finals[label]],
                    MARKS[len(lines) % len(MARKS)],
                    color=LOOKS[method].colour,
                    ms=6,
                )
        best_first = sorted(finals, key=lambda method: -finals[method])
        figure.legend(
            [lines[method] for method in best_first],
            [f"{method} {fixed(finals[method])}" for method in best_first],
            loc="outside lower center",
            ncols=3 if others else 7,
            frameon=False,
        )
    return figure


def _curves(
    axes: Axes, benchmark: Benchmark, quantity: str, curve: Callable[[Array], Array]
) -> dict[str, float]:
    """A line for each method; where it ends."""
    ends = {}
    for method in benchmark.methods:
        curves = np.array([curve(m) for m in benchmark.matrices(method, quantity)])
        if not len(curves):
            continue
        stages, (colour, dash, width, layer) = np.arange(1, curves.shape[1] + 1), LOOKS[method]
        axes.plot(stages, curves.mean(0), color=colour, ls=dash, lw=width, zorder=layer)
        if len(curves) >= SEEDS_FOR_INTERVAL:
            generator = np.random.default_rng(0)
            bounds = np.array([mean_interval(values, generator) for values in curves.T])
            axes.fill_between(stages, *bounds.T, color=colour, alpha=0.15, lw=0)
        ends[method] = float(curves[:, -1].mean())
    return ends


def on_seen(success: Array) -> Array:
    """[N], mean over the tasks learned so far of those that were evaluated, after each of N."""
    return np.array([np.nanmean(row[:stage]) for stage, row in enumerate(success[1:], start=1)])


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
