"""The table of model presets: parameters, operations and memory of each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from lm.base.checks import did_you_mean
from lm.base.errors import UserError
from lm.config import load_option
from lm.config.help import option_names
from lm.model import GPT, GPTConfig
from lm.model.meta import without_numbers

# Vocabulary of each preset in the project that it comes from; that of a family, unless the preset has its own.
VOCABULARY = {
    "feste": 8192, "feste/tiny": 512, "feste/small": 1024, "feste/medium": 1536, "feste/gpt2": 20534,
    "fundamentallm": 69, "lab": 50257, "nanogpt": 65, "nanogpt/gpt2": 50257, "microgpt": 27,
    "femtogpt": 256, "femtogpt/160x8": 566, "femtogpt/768x8": 1054, "femtogpt/192x8": 1054,
}  # fmt: skip
DEFAULT_VOCABULARY = 2048  # for the presets of this project


def preset_names() -> list[str]:
    """Return the names of all model presets, those without a family first."""
    return sorted(option_names("model"), key=lambda name: ("/" in name, name))


def model_rows(arguments: Sequence[str], vocab_size: int | None) -> Iterator[dict[str, Any]]:
    """Yield a row for each model.

    `arguments` are names of presets or families, none for all of them, and overrides such as model.n_layer=3.
    `vocab_size` replaces the vocabulary of each preset. Raises UserError for an unknown name or key.
    """
    presets = preset_names()
    names = [argument for argument in arguments if "=" not in argument]
    fields = parse_overrides([argument for argument in arguments if "=" in argument])
    for name in names:
        if not any(name in (preset, preset.partition("/")[0]) for preset in presets):
            raise UserError(f"there is no preset or family {name}{did_you_mean(name, presets)}")
    for name in presets:
        family = name.partition("/")[0]
        if names and name not in names and family not in names:
            continue
        V = vocab_size or VOCABULARY.get(name) or VOCABULARY.get(family) or DEFAULT_VOCABULARY
        config = load_option("model", name, **fields)
        yield model_row(name, config, V)
        if name.startswith("lab/") and not config.tie_embeddings:
            yield model_row(f"{name}, tied", load_option("model", name, **fields | {"tie_embeddings": True}), V)


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Return the fields of GPTConfig that are set by `key=value` or `model.key=value`."""
    fields: dict[str, Any] = {}
    for override in overrides:
        key, _, value = override.removeprefix("model.").partition("=")
        if key not in GPTConfig.__dataclass_fields__:
            raise UserError(f"unknown key model.{key}{did_you_mean(key, list(GPTConfig.__dataclass_fields__))}")
        fields[key] = json.loads(value) if value[:1] in "0123456789.-tfn" else value
    return fields


def model_row(name: str, config: GPTConfig, vocab_size: int) -> dict[str, Any]:
    """Return the figures of a model. Nothing is allocated for its weights."""
    with without_numbers():
        model = GPT(config, vocab_size)
    sizes = {n: p.numel() for n, p in model.named_parameters()}

    def count(*parts: str) -> int:
        return sum(size for n, size in sizes.items() if any(part in n for part in parts))

    embedding = count("wte", "wpe", "head")
    return {
        "model": name, "vocabulary": vocab_size, "context": config.block_size,
        "shape": f"{config.n_layer}x{config.n_embd}, {config.n_head} heads",
        "parameters": model.num_params, "embedding": embedding, "other": model.num_params - embedding,
        "attention": count(".attn."), "mlp": count(".mlp."), "norms": count("norm"),
        "MFLOP/token": model.flops_per_token / 1e6,
        "weights MB": 4 * model.num_params / 1e6, "gradients MB": 4 * model.num_params / 1e6,
        "AdamW MB": 8 * model.num_params / 1e6,
    }  # fmt: skip
