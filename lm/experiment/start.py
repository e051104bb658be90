"""Where a run begins: from new weights, its own last checkpoint, a fork of another run, or another model's weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lm.config import Config
from lm.run import checkpoint
from lm.run.checkpoint import Checkpoint
from lm.run.directory import has_begun


@dataclass(frozen=True)
class Start:
    """Where a run begins.

    `resume` and `fork` continue all of a checkpoint: weights, optimizer, step and random state. `init_from` takes
    weights only, and `new` nothing.
    """

    kind: Literal["new", "resume", "fork", "init_from"] = "new"
    checkpoint: Checkpoint | None = None  # the model and tokenizer that were loaded; None for a new model

    @property
    def path(self) -> Path | None:
        """The checkpoint that the trainer continues, or None."""
        return self.checkpoint.path if self.checkpoint and self.kind in ("resume", "fork") else None

    @property
    def step(self) -> int:
        """The optimizer steps that are done already."""
        return self.checkpoint.step if self.checkpoint and self.path else 0


def find_fork(config: Config, directory: Path) -> Path | None:
    """Return the checkpoint that a new run forks from, or None; a run that has begun no longer needs it."""
    if config.trainer.fork is None or has_begun(directory):
        return None
    return checkpoint.find(Path(config.trainer.fork))


def find_start(config: Config, directory: Path | None = None, fork: Path | None = None) -> Start:
    """Find where the run in `directory` begins, and load the checkpoint if there is one.

    The run's own last valid checkpoint comes first, then `fork`, then `config.init_from`. Without a `directory` there
    is no run to resume. Raises UserError for a checkpoint that cannot be loaded or continued.
    """
    last = checkpoint.newest_valid(directory / "checkpoints") if directory else None
    if path := last or fork:
        data = checkpoint.read(path)
        checkpoint.require_names(data, path)
        return Start("resume" if last else "fork", checkpoint.from_data(data, path))
    if config.init_from:
        return Start("init_from", checkpoint.load(config.init_from))
    return Start()
