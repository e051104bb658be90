"""Write, verify and load checkpoints.

Loading unpickles only plain values and tensors (`torch.load(weights_only=True)`), never code.
"""

from __future__ import annotations

import json
import logging
import os
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from lm import __version__
from lm.base import commands
from lm.base.errors import UserError
from lm.base.files import atomic_replace
from lm.data.tokenizer import Tokenizer, from_json
from lm.model import GPT, GPTConfig, huggingface, with_weights
from lm.run.integrity import CompressedCheckpoint, require_uncompressed, verify
from lm.run.lock import current_owner

log = logging.getLogger("lm")
FORMAT = 2  # Format 1 lacks the parameter names in the optimizer state, so it cannot be resumed.


@dataclass(frozen=True)
class Checkpoint:
    """A model with its tokenizer, as loaded from a checkpoint or an exported model."""

    path: Path
    model: GPT  # in eval mode, on the CPU
    tokenizer: Tokenizer
    step: int
    metrics: dict[str, float]  # the latest value of each metric when the checkpoint was saved

    def __post_init__(self) -> None:
        """Raises UserError if the model has fewer rows than the tokenizer has ids. More rows are padding."""
        rows, ids = self.model.vocab_size, self.tokenizer.vocab_size
        if rows < ids:
            raise UserError(
                f"{self.path} cannot be loaded: its tokenizer has {ids:,} ids, but its model has only {rows:,} "
                "embedding rows; use the tokenizer that the model was trained with"
            )


def describe(model: GPT, tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the metadata that is stored under the key `lm` of a checkpoint, in addition to Lightning's own content."""
    return {
        "format_version": FORMAT,
        "version": __version__,
        "model": asdict(model.config),
        "vocab_size": model.vocab_size,
        "tokenizer": tokenizer.to_json(),
    }


def write(data: dict[str, Any], path: Path) -> None:
    """Save a checkpoint atomically: `path` is never a partial file, even after a power failure."""
    with atomic_replace(path) as temporary, temporary.open("wb") as file:
        try:
            torch.save(data, file)
        except RuntimeError as error:
            # On a full disk torch's writer continues, then fails on its own file position; report the first error.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
        file.flush()
        os.fsync(file.fileno())


def find_newest_valid(folder: Path) -> Path | None:
    """Return the checkpoint in `folder` to resume from.

    This is last.ckpt or, if that is corrupted or missing, the newest valid checkpoint. Returns None if there are no
    checkpoints. Raises UserError if there are some and all are corrupted.
    """
    last = folder / "last.ckpt"
    others = sorted(path for path in folder.glob("*.ckpt") if path != last)
    valid: dict[Path, int] = {}  # path -> step
    for path in [last, *others]:
        try:
            verify(path)
            valid[path] = read(path)["global_step"]
        except UserError as error:
            if path.exists():
                log.warning("%s", error)
        if path in valid and path == last:
            return last
    if not valid:
        if others or last.exists():
            raise UserError(f"{folder}: every checkpoint is corrupted; remove them to start this run from scratch")
        return None
    newest = max(valid, key=valid.__getitem__)
    log.warning("resuming from %s instead of last.ckpt", newest.name)
    return newest


def find(path: Path) -> Path:
    """Return the checkpoint file to load for a run directory or a file.

    For a run directory this is best.ckpt, or last.ckpt if there is no best one. While the run is still training it is
    last.ckpt, because the best one may be old and may soon be replaced. Raises UserError if there is no checkpoint.
    """
    path = path.expanduser()
    if not path.exists():
        suggestion = Path("outputs") / path
        hint = f"; did you mean {suggestion}?" if suggestion.exists() else ""
        raise UserError(f"{path}: no such run or checkpoint{hint}")
    if not path.is_dir():
        return path
    for name in ("last.ckpt", "best.ckpt") if current_owner(path) else ("best.ckpt", "last.ckpt"):
        if (path / "checkpoints" / name).exists():
            return path / "checkpoints" / name
    raise UserError(f"{path} has no checkpoint yet (looked for checkpoints/best.ckpt and checkpoints/last.ckpt)")


def read(path: Path) -> dict[str, Any]:
    """Return the raw content of a checkpoint file. Raises UserError if it is not a valid checkpoint of this project."""
    path = find(path)
    try:
        if zipped := zipfile.is_zipfile(path):
            require_uncompressed(path)
        data = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except CompressedCheckpoint:
        raise
    except Exception as error:  # torch.load raises many types of exception
        code = "Unsupported global" in str(error) or "Unsupported class" in str(error)
        reason = "it contains pickled code, which is never run" if code else "it is truncated or is not a checkpoint"
        raise UserError(f"{path} cannot be loaded: {reason}") from error
    if not isinstance(data, dict) or "lm" not in data:
        raise UserError(f"{path} cannot be loaded: it is not a checkpoint of this project")
    about = data["lm"]
    about["format_version"] = about.pop("format", about.get("format_version"))  # the key was `format` at first
    if about["format_version"] > FORMAT:
        raise UserError(f"{path} was written by version {about['version']}, which is newer than {__version__}")
    return data


def require_param_names(data: dict[str, Any], path: Path) -> None:
    """Raises UserError if the optimizer state of a checkpoint cannot be matched to parameters by name."""
    for state in data["optimizer_states"]:
        if any("param_names" not in group for group in state["param_groups"]):
            about = data["lm"]
            raise UserError(
                f"{path} was written by version {about['version']} in format {about['format_version']}, and this "
                f"version ({__version__}) cannot resume its optimizer; to start a new run from its weights, use "
                f"{commands.shell(commands.override('init_from', path))}"
            )


def load(path: Path | str) -> Checkpoint:
    """Load the model and tokenizer of a run directory, a checkpoint file, or an output of scripts/export.py.

    Such an output is a directory in Hugging Face format, which may be written `hf:<directory>`, or a .safetensors file.
    Raises UserError with a message of one line. Logs a warning if the run is still training.
    """
    folder = Path(str(path).removeprefix("hf:")).expanduser()
    if str(path).startswith("hf:") or (folder / huggingface.CONFIG).exists():
        return Checkpoint(folder, *huggingface.load(folder), step=0, metrics={})
    if folder.suffix == ".safetensors":
        return load_safetensors(folder)
    path = find(folder)
    data = read(path)
    if folder.is_dir() and current_owner(folder):
        log.warning("%s is still training; using its latest checkpoint, from step %d", folder, data["global_step"])
    return from_data(data, path)


def from_data(data: dict[str, Any], path: Path) -> Checkpoint:
    """Build the model and tokenizer from the content of a checkpoint, as returned by `read`. Raises UserError."""
    about = data["lm"]
    prefix = "model."  # the attribute of the LightningModule that holds the GPT
    weights = {k.removeprefix(prefix): v for k, v in data["state_dict"].items() if k.startswith(prefix)}
    try:
        model = with_weights(GPTConfig(**about["model"]), about["vocab_size"], weights)
    except (ValueError, TypeError) as error:  # e.g. a field that this version does not know
        raise UserError(f"{path} cannot be loaded: {error}") from error
    if average := about.get("average"):
        for name, p in model.named_parameters():
            p.data.copy_(average[name])  # validation used the averaged weights
    try:
        tokenizer = from_json(about["tokenizer"])
    except UserError as error:
        raise UserError(f"{path}, written by version {about['version']}, cannot be loaded: {error}") from error
    return Checkpoint(path, model.eval(), tokenizer, data["global_step"], about["metrics"])


def load_safetensors(path: Path) -> Checkpoint:
    """Load a file written by `scripts/export.py --format safetensors`. Raises UserError."""
    try:
        with safe_open(path, "pt") as file:
            about, weights = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be loaded: it is truncated or is not a safetensors file") from error
    if not {"model", "vocab_size", "tokenizer", "step"} <= about.keys():
        raise UserError(f"{path} cannot be loaded: it was not exported by scripts/export.py of this project")
    try:
        config = GPTConfig(**json.loads(about["model"]))
        if config.tie_embeddings and "wte.weight" in weights:
            weights["head.weight"] = weights["wte.weight"]
        model = with_weights(config, int(about["vocab_size"]), weights)
        tokenizer, step = from_json(about["tokenizer"]), int(about["step"])
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} cannot be loaded: {error}") from error
    return Checkpoint(path, model.eval(), tokenizer, step, metrics={})


def set_step_count(checkpoint: dict[str, Any]) -> None:
    """Correct Lightning's count of optimizer steps, which can be off by one after a restart."""
    loops = checkpoint["loops"]["fit_loop"]
    loops["epoch_loop.state_dict"]["_batches_that_stepped"] = checkpoint["global_step"]


def set_batch_counts(checkpoint: dict[str, Any], accumulate: int) -> None:
    """Recompute Lightning's counts of micro-batches from the step, because data.micro_batch_size may have changed.

    Checkpoints are written between optimizer steps, after the validation of the step.
    """
    done = checkpoint["global_step"] * accumulate
    for span in ("total", "current"):
        checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"][span] = dict.fromkeys(
            ("ready", "started", "processed", "completed"), done
        )
