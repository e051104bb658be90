"""Rules for which config keys may change when a run is resumed or forked, and the report of such changes."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from lm.base.console import format_table
from lm.base.errors import UserError

# Keys that may change when a run is resumed: its length, the hardware, and what is logged or saved.
CHANGEABLE_KEYS = (
    "name", "init_from", "device", "attention.", "callbacks.", "logger.", "trainer.max_", "trainer.accelerator",
    "trainer.devices", "trainer.log_every", "trainer.save_every", "trainer.val_every", "trainer.peak_tflops",
    "trainer.on_nonfinite", "trainer.check_memory", "trainer.deterministic", "trainer.fork", "data.micro_batch_size",
    "data.num_workers", "data.root",
    "data.offline", "data.mirror",
    "corpus.licence", "corpus.path", "corpus.val_path", "corpus.train.urls", "corpus.val.urls", "corpus.test.urls",
    "corpus.whole_documents",
)  # fmt: skip


# Keys that may differ between a fork and the run it is forked from; all other keys must be equal.
FORKABLE_KEYS = (*CHANGEABLE_KEYS, "schedule.", "loss.", "trainer.", "optimizer.lr", "optimizer.grad_clip")

# Effects of changing some of CHANGEABLE_KEYS on the rest of a run: space-separated keys -> effect.
EFFECTS = {
    "callbacks.average.": "validations, samples and best.ckpt use different weights from here on",
    "data.micro_batch_size trainer.devices": "the same batches are split differently, so sums round differently and "
    "dropout masks differ",
    "device trainer.accelerator attention. trainer.deterministic": "different kernels, which round differently",
    "trainer.val_every": "early stopping, the plateau schedule and best.ckpt are based on different validations",
}


def restore_origin(config: dict[str, Any], old: dict[str, Any], directory: Path) -> dict[str, Any]:
    """Return `config` with `init_from` and `trainer.fork` as recorded in `old`, the config of the run in `directory`.

    When a run is resumed, these two keys can be left out. Raises UserError if either is set to a different value,
    because it would have no effect on a run that has already started.
    """
    before = {"init_from": old.get("init_from"), "trainer.fork": (old.get("trainer") or {}).get("fork")}
    requested = {"init_from": config["init_from"], "trainer.fork": config["trainer"]["fork"]}
    for key, value in requested.items():
        if value is not None and not same_path(value, before[key]):
            origins = [f"from {k}={v}" for k, v in before.items() if v is not None] or ["from scratch"]
            raise UserError(
                f"{directory} was already started {origins[0]} and would be resumed, so {key}={value} would have no "
                "effect. To start a new run, choose another name="
            )
    if (old.get("tokenizer") or {}).get("kind") == "InitFrom":  # the tokenizer was chosen when the run started
        parsing = {"parse_special": True} if config["tokenizer"].get("parse_special") else {}
        config = config | {"tokenizer": {"kind": "InitFrom"} | parsing}
    trainer = config["trainer"] | {"fork": before["trainer.fork"]}
    return config | {"init_from": before["init_from"], "trainer": trainer}


def same_path(a: str, b: str | None) -> bool:
    """Tell whether two paths, as given by the user, refer to the same place. A path may start with `hf:`."""
    return b is not None and (a == b or Path(a).expanduser().resolve() == Path(b).expanduser().resolve())


def describe_effects(changes: dict[str, Any]) -> list[str]:
    """Return a line for each entry of EFFECTS that the changed keys touch."""
    return [
        f"  {', '.join(changed)}: {effect}"
        for keys, effect in EFFECTS.items()
        if (changed := [key for key in changes if key.startswith(tuple(keys.split()))])
    ]


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten a nested config: `{'model': {'n_layer': 4}}` becomes `{'model.n_layer': 4}`."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def find_changes(old: dict[str, Any], new: dict[str, Any], defaults: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return `{key: (old value, new value)}` for every key in which two configs differ.

    A key that `old` lacks, because it was written by an earlier version, has its value in `defaults`.
    """
    b = flatten(new)
    a = {key: value for key, value in flatten(defaults).items() if key in b} | flatten(old)
    return {key: (a.get(key), b.get(key)) for key in (a | b) if a.get(key) != b.get(key)}


def format_changes(changes: dict[str, tuple[Any, Any]]) -> str:
    """Return an aligned table with one line per changed key."""
    rows = [(key, f"was {old}", f"now {new}") for key, (old, new) in changes.items()]
    return textwrap.indent(format_table(rows, numbers=False), "  ")
