"""The recall suite's report: recall against the bytes of a state, one line per encoder."""

import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from rich.console import Console
from rich.text import Text

from hypercrl.base.files import seen_to, write_atomically
from hypercrl.base.strict_json import to_json, write_json
from hypercrl.base.terminal import whole
from hypercrl.report.export import to_csv
from hypercrl.report.formats import count, duration, size, spread
from hypercrl.report.style import INK, OCTAVES, PALETTE, STYLE, WIDTH, log_scale, looks, to_png
from hypercrl.report.table import Cell, Table

MARKERS = "os^D"
CIRCUMSTANCES = {"seconds", "git", "machine"}
"""What may differ where the same was trained twice."""
HEADER = ("encoder", "width", "state", "parameters", "recall", "of half", "training")


def write_recall(results: Sequence[Path], out: Path | None, console: Console) -> Path | None:
    """Print the table, and write recall.json, recall.csv and recall.png.

    Args:
        results: result.json of every cell that has one.
        out: folder; made if need be. None: the table is printed alone.

    Returns:
        Path of the figure, if one is written; None where there is nothing to show.

    Raises:
        Unwritable: nothing can be written to `out`.
    """
    if not results:
        return None
    records, notes = _once(results)
    groups = _groups(records)
    table = recall_table(groups)
    with nullcontext() if out is None else seen_to(out):
        console.print(whole(console, table.to_rich()), crop=False)
        for note in notes:
            console.print(Text.assemble(("note  ", "yellow"), note))
        if out is None:
            return None
        write_json(out / "recall.json", records)
        write_atomically(out / "recall.csv", to_csv([table], notes).encode())
        figure = out / "recall.png"
        write_atomically(figure, to_png(recall_figure(groups)))
    return figure


Groups = dict[str, dict[int, list[dict[str, Any]]]]
"""Encoder → width → its results, one a seed."""


def _once(results: Sequence[Path]) -> tuple[list[dict[str, Any]], list[str]]:
    """Their records, and notes about those that say what another one says: they do not count."""
    kept: dict[str, tuple[Path, dict[str, Any]]] = {}
    notes = []
    for path in results:
        record = json.loads(path.read_text())
        said = to_json({k: v for k, v in record.items() if k not in CIRCUMSTANCES})
        first, _ = kept.setdefault(said, (path, record))
        if first != path:
            notes.append(f"{path.parent} has the result of {first.parent}, and is left out.")
    return [record for _, record in kept.values()], notes


def _groups(records: Sequence[dict[str, Any]]) -> Groups:
    groups: Groups = {}
    for record in sorted(records, key=lambda r: r["width"]):
        groups.setdefault(record["label"], {}).setdefault(record["width"], []).append(record)
    return groups


def recall_table(groups: Groups) -> Table:
    """A row for each encoder and width: means over seeds."""
    first = next(iter(next(iter(groups.values())).values()))[0]
    pairs, steps = first["pairs"], first["steps"]
    rows = []
    for label, widths in groups.items():
        for width, records in widths.items():
            texts = (
                label,
                str(width),
                size(records[0]["state_bytes"]),
                count(records[0]["parameters"]),
                spread([r["recall"][str(pairs)] for r in records]),
                spread([r["recall"][str(pairs // 2)] for r in records]),
                duration(float(np.mean([r["seconds"] for r in records]))),
            )
            rows.append(tuple(Cell(text) for text in texts))
    title = f"Recall of {pairs} pairs after {steps} training steps"
    return Table(title, HEADER, tuple(rows), (0,))


def recall_figure(groups: Groups) -> Figure:
    """Recall of all pairs against the bytes of one robot's state; left and up is better."""
    look = looks(tuple(groups))
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 5.2), layout="constrained")
        axes = figure.subplots()
        for index, (label, widths) in enumerate(groups.items()):
            x = [records[0]["state_bytes"] for records in widths.values()]
            y = [
                float(np.mean([r["recall"][str(r["pairs"])] for r in records]))
                for records in widths.values()
            ]
            own, marker = look[label], MARKERS[index // len(PALETTE) % len(MARKERS)]
            axes.plot(x, y, marker, color=own.colour, linestyle=own.dash, label=label, alpha=0.9)
        records = [r for widths in groups.values() for rs in widths.values() for r in rs]
        log_scale(axes, [r["state_bytes"] for r in records], OCTAVES, size)
        axes.set_ylim(-0.04, 1.04)
        axes.set_xlabel("bytes of a robot's state")
        axes.set_ylabel("recall", color=INK)
        figure.legend(loc="outside right center", frameon=False)
    return figure
