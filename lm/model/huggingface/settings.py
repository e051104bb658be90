"""Read the settings of a config.json, and refuse those that this GPT does not have."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from lm.base.errors import UserError

# Keys of all architectures that never change the logits: notes, training, other heads, generation, and settings of how
# transformers computes and returns results.
IGNORED = frozenset({
    "model_type", "architectures", "transformers_version", "torch_dtype", "dtype", "name_or_path", "_name_or_path",
    "_commit_hash", "attn_implementation", "_attn_implementation", "_attn_implementation_autoset",
    "experts_implementation", "transformers.js_config", "output_hidden_states", "output_attentions", "output_scores",
    "return_dict", "use_return_dict", "return_dict_in_generate", "use_cache", "output_past", "tie_last_hidden_states",
    "chunk_size_feed_forward", "torchscript", "use_bfloat16", "tf_legacy_loss", "is_decoder", "gradient_checkpointing",
    "initializer_range", "id2label", "label2id", "num_labels", "problem_type", "finetuning_task",
    "task_specific_params", "tokenizer_class", "prefix", "bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id",
    "decoder_start_token_id", "forced_bos_token_id", "forced_eos_token_id", "bad_words_ids", "suppress_tokens",
    "begin_suppress_tokens", "max_length", "min_length", "do_sample", "early_stopping", "num_beams", "num_beam_groups",
    "diversity_penalty", "temperature", "top_k", "top_p", "typical_p", "epsilon_cutoff", "eta_cutoff",
    "repetition_penalty", "length_penalty", "encoder_repetition_penalty", "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size", "num_return_sequences", "remove_invalid_values", "exponential_decay_length_penalty",
    "assistant_confidence_threshold", "assistant_lookbehind", "num_assistant_tokens", "num_assistant_tokens_schedule",
    "target_lookbehind",
})  # fmt: skip

# Keys of all architectures that must have one of these values if they are present.
FIXED: dict[str, tuple[Any, ...]] = {
    "is_encoder_decoder": (False, None),
    "add_cross_attention": (False, None),
    "tie_encoder_decoder": (False, None),
    "cross_attention_hidden_size": (None,),
    "pruned_heads": ({}, None),
    "per_layer_config": ({}, None),
    "layer_types": (None,),
    "sliding_window": (None,),
    "attention_chunk_size": (None,),
    "quantization_config": (None,),
    "auto_map": (None,),  # custom code in the directory
}


@dataclass(frozen=True)
class Keys:
    """The keys in config.json of an architecture, by their meaning for `read_settings`."""

    read: dict[str, Any]  # key -> default in transformers, which also sets the type; None: a whole number or null
    fixed: dict[str, tuple[Any, ...]] = field(default_factory=dict)  # added to FIXED
    ignored: frozenset[str] = frozenset()  # added to IGNORED
    aliases: dict[str, str] = field(default_factory=dict)  # other names of keys in `read`


def read_settings(config: dict[str, Any], keys: Keys) -> dict[str, Any]:
    """Return a value for every key of `keys.read`: the one in `config`, or the default of transformers.

    Raises UserError that lists all problems: values of the wrong type, settings that this GPT does not have, and
    unknown keys.
    """
    given: dict[str, Any] = {}
    fixed, ignored, problems = FIXED | keys.fixed, IGNORED | keys.ignored, []
    for key, value in config.items():
        name = keys.aliases.get(key, key)
        if name in keys.read:
            if name in given and given[name] != value:
                problems.append(f"{key}={format_json(value)} contradicts {name}={format_json(given[name])}")
            elif rule := violated_rule(value, keys.read[name]):
                problems.append(f"{key}={format_json(value)} must be {rule}")
            given[name] = value
        elif key in fixed:
            if value not in fixed[key]:
                problems.append(f"{key}={format_json(value)} is not supported, only {key}={format_json(fixed[key][0])}")
        elif key not in ignored:
            problems.append(f"{key}={format_json(value)} is not a known setting, and may change the model")
    if problems:
        raise UserError(f"config.json: {'; '.join(problems)}")
    values = keys.read | {name: value for name, value in given.items() if value is not None}
    return {name: float(v) if isinstance(keys.read[name], float) else v for name, v in values.items()}


def violated_rule(value: Any, default: Any) -> str:
    """Return what a value must be to replace the default, or '' if it is valid. Numbers must be positive."""
    if value is None:
        return "true or false" if default is True else ""  # null meant false in older versions of transformers
    number = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= sys.float_info.max
    if isinstance(default, bool):
        return "" if isinstance(value, bool) else "true or false"
    if isinstance(default, float):
        return "" if number else "a number above 0"
    if isinstance(default, str):
        return "" if isinstance(value, str) else "text"
    return "" if number and isinstance(value, int) and value < 1 << 31 else "a whole number above 0"


def format_json(value: Any) -> str:
    """Format a value as JSON, truncated to 60 characters."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


@contextmanager
def name_keys_in_errors(names: dict[str, str]) -> Iterator[None]:
    """Replace the names of our settings in a UserError by those of config.json. `names` maps ours to theirs."""
    try:
        yield
    except UserError as error:
        text = str(error).replace("\n", "; ")
        for ours, theirs in names.items():
            text = text.replace(f"model.{ours}=", f"{theirs}=")
        raise UserError(f"config.json: {text}") from error
