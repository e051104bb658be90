"""Convert GPT-2 models: the settings in config.json, and the names and shapes of the weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lm.base.errors import UserError
from lm.model import GPT, GPTConfig, with_weights
from lm.model.huggingface.fields import COMMON, Rule
from lm.model.huggingface.settings import Keys, name_keys_in_errors, read_settings
from lm.model.huggingface.weights import Weights
from lm.model.layers import mlp_width

# Names of the activations here, and the names that an export writes.
ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu", "relu2": "relu2"}
# All names of these functions in transformers. gelu_10 and quick_gelu are different functions.
READABLE = {theirs: ours for ours, theirs in ACTIVATIONS.items()} | {
    "gelu_python": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_python_tanh": "gelu_tanh", "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
}  # fmt: skip

RULES: dict[str, Rule] = COMMON | {
    "position": lambda c: c.position == "learned",
    "norm": lambda c: c.norm == "layernorm",
    "mlp": lambda c: c.mlp in ACTIVATIONS,
    "mlp_ratio": lambda c: mlp_width(c) > 0,  # transformers cannot compute with zero hidden units
    "n_kv_head": lambda c: c.n_kv_head in (None, c.n_head),
}

KEYS = Keys(
    read={
        "vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12, "n_inner": None,
        "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "tie_word_embeddings": True,
    },
    fixed={"scale_attn_weights": (True,), "scale_attn_by_inverse_layer_idx": (False, None)},
    ignored=frozenset({
        "resid_pdrop", "embd_pdrop", "attn_pdrop", "summary_type", "summary_use_proj", "summary_activation",
        "summary_proj_to_labels", "summary_first_dropout", "n_ctx", "predict_special_tokens",
        "reorder_and_upcast_attn",  # changes only rounding in half precision
    }),
    aliases={
        "hidden_size": "n_embd", "max_position_embeddings": "n_positions", "num_attention_heads": "n_head",
        "num_hidden_layers": "n_layer",
    },
)  # fmt: skip

# The matrices of a block with their shapes. GPT-2 stores them transposed.
LINEARS = {
    "attn.c_attn": ("n_embd", "3*n_embd"),
    "attn.c_proj": ("n_embd", "n_embd"),
    "mlp.c_fc": ("n_embd", "n_inner"),
    "mlp.c_proj": ("n_inner", "n_embd"),
}
NORMS = {"ln_1": "norm_1", "ln_2": "norm_2"}
MASKS = r"h\.\d+\.attn\.(bias|masked_bias)"  # causal masks, saved by versions before 4.30


def to_gpt2(model: GPT) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return config.json and weights. GPT-2 has all biases; those that the model lacks are written as zeros."""
    c, V = model.config, model.vocab_size
    ours = {k: v.detach().cpu() for k, v in model.state_dict().items()}
    state = {"transformer.wte.weight": ours["wte.weight"][:V], "transformer.wpe.weight": ours["wpe.weight"]}
    if not c.tie_embeddings:
        state["lm_head.weight"] = ours["head.weight"][:V]

    def linear(theirs: str, name: str) -> None:
        weight = ours[f"{name}.weight"]
        state[f"{theirs}.weight"] = weight.T
        state[f"{theirs}.bias"] = ours.get(f"{name}.bias", torch.zeros(weight.size(0)))

    def norm(theirs: str, name: str) -> None:
        state[f"{theirs}.weight"] = ours[f"{name}.weight"]
        state[f"{theirs}.bias"] = ours.get(f"{name}.bias", torch.zeros(c.n_embd))

    for i in range(c.n_layer):
        for theirs, mine in NORMS.items():
            norm(f"transformer.h.{i}.{theirs}", f"blocks.{i}.{mine}")
        for part in LINEARS:
            linear(f"transformer.h.{i}.{part}", f"blocks.{i}.{part}")
    norm("transformer.ln_f", "norm")
    return {
        "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_layer": c.n_layer, "n_head": c.n_head,
        "n_embd": c.n_embd, "n_positions": c.block_size, "n_inner": ours["blocks.0.mlp.c_fc.weight"].size(0),
        "activation_function": ACTIVATIONS[c.mlp], "layer_norm_epsilon": float(c.norm_eps or 1e-5),
        "tie_word_embeddings": c.tie_embeddings, "embd_pdrop": c.dropout_at("embd"), "attn_pdrop": c.dropout_at("attn"),
        "resid_pdrop": c.dropout_at("resid"),
    }, state  # fmt: skip


def from_gpt2(config: dict[str, Any], state: dict[str, Tensor]) -> GPT:
    """Build the model. Raises UserError for settings that this GPT cannot express exactly."""
    s = read_settings(config, KEYS)
    if s["activation_function"] not in READABLE:
        raise UserError(
            f"config.json: activation_function={s['activation_function']} is not one of {', '.join(READABLE)}"
        )
    C, hidden = s["n_embd"], s["n_inner"] or 4 * s["n_embd"]
    eps = s["layer_norm_epsilon"]
    with name_keys_in_errors({"n_embd": "n_embd", "n_head": "n_head"}):
        ours = GPTConfig(
            n_layer=s["n_layer"], n_head=s["n_head"], n_embd=C, block_size=s["n_positions"],
            mlp=READABLE[s["activation_function"]], mlp_ratio=hidden / C, norm_eps=None if eps == 1e-5 else eps,
            tie_embeddings=s["tie_word_embeddings"],
        )  # fmt: skip
    decisive = {key: s[key] for key in ("n_layer", "tie_word_embeddings")}
    theirs = Weights(state, "transformer.", s | {"3*n_embd": 3 * C, "n_inner": hidden}, decisive)
    weights = {
        "wte.weight": theirs.take("wte.weight", "vocab_size", "n_embd"),
        "wpe.weight": theirs.take("wpe.weight", "n_positions", "n_embd"),
    }
    weights["head.weight"] = theirs.take_head(weights["wte.weight"], ours.tie_embeddings, "vocab_size", "n_embd")
    norms = {"ln_f": "norm"}
    for i in range(ours.n_layer):
        norms |= {f"h.{i}.{name}": f"blocks.{i}.{mine}" for name, mine in NORMS.items()}
        for part, shape in LINEARS.items():
            weights[f"blocks.{i}.{part}.weight"] = theirs.take(f"h.{i}.{part}.weight", *shape).T
            weights[f"blocks.{i}.{part}.bias"] = theirs.take(f"h.{i}.{part}.bias", shape[1])
    for name, mine in norms.items():
        for end in ("weight", "bias"):
            weights[f"{mine}.{end}"] = theirs.take(f"{name}.{end}", "n_embd")
    theirs.require_empty(MASKS)
    return with_weights(ours, s["vocab_size"], weights)
