"""Export the model of a run or checkpoint to other formats."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from lm.base.errors import UserError
from lm.base.files import atomic_replace
from lm.model import huggingface
from lm.run import checkpoint

SUFFIX = {"hf": "", "inference": ".ckpt", "safetensors": ".safetensors"}  # format -> suffix of the file or directory


def export(run: Path, form: str, out: Path | None) -> dict[str, Any]:
    """Export a run's best checkpoint, or a checkpoint file, in one of the formats of SUFFIX.

    By default, `out` is named after the format and placed in the directory of the run or the file. Returns the output
    path, the format and the size in bytes. Raises UserError if `out` is a directory that is not empty.
    """
    source = checkpoint.load(run)
    location = Path(str(run).removeprefix("hf:")).expanduser()
    out = out or (location if location.is_dir() else location.parent) / f"{form}{SUFFIX[form]}"
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"{out} is not empty; remove it or choose another location with --out")
    model, metadata = source.model, checkpoint.describe(source.model, source.tokenizer)
    if form == "hf":
        huggingface.export(model, source.tokenizer, out)
    elif form == "inference":
        state = {f"model.{name}": value for name, value in model.state_dict().items()}
        metadata |= {"metrics": source.metrics}
        checkpoint.write({"state_dict": state, "global_step": source.step, "lm": metadata}, out)
    else:
        state = dict(model.state_dict())
        if model.config.tie_embeddings:
            del state["head.weight"]  # the same tensor as wte.weight
        metadata |= {"model": asdict(model.config), "step": source.step}
        texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
        with atomic_replace(out) as temporary:
            save_file(state, temporary, texts)
    files = [path for path in out.rglob("*") if path.is_file()] if out.is_dir() else [out]
    return {"out": str(out), "format": form, "bytes": sum(path.stat().st_size for path in files)}
