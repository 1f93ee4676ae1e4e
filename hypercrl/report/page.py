"""One HTML page that holds the whole report: no other file, no script, nothing from the network."""

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined

from hypercrl.base.counted import counted
from hypercrl.base.joints import parts
from hypercrl.metrics import average_performance, forgetting
from hypercrl.report.benchmark import Benchmark
from hypercrl.report.comparison import comparison_tables
from hypercrl.report.formats import count, duration, fixed, mean
from hypercrl.report.glossary import glossary
from hypercrl.report.run_tables import cost_table, matrix_tables, metrics_table
from hypercrl.report.runs import Run
from hypercrl.report.table import Table

PIXELS_PER_INCH = 108
"""Size at which a figure's text is as large as the page's small print."""


@dataclass(frozen=True)
class Picture:
    """A figure as it goes into the page: PNG bytes and a width in inches."""

    name: str
    title: str
    caption: str
    png: bytes
    inches: float


def render_page(benchmarks: Sequence[Benchmark], pictures: Sequence[Sequence[Picture]]) -> str:
    """HTML of the report.

    Args:
        benchmarks: what is reported, in order.
        pictures: for each benchmark the figures to show.
    """
    environment = Environment(
        loader=PackageLoader("hypercrl.report", "."),
        autoescape=True,  # captions, configs and paths are the user's text
        undefined=StrictUndefined,
    )
    environment.filters["parts"] = parts
    runs = [run for benchmark in benchmarks for run in benchmark.runs]
    names = " and ".join(benchmark.title for benchmark in benchmarks)
    finished = sum(run.result is not None for run in runs)
    status = "" if finished == len(runs) else f", {len(runs) - finished} of them not finished"
    return environment.get_template("page.html.jinja").render(
        title="HyperCRL report",
        glossary=glossary(),
        subtitle=f"{names}: {counted(len(runs), 'run')}{status}",
        sections=[
            {
                "title": benchmark.title,
                "tasks": benchmark.tasks,
                "cards": [_card(benchmark, method) for method in benchmark.methods],
                "notes": benchmark.notes,
                "comparison": comparison_tables(benchmark),
                "figures": [_figure(picture) for picture in shown],
                "runs": [_run(benchmark, run) for run in benchmark.runs],
            }
            for benchmark, shown in zip(benchmarks, pictures, strict=True)
        ],
    )


def _card(benchmark: Benchmark, method: str) -> dict[str, str]:
    """The headline: the outcome over all tasks at the end, and what of it was forgotten."""
    matrices = benchmark.outcome(method)
    places = benchmark.return_decimals if benchmark.by_return else 2
    seeds = len(matrices)
    lost = mean([forgetting(matrix, benchmark.counted) for matrix in matrices])
    reached = mean([average_performance(matrix, benchmark.counted) for matrix in matrices])
    forgotten = "" if math.isnan(lost) else f"{fixed(lost, places)} forgotten · "
    return {
        "method": method,
        "value": fixed(reached, places),
        "meaning": f"{benchmark.outcome_name} at the end" if seeds else "not finished",
        "detail": f"{forgotten}{counted(seeds, 'seed')}" if seeds else "",
    }


def _figure(picture: Picture) -> dict[str, str | int]:
    return {
        "title": picture.title,
        "caption": picture.caption,
        "data": base64.b64encode(picture.png).decode("ascii"),
        "width": round(picture.inches * PIXELS_PER_INCH),
    }


def _run(benchmark: Benchmark, run: Run) -> dict[str, object]:
    tables: list[Table] = []
    origin = str(run.path)
    if run.result is not None:
        result = run.result
        tables = [
            *matrix_tables(benchmark, result),
            metrics_table(benchmark, result),
            cost_table(result),
        ]
        origin += f" · revision {result.git} · {result.machine}"
    return {
        "title": f"{run.contender}, seed {run.seed}",
        "status": run_status(run),
        "origin": origin,
        "tables": tables,
        "config": run.config_text,
    }


def run_status(run: Run) -> str:
    """How far a run has come, in a few words.

    Of one that has not ended it is where it would go on, in the words in which the run said so.
    """
    if run.result is not None:
        return f"{count(run.result.env_steps)} steps in {duration(run.result.seconds)}"
    if run.failure is not None:
        return f"given up: {run.failure}"
    recorded = run.spans[-1][1] if run.spans else 0
    if run.saved is not None and (run.saved.env_steps or recorded):
        beyond = f"; recorded up to step {recorded}" if recorded > run.saved.env_steps else ""
        return f"not finished: saved {run.saved}{beyond}"
    if not run.spans:
        return "not finished: nothing recorded yet"
    return f"not finished: task {len(run.spans)}, step {count(recorded)}"
