"""A table that fits the width of a terminal, and tab-separated text where there is none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from client.printable import clean

GAPS = (2, 1)  # spaces between columns, the first that fits
WRAPPED = 18  # a column that may wrap keeps this width at least


@dataclass(frozen=True, slots=True)
class Column:
    """`drop`: where the terminal is too narrow, the column of the greatest number is left out first; 0 is never left out.
    `wrap`: its text may go on in the next line."""

    heading: str
    right: bool = False
    drop: int = 0
    wrap: bool = False


@dataclass(frozen=True, slots=True)
class Bar:
    """A progress bar; piped, it is a number of per cent."""

    fraction: float
    width: int = 10


Cell = str | Text | Bar


class Sheet:
    """`Sheet("id", Column("steps", right=True))`, then `add(…)` for each row. No cell is ever cut off: columns are left out, and if
    the others still do not fit, each row becomes a block of lines."""

    def __init__(self, *columns: Column | str):
        self.columns = [Column(column) if isinstance(column, str) else column for column in columns]
        self.rows: list[tuple[Cell, ...]] = []

    def add(self, *cells: Cell) -> None:
        """Add a row. What a name or a message has of control characters is taken out: none may steer the terminal."""
        self.rows.append(tuple(clean(cell) if isinstance(cell, str) else cell for cell in cells))

    def tsv(self) -> Iterator[str]:
        """The lines: the headings, then the rows, separated by tabs."""
        yield "\t".join(column.heading for column in self.columns)
        for row in self.rows:
            yield "\t".join(_plain(cell) for cell in row)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        room = options.max_width
        for shown in self._fewer():
            for gap in GAPS:
                if sum(self._least(index) for index in shown) + gap * (len(shown) - 1) <= room:
                    yield self._table(shown, gap)
                    return
        yield from self._blocks()

    def _fewer(self) -> Iterator[list[int]]:
        """The columns to show: all of them, then fewer and fewer."""
        shown = list(range(len(self.columns)))
        yield shown
        for index in sorted(shown, key=lambda index: (-self.columns[index].drop, -index)):
            if self.columns[index].drop == 0:
                return
            shown = [other for other in shown if other != index]
            yield shown

    def _least(self, index: int) -> int:
        widest = max([cell_len(self.columns[index].heading), *(_width(row[index]) for row in self.rows)])
        return min(widest, max(WRAPPED, cell_len(self.columns[index].heading))) if self.columns[index].wrap else widest

    def _table(self, shown: Sequence[int], gap: int) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold")
        for index in shown:
            column = self.columns[index]
            table.add_column(
                column.heading,
                justify="right" if column.right else "left",
                no_wrap=not column.wrap,
                overflow="fold",
            )
        for row in self.rows:
            table.add_row(*(_drawn(row[index]) for index in shown))
        return table

    def _blocks(self) -> Iterator[RenderableType]:
        wide = max((cell_len(column.heading) for column in self.columns), default=0)
        for number, row in enumerate(self.rows):
            if number:
                yield Text("")
            for column, cell in zip(self.columns, row, strict=True):
                if _plain(cell):
                    value = cell if isinstance(cell, Text) else Text(_plain(cell))
                    yield Text.assemble((column.heading.ljust(wide), "bold"), "  ", value, overflow="fold")


def _width(cell: Cell) -> int:
    return cell.width if isinstance(cell, Bar) else cell_len(cell.plain if isinstance(cell, Text) else cell)


def _drawn(cell: Cell) -> RenderableType:
    if isinstance(cell, Bar):
        return ProgressBar(total=1.0, completed=cell.fraction, width=cell.width)
    return cell if isinstance(cell, Text) else Text(cell)


def _plain(cell: Cell) -> str:
    if isinstance(cell, Bar):
        return f"{100 * cell.fraction:.0f} %"
    return cell.plain if isinstance(cell, Text) else cell
