"""Checkpoints as scripts need them: path -> model + tokenizer. Nothing is unpickled but plain values and tensors."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch

from lm import __version__, hf
from lm.files import replacing
from lm.model import GPT, GPTConfig
from lm.tokenizer import Tokenizer, from_json

FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    path: Path
    model: GPT  # in eval mode, on the CPU
    tokenizer: Tokenizer
    step: int
    metrics: dict[str, float]  # the newest of each when it was saved


def describe(model: GPT, tokenizer: Tokenizer) -> dict[str, Any]:
    """What a checkpoint says of itself, in plain values, beside what Lightning writes."""
    return {
        "format": FORMAT,
        "version": __version__,
        "model": asdict(model.config),
        "vocab_size": tokenizer.vocab_size,
        "tokenizer": tokenizer.to_json(),
    }


def write(data: dict[str, Any], path: Path) -> None:
    """Save so that the name never stands for half a file, even when the power fails."""
    with replacing(path) as aside, aside.open("wb") as file:
        torch.save(data, file)
        file.flush()
        os.fsync(file.fileno())


def find(path: Path) -> Path:
    """The checkpoint that a run directory or a file stands for: of a run, the best one, else the last."""
    if not path.is_dir():
        return path
    for name in ("best.ckpt", "last.ckpt"):
        if (path / "checkpoints" / name).exists():
            return path / "checkpoints" / name
    raise ValueError(f"{path} holds no checkpoint yet (looked for checkpoints/best.ckpt and last.ckpt)")


def read(path: Path) -> dict[str, Any]:
    """The raw content of a checkpoint file. Raises ValueError unless it is a whole one of ours."""
    if not path.exists():
        meant = Path("outputs") / path
        raise ValueError(f"{path}: no such run or checkpoint" + (f"; did you mean {meant}?" if meant.exists() else ""))
    try:
        data = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))
    except Exception as error:  # torch raises whatever its readers raise
        code = "Unsupported global" in str(error) or "Unsupported class" in str(error)
        why = "it holds pickled code, which is never run" if code else "it is truncated or no checkpoint"
        raise ValueError(f"{path} cannot be loaded: {why}") from error
    if not isinstance(data, dict) or "lm" not in data:
        raise ValueError(f"{path} cannot be loaded: it is no checkpoint of this project")
    if data["lm"]["format"] > FORMAT:
        raise ValueError(f"{path} was written by a newer version ({data['lm']['version']}) than this ({__version__})")
    return data


def load(path: Path | str) -> Checkpoint:
    """Model and tokenizer of a run directory, a checkpoint file, or hf:<directory> (lm/hf.py).

    Raises ValueError with one clear line.
    """
    if str(path).startswith("hf:"):
        folder = Path(str(path).removeprefix("hf:"))
        return Checkpoint(folder, *hf.load(folder), step=0, metrics={})
    path = find(Path(path))
    data = read(path)
    about = data["lm"]
    model = GPT(GPTConfig(**about["model"]), about["vocab_size"])
    prefix = "model."  # of the LightningModule's attribute
    model.load_state_dict({k.removeprefix(prefix): v for k, v in data["state_dict"].items() if k.startswith(prefix)})
    for name, p in model.named_parameters() if about.get("average") else ():
        p.data.copy_(about["average"][name])  # that is what was validated
    return Checkpoint(path, model.eval(), from_json(about["tokenizer"]), data["global_step"], about["metrics"])
