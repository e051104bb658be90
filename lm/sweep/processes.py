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
from lm.run.lock import Owner, current_owner, send

GRACE = 30.0  # seconds in which the jobs of other processes may save when a sweep is asked to stop


@contextmanager
def stop_on_signals(directory: Path) -> Iterator[None]:
    """Make SIGINT, SIGTERM and SIGHUP end a sweep whose jobs run in processes of their own, once they have saved."""

    def stop(signum: int, frame: FrameType | None) -> None:
        stop_jobs(directory, tell=signum != signal.SIGINT)  # a terminal sends SIGINT to all processes itself
        raise SystemExit(128 + signum)

    signals = [signal.SIGINT, signal.SIGTERM]
    signals += [signal.SIGHUP] * (signal.getsignal(signal.SIGHUP) != signal.SIG_IGN)  # nohup has it ignored
    before = {signum: signal.signal(signum, stop) for signum in signals}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def stop_jobs(directory: Path, tell: bool = True) -> list[Owner]:
    """Wait for the jobs of other processes to save, which they are told to do or know; returns whose they were."""
    running = {path.parent: owner for path in directory.glob("*/.owner.json") if (owner := current_owner(path.parent))}
    for job in running if tell else ():
        send(job, "stop")
    began = time.monotonic()
    while any(map(current_owner, running)) and time.monotonic() - began < GRACE:
        time.sleep(0.1)
    return list(running.values())


def kill_strays(directory: Path) -> None:
    """End the jobs that a killed command has left running. Raises UserError when they run on another machine."""
    for owner in stop_jobs(directory):
        if is_alive(owner.pid):  # and would take the next job
            os.kill(owner.pid, signal.SIGKILL)
