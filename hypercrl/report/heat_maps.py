"""Result matrices as heat maps: one look tells which task was forgotten, and when."""

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from hypercrl.base.joints import in_lines
from hypercrl.metrics import Array
from hypercrl.report.benchmark import Benchmark
from hypercrl.report.formats import FAILED, decimals, fixed, significant
from hypercrl.report.style import ALARM, INK, STYLE, shown_tasks

MOST_NUMBERS = 24
"""Tasks whose cells have room for a number."""
LETTERS_AN_INCH = 12
"""Of a method's name beside its row."""


def heat_maps(benchmark: Benchmark) -> Figure:
    """Success, return and prediction error as heat maps, a row for each method that finished.

    Success is left out where nothing counts as such.

    Cells are means over seeds; all methods share the colours of a column. The line separates tasks
    already trained (below) from those to come. What was not evaluated is white, with a dash, and so
    is success where nothing counts as such.
    """
    methods = [m for m in benchmark.methods if benchmark.results(m)]
    measured = {
        m: np.logical_and.reduce([result.measured for result in benchmark.results(m)])
        for m in methods
    }
    columns = {
        benchmark.outcome_name: {m: benchmark.outcome(m) for m in methods},
        benchmark.return_name: {m: benchmark.returns(m) for m in methods},
        benchmark.error_name: {m: benchmark.matrices(m, "prediction_error") for m in methods},
    }
    n = len(benchmark.tasks)
    if n <= MOST_NUMBERS:
        panel_width, panel_height = max((0.56 if n <= 6 else 0.48) * n, 1.8), 0.36 * (n + 1)
    else:
        panel_width = panel_height = 6.0
    names = [in_lines(m, LETTERS_AN_INCH * panel_height) for m in methods]
    # A part of a name that may not be broken takes what it needs.
    longest = max(len(line) for name in names for line in name)
    panel_height = max(panel_height, longest / LETTERS_AN_INCH)
    with rc_context(STYLE):
        figure = Figure(
            figsize=(
                len(columns) * panel_width + 1.7 + 0.2 * max(map(len, names)),
                len(methods) * (panel_height + 0.45) + 0.6,
            ),
            layout="constrained",
        )
        grid = figure.subplots(len(methods), len(columns), squeeze=False)
        for column, (name, values) in enumerate(columns.items()):
            counts = benchmark.succeeds if name == "success" else benchmark.everywhere
            means = [np.where(counts, values[m].mean(0), np.nan) for m in methods]
            norm, colours = _colour_scale(name, np.stack(means), benchmark)
            for row, matrix in enumerate(means):
                axes = grid[row, column]
                there = measured[methods[row]] & counts
                texts = _cell_texts(name, matrix, there, benchmark)
                _heat_map(axes, matrix, there, texts, norm, colours)
                axes.tick_params(labelleft=column == 0, labelbottom=row == len(methods) - 1)
                if row == 0:
                    axes.set_title(name.capitalize(), loc="left", fontsize=10.5, pad=8)
            grid[-1, column].set_xlabel("on task", fontsize=9)
        for row, method in enumerate(methods):
            seeds = len(benchmark.results(method))
            label = [*names[row], *([f"{seeds} seeds"] if seeds > 1 else [])]
            grid[row, 0].set_ylabel("\n".join(label), fontsize=10.5, color=INK, labelpad=10)
    return figure


def _colour_scale(name: str, values: Array, benchmark: Benchmark) -> tuple[Normalize, Colormap]:
    """Dark is good in the blue maps, and a large error in the orange one."""
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    if name == benchmark.error_name:
        positive = finite.size > 0 and low > 0
        return (LogNorm if positive and high > low else Normalize)(low, high), colormaps["Oranges"]
    if name != "return":
        low, high = 0.0, 1.0
    return Normalize(low, high, clip=True), colormaps["Blues"]


def _cell_texts(
    name: str, matrix: Array, measured: NDArray[np.bool_], benchmark: Benchmark
) -> list[list[str]]:
    if name == benchmark.error_name:
        return [[significant(v, 2) for v in row] for row in matrix]  # a dash where it is missing
    places = decimals(matrix) if name == "return" else 2
    failed = np.isnan(matrix) & measured
    return [
        [FAILED if failed[i, j] else fixed(matrix[i, j], places) for j in range(matrix.shape[1])]
        for i in range(len(matrix))
    ]


def _heat_map(
    axes: Axes,
    matrix: Array,
    measured: NDArray[np.bool_],
    texts: list[list[str]],
    norm: Normalize,
    colours: Colormap,
) -> None:
    n = matrix.shape[1]
    # Neither end of the colour map is used: text has to stay readable on every cell.
    shades = colours(0.04 + 0.78 * np.ma.filled(norm(matrix), 0.0))
    shades[~measured] = 1.0
    axes.imshow(shades, aspect="auto", interpolation="nearest")
    for i, j in np.ndindex(matrix.shape):
        failed = texts[i][j] == FAILED
        if n > MOST_NUMBERS and not failed:
            continue  # the colour says it
        if failed:
            cell = Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor="#ffffff", edgecolor=ALARM)
            cell.set(hatch="////", linewidth=0, alpha=0.55)
            axes.add_patch(cell)
        dark = np.dot(shades[i, j, :3], (0.299, 0.587, 0.114)) < 0.55
        axes.text(
            j,
            i,
            texts[i][j],
            ha="center",
            va="center",
            fontsize=7.5 if failed else 8.5,
            color=ALARM if failed else "white" if dark else INK,
        )
    for edge in range(n):  # the staircase between what has been trained and what has not
        axes.plot([edge - 0.5, edge + 0.5], [edge + 0.5] * 2, color=INK, linewidth=1.1)
        if edge:
            axes.plot([edge - 0.5] * 2, [edge - 0.5, edge + 0.5], color=INK, linewidth=1.1)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    named = shown_tasks(n, MOST_NUMBERS if n <= MOST_NUMBERS else 10)
    axes.set_xticks(named, [str(j + 1) for j in named])
    axes.set_yticks([0, *(j + 1 for j in named)], ["untrained", *(f"after {j + 1}" for j in named)])
