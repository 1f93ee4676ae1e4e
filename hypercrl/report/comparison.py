"""The tables of methods side by side."""

import math
from collections.abc import Sequence

import numpy as np

from hypercrl.metrics import (
    Array,
    Mask,
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
    UNDEFINED,
    count,
    fixed,
    mean,
    significant,
    size,
    spread,
)
from hypercrl.report.table import Cell, Table

SEEDS_FOR_INTERVAL = 3
"""Fewer seeds than this carry no interval worth printing."""


def comparison_tables(benchmark: Benchmark) -> list[Table]:
    """Methods side by side, over the seeds that finished: success, return, and model and cost.

    Success is left out where nothing counts as such; its means are over tasks in which something
    does.
    Then what memories cost a robot, and how well tasks were inferred, where there is such a thing.

    Numbers are means over seeds ± standard deviation. From three seeds on the interquartile mean
    over seeds × tasks stands beside them, with its bootstrap interval.
    """
    scores = {method: benchmark.returns(method) for method in benchmark.methods}
    name = benchmark.return_name.capitalize()
    tables = [_outcome_table(name, scores, benchmark.return_decimals, benchmark.everywhere)]
    if not benchmark.by_return:
        success = {m: benchmark.matrices(m, "success") for m in benchmark.methods}
        outcome = _with_column(
            _outcome_table("Success", success, 2, benchmark.succeeds),
            "AUC transfer ↑",
            [fixed(benchmark.auc_forward_transfer(method)) for method in benchmark.methods],
        )
        tables = [outcome, *tables, _other_definitions_table(benchmark, success)]
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


def _outcome_table(title: str, outcomes: dict[str, Array], places: int, counted: Mask) -> Table:
    """Success or return of each method from its matrices [S, N + 1, N], over tasks that count."""
    with_interval = any(len(matrices) >= SEEDS_FOR_INTERVAL for matrices in outcomes.values())
    rows = []
    for method, matrices in outcomes.items():
        columns = [
            spread([metric(matrix, counted) for matrix in matrices], places)
            for metric in (average_performance, forgetting, zero_shot_forward_transfer)
        ]
        if with_interval:
            columns.insert(1, _interval(matrices[:, -1, counted], places))
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
            spread([metric(matrix, benchmark.succeeds) for matrix in matrices], 2)
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
    """What a memory buys and what it costs, one row for each; errors like all else at the end.

    What has no memory is there to be compared with, and has a dash for what one costs.
    """
    errors = {
        method: [average_performance(e) for e in benchmark.matrices(method, "prediction_error")]
        for method in benchmark.methods
    }
    places = _places([error for values in errors.values() for error in values])
    rows = []
    for method in benchmark.methods:
        results = benchmark.results(method)
        outcomes = [
            average_performance(outcome, benchmark.counted) for outcome in benchmark.outcome(method)
        ]
        columns = (
            str(len(errors[method])),
            spread(errors[method], places),
            spread(outcomes, benchmark.return_decimals if benchmark.by_return else 2),
            size(mean([r.memory_state_bytes or math.nan for r in results])),
            significant(mean([r.memory_step_milliseconds for r in results])),
        )
        rows.append((Cell(method), *map(Cell, columns)))
    header = (
        "method",
        "seeds",
        f"{benchmark.error_name} ↓",
        f"{benchmark.outcome_name} ↑",
        "state",
        "its update, ms",
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
