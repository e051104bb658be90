"""What a report is made of, and how a terminal shows it: tables, and texts with a colour for each token."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import zip_longest

from rich.cells import cell_len
from rich.console import Console
from rich.style import Style
from rich.text import Text as RichText

from lm.analysis.vocabulary.analysis import shown

COLOURS = ("#a9cdf5", "#f8d48c", "#b3e0ab", "#efb4cd")  # of neighbouring tokens, under black letters

Pieces = list[tuple[int, bytes]]  # a text, token by token: ids and what they stand for
Cell = str | list[str]  # of a table; a list is one of tokens


@dataclass(frozen=True)
class Table:
    title: str
    align: str  # per column l or r
    columns: list[str]
    rows: list[list[Cell]]
    note: str = ""
    bars: tuple[int, ...] = ()  # columns of percentages that a page draws as bars


@dataclass(frozen=True)
class Splits:
    """Texts as tokenizers split them: a label, and the pieces, or why there are none."""

    title: str
    rows: list[tuple[str, Pieces | str]]


@dataclass(frozen=True)
class Line:
    name: str  # lines of one name share their colour
    points: list[tuple[float, float]]
    marked: bool = False
    dashed: bool = False
    labels: list[str] = field(default_factory=list)  # of the points


@dataclass(frozen=True)
class Chart:
    title: str
    x: str  # what the axes are
    y: str
    lines: list[Line]
    log_y: bool = False  # x is logarithmic always
    ticks: list[float] = field(default_factory=list)  # of x; none: chosen

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys(line.name for line in self.lines))


Section = Table | Splits | Chart


def tell(sections: Iterable[Section], console: Console | None = None) -> None:
    console = console or Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    for section in sections:
        if isinstance(section, Chart):
            continue
        console.print(RichText(section.title, "bold"))
        if isinstance(section, Splits):
            splits(console, section)
        else:
            for i, line in enumerate(lines(section, console.width)):
                console.print(RichText(line, "dim" * (i < heads(section))), soft_wrap=True)
            if section.note:
                console.print(RichText(section.note, "dim"), soft_wrap=True)
        console.print()


def heads(table: Table) -> int:
    """Lines of the heading."""
    return max(column.count("\n") + 1 for column in table.columns) if any(table.columns) else 0


def lines(table: Table, width: int) -> list[str]:
    """A table in columns. Only lists of tokens bend to the `width`: figures stay whole."""
    deep = heads(table)
    head = [[""] * (deep - column.count("\n") - 1) + column.split("\n") for column in table.columns]
    rows = [list(row) for row in zip(*head, strict=True)][:deep]
    texts = [[cell if isinstance(cell, str) else "" for cell in row] for row in table.rows]
    widths = [max(map(cell_len, column)) for column in zip(*rows, *texts, strict=True)]
    room = max(30, width - sum(widths[:-1]) - 2 * len(widths))
    for row in table.rows:
        cells = [wrapped(cell, room) if isinstance(cell, list) else [cell] for cell in row]
        rows += [list(line) for line in zip_longest(*cells, fillvalue="")]
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(aligned, row, table.align, widths)).rstrip() for row in rows]


def aligned(cell: str, side: str, width: int) -> str:
    blank = " " * (width - cell_len(cell))
    return blank + cell if side == "r" else cell + blank


def wrapped(tokens: list[str], width: int) -> list[str]:
    out = [""]
    for token in tokens:
        if out[-1] and cell_len(out[-1]) + 2 + cell_len(token) > width:
            out.append(token)
        else:
            out[-1] += ("  " if out[-1] else "") + token
    return out


def splits(console: Console, splits: Splits) -> None:
    plain = console.color_system is None or console.no_color
    for label, found in splits.rows:
        if label:
            console.print(RichText(label, "dim"))
        text = RichText(found) if isinstance(found, str) else separated(found) if plain else coloured(found)
        console.print(text, soft_wrap=True)


def coloured(found: Pieces) -> RichText:
    out = RichText()
    for n, (_, spelling) in enumerate(found):
        style = Style(color="black", bgcolor=COLOURS[n % len(COLOURS)])
        first, *more = running(spelling).split("\n")
        out.append(first, style)
        for line in more:
            out.append("\n").append(line, style)
    return out


def separated(found: Pieces) -> RichText:
    """Where there is no colour, a · between tokens."""
    return RichText("·".join(running(spelling) for _, spelling in found))


def running(spelling: bytes) -> str:
    """A token in a running text: its spaces are spaces, its newlines are seen and break the line."""
    return shown(spelling, space=" ", newline="↵\n")
