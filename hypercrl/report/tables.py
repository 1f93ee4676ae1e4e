"""The tables of a report, written once and shown on the terminal and on the page alike."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich import table as rich_table
from rich.text import Text

from hypercrl.metrics import (
    Array,
    average_performance,
    chaudhry_forgetting,
    continual_world_forgetting,
    forgetting,
    interquartile_mean,
    interquartile_mean_interval,
    model_forgetting,
    zero_shot_forward_transfer,
)
from hypercrl.report.benchmark import Benchmark
from hypercrl.report.formats import (
    FAILED,
    UNDEFINED,
    count,
    decimals,
    duration,
    fixed,
    mean,
    significant,
    size,
    spread,
)
from hypercrl.report.runs import Result

Emphasis = Literal["plain", "strong", "faint", "bad"]
_TERMINAL_STYLE = {"plain": "", "strong": "bold", "faint": "dim", "bad": "bold red"}

SEEDS_FOR_INTERVAL = 3
"""Fewer seeds than this carry no interval worth printing."""


@dataclass(frozen=True)
class Cell:
    """One entry, and how loudly it speaks."""

    text: str
    emphasis: Emphasis = "plain"


FAILURE = Cell(FAILED, "bad")
MISSING = Cell(UNDEFINED, "faint")
"""No failure: a prediction error that there is not, see the notes, or a task not evaluated."""


@dataclass(frozen=True)
class Table:
    """A title, column names and rows.

    Attributes:
        text_columns: indices of the columns that hold words and start at the left; numbers end at
            the right.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    text_columns: tuple[int, ...] = (0,)

    def to_rich(self) -> rich_table.Table:
        """The same table for a rich console; nothing in it is read as markup."""
        shown = rich_table.Table(
            title=Text(self.title, "bold"),
            title_justify="left",
            box=box.SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            show_header=any(self.header),
        )
        for index, name in enumerate(self.header):
            is_text = index in self.text_columns
            shown.add_column(Text(name), justify="left" if is_text else "right", no_wrap=index == 0)
        for row in self.rows:
            shown.add_row(*(Text(cell.text, _TERMINAL_STYLE[cell.emphasis]) for cell in row))
        return shown


def matrix_tables(benchmark: Benchmark, result: Result) -> list[Table]:
    """Success, mean return, normalised return where there is a scale, and prediction error.

    Bold: the task that was just trained. Faint: tasks yet to come, and errors that are missing.
    """
    places, there = decimals(result.scores), result.measured
    tables = [
        _matrix_table("Success", result.success, there, fixed),
        _matrix_table("Return", result.scores, there, lambda value: fixed(value, places)),
        _matrix_table(
            benchmark.error_name.capitalize(), result.prediction_error, there, significant, MISSING
        ),
    ]
    if benchmark.normalise is not None:
        normalised = benchmark.normalise(result.scores)
        tables.insert(2, _matrix_table("Normalised return", normalised, there, fixed))
    return tables


def metrics_table(benchmark: Benchmark, result: Result) -> Table:
    """Average performance, forgetting and its other definitions, and transfer of one run."""
    rows = [("Success", result.success, 2), ("Return", result.scores, decimals(result.scores))]
    if benchmark.normalise is not None:
        rows.append(("Normalised return", benchmark.normalise(result.scores), 2))
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
            (Cell(name), *(Cell(fixed(metric(matrix), places)) for metric in metrics))
            for name, matrix, places in rows
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


def comparison_tables(benchmark: Benchmark) -> list[Table]:
    """Methods side by side, over the seeds that finished: success, return, and model and cost.

    Then what memories cost a robot, and how well tasks were inferred, where there is such a thing.

    Numbers are means over seeds ± standard deviation. From three seeds on the interquartile mean
    over seeds × tasks stands beside them, with its bootstrap interval.
    """
    success = {m: benchmark.matrices(m, "success") for m in benchmark.methods}
    scores = {m: benchmark.matrices(m, "scores") for m in benchmark.methods}
    if benchmark.normalise is None:
        places = decimals(np.concatenate([x.ravel() for x in scores.values()]))
        returns = _outcome_table("Return", scores, places)
    else:
        scores = {method: benchmark.normalise(matrices) for method, matrices in scores.items()}
        returns = _outcome_table("Normalised return", scores, 2)
    outcome = _with_column(
        _outcome_table("Success", success, 2),
        "AUC transfer ↑",
        [fixed(benchmark.auc_forward_transfer(method)) for method in benchmark.methods],
    )
    tables = [outcome, returns, _other_definitions_table(benchmark, success)]
    tables.append(_model_table(benchmark))
    results = [result for method in benchmark.methods for result in benchmark.results(method)]
    if any(result.memory_state_bytes for result in results):
        tables.append(_memory_table(benchmark))
    if any(result.task_inference for result in results):
        tables.append(_inference_table(benchmark))
    return tables


def _with_column(table: Table, name: str, texts: Sequence[str]) -> Table:
    rows = tuple((*row, Cell(text)) for row, text in zip(table.rows, texts, strict=True))
    return Table(table.title, (*table.header, name), rows, table.text_columns)


def _outcome_table(title: str, outcomes: dict[str, Array], places: int) -> Table:
    """Success or return of each method from its matrices [S, N + 1, N]."""
    with_interval = any(len(matrices) >= SEEDS_FOR_INTERVAL for matrices in outcomes.values())
    rows = []
    for method, matrices in outcomes.items():
        columns = [
            spread([metric(matrix) for matrix in matrices], places)
            for metric in (average_performance, forgetting, zero_shot_forward_transfer)
        ]
        if with_interval:
            columns.insert(1, _interval(matrices[:, -1], places))
        rows.append((Cell(method), Cell(str(len(matrices))), *map(Cell, columns)))
    header = ["method", "seeds", "at the end ↑", "forgetting ↓", "transfer ↑"]
    if with_interval:
        header.insert(3, "IQM [95 %]")
    return Table(title, tuple(header), tuple(rows))


def _other_definitions_table(benchmark: Benchmark, success: dict[str, Array]) -> Table:
    """Success by the definitions of those whose tables one may want to compare with."""
    rows = []
    for method, matrices in success.items():
        columns = [
            spread([metric(matrix) for matrix in matrices], 2)
            for metric in (chaudhry_forgetting, continual_world_forgetting)
        ]
        columns.append(fixed(benchmark.continual_world_forward_transfer(method)))
        rows.append((Cell(method), *map(Cell, columns)))
    header = (
        "method",
        "forgetting, Chaudhry ↓",
        "forgetting, Continual World ↓",
        "transfer, Continual World ↑",
    )
    return Table("Success as others define it", header, tuple(rows))


def _interval(final: Array, places: int) -> str:
    """Interquartile mean and its interval for results [S, N]."""
    if len(final) < SEEDS_FOR_INTERVAL:
        return UNDEFINED
    # A generator of its own: the same runs give the same report.
    low, high = interquartile_mean_interval(final, np.random.default_rng(0))
    middle = fixed(interquartile_mean(final), places)
    if middle == UNDEFINED:
        return UNDEFINED
    return f"{middle} [{fixed(low, places)}, {fixed(high, places)}]"


def _model_table(benchmark: Benchmark) -> Table:
    rows = []
    for method in benchmark.methods:
        errors = benchmark.matrices(method, "prediction_error")
        results = benchmark.results(method)
        columns = (
            significant(mean([average_performance(e) for e in errors])),
            significant(mean([model_forgetting(e) for e in errors])),
            significant(mean([r.plan_milliseconds for r in results])),
            significant(mean([r.update_milliseconds for r in results])),
            significant(mean([sum(r.training_seconds) or math.nan for r in results])),
            count(mean([r.updates + r.extra_updates for r in results])) if results else UNDEFINED,
            size(mean([r.memory_bytes[-1] for r in results])),
        )
        rows.append((Cell(method), *map(Cell, columns)))
    error = benchmark.error_name
    header = (
        "method",
        f"{error} ↓",
        "its growth ↓",
        "plan, ms",
        "update, ms",
        "training, s",
        "updates",
        "kept",
    )
    return Table("Model and cost", header, tuple(rows))


def _memory_table(benchmark: Benchmark) -> Table:
    """What a memory buys and what it costs, one row for each; errors like all else at the end."""
    errors = {
        method: [average_performance(e) for e in benchmark.matrices(method, "prediction_error")]
        for method in benchmark.methods
    }
    places = _places([error for values in errors.values() for error in values])
    rows = []
    for method in benchmark.methods:
        results = benchmark.results(method)
        success = [average_performance(s) for s in benchmark.matrices(method, "success")]
        columns = (
            str(len(errors[method])),
            spread(errors[method], places),
            spread(success, 2),
            size(mean([r.memory_state_bytes for r in results])),
            significant(mean([r.memory_step_milliseconds for r in results])),
            significant(mean([sum(r.training_seconds) or math.nan for r in results])),
        )
        rows.append((Cell(method), *map(Cell, columns)))
    header = (
        "method",
        "seeds",
        f"{benchmark.error_name} ↓",
        "success ↑",
        "state",
        "its update, ms",
        "training, s",
    )
    return Table("Memory of an episode", header, tuple(rows))


def _places(values: Sequence[float]) -> int:
    """Decimals with which the smallest of positive `values` shows three digits."""
    finite = [value for value in values if 0 < value < math.inf]
    return max(0, 2 - math.floor(math.log10(min(finite)))) if finite else 2


def _inference_table(benchmark: Benchmark) -> Table:
    names = ("decisions", "precision", "recall", "delay")
    rows = []
    for method in benchmark.methods:
        inferred = [r.task_inference for r in benchmark.results(method)]
        columns = (significant(mean([i.get(name, math.nan) for i in inferred])) for name in names)
        rows.append((Cell(method), *map(Cell, columns)))
    return Table("Inference of the task", ("method", *names[:3], "delay, steps"), tuple(rows))


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
