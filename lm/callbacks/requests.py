"""What signals ask of a run; it obeys between two optimizer steps."""

from __future__ import annotations

import logging
import os
import signal
from types import FrameType
from typing import Any

import rich

log = logging.getLogger("lm")


class Requests:
    """SIGINT (Ctrl-C) and SIGTERM stop, and a second one ends the process at once. SIGUSR1 saves; SIGUSR2 pauses, and
    goes on."""

    def __init__(self) -> None:
        self.stop: int | None = None  # the signal that asked for it
        self.save = False
        self.paused = False
        self.handlers: dict[int, Any] = {}

    def listen(self) -> None:
        actions = {"INT": self._on_stop, "TERM": self._on_stop, "USR1": self._on_save, "USR2": self._on_pause}
        for name, action in actions.items():
            if signum := getattr(signal, f"SIG{name}", None):  # Windows has no SIGUSR
                self.handlers[signum] = signal.signal(signum, action)

    def forget(self) -> None:
        for signum, handler in self.handlers.items():
            signal.signal(signum, handler)
        self.handlers = {}

    def _on_stop(self, signum: int, frame: FrameType | None) -> None:
        if self.stop is not None:
            rich.get_console().show_cursor()
            os._exit(128 + signum)
        self.stop = signum
        log.info("%s: saving at the end of this step; once more ends at once", signal.Signals(signum).name)

    def _on_save(self, signum: int, frame: FrameType | None) -> None:
        self.save = True

    def _on_pause(self, signum: int, frame: FrameType | None) -> None:
        self.paused = not self.paused
