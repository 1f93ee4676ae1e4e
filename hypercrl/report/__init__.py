"""`hypercrl report`: tables on the terminal, figures as PNG and one HTML page, from run folders."""

import re
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from rich.columns import Columns
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from hypercrl.base.errors import UserError
from hypercrl.base.files import seen_to, write_atomically
from hypercrl.base.terminal import fits, whole
from hypercrl.report.benchmark import Benchmark
from hypercrl.report.comparison import comparison_tables
from hypercrl.report.curves import error_curves, learning_curves
from hypercrl.report.export import FORMATS
from hypercrl.report.grouping import group
from hypercrl.report.heat_maps import heat_maps
from hypercrl.report.page import Picture, render_page, run_status
from hypercrl.report.run_tables import cost_table, matrix_tables, metrics_table
from hypercrl.report.runs import Run, load_run
from hypercrl.report.style import to_png
from hypercrl.report.table import Table
from hypercrl.report.tidy import tidy
from hypercrl.report.trade_offs import trade_offs

__all__ = ["Benchmark", "Run", "group", "load_run", "write_report"]


def write_report(
    paths: Sequence[Path], out: Path | None, console: Console, each_run: bool = True
) -> Path | None:
    """Print the tables of these runs, and write their figures, one page and the tables as files.

    Files of an earlier report in `out` are replaced, each in one step; others are left alone.

    Args:
        paths: run folders; one given twice, or a copy of one, counts once.
        out: folder for index.html, the PNG files and ENV-PRESET.csv, .md and .tex, and
            ENV-PRESET-tidy.csv; made if need be. None: the tables are printed alone.
        console: where the tables go.
        each_run: print those of every run; else, of several, only what puts them side by side.

    Returns:
        Path of the page, if one is written.

    Raises:
        UserError: no paths, a path that is no run folder, a damaged file in one, an `out` that
            is a file or, an Unwritable, one that cannot be written to.
    """
    if not paths:
        raise UserError("Nothing to report: give one run folder or more.")
    if out is not None and out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file. Give a folder for the report.")
    benchmarks = group([load_run(path) for path in {p.resolve(): p for p in paths}.values()])
    with nullcontext() if out is None else seen_to(out):
        for benchmark in benchmarks:
            _print(benchmark, console, each_run or len(benchmark.runs) == 1)
        return None if out is None else _write(benchmarks, out)


def _write(benchmarks: Sequence[Benchmark], out: Path) -> Path:
    """All files; the path of the page."""
    pictures = [_pictures(benchmark) for benchmark in benchmarks]
    for picture in (picture for shown in pictures for picture in shown):
        write_atomically(out / f"{picture.name}.png", picture.png)
    for benchmark in benchmarks:
        tables = comparison_tables(benchmark)
        for extension, write in FORMATS.items():
            content = write(tables, benchmark.notes).encode("utf-8")
            write_atomically(out / f"{_name(benchmark)}.{extension}", content)
        write_atomically(out / f"{_name(benchmark)}-tidy.csv", tidy(benchmark).encode("utf-8"))
    page = out / "index.html"
    write_atomically(page, render_page(benchmarks, pictures).encode("utf-8"))
    return page


def _print(benchmark: Benchmark, console: Console, each_run: bool) -> None:
    """Each run, then all methods side by side, so that the conclusion is nearest to the prompt."""
    console.rule(Text(benchmark.title, "bold"), align="left", style="default")
    for number, task in enumerate(benchmark.tasks if benchmark.finished else (), start=1):
        console.print(Text.assemble((f"task {number}", "bold"), f"  {task}"))
    for run in benchmark.runs if each_run else ():
        console.print()
        console.print(Text.assemble((run.label, "bold cyan"), f"  {run_status(run)}"))
        if run.result is not None:
            matrices = matrix_tables(benchmark, run.result)
            _print_beside(matrices, console)
            for part in metrics_table(benchmark, run.result).in_parts(partial(fits, console)):
                console.print(whole(console, part.to_rich()), "", crop=False)
            console.print(whole(console, cost_table(run.result).to_rich()), "", crop=False)
    if len(benchmark.runs) > 1:
        console.print()
        console.print(Text(f"{benchmark.title}: methods side by side", "bold cyan"))
        for table in comparison_tables(benchmark):
            for part in table.in_parts(partial(fits, console)):
                console.print("", whole(console, part.to_rich()), crop=False)
    console.print()
    for note in benchmark.notes:
        console.print(Text.assemble(("note  ", "yellow"), note))


def _print_beside(tables: Sequence[Table], console: Console) -> None:
    """As many side by side as there is room for."""
    shown = [whole(console, table.to_rich()) for table in tables]
    if any(table.width for table in shown):  # wider than the console
        for table in shown:
            console.print("", table, crop=False)
        console.print()
    else:
        console.print(Padding(Columns(shown, padding=(1, 5)), (1, 0)))


def _pictures(benchmark: Benchmark) -> list[Picture]:
    """The figures for which there is anything to draw."""
    drawn = []
    if any(run.result is not None for run in benchmark.runs):
        caption = (
            "Row: the task trained last. Column: the task evaluated. Below the line are tasks "
            "trained already, so a column that pales downwards is a task being forgotten."
        )
        drawn.append(("matrix", "Result matrices", caption, heat_maps(benchmark)))
        caption = (
            "Mean over seeds × tasks, from three seeds on with its 95 % bootstrap interval over "
            "whole runs. Left and up is better. Bytes are what method and replay keep, seconds are "
            "those of updates, and say something where all runs had the same neighbours."
        )
        title = f"{benchmark.outcome_name.capitalize()} and its costs"
        drawn.append(("costs", title, caption, trade_offs(benchmark)))
    if any(run.tasks_evaluated for run in benchmark.runs):
        shaded = "Shaded: the time in which the row's own task is trained."
        drawn += [
            ("curves", "Learning curves", shaded, learning_curves(benchmark)),
            (
                "error",
                "Prediction error",
                f"Open-loop error of the model on held-out data of each task, log scale. {shaded}",
                error_curves(benchmark),
            ),
        ]
    return [
        Picture(f"{_name(benchmark)}-{kind}", title, caption, to_png(figure), figure.get_figwidth())
        for kind, title, caption, figure in drawn
    ]


def _name(benchmark: Benchmark) -> str:
    """What the files of a benchmark are called."""
    parts = filter(None, (benchmark.env, benchmark.preset, benchmark.sequence))
    return re.sub(r"[^A-Za-z0-9_]+", "-", "-".join(parts)).strip("-")
