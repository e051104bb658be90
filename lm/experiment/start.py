"""The start of a run: new weights, its own last checkpoint, a fork of another run, or another model's weights."""

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
    """The state from which a run starts.

    `resume` and `fork` continue everything in a checkpoint: weights, optimizer, step and random state. `init_from`
    uses only its weights. `new` has no checkpoint.
    """

    kind: Literal["new", "resume", "fork", "init_from"] = "new"
    checkpoint: Checkpoint | None = None  # the loaded model and tokenizer; None for a new model

    @property
    def path(self) -> Path | None:
        """The checkpoint from which the trainer resumes, or None."""
        return self.checkpoint.path if self.checkpoint and self.kind in ("resume", "fork") else None

    @property
    def step(self) -> int:
        """The number of optimizer steps already done."""
        return self.checkpoint.step if self.checkpoint and self.path else 0


def find_fork(config: Config, directory: Path) -> Path | None:
    """Return the checkpoint that a new run forks from, or None; a run that has started no longer needs it."""
    if config.trainer.fork is None or has_begun(directory):
        return None
    return checkpoint.find(Path(config.trainer.fork))


def find_start(config: Config, directory: Path | None = None, fork: Path | None = None) -> Start:
    """Return the start of the run in `directory`, with the loaded checkpoint if there is one.

    The run's own last valid checkpoint has priority, then `fork`, then `config.init_from`. Without a `directory` there
    is no run to resume. Raises UserError if the checkpoint cannot be loaded or continued.
    """
    last = checkpoint.find_newest_valid(directory / "checkpoints") if directory else None
    if path := last or fork:
        data = checkpoint.read(path)
        checkpoint.require_param_names(data, path)
        return Start("resume" if last else "fork", checkpoint.from_data(data, path))
    if config.init_from:
        return Start("init_from", checkpoint.load(config.init_from))
    return Start()
