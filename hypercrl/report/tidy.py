"""Every number of a report's matrices in one table of plain numbers, for programs that read it."""

import csv
import io
import math
from collections.abc import Iterator

from hypercrl.report.benchmark import Benchmark
from hypercrl.report.runs import Run

COLUMNS = ("run", "method", "seed", "env", "preset", "stage", "task", "measure", "value")
UNTRAINED, WHOLE_RUN = 0, ""
"""A stage: after so many tasks; a task: none in particular."""


def tidy(benchmark: Benchmark) -> str:
    """CSV of one value a row, of every run that has ended, under the header `COLUMNS`.

    `stage` is how many tasks had been trained, `task` the one evaluated, from 1; it is empty where
    a value is of the agent as a whole. Measures: `return`, `success`, `prediction_error` (in units
    of the observation), `memory_bytes` and `training_seconds` of the stage's own task. A value that
    is not a number, as of a failed evaluation or of one that was not made, has an empty cell.

    Example:
        >>> table = pandas.read_csv("push-quick-tidy.csv")  # doctest: +SKIP
        >>> last = table[(table.measure == "success") & (table.stage == 3)]  # doctest: +SKIP
        >>> last.groupby("method").value.mean()  # doctest: +SKIP
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for run in benchmark.runs:
        about = (run.path, run.contender, run.seed, run.env, run.preset)
        for stage, task, measure, value in _values(run):
            shown = repr(value) if math.isfinite(value) else ""
            writer.writerow((*about, stage, task, measure, shown))
    return file.getvalue()


def _values(run: Run) -> Iterator[tuple[int, int | str, str, float]]:
    """Stage, task, measure and value of each number."""
    result = run.result
    if result is None:
        return
    matrices = {
        "return": result.scores,
        "success": result.success,
        "prediction_error": result.prediction_error,
    }
    for measure, matrix in matrices.items():
        for stage, row in enumerate(matrix.tolist(), start=UNTRAINED):
            for task, value in enumerate(row, start=1):
                yield stage, task, measure, value
    costs = {"memory_bytes": result.memory_bytes, "training_seconds": result.training_seconds}
    for measure, values in costs.items():
        for stage, value in enumerate(values, start=1):
            yield stage, WHOLE_RUN, measure, value
