"""Where log lines go in a terminal: above the progress bar, unwrapped, as they are."""

from __future__ import annotations

import logging

import rich


class ConsoleHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        rich.get_console().print(self.format(record), markup=False, highlight=False, soft_wrap=True)
