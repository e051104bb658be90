"""Model directories of transformers with unusual, missing or corrupted files."""

import json
import re

import pytest
import torch
from helpers import close
from safetensors.torch import load_file, save_file

from lm.data.tokenizer import Chars
from lm.model import huggingface
from lm.run.checkpoint import load

transformers = pytest.importorskip("transformers")
transformers.utils.logging.disable_progress_bar()

CHARS = Chars("abcdefghijklmnopqrstuvwxyz")
T, V = 12, 30
IDS = torch.arange(2 * T).view(2, T) * 5 % V
MODELS = {
    "gpt2": (
        transformers.GPT2LMHeadModel,
        transformers.GPT2Config(n_layer=1, n_head=2, n_embd=16, n_positions=T, vocab_size=V),
    ),
    "llama": (
        transformers.LlamaForCausalLM,
        transformers.LlamaConfig(
            num_hidden_layers=1, num_attention_heads=2, hidden_size=16, intermediate_size=64, vocab_size=V,
            max_position_embeddings=T, tie_word_embeddings=True,
        ),
    ),
}  # fmt: skip


def save_model(kind, tmp_path, **saving):
    """Save a transformers model with random parameters, and return its directory."""
    build, config = MODELS[kind]
    model = build(config).eval()
    draw = torch.Generator().manual_seed(1)
    for p in model.parameters():
        p.data = (p.dim() == 1) + 0.3 * torch.randn(p.shape, generator=draw)
    model.tie_weights()
    model.save_pretrained(tmp_path / kind, **saving)
    (tmp_path / kind / "tokenizer.json").write_text(CHARS.to_json())
    return tmp_path / kind


def rewrite(folder, change):
    """Replace the tensors of the directory by `change(tensors)`."""
    save_file(
        {k: v.clone() for k, v in change(load_file(folder / "model.safetensors")).items()},
        folder / "model.safetensors",
        {"format": "pt"},
    )


def logits(folder):
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return theirs(IDS).logits


EMBEDDING = {"gpt2": "transformer.wte.weight", "llama": "model.embed_tokens.weight"}
BUFFERS = {
    "gpt2": {"transformer.h.0.attn.bias": torch.ones(1, 1, T, T, dtype=torch.bool).tril(),
             "transformer.h.0.attn.masked_bias": torch.tensor(-1e4)},
    "llama": {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4), "model.rotary_emb.inv_freq": torch.ones(4)},
}  # fmt: skip
CHANGES = {
    "bfloat16": lambda kind, state: {k: v.bfloat16() for k, v in state.items()},
    "float16": lambda kind, state: {k: v.half() for k, v in state.items()},
    "float64": lambda kind, state: {k: v.double() for k, v in state.items()},
    "buffers of old versions": lambda kind, state: state | BUFFERS[kind],
    "a tied head in addition to the embedding": lambda kind, state: state | {"lm_head.weight": state[EMBEDDING[kind]]},
    "no prefix": lambda kind, state: {
        k.removeprefix("transformer.").removeprefix("model."): v for k, v in state.items()
    },
}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("change", CHANGES)
def test_other_forms_of_the_same_weights_are_read(kind, change, tmp_path):
    folder = save_model(kind, tmp_path)
    rewrite(folder, lambda state: CHANGES[change](kind, state))
    ours, _ = huggingface.load(folder)
    assert close(ours(IDS), logits(folder)) and {p.dtype for p in ours.parameters()} == {torch.float32}


REFUSED = {
    "a bias of the head": (lambda kind, state: state | {"lm_head.bias": torch.ones(V)}, "has lm_head.bias, which the model does not use"),
    "another layer": (
        lambda kind, state: state | {k.replace(".0.", ".1."): v for k, v in state.items() if ".0." in k},
        r"has \S+ and \d+ more tensors, which the model does not use: config.json says (n_layer|num_hidden_layers)=1",
    ),
    "a missing tensor": (lambda kind, state: dict(list(state.items())[1:]), "model.safetensors has no "),
    "a head that is not tied": (
        lambda kind, state: state | {"lm_head.weight": 2 * state[EMBEDDING[kind]]},
        "lm_head.weight in model.safetensors differs from the embedding, but .* tie_word_embeddings=true",
    ),
    "fewer rows": (lambda kind, state: state | {EMBEDDING[kind]: state[EMBEDDING[kind]][:-1]}, r"\[29, 16\], but config.json says vocab_size=30"),
    "whole numbers": (lambda kind, state: state | {EMBEDDING[kind]: state[EMBEDDING[kind]].to(torch.int8)}, "has dtype torch.int8"),
    "a tensor twice": (lambda kind, state: state | {EMBEDDING[kind].split(".", 1)[1]: state[EMBEDDING[kind]]}, "contains a tensor twice"),
}  # fmt: skip


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("change", REFUSED)
def test_weights_of_another_model_are_refused(kind, change, tmp_path):
    folder = save_model(kind, tmp_path)
    make, message = REFUSED[change]
    rewrite(folder, lambda state: make(kind, state))
    with pytest.raises(ValueError, match=f"^hf:.* cannot be loaded: .*{message}") as error:
        load(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", MODELS)
def test_a_missing_untied_head_is_refused(kind, tmp_path):
    folder = save_model(kind, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    with pytest.raises(ValueError, match="no lm_head.weight, but config.json says .*tie_word_embeddings=false"):
        load(folder)


def test_sharded_weights_are_refused_with_instructions(tmp_path):
    folder = save_model("gpt2", tmp_path, max_shard_size="5KB")
    assert not (folder / "model.safetensors").exists()
    with pytest.raises(ValueError, match=r"no model.safetensors but model.safetensors.index.json; .*max_shard_size="):
        load(folder)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"config.json": None}, "it has no config.json; save_pretrained"),
        ({"config.json": b"{"}, "config.json is not valid JSON: Expecting"),
        ({"config.json": b""}, "config.json is not valid JSON"),
        ({"config.json": b"\xff\xfe{}"}, "config.json is not valid UTF-8 text"),
        ({"config.json": b"[1]"}, "config.json is not a JSON object"),
        ({"config.json": b"null"}, "config.json is not a JSON object"),
        ({"config.json": b"{}"}, "it is a None model; only the architectures of GPT-2 and Llama"),
        ({"config.json": b'{"model_type": ["gpt2"]}'}, "only the architectures of GPT-2 and Llama"),
        ({"config.json": b'{"model_type": "gpt2"}'}, "vocab_size=50257, n_embd=768"),
        ({"model.safetensors": None}, "it has no model.safetensors; AutoModelForCausalLM"),
        (
            {"model.safetensors": None, "pytorch_model.bin": b"x"},
            "no model.safetensors but pytorch_model.bin; AutoModel",
        ),
        ({"model.safetensors": b""}, "model.safetensors is truncated or corrupted"),
        ({"model.safetensors": b"\x08\0\0\0\0\0\0\0{      }junk"}, "model.safetensors"),
        ({"tokenizer.json": None}, "it has no tokenizer.json; save_pretrained"),
        ({"tokenizer.json": b"{}"}, "not a tokenizer.json"),
        ({"tokenizer.json": b"\xff"}, "tokenizer.json is not valid UTF-8 text"),
        ({"adapter_config.json": b"{}"}, "it contains an adapter"),
    ],
    ids=str,
)
def test_an_incomplete_directory_is_refused_in_one_line(files, message, tmp_path):
    folder = save_model("gpt2", tmp_path)
    for name, content in files.items():
        (folder / name).unlink(missing_ok=True)
        if content is not None:
            (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"^hf:.*gpt2 cannot be loaded: .*{message}") as error:
        load(f"hf:{folder}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "edits", "message"),
    [
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx=true is not supported"),
        ("gpt2", {"scale_attn_weights": False}, "scale_attn_weights=false is not supported"),
        ("gpt2", {"activation_function": "quick_gelu"}, "activation_function=quick_gelu is not one of gelu, gelu_new"),
        ("gpt2", {"hidden_size": 32}, "hidden_size=32 contradicts n_embd=16"),
        ("gpt2", {"novelty": {"a": 1}}, 'novelty={"a": 1} is not a known setting'),
        ("gpt2", {"vocab_size": 31}, r"wte.weight .* has shape \[30, 16\], but config.json says vocab_size=31, n_embd=16"),
        ("gpt2", {"n_layer": 2}, r"no h\.1\..*, but config.json says n_layer=2"),
        ("gpt2", {"n_head": 3}, "n_embd=16 must be divisible by n_head=3"),
        ("llama", {"num_attention_heads": 3, "head_dim": None}, "hidden_size=16 must be divisible by num_attention_heads=3"),
        ("llama", {"rope_scaling": {"type": "linear", "factor": 2.0}}, 'rope_scaling.type="linear" is not supported'),
        ("llama", {"rope_theta": 77}, "rope_parameters.rope_theta=10000.0 contradicts rope_theta=77"),
        ("llama", {"head_dim": 4}, "head_dim=4 is not hidden_size=16 / num_attention_heads=2"),
        ("llama", {"attention_bias": True}, "no layers.0.self_attn.q_proj.bias, but .* attention_bias=true"),
        ("llama", {"sliding_window": 4, "mlp_bias": 1}, "sliding_window=4 is not supported.*; mlp_bias=1 must be true or false|"
         "mlp_bias=1 must be true or false; sliding_window=4 is not supported"),
    ],
    ids=str,
)  # fmt: skip
def test_the_message_says_what_is_wrong(kind, edits, message, tmp_path):
    folder = save_model(kind, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | edits))
    with pytest.raises(ValueError, match=f"^hf:{re.escape(str(folder))} cannot be loaded: .*({message})"):
        huggingface.load(folder)
