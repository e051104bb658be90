"""Runs of train.py in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lm.base.errors import UserError
from lm.run import metrics_csv

ROOT = Path(__file__).resolve().parents[1]


def trained(directory: Path, overrides: Sequence[str], threads: int | None = None) -> list[metrics_csv.Row]:
    """The rows of metrics.csv of the run in `directory`: made, continued, or found finished. Raises UserError."""
    command = [sys.executable, str(ROOT / "train.py"), f"hydra.run.dir={directory.resolve()}", *overrides]
    environment = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{directory}: {done.stderr.strip() or done.stdout.strip()[-500:]}")
    return metrics_csv.read_metrics(directory)
