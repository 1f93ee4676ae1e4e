"""The tables of a report as files for papers, spreadsheets and notes.

What a reader must know before believing the numbers goes with them.
"""

import csv
import io
from collections.abc import Callable, Sequence

from hypercrl.report.table import Cell, Table

_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        **{c: rf"\{c}" for c in "&%$#_{}"},
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "↑": r"$\uparrow$",
        "↓": r"$\downarrow$",
        "±": r"$\pm$",
        "—": "--",
        "\u202f": r"\,",
    }
)


def to_csv(tables: Sequence[Table], notes: Sequence[str] = ()) -> str:
    """One row per table row, with the table's title in front; header rows wherever they change.

    Notes are a table as well, the last one: comments are nothing that all readers of CSV know.
    """
    if notes:
        tables = [*tables, Table("Notes", ("note",), tuple((Cell(note),) for note in notes))]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    for table in tables:
        writer.writerow(("table", *table.header))
        writer.writerows((table.title, *_texts(row)) for row in table.rows)
    return file.getvalue()


def to_markdown(tables: Sequence[Table], notes: Sequence[str] = ()) -> str:
    """Pipe tables under headings, and the notes below them."""
    parts = []
    for table in tables:
        rule = ["---" if i in table.text_columns else "---:" for i in range(len(table.header))]
        lines = [table.header, rule, *(_texts(row) for row in table.rows)]
        rows = "\n".join(
            f"| {' | '.join(c.replace('|', chr(92) + '|') for c in r)} |" for r in lines
        )
        parts.append(f"### {table.title}\n\n{rows}\n")
    if notes:
        said = "".join(f"- {_in_one_line(note)}\n" for note in notes)
        parts.append(f"### Notes\n\n{said}")
    return "\n".join(parts)


def to_latex(tables: Sequence[Table], notes: Sequence[str] = ()) -> str:
    r"""`tabular` environments for the package booktabs, each below a comment with its title.

    The notes are comments above them all.
    """
    parts = ["".join(f"% Note: {_in_one_line(note)}\n" for note in notes)] if notes else []
    for table in tables:
        columns = "".join("l" if i in table.text_columns else "r" for i in range(len(table.header)))
        head, *body = (
            " & ".join(text.translate(_LATEX) for text in row) + r" \\"
            for row in (table.header, *(_texts(row) for row in table.rows))
        )
        lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *body]
        parts.append("\n".join([f"% {table.title}", *lines, r"\bottomrule", r"\end{tabular}", ""]))
    return "\n".join(parts)


FORMATS: dict[str, Callable[[Sequence[Table], Sequence[str]], str]] = {
    "csv": to_csv,
    "md": to_markdown,
    "tex": to_latex,
}
"""File extension → writer of tables and notes."""


def _in_one_line(note: str) -> str:
    """A line break would end a comment, or an entry of a list."""
    return " ".join(note.split())


def _texts(row: Sequence[object]) -> list[str]:
    return [getattr(cell, "text", str(cell)) for cell in row]
