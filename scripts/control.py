"""Talk to a run that trains: python scripts/control.py outputs/mine status

save writes a checkpoint and trains on; pause waits until resume; stop saves and ends, and the command that started the
run goes on from there. Each acts at the end of the optimizer step at hand, by a signal to the process that owns the run
(SIGUSR1, SIGUSR2, SIGUSR2, SIGTERM), so it must be typed on the machine that trains.
"""

import argparse
import json
import sys
import time
from pathlib import Path

try:
    from lm import cli
except ModuleNotFoundError:
    raise SystemExit("error: lm is not installed; run `make install`, then use .venv/bin/python") from None

from lm.base.errors import UserError
from lm.run import lock, metrics_csv
from lm.run.directory import read_record, run_status


@cli.script
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=cli.path, metavar="RUN", help="a run directory")
    parser.add_argument("action", choices=["status", *lock.SIGNALS])
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    args = parser.parse_args()
    if not args.run.is_dir():
        raise UserError(f"{args.run}: no such run")
    if args.action != "status":
        told = lock.send(args.run, args.action)
        print(f"told process {told.pid} to {args.action}", file=sys.stderr)
        await_effect(args.run, args.action)
    found = status(args.run)
    lines = (f"{key:<18} {written(value)}" for key, value in found.items())
    print(json.dumps(found) if args.json else "\n".join(lines))


def written(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4f}" if value < 100 else f"{value:,.0f}"
    return str(value)


def await_effect(run: Path, action: str, seconds: float = 60.0) -> None:
    """Until what was asked for is so, a long step aside; a save has no sign but the checkpoint."""
    last = run / "checkpoints" / "last.ckpt"
    before, until = modified(last), time.monotonic() + seconds
    while time.monotonic() < until:
        now = lock.current_owner(run)
        done = {
            "save": modified(last) != before,
            "pause": now is None or now.paused,
            "resume": now is None or not now.paused,
            "stop": now is None,
        }
        if done[action]:
            return
        time.sleep(0.1)
    raise UserError(f"{run}: no {action} within {seconds:.0f} s; it will come at the end of the step at hand")


def modified(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def status(run: Path) -> dict:
    """What the run's own files say of it."""
    record, living = read_record(run / "run.json"), lock.current_owner(run)
    found: dict = {"run": str(run), "status": run_status(run, record)}
    if living:
        found |= {"process": living.pid, "host": living.host, "since": living.since}
    if rows := metrics_csv.read_metrics(run):
        found |= {"step": int(rows[-1]["step"]), "horizon": record.get("horizon")}
        for key in ("train/loss", "val/loss", "perf/tokens_per_s"):
            newest = [row[key] for row in rows if key in row]
            found |= {key: newest[-1]} if newest else {}
    if (run / "checkpoints" / "last.ckpt").exists():
        found["saved_s_ago"] = time.time() - (run / "checkpoints" / "last.ckpt").stat().st_mtime
    if record.get("error") and not living:
        found["error"] = record["error"]
    return found


if __name__ == "__main__":
    main()
