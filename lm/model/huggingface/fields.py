"""Rules that decide if an architecture of transformers can express a GPTConfig."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

from lm.model import GPTConfig

Rule = Callable[[GPTConfig], bool]


def accept_any(config: GPTConfig) -> bool:
    """Accept any value: the export can express it, or it has no effect on the logits in eval mode."""
    return True


# The rules that all architectures share.
COMMON: dict[str, Rule] = dict.fromkeys(
    (
        "n_layer", "n_head", "n_embd", "block_size", "mlp_ratio", "norm_eps", "tie_embeddings", "vocab_multiple",
        "bias", "bias_qkv", "bias_proj", "bias_mlp", "bias_norm",
        "position_scale", "rope_theta",  # each is used by one value of model.position only
        "dropout", "dropout_embd", "dropout_attn", "dropout_resid", "dropout_mlp", "init", "recompute_every",
    ),
    accept_any,
)  # fmt: skip
COMMON["window"] = lambda c: c.window is None or c.window >= c.block_size


def unsupported_settings(config: GPTConfig, rules: dict[str, Rule]) -> list[str]:
    """List the settings, as written on the command line, that an architecture with these rules cannot express.

    A field without a rule must have its default value. So a field that is added to GPTConfig later is refused until it
    has a rule.
    """
    unsupported = []
    for field in fields(config):
        value, rule = getattr(config, field.name), rules.get(field.name)
        if not (rule(config) if rule else value == field.default):
            unsupported.append(f"model.{field.name}={format_value(value)}")
    return unsupported


def format_value(value: object) -> str:
    """Format a value as on the command line."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
