"""What a method's success costs: against bytes kept and against seconds of training."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hypercrl.metrics import interquartile_mean, interquartile_mean_interval
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


def trade_offs(benchmark: Benchmark, look: Mapping[str, Look] | None = None) -> Figure:
    """Interquartile mean of success at the end against two costs, a point for each method.

    Bars are 95 % bootstrap intervals over seeds × tasks, from three seeds on as in the tables. Left
    and up is better.

    Args:
        benchmark: the runs.
        look: of each method, where other figures show it too; the methods' own otherwise.
    """
    look = look or looks(tuple(benchmark.methods))
    costs: tuple[tuple[str, Callable[[Result], float], Sequence[float], Callable], ...] = (
        ("bytes kept after the last task", lambda r: r.memory_bytes[-1], OCTAVES, size),
        ("time of training", lambda r: sum(r.training_seconds), CLOCK, duration),
    )
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
        for axes, (name, cost, round_numbers, write) in zip(
            figure.subplots(1, 2, sharey=True), costs, strict=True
        ):
            shown = _panel(axes, benchmark, cost, look)
            log_scale(axes, shown, round_numbers, write)
            axes.set_ylim(-0.04, 1.04)
            axes.set_xlabel(name)
        figure.axes[0].set_ylabel("success at the end (IQM)", color=INK)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside lower center", ncols=_columns(labels), frameon=False
        )
    return figure


def _columns(labels: Sequence[str]) -> int:
    """Of a legend as wide as the figure: seven of names of methods, fewer of longer words."""
    return max(1, min(7, 112 // max(16, *map(len, labels)))) if labels else 1


def _panel(
    axes: Axes,
    benchmark: Benchmark,
    cost: Callable[[Result], float],
    look: Mapping[str, Look],
) -> list[float]:
    """Draws a point for each method; their costs."""
    shown: list[float] = []
    for index, method in enumerate(benchmark.methods):
        final = benchmark.matrices(method, "success")[:, -1]
        costs = [cost(result) for result in benchmark.results(method)]
        if not costs or not np.mean(costs) > 0 or np.isnan(final).any():
            continue
        x, y = float(np.mean(costs)), interquartile_mean(final)
        if len(final) >= SEEDS_FOR_INTERVAL:
            low, high = interquartile_mean_interval(final, np.random.default_rng(0))
            axes.plot([x, x], [low, high], color=look[method].colour, linewidth=1.2, alpha=0.6)
        # Colours come back after seven methods; the marker tells them apart.
        marker = MARKERS[index // len(PALETTE) % len(MARKERS)]
        shown.append(x)
        axes.plot([x], [y], marker, color=look[method].colour, label=method, alpha=0.85)
    return shown
