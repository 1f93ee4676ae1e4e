"""hypercrl report: tables on the terminal, figures and a page on disk."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from hypercrl.base.errors import UserError
from hypercrl.report import write_report

USAGE = """usage: hypercrl report DIR [DIR ...] [out=FOLDER]

Prints the tables of one or several runs and writes their figures (PNG) and one
HTML page.

  DIR                     a run's folder
  out=FOLDER              where they go; by default report/ inside the run, or
                          runs/report for several"""


def run(words: Sequence[str]) -> None:
    """Report on the runs named by `words`."""
    if any(word in ("-h", "--help") for word in words):
        print(USAGE)
        return
    out: Path | None = None
    runs: list[Path] = []
    for word in words:
        if word.startswith("out="):
            out = Path(word.removeprefix("out="))
        else:
            runs.append(Path(word))
    if not runs:
        raise UserError(f"report needs at least one run folder.\n\n{USAGE}")
    if out is None:
        out = runs[0] / "report" if len(runs) == 1 else Path("runs/report")
    console = Console()
    page = write_report(runs, out, console)
    console.print(f"figures and page: {page}", highlight=False, soft_wrap=True)
