"""What people see in a terminal: log lines above the progress bar, and progress of what takes long."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

import rich
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

log = logging.getLogger("lm")
EVERY = 30.0  # seconds between lines, where there is no terminal to draw a bar in


class ConsoleHandler(logging.Handler):
    """Prints log lines above the progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            rich.get_console().print(self.format(record), markup=False, highlight=False, soft_wrap=True)
        except Exception:
            self.handleError(record)


class SafeStream:
    """A text stream that never raises where it cannot write: what it stands for goes on without it.

    Characters that its encoding lacks are written as escapes. After an error of the system (a closed pipe, a terminal
    that is gone, a full disk) everything goes to the null device, and the log, hence train.log, says so once.
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
        """Send what is still buffered, and all that follows, to the null device."""
        name, null = getattr(self._stream, "name", "the console"), os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(null, self._stream.fileno())
        except (OSError, ValueError):
            self._stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - for the process's lifetime
        os.close(null)
        log.warning("warning   %s can no longer be written to (%s): train.log has the messages", name, error)


def protect_console() -> None:
    """Let no print end this process, whatever becomes of its terminal or pipe."""
    for name in ("stdout", "stderr"):
        if not isinstance(stream := getattr(sys, name), SafeStream | None):  # None: closed before Python started
            setattr(sys, name, SafeStream(stream))


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


def format_table(rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns, the first to the left, the others, figures as a rule, to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
