"""Models as Hugging Face's transformers knows them, both ways: GPT-2's architecture, and Llama's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lm.files import replacing
from lm.model import GPT, GPTConfig, with_weights
from lm.tokenizer import Tokenizer, from_json

GELU = {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu"}  # our names for GPT-2's activations, and theirs
WEIGHTS = "model.safetensors"


def architecture(config: GPTConfig) -> str:
    """'gpt2' or 'llama'. Raises ValueError, with the reasons, when transformers has no class for the model."""
    c, common = config, []
    if c.qk_norm:
        common.append("model.qk_norm")
    if c.window is not None:
        common.append("model.window")
    if c.logit_softcap is not None:
        common.append("model.logit_softcap")
    if not c.norm_gain:
        common.append("model.norm_gain=false")
    if c.norm_stream:
        common.append("model.norm_stream")
    if c.bias_head:
        common.append("model.bias_head")
    wanted: dict[str, dict[str, tuple[str, ...]]] = {
        "gpt2": {"position": ("learned",), "norm": ("layernorm",), "mlp": tuple(GELU)},
        "llama": {"position": ("rope",), "norm": ("rmsnorm",), "mlp": ("swiglu",)},
    }
    reasons = {}
    for name, choices in wanted.items():
        wrong = common + [f"model.{key}={getattr(c, key)}" for key in choices if getattr(c, key) not in choices[key]]
        if name == "gpt2" and c.n_kv_head not in (None, c.n_head):
            wrong.append("model.n_kv_head")
        if name == "llama" and c.biased("qkv") != c.biased("proj"):
            wrong.append("a bias on only one of model.bias_qkv and model.bias_proj")
        if not wrong:
            return name
        reasons[name] = ", ".join(wrong)
    raise ValueError(
        f"Hugging Face's transformers has no class for this model: GPT-2 has no {reasons['gpt2']}; "
        f"Llama has no {reasons['llama']}"
    )


def export(model: GPT, tokenizer: Tokenizer, folder: Path) -> None:
    """Write a directory that `AutoModelForCausalLM.from_pretrained` opens: config.json, weights, tokenizer.json.

    Raises ValueError when transformers has no class for the model.
    """
    kind = architecture(model.config)
    config, state = (to_gpt2 if kind == "gpt2" else to_llama)(model)
    ends = tokenizer.end_of_text
    config |= {"vocab_size": model.vocab_size, "bos_token_id": ends, "eos_token_id": ends, "torch_dtype": "float32"}
    special = {name: name for name in tokenizer.special_tokens}
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": model.config.block_size}
    if ends is not None:
        about["eos_token"] = next(name for name in special if tokenizer.special_tokens[name] == ends)
    with replacing(folder) as aside:
        aside.mkdir()
        save_file({k: v.contiguous() for k, v in state.items()}, aside / WEIGHTS, {"format": "pt"})
        (aside / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        (aside / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
        (aside / "tokenizer_config.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def to_gpt2(model: GPT) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """GPT-2 writes its linears transposed, and has every bias: one that we lack is zero."""
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
        theirs, mine = f"transformer.h.{i}", f"blocks.{i}"
        norm(f"{theirs}.ln_1", f"{mine}.norm_1")
        norm(f"{theirs}.ln_2", f"{mine}.norm_2")
        for part in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"):
            linear(f"{theirs}.{part}", f"{mine}.{part}")
    norm("transformer.ln_f", "norm")
    return {
        "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_layer": c.n_layer, "n_head": c.n_head,
        "n_embd": c.n_embd, "n_positions": c.block_size, "n_inner": ours["blocks.0.mlp.c_fc.weight"].size(0),
        "activation_function": GELU[c.mlp], "layer_norm_epsilon": c.norm_eps or 1e-5,
        "tie_word_embeddings": c.tie_embeddings, "embd_pdrop": c.dropped("embd"), "attn_pdrop": c.dropped("attn"),
        "resid_pdrop": c.dropped("resid"),
    }, state  # fmt: skip


def to_llama(model: GPT) -> tuple[dict[str, Any], dict[str, Tensor]]:
    c, V = model.config, model.vocab_size
    ours = {k: v.detach().cpu() for k, v in model.state_dict().items()}
    kv = (c.n_kv_head or c.n_head) * c.n_embd // c.n_head
    state = {"model.embed_tokens.weight": ours["wte.weight"][:V], "model.norm.weight": ours["norm.weight"]}
    if not c.tie_embeddings:
        state["lm_head.weight"] = ours["head.weight"][:V]
    for i in range(c.n_layer):
        theirs, mine = f"model.layers.{i}", f"blocks.{i}"
        state[f"{theirs}.input_layernorm.weight"] = ours[f"{mine}.norm_1.weight"]
        state[f"{theirs}.post_attention_layernorm.weight"] = ours[f"{mine}.norm_2.weight"]
        for end in ("weight", "bias"):
            if f"{mine}.attn.c_attn.{end}" in ours:
                parts = ours[f"{mine}.attn.c_attn.{end}"].split((c.n_embd, kv, kv))
                state |= {f"{theirs}.self_attn.{n}_proj.{end}": part for n, part in zip("qkv", parts, strict=True)}
                state[f"{theirs}.self_attn.o_proj.{end}"] = ours[f"{mine}.attn.c_proj.{end}"]
            if f"{mine}.mlp.c_fc.{end}" in ours:
                gate, up = ours[f"{mine}.mlp.c_fc.{end}"].chunk(2)
                state |= {f"{theirs}.mlp.gate_proj.{end}": gate, f"{theirs}.mlp.up_proj.{end}": up}
                state[f"{theirs}.mlp.down_proj.{end}"] = ours[f"{mine}.mlp.c_proj.{end}"]
    return {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": c.n_layer,
        "num_attention_heads": c.n_head, "num_key_value_heads": c.n_kv_head or c.n_head, "hidden_size": c.n_embd,
        "intermediate_size": ours["blocks.0.mlp.c_proj.weight"].size(1), "max_position_embeddings": c.block_size,
        "rms_norm_eps": c.norm_eps or 1e-6, "rope_theta": c.rope_theta, "attention_bias": c.biased("qkv"),
        "rope_parameters": {"rope_type": "default", "rope_theta": c.rope_theta},
        "mlp_bias": c.biased("mlp"), "hidden_act": "silu", "tie_word_embeddings": c.tie_embeddings,
    }, state  # fmt: skip


def load(folder: Path) -> tuple[GPT, Tokenizer]:
    """A GPT-2 or Llama model and its tokenizer.json from a directory. Raises ValueError for anything else."""
    for name in ("config.json", WEIGHTS, "tokenizer.json"):
        if not (folder / name).is_file():
            raise ValueError(f"hf:{folder} holds no {name}; save_pretrained of model and tokenizer writes it")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    state = load_file(folder / WEIGHTS)
    kind = config.get("model_type")
    if kind == "gpt2":
        model = from_gpt2(config, state)
    elif kind == "llama":
        model = from_llama(config, state)
    else:
        raise ValueError(f"hf:{folder} is a {kind} model; GPT-2's and Llama's architectures can be read")
    return model.eval(), from_json((folder / "tokenizer.json").read_text(encoding="utf-8"))


def unless(usual: float, value: float) -> float | None:
    """None for the value that GPTConfig takes anyway."""
    return None if value == usual else value


def from_gpt2(config: dict[str, Any], state: dict[str, Tensor]) -> GPT:
    activations = {theirs: mine for mine, theirs in GELU.items()} | {"gelu_pytorch_tanh": "gelu_tanh"}
    name = config.get("activation_function", "gelu_new")
    if name not in activations:
        raise ValueError(f"activation_function={name} is none of {', '.join(activations)}")
    C = config["n_embd"]
    shape = (
        GPTConfig(
            n_layer=config["n_layer"], n_head=config["n_head"], n_embd=C, block_size=config["n_positions"],
            mlp=activations[name], mlp_ratio=(config.get("n_inner") or 4 * C) / C,
            norm_eps=unless(1e-5, config.get("layer_norm_epsilon", 1e-5)),
            tie_embeddings=config.get("tie_word_embeddings", True),
        ),
        config["vocab_size"],
    )  # fmt: skip
    state = {key.removeprefix("transformer."): value for key, value in state.items()}
    ours = {"wte.weight": state["wte.weight"], "wpe.weight": state["wpe.weight"]}
    ours["head.weight"] = state.get("lm_head.weight", state["wte.weight"])
    for end in ("weight", "bias"):
        ours[f"norm.{end}"] = state[f"ln_f.{end}"]
        for i in range(config["n_layer"]):
            for part in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"):
                ours[f"blocks.{i}.{part}.{end}"] = state[f"h.{i}.{part}.{end}"].mT if end == "weight" else state[
                    f"h.{i}.{part}.{end}"]  # fmt: skip
            ours[f"blocks.{i}.norm_1.{end}"] = state[f"h.{i}.ln_1.{end}"]
            ours[f"blocks.{i}.norm_2.{end}"] = state[f"h.{i}.ln_2.{end}"]
    return with_weights(*shape, ours)


def from_llama(config: dict[str, Any], state: dict[str, Tensor]) -> GPT:
    C, hidden = config["hidden_size"], config["intermediate_size"]
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if rope.get("rope_type", "default") != "default":
        raise ValueError(f"rope_type={rope['rope_type']}: only plain rotary positions can be read")
    if config.get("head_dim", C // config["num_attention_heads"]) != C // config["num_attention_heads"]:
        raise ValueError(f"head_dim={config['head_dim']}: heads must share out hidden_size={C}")
    if hidden % 64:
        raise ValueError(f"intermediate_size={hidden} must be a multiple of 64")
    shape = (
        GPTConfig(
            n_layer=config["num_hidden_layers"], n_head=config["num_attention_heads"], n_embd=C,
            n_kv_head=config.get("num_key_value_heads"), block_size=config["max_position_embeddings"], position="rope",
            rope_theta=rope.get("rope_theta") or config.get("rope_theta", 10000.0), norm="rmsnorm",
            norm_eps=unless(1e-6, config["rms_norm_eps"]), mlp="swiglu", mlp_ratio=1.5 * hidden / C, bias=False,
            bias_qkv=config.get("attention_bias", False), bias_proj=config.get("attention_bias", False),
            bias_mlp=config.get("mlp_bias", False), tie_embeddings=config.get("tie_word_embeddings", False),
        ),
        config["vocab_size"],
    )  # fmt: skip
    state = {key.removeprefix("model."): value for key, value in state.items()}
    ours = {"wte.weight": state["embed_tokens.weight"], "norm.weight": state["norm.weight"]}
    ours["head.weight"] = state.get("lm_head.weight", state["embed_tokens.weight"])
    for i in range(config["num_hidden_layers"]):
        theirs, mine = f"layers.{i}", f"blocks.{i}"
        ours[f"{mine}.norm_1.weight"] = state[f"{theirs}.input_layernorm.weight"]
        ours[f"{mine}.norm_2.weight"] = state[f"{theirs}.post_attention_layernorm.weight"]
        for end in ("weight", "bias"):
            if f"{theirs}.self_attn.q_proj.{end}" in state:
                ours[f"{mine}.attn.c_attn.{end}"] = torch.cat(
                    [state[f"{theirs}.self_attn.{n}_proj.{end}"] for n in "qkv"]
                )
                ours[f"{mine}.attn.c_proj.{end}"] = state[f"{theirs}.self_attn.o_proj.{end}"]
            if f"{theirs}.mlp.gate_proj.{end}" in state:
                both = [state[f"{theirs}.mlp.{n}_proj.{end}"] for n in ("gate", "up")]
                ours[f"{mine}.mlp.c_fc.{end}"] = torch.cat(both)
                ours[f"{mine}.mlp.c_proj.{end}"] = state[f"{theirs}.mlp.down_proj.{end}"]
    return with_weights(*shape, ours)
