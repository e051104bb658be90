"""Stop the jobs of a sweep that run in processes of their own."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from lm.base.files import is_alive
from lm.base.signals import handle_ending_signals
from lm.run.lock import Owner, current_owner, send_signal

GRACE_SECONDS = 30.0  # time for the jobs in other processes to save when a sweep is stopped


@contextmanager
def stop_on_signals(directory: Path) -> Iterator[None]:
    """Make SIGINT, SIGTERM and SIGHUP end a sweep whose jobs run in other processes, after the jobs have saved."""

    def stop(signum: int, frame: FrameType | None) -> None:
        stop_jobs(directory, send_stop=signum != signal.SIGINT)  # a terminal sends SIGINT to all processes
        raise SystemExit(128 + signum)

    with handle_ending_signals(stop):
        yield


def stop_jobs(directory: Path, send_stop: bool = True) -> list[Owner]:
    """Stop the jobs in other processes, wait until they have saved, and return their owners.

    With `send_stop=False` the jobs have received a signal already.
    """
    running = {path.parent: owner for path in directory.glob("*/.owner.json") if (owner := current_owner(path.parent))}
    for job in running if send_stop else ():
        send_signal(job, "stop")
    began = time.monotonic()
    while any(map(current_owner, running)) and time.monotonic() - began < GRACE_SECONDS:
        time.sleep(0.1)
    return list(running.values())


def kill_strays(directory: Path) -> None:
    """Stop the jobs that a killed sweep has left running. Raises UserError if they run on another machine."""
    for owner in stop_jobs(directory):
        if is_alive(owner.pid):  # it would start the next job
            os.kill(owner.pid, signal.SIGKILL)
