"""Initialization from another model (init_from) with another tokenizer and context length."""

import pytest
import torch
import yaml
from helpers import config_of, weights

from lm.data.tokenizer import Bytes, Chars, spellings
from lm.model import GPT, GPTConfig, huggingface
from lm.run import checkpoint
from lm.run.init_from import load_weights, shared_tokens


def source(config: GPTConfig, tokenizer) -> checkpoint.Checkpoint:
    torch.manual_seed(0)
    return checkpoint.Checkpoint("parent", GPT(config, tokenizer.vocab_size), tokenizer, 0, {})


def fresh(config: GPTConfig, tokenizer) -> GPT:
    torch.manual_seed(1)
    return GPT(config, tokenizer.vocab_size)


SMALL = {"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 8}


def test_tokens_in_both_vocabularies_keep_their_rows():
    config = GPTConfig(**SMALL, tie_embeddings=False)
    old, new = Chars("abcd"), Chars("bdxé")
    parent, model = source(config, old), fresh(config, new)
    before = model.wte.weight.detach().clone()
    found = load_weights(model, new, parent)
    for char in "bd":
        i, j = int(new.encode(char)[0]), int(old.encode(char)[0])
        assert torch.equal(model.wte.weight[i], parent.model.wte.weight[j])
        assert torch.equal(model.head.weight[i], parent.model.head.weight[j])
    for char in "xé":
        i = int(new.encode(char)[0])
        assert torch.equal(model.wte.weight[i], before[i])
    for (name, mine), (_, theirs) in zip(
        model.blocks.named_parameters(), parent.model.blocks.named_parameters(), strict=True
    ):
        assert torch.equal(mine, theirs), name
    assert found.resized == {"wte.weight": "2 of 4 tokens known", "head.weight": "2 of 4 tokens known"}
    assert not found.fresh and len(found.loaded) == len(model.state_dict()) - 2


def test_the_same_vocabulary_is_loaded_completely_with_any_padding():
    tokenizer = Chars("abc")
    parent = source(GPTConfig(**SMALL), tokenizer)
    model = fresh(GPTConfig(**SMALL, vocab_multiple=64), tokenizer)
    found = load_weights(model, tokenizer, parent)
    assert torch.equal(model.wte.weight[:3], parent.model.wte.weight) and len(model.wte.weight) == 64
    assert not found.resized and not found.fresh
    ids = torch.tensor([[0, 1, 2]])
    torch.testing.assert_close(model(ids), parent.model(ids))


def test_embeddings_of_disjoint_vocabularies_are_newly_initialized():
    config = GPTConfig(**SMALL)
    parent, model = source(config, Chars("abc")), fresh(config, Chars("xyz"))
    before = model.wte.weight.detach().clone()
    assert load_weights(model, Chars("xyz"), parent).fresh == ["wte.weight"]  # the head is the same matrix
    assert torch.equal(model.wte.weight, before)


@pytest.mark.parametrize("context", [4, 20])
def test_positions_are_copied_up_to_the_shorter_context(context):
    tokenizer = Chars("abc")
    parent = source(GPTConfig(**SMALL), tokenizer)
    model = fresh(GPTConfig(**SMALL | {"block_size": context}), tokenizer)
    before = model.wpe.weight.detach().clone()
    found = load_weights(model, tokenizer, parent)
    shared = min(8, context)
    assert torch.equal(model.wpe.weight[:shared], parent.model.wpe.weight[:shared])
    assert torch.equal(model.wpe.weight[shared:], before[shared:])
    assert found.resized == {"wpe.weight": f"{shared} of {context} positions known"}
    ids = torch.tensor([[0, 1, 2, 0]])
    torch.testing.assert_close(model(ids), parent.model(ids))


def test_rotary_positions_allow_any_context():
    tokenizer = Chars("abc")
    parent = source(GPTConfig(**SMALL, position="rope"), tokenizer)
    model = fresh(GPTConfig(**SMALL | {"block_size": 50}, position="rope"), tokenizer)
    assert not load_weights(model, tokenizer, parent).resized
    ids = torch.tensor([[0, 1, 2, 0]])
    torch.testing.assert_close(model(ids), parent.model(ids))


def test_blocks_of_another_shape_are_refused():
    tokenizer = Chars("abc")
    model = fresh(GPTConfig(**SMALL | {"n_layer": 3}, mlp="relu"), tokenizer)
    with pytest.raises(ValueError, match="(?s)model.n_layer=3, but the checkpoint has 2.*model.mlp=relu, but"):
        load_weights(model, tokenizer, source(GPTConfig(**SMALL), tokenizer))


LLAMA = {"position": "rope", "norm": "rmsnorm", "mlp": "swiglu"}


@pytest.mark.parametrize(
    "fields",
    [{}, {"n_kv_head": 2}, {"mlp_ratio": 3.3}, {"norm_eps": 1e-5}, LLAMA | {"bias": False}, LLAMA | {"bias": True},
     LLAMA | {"n_kv_head": 1}, LLAMA | {"norm_eps": 1e-6, "bias_mlp": False}],
    ids=str,
)  # fmt: skip
def test_a_model_can_be_initialized_from_its_own_export(fields, tmp_path):
    """The config in Hugging Face's format expresses the same settings in a different way."""
    tokenizer, config = Chars("abc"), GPTConfig(**SMALL | fields)
    parent = source(config, tokenizer)
    huggingface.export(parent.model, tokenizer, tmp_path / "hf")
    model = fresh(config, tokenizer)
    assert not load_weights(model, tokenizer, checkpoint.load(tmp_path / "hf")).resized
    ids = torch.tensor([[0, 1, 2, 0]])
    torch.testing.assert_close(model(ids), parent.model(ids))


@pytest.mark.parametrize(
    ("field", "value"),
    [("bias_qkv", False), ("bias_norm", False), ("norm_eps", 1e-3), ("mlp_ratio", 2.0), ("n_kv_head", 1), ("bias_head", True),
     ("norm_gain", False), ("window", 3)],
)  # fmt: skip
def test_a_field_that_changes_the_function_is_refused_by_name(field, value):
    tokenizer = Chars("abc")
    model = fresh(GPTConfig(**SMALL | {field: value}), tokenizer)
    with pytest.raises(ValueError, match=f"model.{field}={value}, but the checkpoint has"):
        load_weights(model, tokenizer, source(GPTConfig(**SMALL), tokenizer))


def test_differences_are_reported_with_resolved_values():
    tokenizer = Chars("abc")
    model = fresh(GPTConfig(**SMALL, bias=False), tokenizer)
    with pytest.raises(
        ValueError, match="(?s)model.bias_qkv=False, but the checkpoint has True.*model.bias_norm=False, but"
    ):
        load_weights(model, tokenizer, source(GPTConfig(**SMALL), tokenizer))


def test_spellings_do_not_depend_on_the_kind_of_tokenizer():
    assert spellings(Bytes())[ord("a")] == b"a" and spellings(Bytes())[0xC3] == b"\xc3"
    new, old = shared_tokens(Bytes(["<|endoftext|>"]), Chars(" aé", ["<|endoftext|>"]))
    pairs = dict(zip(new.tolist(), old.tolist(), strict=True))
    chars = Chars(" aé", ["<|endoftext|>"])
    assert pairs[ord("a")] == chars.encode("a")[0] and pairs[ord(" ")] == chars.encode(" ")[0]
    assert pairs[256] == chars.end_of_text  # é is two bytes, so no single byte token equals it
    assert len(pairs) == 3


def test_a_run_is_initialized_under_a_new_tokenizer(nano, caplog):
    parent = nano("trainer.max_steps=8", name="parent")
    caplog.set_level("INFO", "lm")
    child = nano(
        f"init_from={parent}", "init_tokenizer=new", "tokenizer=byte", "model.block_size=24", "trainer.max_steps=1",
        "optimizer.lr=1e-9", name="child",
    )  # fmt: skip
    assert "wte.weight resized (" in caplog.text and "wpe.weight" not in caplog.text  # rotary positions
    old, new = weights(parent, "best.ckpt"), weights(child)
    for key in old:
        if "blocks" in key:
            torch.testing.assert_close(new[key], old[key], atol=1e-6, rtol=0)
    parents, childs = checkpoint.load(parent), checkpoint.load(child)
    row = childs.model.wte.weight[ord("a")]
    torch.testing.assert_close(row, parents.model.wte.weight[parents.tokenizer.encode("a")[0]], atol=1e-6, rtol=0)
    assert yaml.safe_load((child / "config.yaml").read_text())["tokenizer"]["kind"] == "Byte"


def test_the_config_records_that_the_tokenizer_came_from_init_from(nano):
    parent = nano("trainer.max_steps=4", name="parent")
    child = nano(f"init_from={parent}", "tokenizer=byte", "trainer.max_steps=4", name="child")
    assert yaml.safe_load((child / "config.yaml").read_text())["tokenizer"] == {"kind": "InitFrom"}
    nano("trainer.max_steps=8", name="child")  # init_from is omitted; the recorded origin stays
    again = yaml.safe_load((child / "config.yaml").read_text())
    assert again["tokenizer"] == {"kind": "InitFrom"} and again["init_from"] == str(parent)


def test_a_misspelled_choice_is_refused():
    with pytest.raises(ValueError, match="^init_tokenizer=knew must be one of keep, new; did you mean 'new'"):
        config_of("init_tokenizer=knew")
