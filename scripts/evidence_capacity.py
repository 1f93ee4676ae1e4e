"""What width, hold and targets of a hypernetwork do over many tasks: a figure and a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from evidence_figures import LOOKS, band, errors_axis
from evidence_grid import SEQUENCES, variants_of
from evidence_long import GROWN, geometric_mean, grown
from evidence_records import cell_of, matrix
from marked_section import with_section
from matplotlib import rc_context
from matplotlib.figure import Figure

from hypercrl.base.files import write_atomically
from hypercrl.metrics import Array, forgetting, just_trained, mean_interval
from hypercrl.report.comparison import SEEDS_FOR_INTERVAL
from hypercrl.report.formats import fixed, mean, significant, size, spread
from hypercrl.report.style import INK, MUTED, STYLE, WIDTH

Records = Sequence[Mapping[str, Any]]
RANK = "hypernetwork_effective_rank"
METHOD = "hnet"
BEGIN, END = "<!-- made by scripts/evidence.py table -->\n", "<!-- until here -->"


def by_label(base: str, records: Mapping[str, Records]) -> dict[str, Records]:
    """Runs of a sequence and of its variants by what they are called, those of METHOD first.

    Args:
        base: the sequence.
        records: by the name of a sequence.
    """
    found = {
        SEQUENCES[name].label(method): [
            r for r in records.get(name, ()) if cell_of(r).method == method
        ]
        for name in (base, *variants_of(base))
        for method in SEQUENCES[name].methods
    }
    ordered = sorted(found, key=lambda label: label.split(",")[0] != METHOD)
    return {label: found[label] for label in ordered if found[label]}


def capacity(labelled: Mapping[str, Records]) -> Figure:
    """How many dimensions hypernetworks use, and what is left of each task at the end.

    Bands are 95 % bootstrap intervals of the mean over seeds, where there are three.

    Args:
        labelled: runs by what they are called, of which those of METHOD are drawn.
    """
    settings = {k: runs for k, runs in labelled.items() if cell_of(runs[0]).method == METHOD}
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
        ranks, success, errors = figure.subplots(1, 3)
        for label, records in settings.items():
            if used := _used(records):
                middle = np.mean(used, 0)
                ranks.plot(np.arange(1, len(middle) + 1), middle, color=LOOKS[label].colour)
            band(success, label, _final(records))
            band(errors, label, np.log(_error_at_the_end(records)), np.exp)
        for width in sorted({_width(records) for records in settings.values()}):
            ranks.axhline(width, color=MUTED, lw=0.8, ls=(0, (2, 2)))
            words = {"color": MUTED, "fontsize": 8.5, "textcoords": "offset points"}
            ranks.annotate(f"width {width}", (0, width), (0, -11), **words)
        ranks.set_ylim(0, None)
        ranks.set_ylabel("dimensions used (effective rank)", color=INK)
        ranks.set_xlabel("tasks learned so far")
        success.set_ylim(-0.04, 1.04)
        success.set_ylabel("success at the end", color=INK)
        errors_axis(errors, "prediction error, 1 = as just learned")
        for axes in (success, errors):
            axes.set_xlabel("tasks in the order learned")
        names = [_what(label, records) for label, records in settings.items()]
        place = {"loc": "outside lower center", "ncols": 2, "frameon": False}
        figure.legend(success.get_lines(), names, **place, title="success on all tasks at the end")
    return figure


def _what(label: str, records: Records) -> str:
    shipped = f"as it ships: width {_width(records)}, β {records[0]['settings']['method.beta']:g}"
    seeds = f"{len(records)} seeds" if len(records) > 1 else "one seed"
    return f"{_final(records).mean():.2f}: {label.partition(', ')[2] or shipped} ({seeds})"


def _used(records: Records) -> list[list[float]]:
    """Effective ranks after each task, of the runs that have logged them."""
    logged = [record.get("plasticity", {}) for record in records]
    return [measures[RANK] for measures in logged if RANK in measures]


def _width(records: Records) -> int:
    return int(records[0]["settings"]["method.hidden"][-1])


def _final(records: Records) -> Array:
    return np.stack([matrix(record, "success")[-1] for record in records])


def _error_at_the_end(records: Records) -> Array:
    """[S, N]: as a multiple of that right after the task was learned."""
    errors = [matrix(record, "prediction_error") for record in records]
    return np.stack([each[-1] / just_trained(each) for each in errors])


def write_table(page: Path, labelled: Mapping[str, Records]) -> None:
    """Put the table between its marks in a page that is written by hand.

    Raises:
        UserError: the marks are not there.
    """
    text = page.read_text(encoding="utf-8")
    text = with_section(text, BEGIN, END, f"\n{table(labelled)}\n")
    write_atomically(page, text.encode())


def table(labelled: Mapping[str, Records]) -> str:
    """Of all methods, in Markdown; success with a 95 % interval over three seeds."""
    header = ["", "seeds", "success at the end", "by quarters of the sequence", "just learned"]
    header += ["forgetting", "error", GROWN, "effective rank", "kept", "commit"]
    lines = [header, ["---"] * len(header)]
    lines += [_row(label, records) for label, records in labelled.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _row(label: str, records: Records) -> list[str]:
    success = [matrix(record, "success") for record in records]
    errors = np.stack([matrix(record, "prediction_error") for record in records])
    final = _final(records)
    interval = ""
    if len(final) >= SEEDS_FOR_INTERVAL:
        low, high = mean_interval(final.mean(1), np.random.default_rng(0))
        interval = f" [{fixed(low)}, {fixed(high)}]"
    ranks = [ranks[-1] for ranks in _used(records)]
    return [
        label,
        str(len(records)),
        fixed(float(final.mean())) + interval,
        " ".join(fixed(float(part.mean())) for part in np.array_split(final, 4, 1)),
        fixed(mean([float(just_trained(each).mean()) for each in success])),
        spread([forgetting(each) for each in success]),
        significant(geometric_mean(errors[:, -1])),
        grown(errors),
        f"{mean(ranks):.0f} of {_width(records)}" if ranks else "",
        size(mean([record["memory_bytes"][-1] for record in records])),
        ", ".join(sorted({record["git"] for record in records})),
    ]
