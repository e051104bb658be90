"""Checkpoints as scripts need them: path -> model + tokenizer. Nothing is unpickled but plain values and tensors."""

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
from lm.base.files import replacing
from lm.data.tokenizer import Tokenizer, from_json
from lm.model import GPT, GPTConfig, huggingface, with_weights
from lm.run.lock import current_owner

log = logging.getLogger("lm")
FORMAT = 2  # 1: the optimizer's state without the names of its parameters, which no run can go on from


@dataclass(frozen=True)
class Checkpoint:
    path: Path
    model: GPT  # in eval mode, on the CPU
    tokenizer: Tokenizer
    step: int
    metrics: dict[str, float]  # the newest of each when it was saved

    def __post_init__(self) -> None:
        """The vocabulary of the model may be larger than that of the tokenizer, as in padded models, never smaller."""
        rows, ids = self.model.vocab_size, self.tokenizer.vocab_size
        if rows < ids:
            raise UserError(
                f"{self.path} cannot be loaded: its tokenizer has {ids:,} ids, but its model only has {rows:,} rows "
                "for them; the tokenizer must be the one that the model was trained with"
            )


def describe(model: GPT, tokenizer: Tokenizer) -> dict[str, Any]:
    """What a checkpoint says of itself, in plain values, beside what Lightning writes."""
    return {
        "format_version": FORMAT,
        "version": __version__,
        "model": asdict(model.config),
        "vocab_size": model.vocab_size,
        "tokenizer": tokenizer.to_json(),
    }


def write(data: dict[str, Any], path: Path) -> None:
    """Save so that the name never stands for half a file, even when the power fails."""
    with replacing(path) as aside, aside.open("wb") as file:
        try:
            torch.save(data, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # a full disk: torch's writer goes on, and wonders where it is
                raise error.__context__ from None
            raise
        file.flush()
        os.fsync(file.fileno())


def verify(path: Path) -> None:
    """Raises UserError unless every byte is as it was written.

    torch writes a zip archive with the checksum of each record, and does not look at them when it reads.
    """
    try:
        require_stored(path)
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (OSError, zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise UserError(f"{path} is cut off, or no checkpoint") from error
    if damaged:
        raise UserError(f"{path} is damaged: the checksum of {damaged} is another")


class Compressed(UserError):
    pass


def require_stored(path: Path) -> None:
    """Raises Compressed unless what is in the archive takes as much room as its file, as torch writes it."""
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
    if (
        any(r.compress_type != zipfile.ZIP_STORED for r in records)
        or sum(r.file_size for r in records) > path.stat().st_size
    ):
        raise Compressed(f"{path} cannot be loaded: it is compressed, as no checkpoint is")


def newest_valid(folder: Path) -> Path | None:
    """The checkpoint of `folder` to go on from: last.ckpt, or if that is damaged or gone, the latest that is whole.

    None where there is none at all. Raises UserError when there are some, and all are damaged.
    """
    last = folder / "last.ckpt"
    found = sorted(path for path in folder.glob("*.ckpt") if path != last)
    whole: dict[Path, int] = {}
    for path in [last, *found]:
        try:
            verify(path)
            whole[path] = read(path)["global_step"]
        except UserError as error:
            if path.exists():
                log.warning("%s", error)
        if path in whole and path == last:
            return last
    if not whole:
        if found or last.exists():
            raise UserError(f"{folder}: every checkpoint is damaged; remove them to begin this run anew")
        return None
    latest = max(whole, key=whole.__getitem__)
    log.warning("going on from %s instead of last.ckpt", latest.name)
    return latest


def find(path: Path) -> Path:
    """Return the checkpoint that a run directory or a file stands for: of a run, the best one, else the last.

    Of a run that is still training it is the last: its best may be old, and soon another. Raises UserError where there
    is none.
    """
    path = path.expanduser()
    if not path.exists():
        meant = Path("outputs") / path
        raise UserError(f"{path}: no such run or checkpoint" + (f"; did you mean {meant}?" if meant.exists() else ""))
    if not path.is_dir():
        return path
    for name in ("last.ckpt", "best.ckpt") if current_owner(path) else ("best.ckpt", "last.ckpt"):
        if (path / "checkpoints" / name).exists():
            return path / "checkpoints" / name
    raise UserError(f"{path} holds no checkpoint yet (looked for checkpoints/best.ckpt and last.ckpt)")


def read(path: Path) -> dict[str, Any]:
    """Return the raw content of a checkpoint file. Raises UserError unless it is a whole one of ours."""
    path = find(path)
    try:
        if zipped := zipfile.is_zipfile(path):
            require_stored(path)
        data = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Compressed:
        raise
    except Exception as error:  # torch raises whatever its readers raise
        code = "Unsupported global" in str(error) or "Unsupported class" in str(error)
        why = "it holds pickled code, which is never run" if code else "it is truncated or no checkpoint"
        raise UserError(f"{path} cannot be loaded: {why}") from error
    if not isinstance(data, dict) or "lm" not in data:
        raise UserError(f"{path} cannot be loaded: it is no checkpoint of this project")
    about = data["lm"]
    about["format_version"] = about.pop("format", about.get("format_version"))  # as it was called in the first
    if about["format_version"] > FORMAT:
        raise UserError(f"{path} was written by a newer version ({about['version']}) than this ({__version__})")
    return data


def require_names(data: dict[str, Any], path: Path) -> None:
    """Raises UserError for a checkpoint whose optimizer's state cannot be told to parameters."""
    for state in data["optimizer_states"]:
        if any("param_names" not in group for group in state["param_groups"]):
            about = data["lm"]
            raise UserError(
                f"{path} was written by version {about['version']}, format {about['format_version']}, and this version "
                f"({__version__}) cannot resume its optimizer; a new run can start from its weights: "
                f"{commands.shell(commands.override('init_from', path))}"
            )


def load(path: Path | str) -> Checkpoint:
    """Model and tokenizer of a run directory, a checkpoint file, or what scripts/export.py has made of one: a directory
    (which can be written hf:<directory> too) or a .safetensors file.

    Raises UserError with one clear line. Logs a warning when the run is still training.
    """
    folder = Path(str(path).removeprefix("hf:")).expanduser()
    if str(path).startswith("hf:") or (folder / huggingface.CONFIG).exists():
        return Checkpoint(folder, *huggingface.load(folder), step=0, metrics={})
    if folder.suffix == ".safetensors":
        return load_safetensors(folder)
    path = find(folder)
    data = read(path)
    if folder.is_dir() and current_owner(folder):
        log.warning("%s is still training: this is its latest checkpoint, of step %d", folder, data["global_step"])
    return from_data(data, path)


def from_data(data: dict[str, Any], path: Path) -> Checkpoint:
    """Build the model and tokenizer of a checkpoint's content, as `read` returned it. Raises UserError."""
    about = data["lm"]
    prefix = "model."  # of the LightningModule's attribute
    weights = {k.removeprefix(prefix): v for k, v in data["state_dict"].items() if k.startswith(prefix)}
    try:
        model = with_weights(GPTConfig(**about["model"]), about["vocab_size"], weights)
    except (ValueError, TypeError) as error:  # a field that this version does not know
        raise UserError(f"{path} cannot be loaded: {error}") from error
    for name, p in model.named_parameters() if about.get("average") else ():
        p.data.copy_(about["average"][name])  # that is what was validated
    try:
        tokenizer = from_json(about["tokenizer"])
    except UserError as error:
        raise UserError(f"{path}, written by version {about['version']}, cannot be loaded: {error}") from error
    return Checkpoint(path, model.eval(), tokenizer, data["global_step"], about["metrics"])


def load_safetensors(path: Path) -> Checkpoint:
    """What scripts/export.py --format safetensors wrote, as `load` does."""
    try:
        with safe_open(path, "pt") as file:
            about, weights = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be loaded: it is truncated, or no safetensors file") from error
    if not {"model", "vocab_size", "tokenizer", "step"} <= about.keys():
        raise UserError(f"{path} cannot be loaded: it was not exported from this project")
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
    """Correct Lightning's count of optimizer steps, which is sometimes one too high or too low after a restart."""
    loops = checkpoint["loops"]["fit_loop"]
    loops["epoch_loop.state_dict"]["_batches_that_stepped"] = checkpoint["global_step"]


def set_batch_counts(checkpoint: dict[str, Any], accumulate: int) -> None:
    """Derive Lightning's counts of micro-batches from the step, as they depend on data.micro_batch_size.

    Checkpoints are written between optimizer steps, after the validation of the step.
    """
    done = checkpoint["global_step"] * accumulate
    for span in ("total", "current"):
        checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"][span] = dict.fromkeys(
            ("ready", "started", "processed", "completed"), done
        )
