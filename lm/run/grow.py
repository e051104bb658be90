"""Create a new run from a run by inserting a layer into its model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from lm.base import commands
from lm.base.errors import UserError
from lm.base.files import atomic_replace
from lm.model.growth import insert_layer
from lm.run import checkpoint


def grow(run: Path, at: int | None, name: str | None) -> dict[str, Any]:
    """Create the run `name` next to `run`, with a layer inserted before block `at` into its last checkpoint.

    `at` counts from 0; its default is the middle. The default name is that of the run followed by `-grown`. Returns the
    facts that scripts/grow.py prints. Raises UserError if the new run exists already.
    """
    last = run / "checkpoints" / "last.ckpt"
    data = checkpoint.read(last)
    layers = data["lm"]["model"]["n_layer"]
    at = layers // 2 if at is None else at
    data = insert_layer(data, at)
    name = name or f"{run.name}-grown"
    target = run.parent / name
    if target.exists():
        raise UserError(f"{target} already exists; choose another --name")
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    config["name"], config["model"]["n_layer"] = name, layers + 1
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    origin = {"run": str(run), "step": data["global_step"], "at": at}
    record |= {"name": name, "status": "grown", "grown_from": [*record.get("grown_from", []), origin]}
    with atomic_replace(target) as temporary:
        (temporary / "checkpoints").mkdir(parents=True)
        checkpoint.write(data, temporary / "checkpoints" / "last.ckpt")
        (temporary / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        (temporary / "run.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        for file in ("tokenizer.json", "metrics.csv", "samples.md"):
            if (run / file).exists():
                shutil.copyfile(run / file, temporary / file)
    changes = {"model.n_layer": layers + 1, "trainer.max_steps": 2 * data["global_step"]}
    command = commands.resume(target, record["overrides"], changes)
    return {"run": str(target), "n_layer": layers + 1, "at": at, "step": data["global_step"], "command": command}
