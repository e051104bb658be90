"""Sections of a report, and how to print them: tables, and texts with alternating colors for their tokens."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import zip_longest

from rich.cells import cell_len
from rich.console import Console
from rich.style import Style
from rich.text import Text as RichText

from lm.analysis.vocabulary.analysis import format_token

COLORS = ("#a9cdf5", "#f8d48c", "#b3e0ab", "#efb4cd")  # backgrounds of successive tokens, for black letters

Pieces = list[tuple[int, bytes]]  # the tokens of a text: ids and their bytes
Cell = str | list[str]  # of a table: text, or a list of tokens


@dataclass(frozen=True)
class Table:
    """A table with a title."""

    title: str
    align: str  # l or r for each column
    columns: list[str]
    rows: list[list[Cell]]
    note: str = ""
    bars: tuple[int, ...] = ()  # columns of percentages, which the HTML page draws as bars


@dataclass(frozen=True)
class Splits:
    """Texts split into tokens: pairs of a label, and the tokens or an error message."""

    title: str
    rows: list[tuple[str, Pieces | str]]


@dataclass(frozen=True)
class Line:
    """A line of a chart."""

    name: str  # lines with the same name have the same color
    points: list[tuple[float, float]]
    marked: bool = False
    dashed: bool = False
    labels: list[str] = field(default_factory=list)  # one for each point


@dataclass(frozen=True)
class Chart:
    """A chart with a logarithmic x axis."""

    title: str
    x: str  # labels of the axes
    y: str
    lines: list[Line]
    log_y: bool = False
    ticks: list[float] = field(default_factory=list)  # of the x axis; empty: chosen automatically

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys(line.name for line in self.lines))


Section = Table | Splits | Chart


def print_sections(sections: Iterable[Section], console: Console | None = None) -> None:
    """Print all sections except charts."""
    console = console or Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    for section in sections:
        if isinstance(section, Chart):
            continue
        console.print(RichText(section.title, "bold"))
        if isinstance(section, Splits):
            print_splits(console, section)
        else:
            for i, line in enumerate(format_table(section, console.width)):
                console.print(RichText(line, "dim" if i < heading_lines(section) else ""), soft_wrap=True)
            if section.note:
                console.print(RichText(section.note, "dim"), soft_wrap=True)
        console.print()


def heading_lines(table: Table) -> int:
    """Return the number of lines of the column headings."""
    return max(column.count("\n") + 1 for column in table.columns) if any(table.columns) else 0


def format_table(table: Table, width: int) -> list[str]:
    """Return the lines of a table. Lists of tokens are wrapped to fit the `width`, numbers are not."""
    height = heading_lines(table)
    head = [[""] * (height - column.count("\n") - 1) + column.split("\n") for column in table.columns]
    rows = [list(row) for row in zip(*head, strict=True)][:height]
    texts = [[cell if isinstance(cell, str) else "" for cell in row] for row in table.rows]
    widths = [max(map(cell_len, column)) for column in zip(*rows, *texts, strict=True)]
    room = max(30, width - sum(widths[:-1]) - 2 * len(widths))
    for row in table.rows:
        cells = [wrap_tokens(cell, room) if isinstance(cell, list) else [cell] for cell in row]
        rows += [list(line) for line in zip_longest(*cells, fillvalue="")]
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(align_cell, row, table.align, widths)).rstrip() for row in rows]


def align_cell(cell: str, side: str, width: int) -> str:
    """Pad a cell to `width` columns on the left (side "r") or right."""
    blank = " " * (width - cell_len(cell))
    return blank + cell if side == "r" else cell + blank


def wrap_tokens(tokens: list[str], width: int) -> list[str]:
    """Join tokens into lines of at most `width` columns, except for longer tokens."""
    out = [""]
    for token in tokens:
        if out[-1] and cell_len(out[-1]) + 2 + cell_len(token) > width:
            out.append(token)
        else:
            out[-1] += ("  " if out[-1] else "") + token
    return out


def print_splits(console: Console, splits: Splits) -> None:
    """Print texts split into tokens, in colors if the console has them."""
    plain = console.color_system is None or console.no_color
    for label, pieces in splits.rows:
        if label:
            console.print(RichText(label, "dim"))
        if isinstance(pieces, str):
            console.print(RichText(pieces), soft_wrap=True)
        else:
            console.print(separate_tokens(pieces) if plain else color_tokens(pieces), soft_wrap=True)


def color_tokens(pieces: Pieces) -> RichText:
    """Return a text whose successive tokens have different background colors."""
    out = RichText()
    for n, (_, spelling) in enumerate(pieces):
        style = Style(color="black", bgcolor=COLORS[n % len(COLORS)])
        first, *more = format_running_token(spelling).split("\n")
        out.append(first, style)
        for line in more:
            out.append("\n").append(line, style)
    return out


def separate_tokens(pieces: Pieces) -> RichText:
    """Return a text with a · between its tokens, for consoles without colors."""
    return RichText("·".join(format_running_token(spelling) for _, spelling in pieces))


def format_running_token(spelling: bytes) -> str:
    """Return a token for running text: spaces are kept, and newlines are visible and begin a new line."""
    return format_token(spelling, space=" ", newline="↵\n")
