"""The lock of a run directory: one process owns it at a time, and other processes can find it and send it signals."""

from __future__ import annotations

import json
import os
import platform
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from lm.base import commands
from lm.base.errors import UserError
from lm.base.files import is_alive, remove, write_text
from lm.base.hardware import is_main_process

LOCK, OWNER = ".lock", ".owner.json"
LOCK_WAIT_SECONDS = 10.0  # the data loader processes of a killed run may hold its lock for this long

# Actions that a run performs at the end of the current optimizer step, and the signals that request them.
SIGNALS = {
    "save": "SIGUSR1",  # save a checkpoint and continue
    "pause": "SIGUSR2",  # wait until the signal is sent again
    "resume": "SIGUSR2",
    "stop": "SIGTERM",  # save a checkpoint and end
}


class RunLocked(UserError):
    """Another process owns the run directory."""


@dataclass
class Owner:
    """The process that trains a run, as written to its run directory."""

    pid: int
    host: str
    since: str
    paused: bool = False


@contextmanager
def acquire(directory: Path) -> Iterator[Owner]:
    """Own a run directory for the duration of the block. Raises RunLocked if another process owns it.

    The operating system releases the lock when the process ends for any reason, so a lock is never stale. The
    processes that Lightning starts for further devices share the lock of the main process.
    """
    if not is_main_process():
        yield Owner(os.getpid(), platform.node(), "")
        return
    directory.mkdir(parents=True, exist_ok=True)
    lock, start = FileLock(directory / LOCK, timeout=0), time.monotonic()
    while True:
        try:
            lock.acquire()
            break
        except Timeout:
            other = read_owner(directory)
            dead = other is None or (other.host == platform.node() and not is_alive(other.pid))
            if not dead or time.monotonic() - start > LOCK_WAIT_SECONDS:
                who = f"process {other.pid} ({other.host}, since {other.since})" if other and not dead else "a process"
                status = commands.script("control", commands.shortest_path(directory), "status")
                raise RunLocked(
                    f"{directory} is already being trained by {who}. Choose another name=, or see its status with\n"
                    f"  {status}"
                ) from None
            time.sleep(0.1)
    owner = Owner(os.getpid(), platform.node(), time.strftime("%Y-%m-%dT%H:%M:%S%z"))
    try:
        write_owner(directory, owner)
        yield owner
    finally:
        remove(directory / OWNER)
        remove(directory / LOCK)  # while it is still held: a process that waits for it notices and creates a new one
        lock.release()


def write_owner(directory: Path, owner: Owner) -> None:
    """Write the owner to the run directory."""
    write_text(directory / OWNER, json.dumps(asdict(owner)) + "\n")


def read_owner(directory: Path) -> Owner | None:
    """Return the owner as last written, or None. Its process may have ended."""
    try:
        return Owner(**json.loads((directory / OWNER).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def current_owner(directory: Path) -> Owner | None:
    """Return the process that is training in the run directory now, on this machine or another, or None."""
    if not (directory / LOCK).exists():
        return None
    try:
        with FileLock(directory / LOCK, timeout=0):
            return None
    except Timeout:
        return read_owner(directory)


def send_signal(directory: Path, action: str) -> Owner:
    """Send the signal for an action of SIGNALS to the process that trains a run, and return that process.

    Raises UserError if the run is not being trained, or is being trained on another machine.
    """
    owner = current_owner(directory)
    if owner is None:
        raise UserError(f"{directory} is not being trained now")
    if owner.host != platform.node():
        raise UserError(
            f"{directory} is being trained by process {owner.pid} on {owner.host}; run this command on that machine"
        )
    if action in ("pause", "resume") and owner.paused == (action == "pause"):
        return owner  # already in the requested state; the signal would toggle it
    os.kill(owner.pid, getattr(signal, SIGNALS[action]))
    return owner


def set_paused(directory: Path, paused: bool) -> None:
    """Record that the run, which this process owns, is paused or not."""
    if owner := read_owner(directory):
        write_owner(directory, replace(owner, paused=paused))
