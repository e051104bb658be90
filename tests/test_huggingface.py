"""Exchange of models with Hugging Face transformers, compared with its own classes."""

import json

import pytest
import torch
from safetensors import safe_open

from lm.data.corpus import Split, Text
from lm.data.download import Downloads
from lm.data.tokenizer import BPEConfig
from lm.model import GPT, GPTConfig, huggingface
from lm.run.checkpoint import load

transformers = pytest.importorskip("transformers")

PROSE = "To be, or not to be: that is the question.\n" * 30
BPE = BPEConfig(vocab_size=300).build(Text(Split.of(PROSE, "x"), Split.of(PROSE)), Downloads(None))
SHAPE = {"n_layer": 3, "n_head": 4, "n_embd": 64, "block_size": 32}
IDS = torch.arange(64).view(2, 32) * 7 % 300


def build_noisy_model(**fields):
    torch.manual_seed(0)
    model = GPT(GPTConfig(**SHAPE | fields), 300).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return model


LLAMA = {"position": "rope", "norm": "rmsnorm", "mlp": "swiglu", "bias": False}
MODELS = [
    {}, {"tie_embeddings": False}, {"bias": False}, {"mlp": "gelu_tanh", "mlp_ratio": 2.0}, {"mlp": "relu"},
    {"vocab_multiple": 64}, {"bias_qkv": False, "norm_eps": 1e-3},
    LLAMA, LLAMA | {"n_kv_head": 2}, LLAMA | {"tie_embeddings": False, "rope_theta": 500.0}, LLAMA | {"bias": True},
]  # fmt: skip


@pytest.mark.slow_after(4)
@pytest.mark.parametrize("fields", MODELS, ids=str)
def test_an_export_has_the_same_logits_in_transformers_and_after_an_import(fields, tmp_path):
    model = build_noisy_model(**fields)
    huggingface.export(model, BPE, tmp_path / "out")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    with torch.no_grad():
        torch.testing.assert_close(theirs(IDS).logits, model(IDS), atol=1e-4, rtol=0)
        again, tokenizer = huggingface.load(tmp_path / "out")
        torch.testing.assert_close(again(IDS), model(IDS), atol=1e-5, rtol=0)
    assert tokenizer.to_json() == BPE.to_json()
    opened = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert opened(PROSE)["input_ids"] == BPE.encode(PROSE).tolist() and opened.eos_token == "<|endoftext|>"


def test_models_saved_by_transformers_are_read(tmp_path):
    torch.manual_seed(0)
    gpt2 = transformers.GPT2Config(n_layer=2, n_head=2, n_embd=32, n_positions=32, vocab_size=300)
    llama = transformers.LlamaConfig(
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, hidden_size=64, intermediate_size=128,
        max_position_embeddings=32, vocab_size=300,
    )  # fmt: skip
    for name, theirs in (("g", transformers.GPT2LMHeadModel(gpt2)), ("l", transformers.LlamaForCausalLM(llama))):
        theirs.eval().save_pretrained(tmp_path / name)
        (tmp_path / name / "tokenizer.json").write_text(BPE.to_json())
        model, _ = huggingface.load(tmp_path / name)
        with torch.no_grad():
            torch.testing.assert_close(model(IDS), theirs(IDS).logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (
            {"position": "rope"},
            "GPT-2 does not support model.position=rope; Llama does not support model.norm=layernorm, model.mlp=gelu",
        ),
        (LLAMA | {"qk_norm": True}, "Llama does not support model.qk_norm"),
        ({"n_kv_head": 2}, "GPT-2 does not support model.n_kv_head"),
        ({"bias_head": True}, "GPT-2 does not support model.bias_head"),
    ],
)
def test_a_model_without_a_class_in_transformers_is_refused_with_the_reason(fields, reason, tmp_path):
    with pytest.raises(ValueError, match=reason):
        huggingface.export(build_noisy_model(**fields), BPE, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_directories_of_other_models_are_refused(tmp_path):
    with pytest.raises(ValueError, match="has no config.json"):
        huggingface.load(tmp_path)
    huggingface.export(build_noisy_model(), BPE, tmp_path / "out")
    config = json.loads((tmp_path / "out/config.json").read_text())
    (tmp_path / "out/config.json").write_text(json.dumps(config | {"model_type": "bert"}))
    with pytest.raises(ValueError, match="is a bert model; only the architectures of GPT-2 and Llama"):
        huggingface.load(tmp_path / "out")


def test_a_run_can_be_exported_and_used_to_start_another_run(nano, tmp_path, monkeypatch, capsys):
    import sys

    from scripts import export

    shape = ["model.position=learned", "model.mlp=gelu", "model.tie_embeddings=true", "model.bias=true"]
    run = nano(*shape, "trainer.max_steps=4")
    training = (run / "checkpoints" / "last.ckpt").stat().st_size
    reports = {}
    for form in ("hf", "inference", "safetensors"):
        monkeypatch.setattr(sys, "argv", ["export.py", str(run), "--format", form, "--json"])
        export.main()
        reports[form] = json.loads(capsys.readouterr().out)
    assert reports["inference"]["bytes"] < 0.5 * training
    best = load(run)
    for name in (run / "inference.ckpt", f"hf:{run}/hf"):
        again = load(name)
        ids = torch.arange(16)[None] % 15
        torch.testing.assert_close(again.model(ids), best.model(ids), atol=1e-5, rtol=0)
        assert again.tokenizer.to_json() == best.tokenizer.to_json()
    with safe_open(run / "safetensors.safetensors", "pt") as file:
        assert torch.equal(file.get_tensor("wte.weight"), best.model.wte.weight)
        metadata = file.metadata()
        assert json.loads(metadata["model"])["n_embd"] == 32 and metadata["tokenizer"] == best.tokenizer.to_json()
    started = nano(*shape, f"init_from=hf:{run}/hf", "trainer.max_steps=1", "optimizer.lr=1e-9", name="second")
    initial = load(started / "checkpoints" / "last.ckpt").model
    torch.testing.assert_close(initial.wte.weight, best.model.wte.weight, atol=1e-6, rtol=0)
