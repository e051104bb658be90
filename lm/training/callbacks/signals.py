"""Receive the signals that ask a run to save, pause or stop. The run reacts between two optimizer steps."""

from __future__ import annotations

import logging
import os
import signal
from types import FrameType
from typing import Any

import rich

log = logging.getLogger("lm")


class SignalHandler:
    """Record the signals that a run receives.

    SIGINT (Ctrl-C), SIGTERM and SIGHUP stop the run; a second SIGINT or a second SIGTERM ends the process immediately.
    SIGUSR1 saves a checkpoint; SIGUSR2 pauses and resumes. A closed terminal may send SIGHUP twice (the kernel and the
    shell both send it), so a second SIGHUP is ignored. Under nohup SIGHUP stays ignored.
    """

    def __init__(self) -> None:
        self.seen: set[int] = set()
        self.stop: int | None = None  # the signal that asked to stop
        self.save = False
        self.paused = False
        self.handlers: dict[int, Any] = {}

    def install(self) -> None:
        """Install the signal handlers."""
        stop = self._on_stop
        actions = {"INT": stop, "TERM": stop, "HUP": stop, "USR1": self._on_save, "USR2": self._on_pause}
        for name, action in actions.items():
            signum = getattr(signal, f"SIG{name}", None)  # Windows has neither SIGHUP nor SIGUSR
            if signum and not (name == "HUP" and signal.getsignal(signum) == signal.SIG_IGN):
                self.handlers[signum] = signal.signal(signum, action)

    def uninstall(self) -> None:
        """Restore the previous signal handlers."""
        for signum, handler in self.handlers.items():
            signal.signal(signum, handler)
        self.handlers = {}

    def _on_stop(self, signum: int, frame: FrameType | None) -> None:
        name = signal.Signals(signum).name
        if signum in self.seen and name != "SIGHUP":
            rich.get_console().show_cursor()
            os._exit(128 + signum)
        self.seen.add(signum)
        if self.stop is None:
            self.stop = signum
            again = "" if name == "SIGHUP" else "; a second one exits immediately"
            log.info("%s: saving at the end of this step%s", name, again)

    def _on_save(self, signum: int, frame: FrameType | None) -> None:
        self.save = True

    def _on_pause(self, signum: int, frame: FrameType | None) -> None:
        self.paused = not self.paused
