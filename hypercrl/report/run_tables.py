"""The tables of one run."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hypercrl.metrics import (
    Array,
    average_performance,
    chaudhry_forgetting,
    continual_world_forgetting,
    forgetting,
    zero_shot_forward_transfer,
)
from hypercrl.report.benchmark import Benchmark
from hypercrl.report.formats import count, decimals, duration, fixed, significant, size
from hypercrl.report.runs import Result
from hypercrl.report.table import FAILURE, MISSING, Cell, Table


def matrix_tables(benchmark: Benchmark, result: Result) -> list[Table]:
    """Success, mean return, normalised return where there is a scale, and prediction error.

    Success is left out where nothing counts as such, and has dashes in tasks in which nothing does.

    Bold: the task that was just trained. Faint: tasks yet to come, and errors that are missing.
    """
    places, there = decimals(result.scores), result.measured
    tables = [
        _matrix_table("Return", result.scores, there, lambda value: fixed(value, places)),
        _matrix_table(
            benchmark.error_name.capitalize(), result.prediction_error, there, significant, MISSING
        ),
    ]
    if benchmark.normalise is not None:
        normalised = benchmark.normalise(result.scores)
        tables.insert(1, _matrix_table("Normalised return", normalised, there, fixed))
    if not benchmark.by_return:
        success = np.where(benchmark.succeeds, result.success, math.nan)
        tables.insert(0, _matrix_table("Success", success, there & benchmark.succeeds, fixed))
    return tables


def metrics_table(benchmark: Benchmark, result: Result) -> Table:
    """Average performance, forgetting and its other definitions, and transfer of one run."""
    everywhere = benchmark.everywhere
    rows = [] if benchmark.by_return else [("Success", result.success, 2, benchmark.succeeds)]
    rows.append(("Return", result.scores, decimals(result.scores), everywhere))
    if benchmark.normalise is not None:
        rows.append(("Normalised return", benchmark.normalise(result.scores), 2, everywhere))
    metrics = (
        average_performance,
        forgetting,
        chaudhry_forgetting,
        continual_world_forgetting,
        zero_shot_forward_transfer,
    )
    header = (
        "",
        "at the end ↑",
        "forgetting ↓",
        "forgetting, Chaudhry ↓",
        "forgetting, Continual World ↓",
        "transfer ↑",
    )
    return Table(
        "Metrics",
        header,
        tuple(
            (Cell(name), *(Cell(fixed(metric(matrix, counted), places)) for metric in metrics))
            for name, matrix, places, counted in rows
        ),
    )


def cost_table(result: Result) -> Table:
    """Latency of a plan and of an update, where the time went, and what is kept in memory."""
    shares = sorted(result.seconds_by.items(), key=lambda item: -item[1])
    total = result.seconds or math.nan
    activities = ", ".join(f"{name} {fixed(100 * s / total, 0)} %" for name, s in shares)
    plan, update = significant(result.plan_milliseconds), significant(result.update_milliseconds)
    sizes = list(dict.fromkeys(size(b) for b in result.memory_bytes))
    memory = " → ".join(sizes if len(sizes) <= 6 else [sizes[0], "…", sizes[-1]])
    rows = (
        ("plan", f"{plan} ms", f"median of {count(result.plans)}"),
        ("update", f"{update} ms", f"median of {count(result.updates)}"),
        ("whole run", duration(result.seconds), activities),
        ("memory kept", memory, "after each task, method and replay"),
        ("parameters", count(result.parameters), ""),
    )
    cells = tuple(tuple(map(Cell, row)) for row in rows)
    return Table("Cost", ("", "", ""), cells, text_columns=(0, 2))


def _matrix_table(
    title: str,
    matrix: Array,
    measured: NDArray[np.bool_],
    write: Callable[[float], str],
    none: Cell = FAILURE,
) -> Table:
    """`none` is shown where there is no number though there was an evaluation."""
    rows = []
    for after, values in enumerate(matrix):
        name = "untrained" if after == 0 else f"after task {after}"
        cells = [
            _matrix_cell(v, write, after, task)
            if not math.isnan(v)
            else (none if measured[after, task - 1] else MISSING)
            for task, v in enumerate(values, start=1)
        ]
        rows.append((Cell(name), *cells))
    return Table(title, ("", *(f"task {j + 1}" for j in range(len(rows) - 1))), tuple(rows))


def _matrix_cell(value: float, write: Callable[[float], str], after: int, task: int) -> Cell:
    if after == task:
        return Cell(write(value), "strong")
    return Cell(write(value), "faint" if task > after else "plain")
