"""Report the status of a run, and wait until an action requested by a signal (lm/run/lock.py) has taken effect."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lm.base.errors import UserError
from lm.run import lock, metrics_csv
from lm.run.directory import read_record, run_status


def collect_status(run: Path) -> dict[str, Any]:
    """Return the status of a run, its process and its latest metrics, as read from the files of the run."""
    record, owner = read_record(run / "run.json"), lock.current_owner(run)
    status: dict[str, Any] = {"run": str(run), "status": run_status(run, record)}
    if owner:
        status |= {"process": owner.pid, "host": owner.host, "since": owner.since}
    if rows := metrics_csv.read_metrics(run):
        status |= {"step": int(rows[-1]["step"]), "horizon": record.get("horizon")}
        for key in ("train/loss", "val/loss", "perf/tokens_per_s"):
            values = [row[key] for row in rows if key in row]
            if values:
                status[key] = values[-1]
    last = run / "checkpoints" / "last.ckpt"
    if last.exists():
        status["saved_s_ago"] = time.time() - last.stat().st_mtime
    if record.get("error") and not owner:
        status["error"] = record["error"]
    return status


def format_status(status: dict[str, Any]) -> str:
    """Return the status as text, one line per entry."""
    return "\n".join(f"{key:<18} {format_value(value)}" for key, value in status.items())


def format_value(value: object) -> str:
    """Return a float below 100 with four decimals, a larger one without decimals, and any other value as it is."""
    if isinstance(value, float):
        return f"{value:.4f}" if value < 100 else f"{value:,.0f}"
    return str(value)


def request(run: Path, action: str, seconds: float = 60.0, sent: Callable[[int], None] = lambda pid: None) -> None:
    """Ask a run for an action of lock.SIGNALS, and wait until it has taken effect.

    `sent` is called with the process id when the run has been asked. A save is recognized by a new last.ckpt. Raises
    UserError if the run is not being trained here, and after `seconds`, e.g. if an optimizer step takes longer.
    """
    last = run / "checkpoints" / "last.ckpt"
    before = modification_time(last)  # before the signal: a small model saves within milliseconds
    receiver = lock.send_signal(run, action)
    sent(receiver.pid)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        owner = lock.current_owner(run)
        done = {
            "save": modification_time(last) != before,
            "pause": owner is None or owner.paused,
            "resume": owner is None or not owner.paused,
            "stop": owner is None,
        }
        if done[action]:
            return
        time.sleep(0.1)
    raise UserError(
        f"{run}: the action {action!r} did not take effect within {seconds:.0f} s; it will at the end of the current "
        "optimizer step"
    )


def modification_time(path: Path) -> int:
    """Return the modification time of a file in ns, or 0 if there is no such file."""
    return path.stat().st_mtime_ns if path.exists() else 0
