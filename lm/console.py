"""What people see in a terminal: log lines above the progress bar, and progress of what takes long."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import rich
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

log = logging.getLogger("lm")
EVERY = 30.0  # seconds between lines, where there is no terminal to draw a bar in


class ConsoleHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        rich.get_console().print(self.format(record), markup=False, highlight=False, soft_wrap=True)


@contextmanager
def progress(what: str, total: int | None, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Yields a function that counts so many bytes as done: a bar with speed and time left, or a line now and then."""
    if sys.stderr.isatty():
        columns = (TextColumn(what), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=total, completed=done)
            yield lambda n: bar.advance(task, n)
        return
    began = said = time.monotonic()
    count = 0

    def advance(n: int) -> None:
        nonlocal count, said
        count += n
        now = time.monotonic()
        if now - said >= EVERY:
            said = now
            rate = count / (now - began)
            if total:
                left = (total - done - count) / rate
                log.info("%s: %.0f %%, %.1f MB/s, %.0f s left", what, 100 * (done + count) / total, rate / 1e6, left)
            else:
                log.info("%s: %.1f MB, %.1f MB/s", what, (done + count) / 1e6, rate / 1e6)

    yield advance


@contextmanager
def until_closed() -> Iterator[None]:
    """Around what prints: it ends where nobody reads on, as in `| head`."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would complain when it ends


def table(rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns, the first to the left, the others, figures as a rule, to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
