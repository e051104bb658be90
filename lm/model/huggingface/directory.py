"""Read and write a model directory of transformers: config.json, model.safetensors, tokenizer.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from lm.base.errors import UserError
from lm.base.files import atomic_replace
from lm.data.tokenizer import Tokenizer, from_json
from lm.model import GPT, GPTConfig
from lm.model.huggingface import gpt2, llama
from lm.model.huggingface.fields import unsupported_settings
from lm.model.huggingface.weights import WEIGHTS

CONFIG, TOKENIZER = "config.json", "tokenizer.json"


def architecture(config: GPTConfig) -> str:
    """Return 'gpt2' or 'llama'. Raises UserError with the reasons if neither can express the model."""
    reasons = {}
    for name, rules in (("gpt2", gpt2.RULES), ("llama", llama.RULES)):
        unsupported = unsupported_settings(config, rules)
        if not unsupported:
            return name
        reasons[name] = ", ".join(unsupported)
    raise UserError(
        f"Hugging Face transformers has no class for this model: GPT-2 does not support {reasons['gpt2']}; "
        f"Llama does not support {reasons['llama']}"
    )


def export(model: GPT, tokenizer: Tokenizer, folder: Path) -> None:
    """Write a directory that `AutoModelForCausalLM.from_pretrained` opens: config.json, weights, tokenizer.json.

    Raises UserError if transformers has no class for the model.
    """
    kind = architecture(model.config)
    config, state = gpt2.to_gpt2(model) if kind == "gpt2" else llama.to_llama(model)
    end = tokenizer.end_of_text
    config |= {"vocab_size": model.vocab_size, "bos_token_id": end, "eos_token_id": end, "torch_dtype": "float32"}
    special = {name: name for name in tokenizer.special_tokens}
    tokenizer_config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": model.config.block_size}
    if end is not None:
        tokenizer_config["eos_token"] = next(name for name in special if tokenizer.special_tokens[name] == end)
    with atomic_replace(folder) as temporary:
        temporary.mkdir()
        save_file({k: v.contiguous() for k, v in state.items()}, temporary / WEIGHTS, {"format": "pt"})
        (temporary / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        (temporary / TOKENIZER).write_text(tokenizer.to_json(), encoding="utf-8")
        text = json.dumps(tokenizer_config, indent=2) + "\n"
        (temporary / "tokenizer_config.json").write_text(text, encoding="utf-8")


def load(folder: Path) -> tuple[GPT, Tokenizer]:
    """Return the GPT-2 or Llama model of a directory, in eval mode and float32, and its tokenizer.

    Its logits are the same as in transformers. Raises UserError for a model that this GPT cannot express exactly.
    """
    try:
        config = read_config(folder)
        kind = config.get("model_type")
        if kind not in ("gpt2", "llama"):
            raise UserError(f"it is a {kind} model; only the architectures of GPT-2 and Llama can be read")
        require_files(folder)
        try:
            state = load_file(folder / WEIGHTS)
        except SafetensorError as error:
            raise UserError(f"{WEIGHTS} is truncated or corrupted: {error}") from error
        model = gpt2.from_gpt2(config, state) if kind == "gpt2" else llama.from_llama(config, state)
        return model.eval(), from_json(read_text(folder / TOKENIZER))
    except UserError as error:
        raise UserError(f"hf:{folder} cannot be loaded: {error}") from error


def read_config(folder: Path) -> dict[str, Any]:
    """Return the settings in config.json. Raises UserError if the file is missing or damaged."""
    if not (folder / CONFIG).is_file():
        raise UserError(f"it has no {CONFIG}; save_pretrained of the model writes it")
    try:
        config = json.loads(read_text(folder / CONFIG))
    except json.JSONDecodeError as error:
        raise UserError(f"{CONFIG} is not valid JSON: {error}") from error
    if not isinstance(config, dict):
        raise UserError(f"{CONFIG} is not a JSON object")
    return config


def read_text(path: Path) -> str:
    """Return the text of a file in UTF-8. Raises UserError for another encoding."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path.name} is not valid UTF-8 text") from error


def require_files(folder: Path) -> None:
    """Check that the directory has a complete model and tokenizer. Raises UserError that says what to do."""
    if (folder / "adapter_config.json").exists():
        raise UserError(
            "it contains an adapter (adapter_config.json); first merge it into the model with merge_and_unload"
        )
    if not (folder / WEIGHTS).is_file():
        other = next((path.name for path in sorted(folder.glob("*.index.json")) + sorted(folder.glob("*.bin"))), None)
        instead = f" but {other}" if other else ""
        raise UserError(
            f"it has no {WEIGHTS}{instead}; AutoModelForCausalLM.from_pretrained(directory)"
            '.save_pretrained(new_directory, max_shard_size="1TB") writes one'
        )
    if not (folder / TOKENIZER).is_file():
        raise UserError(f"it has no {TOKENIZER}; save_pretrained of the tokenizer writes it")
