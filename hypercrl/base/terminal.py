"""Tables on a terminal, or in a pipe, with every word in them whole."""

from rich.console import Console
from rich.measure import Measurement
from rich.table import Column, Table


def whole(console: Console, table: Table) -> Table:
    """Fit a table into the console without cutting a word short, as rich does with headers first.

    Headers of numbers wrap, then texts, and numbers themselves only where it cannot be helped.
    Where words alone are too much for the console the table is wider: print it with `crop=False`.
    """
    if _measured(console, table).maximum <= console.width:
        return table
    for wraps in (False, True):
        for column in table.columns:
            column.min_width = _least(console, column, wraps)
            narrow = column.justify == "right" and not wraps
            column.max_width = column.min_width if narrow else None
        if _measured(console, table).minimum <= console.width:
            return table
    table.width = _measured(console, table).minimum
    return table


def _least(console: Console, column: Column, wraps: bool) -> int:
    """Room for the longest word; for the whole of a cell that is not to wrap."""
    cells = [_measured(console, cell) for cell in column.cells]
    header = _measured(console, column.header)
    if column.no_wrap:
        return max(size.maximum for size in (header, *cells))
    number = column.justify == "right" and not wraps
    return max(header.minimum, *(c.maximum if number else c.minimum for c in cells), 1)


def _measured(console: Console, renderable: object) -> Measurement:
    unbounded = console.options.update(width=10_000)
    return Measurement.get(console, unbounded, renderable)  # pyright: ignore[reportArgumentType]
