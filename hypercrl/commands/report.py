"""hypercrl report: tables on the terminal, figures and a page on disk."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from hypercrl.base.errors import Unwritable, UserError
from hypercrl.report import write_report
from hypercrl.report.recall import write_recall
from hypercrl.runs.demos import find_run, is_demo

USAGE = """usage: hypercrl report DIR [DIR ...] [out=FOLDER]

Prints the tables of one or several runs and writes their figures (PNG) and one
HTML page.

  DIR                     a run's folder; or a folder of runs, such as out= of a
                          bench or run_dir= of a multirun, for all in it: then
                          only what puts them side by side is printed;
                          or push_demo, which comes with hypercrl
  out=FOLDER              where they go; by default report/ inside the run, or
                          runs/report for several and for push_demo"""


_FOR_RUNS = ("run", "runs", "run_dir", "dir", "resume")
"""What other commands call a run's folder."""


def run(words: Sequence[str]) -> None:
    """Report on the runs named by `words`."""
    if any(word in ("-h", "--help") for word in words):
        print(USAGE)
        return
    out: Path | None = None
    runs: list[Path] = []
    for word in words:
        if word in ("", "out="):
            what = "out=" if word else "the name of a run's folder"
            raise UserError(f"{what} is empty.\n\n{USAGE}")
        key, equals, value = word.partition("=")
        if equals and key in _FOR_RUNS and not Path(word).exists():
            meant = shlex.quote(value or "DIR")
            raise UserError(f"report takes folders as they are: hypercrl report {meant}")
        if word.startswith("out="):
            out = Path(word.removeprefix("out="))
        else:
            runs.append(find_run(Path(word)))
    if not runs:
        raise UserError(f"report needs at least one run folder.\n\n{USAGE}")
    if out is None:
        own = len(runs) == 1 and not is_demo(runs[0])
        out = runs[0] / "report" if own else Path("runs/report")
    console = Console(markup=False)
    try:
        if len(runs) == 1 and (results := _recall_results(runs[0])):
            page = write_recall(results, out, console)
        else:
            inside = [run for given in runs for run in _runs_in(given)]
            page = write_report(inside, out, console, each_run=len(inside) == len(runs))
    except Unwritable as error:
        raise UserError(f"{error} out=FOLDER names another place.") from error
    console.print(f"figures and page: {page}", highlight=False, soft_wrap=True)


def _runs_in(given: Path) -> list[Path]:
    """A run, or all that have begun in a folder of runs."""
    if (given / "config.yaml").is_file():
        return [given]
    configs = sorted(given.rglob("config.yaml"))
    return [c.parent for c in configs if (c.parent / "metrics.jsonl").is_file()] or [given]


def _recall_results(given: Path) -> list[Path]:
    """Those of a grid of suite=recall, whose cells are no training runs."""
    cells = sorted((given / "cells").glob("*/result.json"))
    return [c for c in cells if not (c.parent / "config.yaml").exists()]
