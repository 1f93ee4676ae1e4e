"""What a table is, on the terminal and on the page alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich import table as rich_table
from rich.text import Text

from hypercrl.base.terminal import Name
from hypercrl.report.formats import FAILED, UNDEFINED

Emphasis = Literal["plain", "strong", "faint", "bad"]
_TERMINAL_STYLE = {"plain": "", "strong": "bold", "faint": "dim", "bad": "bold red"}


@dataclass(frozen=True)
class Cell:
    """One entry, and how loudly it speaks."""

    text: str
    emphasis: Emphasis = "plain"


FAILURE = Cell(FAILED, "bad")
MISSING = Cell(UNDEFINED, "faint")
"""No failure: a prediction error that there is not, see the notes, or a task not evaluated."""


@dataclass(frozen=True)
class Table:
    """A title, column names and rows.

    Attributes:
        text_columns: indices of the columns that hold words and start at the left; numbers end at
            the right.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    text_columns: tuple[int, ...] = (0,)

    def in_parts(self, fits: Callable[[rich_table.Table], bool]) -> list["Table"]:
        """The table, or, where it does not fit, as few as do, with the first column in each.

        Where not even single columns fit it stays whole.
        """
        columns = range(1, len(self.header))
        for most in sorted({-(-len(columns) // parts) for parts in columns}, reverse=True):
            parts = [self._part(columns[at : at + most]) for at in range(0, len(columns), most)]
            if all(fits(part.to_rich()) for part in parts):
                return parts
        return [self]

    def _part(self, columns: Sequence[int]) -> "Table":
        """Of these columns beside the first; it says where others went before."""
        kept = 0, *columns
        title = self.title if columns[0] == 1 else f"{self.title}, continued"
        rows = tuple(tuple(row[column] for column in kept) for row in self.rows)
        words = tuple(place for place, column in enumerate(kept) if column in self.text_columns)
        return Table(title, tuple(self.header[column] for column in kept), rows, words)

    def to_rich(self) -> rich_table.Table:
        """The same table for a rich console; nothing in it is read as markup."""
        shown = rich_table.Table(
            title=Text(self.title, "bold"),
            title_justify="left",
            box=box.SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            show_header=any(self.header),
        )
        for index, name in enumerate(self.header):
            is_text = index in self.text_columns
            shown.add_column(Text(name), justify="left" if is_text else "right")
        for row in self.rows:
            shown.add_row(
                *(
                    (Text if index else Name)(cell.text, _TERMINAL_STYLE[cell.emphasis])
                    for index, cell in enumerate(row)
                )
            )
        return shown
