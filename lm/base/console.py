"""Terminal output: log lines above the progress bar, progress of long operations, tables."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

import rich
from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

log = logging.getLogger("lm")
LOG_INTERVAL = 30.0  # seconds between progress lines when there is no terminal for a progress bar


class ConsoleHandler(logging.Handler):
    """Print log lines above the progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            rich.get_console().print(self.format(record), markup=False, highlight=False, soft_wrap=True)
        except Exception:
            self.handleError(record)


class SafeStream:
    """A text stream that never raises an error when it cannot write, so that the program continues without it.

    Characters that its encoding lacks are written as escapes. After a system error (a closed pipe, a closed terminal, a
    full disk) all output goes to the null device, and one warning is logged, which also goes to train.log.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except UnicodeEncodeError:
            encoding = self._stream.encoding or "ascii"
            return self.write(text.encode(encoding, "backslashreplace").decode(encoding))
        except (OSError, ValueError) as error:  # ValueError: the stream is closed
            self._give_up(error)
            return len(text)

    def writelines(self, lines: Sequence[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """Redirect the buffered text and all further output to the null device."""
        name, null = getattr(self._stream, "name", "the console"), os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(null, self._stream.fileno())
        except (OSError, ValueError):
            self._stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - for the process's lifetime
        os.close(null)
        log.warning("warning   %s can no longer be written to (%s); see train.log for further messages", name, error)


def protect_console() -> None:
    """Make stdout and stderr safe, so that a closed terminal or pipe does not end this process."""
    for name in ("stdout", "stderr"):
        if not isinstance(stream := getattr(sys, name), SafeStream | None):  # None: closed before Python started
            setattr(sys, name, SafeStream(stream))


@contextmanager
def progress(label: str, total: int | None, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Show the progress of an operation in bytes; yields a function to call with the number of bytes just processed.

    In a terminal this is a bar with speed and time left; otherwise a line is logged every LOG_INTERVAL seconds.
    """
    if sys.stderr.isatty():
        columns = (TextColumn(label), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(label, total=total, completed=done)
            yield lambda n: bar.advance(task, n)
        return
    start = last_logged = time.monotonic()
    count = 0

    def advance(n: int) -> None:
        nonlocal count, last_logged
        count += n
        now = time.monotonic()
        if now - last_logged >= LOG_INTERVAL:
            last_logged = now
            speed = count / (now - start)
            if total:
                left = (total - done - count) / speed
                log.info("%s: %.0f %%, %.1f MB/s, %.0f s left", label, 100 * (done + count) / total, speed / 1e6, left)
            else:
                log.info("%s: %.1f MB, %.1f MB/s", label, (done + count) / 1e6, speed / 1e6)

    yield advance


def print_rows(rows: Sequence[Mapping[str, str | int | float]]) -> None:
    """Print rows as a table that fits the terminal, with the keys of the first row as its header. Long text is wrapped.

    Without a terminal, a line has at most 200 columns.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, (key, value) in enumerate(rows[0].items()):
        number = isinstance(value, int | float)
        table.add_column(key, justify="right" if number else "left", no_wrap=number or i == 0, overflow="fold")
    for row in rows:
        table.add_row(*(Text(format_cell(value)) for value in row.values()))  # not markup: "[hf]" would be a tag
    console = Console()
    console.width = console.width if console.is_terminal else 200
    console.print(table)


def format_cell(value: str | int | float) -> str:
    """Format a value with thousands separators, and one decimal if it is not an integer."""
    if isinstance(value, str):
        return value
    return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}"


def format_table(rows: Sequence[Sequence[str]], numbers: bool = True) -> str:
    """Return a table with aligned columns: the first left-aligned, the others right-aligned if they hold `numbers`.

    Widths are those of a terminal, where a Chinese character takes two columns.
    """
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        line = ""
        for i, (cell, width) in enumerate(zip(row, widths, strict=True)):
            padding = " " * (width - cell_len(cell))
            line += (padding + cell if i and numbers else cell + padding) + "  "
        lines.append(line.rstrip())
    return "\n".join(lines)
