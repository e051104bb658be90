"""Convert Llama models: the settings in config.json, and the names and shapes of the weights."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lm.base.errors import UserError
from lm.model import GPT, GPTConfig, with_weights
from lm.model.gpt import MAX_POSITION_NUMBERS
from lm.model.huggingface.fields import COMMON, Rule, accept_any
from lm.model.huggingface.settings import Keys, format_json, name_keys_in_errors, read_settings
from lm.model.huggingface.weights import Weights

RULES: dict[str, Rule] = COMMON | {
    "position": lambda c: c.position == "rope",
    "norm": lambda c: c.norm == "rmsnorm",
    "mlp": lambda c: c.mlp == "swiglu",
    "n_kv_head": accept_any,
}

KEYS = Keys(
    read={
        "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": None, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6,
        "hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False,
        "head_dim": None, "rope_theta": 10000.0,
    },
    fixed={"partial_rotary_factor": (1.0, None)},
    ignored=frozenset({
        "attention_dropout",
        "pretraining_tp",  # splits matrix products into parts
    }),
)  # fmt: skip
ROPE = {"rope_type": ("default",), "type": ("default",), "partial_rotary_factor": (1.0, None)}
FREQUENCIES = r"(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq"  # saved by versions before 4.32


def to_llama(model: GPT) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return config.json and weights.

    Llama has biases in all four attention matrices or in none. If the model has only some of them, the others are
    written as zeros.
    """
    c, V = model.config, model.vocab_size
    ours = {k: v.detach().cpu() for k, v in model.state_dict().items()}
    kv = (c.n_kv_head or c.n_head) * c.n_embd // c.n_head
    biased = c.has_bias("qkv") or c.has_bias("proj")
    state = {"model.embed_tokens.weight": ours["wte.weight"][:V], "model.norm.weight": ours["norm.weight"]}
    if not c.tie_embeddings:
        state["lm_head.weight"] = ours["head.weight"][:V]
    for i in range(c.n_layer):
        theirs, mine = f"model.layers.{i}", f"blocks.{i}"
        state[f"{theirs}.input_layernorm.weight"] = ours[f"{mine}.norm_1.weight"]
        state[f"{theirs}.post_attention_layernorm.weight"] = ours[f"{mine}.norm_2.weight"]
        if biased:
            for part in ("c_attn", "c_proj"):
                rows = ours[f"{mine}.attn.{part}.weight"].size(0)
                ours.setdefault(f"{mine}.attn.{part}.bias", torch.zeros(rows))
        for end in ("weight", "bias"):
            if f"{mine}.attn.c_attn.{end}" in ours:
                parts = ours[f"{mine}.attn.c_attn.{end}"].split((c.n_embd, kv, kv))
                state |= {f"{theirs}.self_attn.{n}_proj.{end}": part for n, part in zip("qkv", parts, strict=True)}
                state[f"{theirs}.self_attn.o_proj.{end}"] = ours[f"{mine}.attn.c_proj.{end}"]
            if f"{mine}.mlp.c_fc.{end}" in ours:
                gate, up = ours[f"{mine}.mlp.c_fc.{end}"].chunk(2)
                state |= {f"{theirs}.mlp.gate_proj.{end}": gate, f"{theirs}.mlp.up_proj.{end}": up}
                state[f"{theirs}.mlp.down_proj.{end}"] = ours[f"{mine}.mlp.c_proj.{end}"]
    theta = float(c.rope_theta)
    return {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": c.n_layer,
        "num_attention_heads": c.n_head, "num_key_value_heads": c.n_kv_head or c.n_head, "hidden_size": c.n_embd,
        "intermediate_size": ours["blocks.0.mlp.c_proj.weight"].size(1), "max_position_embeddings": c.block_size,
        "rms_norm_eps": float(c.norm_eps or 1e-6), "rope_theta": theta, "attention_bias": biased,
        "rope_parameters": {"rope_type": "default", "rope_theta": theta}, "attention_dropout": c.dropout_at("attn"),
        "mlp_bias": c.has_bias("mlp"), "hidden_act": "silu", "tie_word_embeddings": c.tie_embeddings,
    }, state  # fmt: skip


def flatten_rope(config: dict[str, Any]) -> dict[str, Any]:
    """Return `config` with the contents of rope_parameters (formerly rope_scaling) at the top level.

    Raises UserError for scaled or partial rotary positions.
    """
    config = dict(config)
    sections = {name: config.pop(name, None) for name in ("rope_parameters", "rope_scaling")}
    for name, parameters in sections.items():
        if not isinstance(parameters, dict | None):
            raise UserError(f"config.json: {name}={format_json(parameters)} must be an object or null")
        for key, value in (parameters or {}).items():
            if key == "rope_theta":
                if config.get(key) is None:
                    config[key] = value
                elif value not in (None, config[key]):
                    raise UserError(
                        f"config.json: {name}.rope_theta={format_json(value)} contradicts "
                        f"rope_theta={format_json(config[key])}"
                    )
            elif value not in ROPE.get(key, ()):
                raise UserError(
                    f"config.json: {name}.{key}={format_json(value)} is not supported, only plain rotary positions"
                )
    return config


def from_llama(config: dict[str, Any], state: dict[str, Tensor]) -> GPT:
    """Build the model. Raises UserError for settings that this GPT cannot express exactly.

    The number of hidden units of our gated MLP is a multiple of 64. Missing units are added with zero weights, which
    does not change the logits.
    """
    s = read_settings(flatten_rope(config), KEYS)
    C, H, hidden, eps = s["hidden_size"], s["num_attention_heads"], s["intermediate_size"], s["rms_norm_eps"]
    if s["hidden_act"] not in ("silu", "swish"):
        raise UserError(f"config.json: hidden_act={s['hidden_act']} is not supported, only silu (or swish)")
    if s["head_dim"] not in (None, C // H):
        raise UserError(f"config.json: head_dim={s['head_dim']} is not hidden_size={C} / num_attention_heads={H}")
    if s["max_position_embeddings"] * C > MAX_POSITION_NUMBERS:
        raise UserError(
            f"config.json: max_position_embeddings={s['max_position_embeddings']} with hidden_size={C} needs tables of "
            f"positions with more than {MAX_POSITION_NUMBERS:,} numbers"
        )
    added, kv = -hidden % 64, s["num_key_value_heads"] or H
    names = {"n_embd": "hidden_size", "n_head": "num_attention_heads", "n_kv_head": "num_key_value_heads"}
    with name_keys_in_errors(names):
        ours = GPTConfig(
            n_layer=s["num_hidden_layers"], n_head=H, n_embd=C, n_kv_head=None if kv == H else kv,
            block_size=s["max_position_embeddings"], position="rope", rope_theta=s["rope_theta"], norm="rmsnorm",
            norm_eps=None if eps == 1e-6 else eps, mlp="swiglu", mlp_ratio=mlp_ratio_for(hidden + added, C),
            bias=False, bias_qkv=s["attention_bias"] or None, bias_proj=s["attention_bias"] or None,
            bias_mlp=s["mlp_bias"] or None, tie_embeddings=s["tie_word_embeddings"],
        )  # fmt: skip
    kv_size = "num_key_value_heads*head_dim"
    decisive = {k: s[k] for k in ("num_hidden_layers", "attention_bias", "mlp_bias", "tie_word_embeddings")}
    theirs = Weights(state, "model.", s | {kv_size: kv * C // H}, decisive)
    weights = {
        "wte.weight": theirs.take("embed_tokens.weight", "vocab_size", "hidden_size"),
        "norm.weight": theirs.take("norm.weight", "hidden_size"),
    }
    weights["head.weight"] = theirs.take_head(weights["wte.weight"], ours.tie_embeddings, "vocab_size", "hidden_size")
    for i in range(ours.n_layer):
        layer, mine = f"layers.{i}", f"blocks.{i}"
        weights[f"{mine}.norm_1.weight"] = theirs.take(f"{layer}.input_layernorm.weight", "hidden_size")
        weights[f"{mine}.norm_2.weight"] = theirs.take(f"{layer}.post_attention_layernorm.weight", "hidden_size")
        for end, inputs in (("weight", ("hidden_size",)), ("bias", ())):
            if end == "weight" or s["attention_bias"]:
                sizes = {"q": "hidden_size", "k": kv_size, "v": kv_size}
                parts = [theirs.take(f"{layer}.self_attn.{n}_proj.{end}", size, *inputs) for n, size in sizes.items()]
                weights[f"{mine}.attn.c_attn.{end}"] = torch.cat(parts)
                weights[f"{mine}.attn.c_proj.{end}"] = theirs.take(
                    f"{layer}.self_attn.o_proj.{end}", "hidden_size", *inputs
                )
            if end == "weight" or s["mlp_bias"]:
                both = [
                    theirs.take(f"{layer}.mlp.{n}_proj.{end}", "intermediate_size", *inputs) for n in ("gate", "up")
                ]
                rows = (0, 0) * len(inputs) + (0, added)
                weights[f"{mine}.mlp.c_fc.{end}"] = torch.cat([F.pad(part, rows) for part in both])
        down = theirs.take(f"{layer}.mlp.down_proj.weight", "hidden_size", "intermediate_size")
        weights[f"{mine}.mlp.c_proj.weight"] = F.pad(down, (0, added))
        if s["mlp_bias"]:
            weights[f"{mine}.mlp.c_proj.bias"] = theirs.take(f"{layer}.mlp.down_proj.bias", "hidden_size")
    theirs.require_empty(FREQUENCIES)
    return with_weights(ours, s["vocab_size"], weights)


def mlp_ratio_for(hidden: int, n_embd: int) -> float:
    """Return the mlp_ratio for which lm.model.layers.mlp_width returns `hidden`, a multiple of 64."""
    ratio = 1.5 * hidden / n_embd
    too_large = 64 * math.ceil(2 * (ratio * n_embd) / 3 / 64) > hidden  # because of rounding
    return math.nextafter(ratio, 0) if too_large else ratio
