"""Runs of train.py in separate processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lm.base.errors import UserError
from lm.run import metrics_csv

ROOT = Path(__file__).resolve().parents[1]


def run_training(directory: Path, overrides: Sequence[str], threads: int | None = None) -> list[metrics_csv.Row]:
    """Train or resume the run in `directory` and return the rows of its metrics.csv.

    A complete run is only read. Raises UserError if train.py fails.
    """
    command = [sys.executable, str(ROOT / "train.py"), f"hydra.run.dir={directory.resolve()}", *overrides]
    environment = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"training {directory} failed: {done.stderr.strip() or done.stdout.strip()[-500:]}")
    return metrics_csv.read_metrics(directory)
