"""Tables on a terminal, or in a pipe, with every word in them whole."""

from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

from hypercrl.base.joints import in_lines, parts


@dataclass(frozen=True)
class Name:
    """A name in a table, which breaks at its joints where it has to."""

    text: str
    style: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text("\n".join(in_lines(self.text, options.max_width)), self.style)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        least = max((len(part.rstrip()) for part in parts(self.text)), default=0)
        return Measurement(least, len(self.text))


def fits(console: Console, table: Table) -> bool:
    """Whether a table has room with each of its numbers on one line; headers may wrap."""
    sizes = [(column, _sizes(console, column)) for column in table.columns]
    between = _between(console, table, [each for _, each in sizes])
    return between + sum(_least(*each, wraps=False) for each in sizes) <= console.width


def whole(console: Console, table: Table) -> Table:
    """Fit a table into the console without cutting a word short, as rich does with headers first.

    Headers of numbers wrap, then texts, and numbers themselves only where it cannot be helped;
    columns that may fold do. Where words alone are too much for the console the table is wider:
    print it with `crop=False`.
    """
    natural = _measured(console, table)
    if natural.maximum <= console.width:
        return table
    columns = [_sizes(console, column) for column in table.columns]
    between = _between(console, table, columns)
    for wraps in (False, True):
        widths = [
            _least(column, sizes, wraps)
            for column, sizes in zip(table.columns, columns, strict=True)
        ]
        if between + sum(widths) <= console.width:
            break
    spare = max(0, console.width - between - sum(widths))
    for column, sizes, width in zip(table.columns, columns, widths, strict=True):
        column.min_width = width
        if column.justify == "right":  # what is left over goes to numbers, then to texts
            more = min(spare, max(0, max(size.maximum for size in sizes[1:] or sizes) - width))
            column.min_width = column.max_width = width + more
            spare -= more
    if between + sum(widths) > console.width:
        table.width = between + sum(widths)
    return table


def _between(console: Console, table: Table, columns: list[list[Measurement]]) -> int:
    """What a table takes beside its columns, of these sizes."""
    widths = sum(max(size.minimum for size in sizes) for sizes in columns)
    return _measured(console, table).minimum - widths


def _least(column: Column, sizes: list[Measurement], wraps: bool) -> int:
    """Room for the longest word of what may not fold; for the whole of what is not to wrap."""
    header, *cells = sizes
    if column.overflow == "fold":
        return header.minimum
    if column.no_wrap:
        return max(size.maximum for size in sizes)
    if column.justify == "right" and not wraps:
        return max(header.minimum, *(cell.maximum for cell in cells), 1)
    return max(size.minimum for size in sizes)


def _sizes(console: Console, column: Column) -> list[Measurement]:
    """Of the header, and of every cell."""
    return [_measured(console, text) for text in (column.header, *column.cells)]


def _measured(console: Console, renderable: object) -> Measurement:
    unbounded = console.options.update(width=10_000)
    return Measurement.get(console, unbounded, renderable)  # pyright: ignore[reportArgumentType]
