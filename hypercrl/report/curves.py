"""Learning curves: what an agent can do on each task while it is trained on one after another."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter

from hypercrl.metrics import mean_interval
from hypercrl.report.benchmark import Benchmark
from hypercrl.report.comparison import SEEDS_FOR_INTERVAL
from hypercrl.report.formats import significant
from hypercrl.report.runs import Run
from hypercrl.report.style import BAND, INK, MUTED, RULE, STYLE, WIDTH, Look, looks, shown_tasks

MOST_ROWS = 20
"""Tasks with curves of their own; of longer sequences these are tasks here and there."""
MOST_BANDS = 8
"""Methods in one figure beyond which bands would hide the lines."""
LEGEND_WIDTH = 120
"""Letters that a line of the legend has room for."""


class Quantity(NamedTuple):
    """One column of curves: the key in metrics.jsonl, its name, and its axis."""

    key: str
    name: str
    scale: Literal["share", "linear", "log"]


def learning_curves(benchmark: Benchmark) -> Figure:
    """Success, if anything counts as that, and return on each task against environment steps.

    A row for each task; no curve of success where nothing counts as such.
    """
    success = Quantity("success", "success", "share")
    returns = Quantity("return", "return", "linear")
    return _curves(benchmark, (returns,) if benchmark.by_return else (success, returns))


def error_curves(benchmark: Benchmark) -> Figure:
    """Prediction error on held-out data of each task against environment steps."""
    return _curves(benchmark, (Quantity("prediction_error", benchmark.error_name, "log"),))


def _curves(benchmark: Benchmark, quantities: Sequence[Quantity]) -> Figure:
    """A row of axes for each task, or for tasks here and there; a column for each quantity."""
    tasks = shown_tasks(len(benchmark.tasks), MOST_ROWS)
    n = len(tasks)
    look = looks(tuple(benchmark.methods))
    banded = len(benchmark.methods) <= MOST_BANDS
    longest = max(benchmark.runs, key=lambda run: run.spans[-1][1] if run.spans else 0)
    labels = [_seeds_label(method, runs) for method, runs in benchmark.methods.items()]
    columns = max(1, min(len(labels), 6, LEGEND_WIDTH // (max(map(len, labels)) + 6)))
    height = 1.25 * n + 0.7 + 0.2 * math.ceil(len(labels) / columns)
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        grid = figure.subplots(n, len(quantities), squeeze=False, sharex=True, sharey="col")
        for column, quantity in enumerate(quantities):
            for row, task in enumerate(tasks):
                axes = grid[row, column]
                told = quantity.key != "success" or benchmark.succeeds[task]
                for method, runs in benchmark.methods.items() if told else ():
                    _curve(axes, runs, quantity.key, task + 1, look[method], banded)
                _mark_training(axes, longest.spans, task + 1)
                if column == 0:
                    axes.set_ylabel(f"task {task + 1}", fontsize=9.5, color=INK, labelpad=8)
            for axes in grid[:, column]:  # once all data is there, for the rows share an axis
                _scale_axes(axes, quantity)
            _name_spans(grid[0, column], longest.spans)
            grid[0, column].set_title(
                f"{quantity.name.capitalize()} on each task", loc="left", fontsize=10.5, pad=20
            )
            grid[-1, column].set_xlabel("environment steps", fontsize=9)
        figure.supxlabel(_spread(benchmark), fontsize=9, color=MUTED)
        figure.legend(
            [
                Line2D(
                    [],
                    [],
                    color=look[method].colour,
                    linestyle=look[method].dash,
                    linewidth=look[method].width,
                )
                for method in benchmark.methods
            ],
            labels,
            loc="outside upper left",
            ncols=columns,
            frameon=False,
            labelcolor="linecolor",
            handlelength=1.4,
            columnspacing=1.8,
            fontsize=10,
        )
    return figure


def _spread(benchmark: Benchmark) -> str:
    """What a line and a band stand for."""
    seeds = max(len(runs) for runs in benchmark.methods.values())
    if seeds == 1:
        return ""
    if len(benchmark.methods) > MOST_BANDS:
        return "line: mean over seeds; so many methods are shown without their intervals"
    band = "their range" if seeds < SEEDS_FOR_INTERVAL else "95 % bootstrap interval"
    return f"line: mean over seeds, band: {band}"


def _seeds_label(method: str, runs: Sequence[Run]) -> str:
    return method if len(runs) == 1 else f"{method} ({len(runs)} seeds)"


def _curve(axes: Axes, runs: Sequence[Run], key: str, task: int, look: Look, banded: bool) -> None:
    """Mean over the seeds that have a value at a step, and its interval, or their range if few."""
    seeds = [run.evaluations(key, task) for run in runs]
    steps = sorted(set().union(*seeds))
    values = [[seed[step] for seed in seeds if step in seed] for step in steps]
    if not steps:
        return
    middle = [float(np.mean(v)) for v in values]
    # Few evaluations are shown for what they are: points, with guesses between them.
    marker = "o" if len(steps) <= 20 else ""
    line = {"color": look.colour, "linestyle": look.dash, "marker": marker}
    line |= {
        "markersize": 1.7 + look.width,
        "linewidth": look.width,
        "zorder": look.layer,
        "clip_on": not marker,
    }
    axes.plot(steps, middle, **line)
    if banded and len(seeds) > 1:
        low, high = zip(*map(_band, values), strict=True)
        axes.fill_between(steps, low, high, color=look.colour, alpha=0.16, linewidth=0)


def _band(values: Sequence[float]) -> tuple[float, float]:
    """Bootstrap interval of the mean; the range of fewer than three values."""
    if len(values) < SEEDS_FOR_INTERVAL or not np.isfinite(values).all():
        return min(values), max(values)
    return mean_interval(values, np.random.default_rng(0))


def _mark_training(axes: Axes, spans: Sequence[tuple[int, int]], task: int) -> None:
    """Shade the time in which the axes' own task is trained, and rule where tasks change."""
    if task <= len(spans):
        axes.axvspan(*spans[task - 1], color=BAND, linewidth=0, zorder=0)
    for _, end in spans[:-1]:
        axes.axvline(end, color=RULE, linewidth=0.8, zorder=1)
    if spans:
        axes.set_xlim(0, spans[-1][1])


def _name_spans(axes: Axes, spans: Sequence[tuple[int, int]]) -> None:
    """Write above the top axes which task is trained when, as fully as there is room."""
    room = "training task {}" if len(spans) <= 3 else "train {}" if len(spans) <= 6 else "{}"
    for task in shown_tasks(len(spans), MOST_ROWS):
        start, end = spans[task]
        axes.annotate(
            room.format(task + 1),
            ((start + end) / 2, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 5),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color=MUTED,
        )


def _scale_axes(axes: Axes, quantity: Quantity) -> None:
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if quantity.scale == "share":
        axes.set_ylim(-0.04, 1.04)
        axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    elif quantity.scale == "log" and math.isfinite(axes.yaxis.get_minpos()):  # of what is shown
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        decades = math.log10(high / low)
        ticks = (1, 2, 5) if decades < 1 else (1, 3) if decades < 3 else (1,)
        axes.yaxis.set_major_locator(LogLocator(subs=ticks))
        axes.yaxis.set_major_formatter(lambda value, _: significant(value, 1))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(axis="y", which="minor", size=0)
    else:
        axes.yaxis.set_major_locator(MaxNLocator(3))
