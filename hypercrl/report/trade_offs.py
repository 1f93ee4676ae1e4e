"""What a method's success costs: against bytes kept and against seconds of training."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hypercrl.metrics import mean_interval
from hypercrl.report.benchmark import Benchmark
from hypercrl.report.comparison import SEEDS_FOR_INTERVAL
from hypercrl.report.formats import duration, size
from hypercrl.report.runs import Result
from hypercrl.report.style import (
    CLOCK,
    INK,
    OCTAVES,
    PALETTE,
    STYLE,
    WIDTH,
    Look,
    log_scale,
    looks,
)

MARKERS = "os^D"


@dataclass(frozen=True)
class Cost:
    """What success is drawn against.

    Attributes:
        name: of the axis.
        of: its value for a run.
        round_numbers: where ticks may be.
        write: a value as text.
    """

    name: str
    of: Callable[[Result], float]
    round_numbers: Sequence[float]
    write: Callable[[float], str]


BYTES = Cost("bytes kept after the last task", lambda r: r.memory_bytes[-1], OCTAVES, size)
TIME = Cost("time of training", lambda r: sum(r.training_seconds), CLOCK, duration)


def trade_offs(
    benchmark: Benchmark,
    look: Mapping[str, Look] | None = None,
    costs: Sequence[Cost] = (BYTES, TIME),
) -> Figure:
    """Mean success at the end against what it costs, a point for each method.

    Bars are 95 % bootstrap intervals over whole runs, from three seeds on as in the tables. It is
    the mean that is drawn: of success, which ends at 1, the interquartile mean leaves out the tasks
    that failed. Left and up is better. Where nothing counts as success it is the return.
    Tasks in which nothing does have no part in a mean of success.

    Args:
        benchmark: the runs.
        look: of each method, where other figures show it too; the methods' own otherwise.
        costs: a panel for each. Times say something where all runs had the same machine to
            themselves, or the same neighbours.
    """
    look = look or looks(tuple(benchmark.methods))
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
        panels = figure.subplots(1, len(costs), sharey=True, squeeze=False)[0]
        for axes, cost in zip(panels, costs, strict=True):
            shown = _panel(axes, benchmark, cost.of, look)
            log_scale(axes, shown, cost.round_numbers, cost.write)
            if not benchmark.by_return:
                axes.set_ylim(-0.04, 1.04)
            axes.set_xlabel(cost.name)
        figure.axes[0].set_ylabel(f"{benchmark.outcome_name} at the end (mean)", color=INK)
        _name(figure)
    return figure


def _name(figure: Figure) -> None:
    """A legend below, of as many columns as fit: seven of names of methods, fewer of longer ones.

    Measured, as letters are of many widths, and handles and gaps take room too.
    """
    named = figure.axes[0].get_legend_handles_labels()
    for columns in range(7, 0, -1):
        legend = figure.legend(*named, loc="outside lower center", ncols=columns, frameon=False)
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            break
        legend.remove()


def _panel(
    axes: Axes,
    benchmark: Benchmark,
    cost: Callable[[Result], float],
    look: Mapping[str, Look],
) -> list[float]:
    """Draws a point for each method; their costs."""
    shown: list[float] = []
    for index, method in enumerate(benchmark.methods):
        final = benchmark.outcome(method)[:, -1, benchmark.counted]
        costs = [cost(result) for result in benchmark.results(method)]
        if not costs or not np.mean(costs) > 0 or np.isnan(final).any():
            continue
        x, y = float(np.mean(costs)), float(final.mean())
        if len(final) >= SEEDS_FOR_INTERVAL:
            low, high = mean_interval(final.mean(1), np.random.default_rng(0))
            axes.plot([x, x], [low, high], color=look[method].colour, linewidth=1.2, alpha=0.6)
        # Colours come back after seven methods; the marker tells them apart.
        marker = MARKERS[index // len(PALETTE) % len(MARKERS)]
        shown.append(x)
        axes.plot(
            [x],
            [y],
            marker,
            color=look[method].colour,
            markersize=4.5 + 2 * look[method].width,
            label=method,
            zorder=look[method].layer,
        )
    return shown
