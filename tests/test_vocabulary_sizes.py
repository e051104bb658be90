"""Models with a larger vocabulary than their tokenizer, and models that are too small for their tokenizer."""

import json

import pytest
import torch
from helpers import close, weights

from lm.data.tokenizer import Bytes, Subword, from_json
from lm.model import GPT, GPTConfig, huggingface
from lm.run import checkpoint
from lm.run.export import SUFFIX, export
from lm.run.init_from import load_weights, shared_tokens
from scripts import analyze, evaluate

PROSE = "To be, or not to be: that is the question.\n" * 30
TOKENIZER = Bytes(["<|endoftext|>"])  # 257 ids
ROWS = 320
SHAPE = {"n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 16}


def make_model(vocab_size=ROWS, **fields):
    torch.manual_seed(0)
    model = GPT(GPTConfig(**SHAPE | fields), vocab_size).eval()
    for p in model.parameters():
        p.data += 0.1 * torch.randn_like(p)
    return model


def write_checkpoint(model, tokenizer, path):
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    about = checkpoint.describe(model, tokenizer) | {"metrics": {}}
    checkpoint.write({"state_dict": state, "global_step": 0, "lm": about}, path)
    return path


@pytest.fixture
def forms(tmp_path):
    """Return forms(model, tokenizer): write the model in every loadable form, and return the four paths."""

    def write(model, tokenizer):
        run = write_checkpoint(model, tokenizer, tmp_path / "run.ckpt")
        huggingface.export(model, tokenizer, tmp_path / "hf")
        paths = {"checkpoint": run, "hf": f"hf:{tmp_path / 'hf'}"}
        for form in ("inference", "safetensors"):
            paths[form] = tmp_path / f"out{SUFFIX[form]}"
            # from the directory of transformers, whose models may have a vocabulary of any size
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(checkpoint.Checkpoint, "__post_init__", lambda self: None)
                export(paths["hf"], form, paths[form])
        return paths

    return write


FORMS = ["checkpoint", "hf", "inference", "safetensors"]


@pytest.mark.parametrize("form", FORMS)
def test_a_model_with_more_rows_than_tokens_loads_all_of_them(form, forms):
    model = make_model()
    again = checkpoint.load(forms(model, TOKENIZER)[form])
    ids = torch.tensor([[0, 256, 257, 319]])
    assert again.model.vocab_size == ROWS and again.tokenizer.vocab_size == 257
    assert again.model(ids).shape == (1, 4, ROWS) and close(again.model(ids), model(ids))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rows", [1, 256])
def test_a_model_with_fewer_rows_than_tokens_is_refused_with_both_numbers(form, rows, forms):
    path = forms(make_model(rows, vocab_multiple=64), TOKENIZER)[form]
    with pytest.raises(
        ValueError, match=f"cannot be loaded: its tokenizer has 257 ids, but its model has only {rows} embedding rows"
    ):
        checkpoint.load(path)


def test_a_padded_model_has_the_logits_of_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(n_layer=1, n_head=2, n_embd=16, n_positions=16, vocab_size=ROWS)
    theirs = transformers.GPT2LMHeadModel(config).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    (tmp_path / "theirs" / "tokenizer.json").write_text(TOKENIZER.to_json())
    ids = torch.tensor([[0, 256, 257, 319]])
    assert close(checkpoint.load(tmp_path / "theirs").model(ids), theirs(ids).logits)


@pytest.mark.slow_after(2)
@pytest.mark.parametrize(
    "command",
    [["tokens"], ["tokens", "e", "#256", "<|endoftext|>"], ["tokens", "--by-head"], ["tokens", "--nearest", "100000"],
     ["weights"], ["diff", "{other}"], ["diff", "{same}"], ["chunks", "{text}"]],
    ids=str,
)  # fmt: skip
def test_analyze_reads_a_padded_model(command, forms, tmp_path, capsys):
    paths = forms(make_model(), TOKENIZER)
    (tmp_path / "text.txt").write_text(PROSE)
    other = write_checkpoint(make_model(257), TOKENIZER, tmp_path / "other.ckpt")
    words = [word.format(other=other, same=paths["hf"], text=tmp_path / "text.txt") for word in command]
    analyze.main([paths["hf"], *words, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert all(max(pair["a_id"], pair["b_id"]) < 257 for pair in found.get("pairs", []))
    if "--nearest" in command:
        assert len(found["pairs"]) == 257 * 256 // 2
    analyze.main([paths["hf"], *words])


def test_analyze_refuses_ids_without_a_token(forms, capsys):
    with pytest.raises(SystemExit, match="#300 is not a token id; ids go from #0 to #256"):
        analyze.main([forms(make_model(), TOKENIZER)["hf"], "tokens", "#300"])


def test_evaluate_scores_over_the_whole_vocabulary(forms, tmp_path, monkeypatch, capsys):
    model = make_model()
    (tmp_path / "text.txt").write_text(PROSE[:17])
    path = forms(model, TOKENIZER)["hf"]
    monkeypatch.setattr("sys.argv", ["evaluate.py", path, str(tmp_path / "text.txt"), "--worst", "3", "--json"])
    evaluate.main()
    ids = torch.tensor(TOKENIZER.encode(PROSE[:17]))
    expected = -model(ids[None, :-1]).log_softmax(-1)[0].gather(1, ids[1:, None]).mean()
    assert json.loads(capsys.readouterr().out)["loss"] == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("multiple", [1, 64, 320])
def test_init_from_copies_the_rows_of_the_tokens(multiple, forms):
    source = checkpoint.load(forms(make_model(tie_embeddings=False), TOKENIZER)["hf"])
    torch.manual_seed(1)
    model = GPT(GPTConfig(**SHAPE, tie_embeddings=False, vocab_multiple=multiple), 257).eval()
    found = load_weights(model, TOKENIZER, source)
    assert not found.fresh and not found.resized
    ids = torch.arange(256)[None, 100:116]
    assert close(model(ids), source.model(ids)[..., :257])


def test_a_run_can_start_from_a_padded_model(nano, forms, tmp_path):
    path = forms(make_model(), TOKENIZER)["hf"]
    shape = ["model.position=learned", "model.mlp=gelu", "model.norm=layernorm", "model.tie_embeddings=true", "model.bias=true",
             *(f"model.{key}={value}" for key, value in SHAPE.items())]  # fmt: skip
    run = nano(*shape, f"init_from={path}", "trainer.max_steps=1", "optimizer.lr=1e-12")
    child = checkpoint.load(run)
    assert child.model.vocab_size == child.tokenizer.vocab_size == 257
    torch.testing.assert_close(child.model.wte.weight, checkpoint.load(path).model.wte.weight[:257], atol=1e-6, rtol=0)


def test_tokens_with_the_same_spelling_keep_their_own_rows():
    """Llama's files have bytes such as <0x41> in addition to the letters."""
    twins = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
             "pre_tokenizer": None, "post_processor": None, "decoder": None,
             "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                       "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": True, "ignore_merges": False,
                       "vocab": {"<0x41>": 0, "A": 1, "B": 2, "<0x42>": 3}, "merges": []}}  # fmt: skip
    tokenizer = from_json(json.dumps(twins))
    assert isinstance(tokenizer, Subword)
    new, old = shared_tokens(tokenizer, tokenizer)
    assert new.tolist() == old.tolist() == [0, 1, 2, 3]
    source = checkpoint.Checkpoint("parent", make_model(4), tokenizer, 0, {})
    model = GPT(GPTConfig(**SHAPE), 4).eval()
    assert not load_weights(model, tokenizer, source).resized
    assert close(model(torch.arange(4)[None]), source.model(torch.arange(4)[None]))
    swapped = twins | {"model": twins["model"] | {"vocab": {"B": 0, "A": 1}}}
    new, old = shared_tokens(from_json(json.dumps(swapped)), tokenizer)
    assert dict(zip(new.tolist(), old.tolist(), strict=True)) == {0: 2, 1: 1}


@pytest.mark.parametrize("multiple", [1, 64])
def test_the_optimizer_state_can_be_kept_with_another_padding(multiple, nano, tmp_path):
    parent = nano("trainer.max_steps=4", f"model.vocab_multiple={65 - multiple}", name="parent")
    child = nano(
        f"init_from={parent}",
        "init_optimizer=keep",
        f"model.vocab_multiple={multiple}",
        "trainer.max_steps=2",
        name="child",
    )
    assert all(tensor.isfinite().all() for tensor in weights(child).values())
