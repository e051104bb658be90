"""One process at a time owns a run directory; others learn who does, and may send it signals."""

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
LINGER = 10.0  # seconds for which the loader processes of one that was killed may still hold its lock

# What a run does at the end of the optimizer step at hand, by the signal that asks for it.
SIGNALS = {
    "save": "SIGUSR1",  # a checkpoint, and on
    "pause": "SIGUSR2",  # wait, until the same signal comes again
    "resume": "SIGUSR2",
    "stop": "SIGTERM",  # a checkpoint, and end
}


class Owned(UserError):
    """Another process has the run."""


@dataclass
class Owner:
    pid: int
    host: str
    since: str
    paused: bool = False


@contextmanager
def acquire(directory: Path) -> Iterator[Owner]:
    """Own a run directory while the block lasts. Raises Owned while another process does.

    The system lets go of the lock when a process ends, however it ends: nothing stale is left to be removed. The
    processes that Lightning starts for further devices train under the main one's.
    """
    if not is_main_process():
        yield Owner(os.getpid(), platform.node(), "")
        return
    directory.mkdir(parents=True, exist_ok=True)
    lock, began = FileLock(directory / LOCK, timeout=0), time.monotonic()
    while True:
        try:
            lock.acquire()
            break
        except Timeout:
            other = read(directory)
            dead = other is None or (other.host == platform.node() and not is_alive(other.pid))
            if not dead or time.monotonic() - began > LINGER:
                who = f"process {other.pid} ({other.host}, since {other.since})" if other and not dead else "a process"
                status = commands.script("control", commands.shortest_path(directory), "status")
                raise Owned(
                    f"{directory} is already being trained by {who}. Choose another name=, or look at it:\n  {status}"
                ) from None
            time.sleep(0.1)
    owner = Owner(os.getpid(), platform.node(), time.strftime("%Y-%m-%dT%H:%M:%S%z"))
    try:
        write(directory, owner)
        yield owner
    finally:
        remove(directory / OWNER)
        remove(directory / LOCK)  # while it is held: who waits for it sees that it is gone, and makes another
        lock.release()


def write(directory: Path, owner: Owner) -> None:
    write_text(directory / OWNER, json.dumps(asdict(owner)) + "\n")


def read(directory: Path) -> Owner | None:
    """Who wrote that it owns the directory; it may be dead."""
    try:
        return Owner(**json.loads((directory / OWNER).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def current_owner(directory: Path) -> Owner | None:
    """The owner of a run directory, if one trains there now, on this machine or another."""
    if not (directory / LOCK).exists():
        return None
    try:
        with FileLock(directory / LOCK, timeout=0):
            return None
    except Timeout:
        return read(directory)


def send(directory: Path, action: str) -> Owner:
    """Ask the run for one of SIGNALS. Raises UserError when none is trained there, or not on this machine."""
    owner = current_owner(directory)
    if owner is None:
        raise UserError(f"{directory} is not being trained now")
    if owner.host != platform.node():
        raise UserError(f"{directory} is trained by process {owner.pid} on {owner.host}: say it there")
    if action in ("pause", "resume") and owner.paused == (action == "pause"):
        return owner  # it is so already
    os.kill(owner.pid, getattr(signal, SIGNALS[action]))
    return owner


def set_paused(directory: Path, paused: bool) -> None:
    """Let others know that the run, which this process owns, is paused or not."""
    if owner := read(directory):
        write(directory, replace(owner, paused=paused))
