"""The tables of a report as files for papers, spreadsheets and notes."""

import csv
import io
from collections.abc import Callable, Sequence

from hypercrl.report.table import Table

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


def to_csv(tables: Sequence[Table]) -> str:
    """One row per table row, with the table's title in front; header rows wherever they change."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    for table in tables:
        writer.writerow(("table", *table.header))
        writer.writerows((table.title, *_texts(row)) for row in table.rows)
    return file.getvalue()


def to_markdown(tables: Sequence[Table]) -> str:
    """Pipe tables under headings."""
    parts = []
    for table in tables:
        rule = ["---" if i in table.text_columns else "---:" for i in range(len(table.header))]
        lines = [table.header, rule, *(_texts(row) for row in table.rows)]
        rows = "\n".join(
            f"| {' | '.join(c.replace('|', chr(92) + '|') for c in r)} |" for r in lines
        )
        parts.append(f"### {table.title}\n\n{rows}\n")
    return "\n".join(parts)


def to_latex(tables: Sequence[Table]) -> str:
    r"""`tabular` environments for the package booktabs, each below a comment with its title."""
    parts = []
    for table in tables:
        columns = "".join("l" if i in table.text_columns else "r" for i in range(len(table.header)))
        head, *body = (
            " & ".join(text.translate(_LATEX) for text in row) + r" \\"
            for row in (table.header, *(_texts(row) for row in table.rows))
        )
        lines = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *body]
        parts.append("\n".join([f"% {table.title}", *lines, r"\bottomrule", r"\end{tabular}", ""]))
    return "\n".join(parts)


FORMATS: dict[str, Callable[[Sequence[Table]], str]] = {
    "csv": to_csv,
    "md": to_markdown,
    "tex": to_latex,
}
"""File extension → writer."""


def _texts(row: Sequence[object]) -> list[str]:
    return [getattr(cell, "text", str(cell)) for cell in row]
