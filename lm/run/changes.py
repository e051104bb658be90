"""What may differ between the sessions of a run, and how differences are shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lm.base.errors import UserError

# What may change when a run goes on: how long, on which hardware, and what is shown or kept of it.
CHANGEABLE_KEYS = (
    "name", "init_from", "device", "attention.", "callbacks.", "logger.", "trainer.max_", "trainer.accelerator",
    "trainer.devices", "trainer.log_every", "trainer.save_every", "trainer.val_every", "trainer.peak_tflops",
    "trainer.on_nonfinite", "trainer.check_memory", "trainer.deterministic", "trainer.fork", "data.micro_batch_size",
    "data.num_workers", "data.root",
    "data.offline", "data.mirror",
    "corpus.licence", "corpus.path", "corpus.val_path", "corpus.train.urls", "corpus.val.urls", "corpus.test.urls",
    "corpus.whole_documents",
)  # fmt: skip


# What a fork may have otherwise than the run that it leaves, which holds all else of it.
FORKABLE_KEYS = (*CHANGEABLE_KEYS, "schedule.", "loss.", "trainer.", "optimizer.lr", "optimizer.grad_clip")

# What a change of FREE keys does to the rest of a run, where it does something.
EFFECTS = {
    "callbacks.average.": "validations, samples and best.ckpt see other weights from here on",
    "data.micro_batch_size trainer.devices": "the same batches in other portions: sums round otherwise, dropout falls "
    "otherwise",
    "device trainer.accelerator attention. trainer.deterministic": "other kernels, which round otherwise",
    "trainer.val_every": "early stopping, a plateau and best.ckpt see other validations",
}


def restore_origin(config: dict[str, Any], old: dict[str, Any], directory: Path) -> dict[str, Any]:
    """Return the config with what the run in `directory` began with, which need not be typed again.

    Raises UserError when another beginning is typed: it would have no effect on a run that has begun.
    """
    before = {"init_from": old.get("init_from"), "trainer.fork": (old.get("trainer") or {}).get("fork")}
    typed = {"init_from": config["init_from"], "trainer.fork": config["trainer"]["fork"]}
    for key, value in typed.items():
        if value is not None and not same_path(value, before[key]):
            began = [f"from {k}={v}" for k, v in before.items() if v is not None] or ["from scratch"]
            raise UserError(
                f"{directory} has begun already, {began[0]}, and would be resumed: {key}={value} has no effect on it. "
                "Choose another name="
            )
    if (old.get("tokenizer") or {}).get("kind") == "InitFrom":  # which tokenizer it is has been decided
        parsing = {"parse_special": True} if config["tokenizer"].get("parse_special") else {}
        config = config | {"tokenizer": {"kind": "InitFrom"} | parsing}
    trainer = config["trainer"] | {"fork": before["trainer.fork"]}
    return config | {"init_from": before["init_from"], "trainer": trainer}


def same_path(a: str, b: str | None) -> bool:
    """Tell whether two paths, as they were typed, stand for the same place. `hf:` may stand before a path."""
    return b is not None and (a == b or Path(a).expanduser().resolve() == Path(b).expanduser().resolve())


def effects(changes: dict[str, Any]) -> list[str]:
    return [
        f"  {', '.join(changed)}: {effect}"
        for keys, effect in EFFECTS.items()
        if (changed := [key for key in changes if key.startswith(tuple(keys.split()))])
    ]


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{'model': {'n_layer': 4}} -> {'model.n_layer': 4}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def changed_keys(old: dict[str, Any], new: dict[str, Any], usual: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Key -> (old value, new value), of every key in which two configs differ."""
    b = flatten(new)
    a = {key: value for key, value in flatten(usual).items() if key in b} | flatten(old)
    return {key: (a.get(key), b.get(key)) for key in (a | b) if a.get(key) != b.get(key)}


def format_changes(changes: dict[str, tuple[Any, Any]]) -> str:
    rows = [(key, f"was {old}", f"now {new}") for key, (old, new) in changes.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)
