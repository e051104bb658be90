"""scripts/analyze.py and lm.load on a trained model: attention, lens, attribution, patching, ablation, heads, probes."""

import json
import math
import re

import pytest
import torch
from helpers import NANO, config_of, run_script
from safetensors import safe_open
from test_inside import VOCAB, near
from transformers import AutoModelForCausalLM

import lm
import train as train_script
from lm.analysis.activations import name_activations
from lm.analysis.text import label
from lm.analysis.trace import record
from lm.analysis.tuned_lens import mean_kl, tune
from lm.base.errors import UserError
from lm.data.tokenizer import Chars
from lm.model import GPT, GPTConfig
from lm.model.huggingface import export


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return the directory of a trained run with checkpoints of several steps."""
    folder = tmp_path_factory.mktemp("run")
    train_script.train(config_of(*NANO, f"data.root={folder}/data", "callbacks.checkpoint.keep_last=9"), folder / "run")
    return folder / "run"


def analyze(run, *args):
    done = run_script("analyze", run, *args)
    assert done.returncode == 0, done.stderr
    return done.stdout


def as_json(run, *args):
    return json.loads(analyze(run, *args, "--json"))


def test_attention_gives_a_pattern_for_each_head(run):
    found = as_json(run, "attention", "ba\nke")
    assert found["tokens"] == ["b", "a", r"\n", "k", "e"]
    patterns = torch.tensor(found["layers"])
    assert patterns.shape == (2, 2, 5, 5)
    assert torch.allclose(patterns.sum(-1), torch.ones(2, 2, 5), atol=1e-5) and (patterns.triu(1) == 0).all()
    one = as_json(run, "attention", "ba\nke", "--layer", 1, "--head", 0)
    assert torch.equal(torch.tensor(one["layers"]), patterns[1:, :1]) and (one["layer"], one["head"]) == (1, 0)
    assert "L1.H0" in analyze(run, "attention", "ba\nke", "--layer", 1, "--head", 0)


def test_attribution_adds_up_to_the_logit_that_the_model_gives(run):
    model = lm.load(run)
    logits = model("ba\nk")[-1]
    ids = {name: int(model.tokenizer.encode(name)[0]) for name in "ea"}
    for typed, expected in (((), logits[ids["e"]]), (("--against", "a"), logits[ids["e"]] - logits[ids["a"]])):
        found = as_json(run, "attribute", "ba\nk", "e", *typed)
        assert found["logit"] == pytest.approx(float(expected), abs=1e-4)
        assert sum(term["value"] for term in found["terms"]) == pytest.approx(found["logit"], abs=2e-5)
        assert {"embed", "L0.H0", "L1.mlp"} <= {term["name"] for term in found["terms"]}


def test_the_last_row_of_the_lens_is_the_prediction(run):
    found = as_json(run, "lens", "ba\nke")
    probs = lm.load(run)("ba\nke").softmax(-1)
    assert [layer["name"] for layer in found["layers"]] == ["embed", "L0", "L1"]
    assert found["layers"][-1]["top"] == probs.argmax(-1).tolist()
    assert found["layers"][-1]["kl"] == pytest.approx([0.0] * 5, abs=1e-5)
    assert found["layers"][0]["next_prob"][-1] is None  # nothing follows the last token


def test_heads_are_scored_over_the_checkpoints_of_a_run(run):
    found = as_json(run, "heads", "--checkpoints")
    assert [row["step"] for row in found["checkpoints"]] == [4, 8, 12]
    last = as_json(run / "checkpoints" / "last.ckpt", "heads")
    assert found["checkpoints"][-1]["scores"] == last["scores"]
    assert all(math.isfinite(row["val/loss"]) for row in found["checkpoints"])
    done = run_script("analyze", run / "checkpoints" / "last.ckpt", "heads", "--checkpoints")
    assert done.returncode == 1 and "--checkpoints needs a run directory" in done.stderr


@pytest.mark.slow
def test_ablation_patching_norms_and_the_tuned_lens_report(run, tmp_path):
    ablated = as_json(run, "ablate", "--windows", 6)
    assert [x["name"] for x in ablated["ablated"]] == ["L0.H0", "L0.H1", "L1.H0", "L1.H1", "L0.mlp", "L1.mlp"]
    text = tmp_path / "own.txt"
    text.write_text("ba\nke\n" * 50)
    assert [x["name"] for x in as_json(run, "ablate", "--sites", "mlps", "--text", text)["ablated"]] == [
        "L0.mlp",
        "L1.mlp",
    ]
    patched = as_json(run, "patch", "ba\nke", "ba\nko", "--answer", "a", "--against", "e")
    assert patched["tokens"] == ["b", "a", r"\n", "k", "e/o"]
    assert patched["normalized"]["resid_pre"][0][4] == pytest.approx(1.0, abs=1e-3)
    assert len(as_json(run, "norms")["layers"]) == 2
    assert as_json(run, "norms", "--text", "ba")["layers"] != as_json(run, "norms")["layers"]
    sparse = as_json(run, "features", "--windows", 8, "--ratio", 2, "--active", 4, "--top", 3)
    assert sparse["features"] == 64 and sparse["layer"] == 1 and len(sparse["most_active"]) == 3
    tuned = as_json(run, "lens", "--tuned", "--windows", 8)["layers"]
    assert tuned[-1]["tuned_kl"] == pytest.approx(0.0, abs=1e-6) and tuned[0]["tuned_kl"] < tuned[0]["logit_kl"]


def test_a_probe_reads_labels_of_spans_and_of_texts(run, tmp_path):
    path = tmp_path / "labels.jsonl"
    path.write_text("".join(
        json.dumps({"text": f"ba\n{v}\nke", "spans": [[0, 2, "syllable"], [3, 4, "letter"]]}) + "\n" for v in "aeiou" * 3
    ))  # fmt: skip
    found = as_json(run, "probe", path)
    assert found["labels"] == ["letter", "syllable"] and len(found["layers"]) == 3
    assert found["layers"][1]["examples"] == 6 and 0 <= found["layers"][1]["control"] <= 1
    path.write_text("".join(json.dumps({"text": "bake"[:n], "label": n % 2}) + "\n" for n in (1, 2, 3, 4, 1, 2, 3, 4)))
    assert as_json(run, "probe", path)["labels"] == ["0", "1"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("attention", ""), "the text '' has no tokens"),
        (("attention", "ba" * 50), "the text has 100 tokens, and the model sees at most 16: shorten the text"),
        (("attention", "ba", "--layer", 9), "--layer=9 must be from 0 to 1: the model has 2 layers"),
        (("attention", "ba", "--head", -1), "--head=-1 must be from 0 to 1"),
        (("attribute", "ba", "xyz"), "the character vocabulary lacks"),
        (("attribute", "ba", "ke"), "'ke' is 2 tokens, not one"),
        (("attribute", "ba", "#999"), "#999 is not a token id"),
        (("patch", "ba", "bake", "--answer", "a"), "the texts have 2 and 4 tokens"),
        (("lens",), "lens needs a text, or --tuned"),
        (("ablate", "--sites", "head"), "--sites=head: 'head' must be one of heads, mlps"),
        (("ablate", "--windows", 0), "--windows=0 must be at least 1"),
        (("features", "--layer", 2), "--layer=2 must be from 0 to 1: the model has 2 layers"),
        (("features", "--active", 0), "--active=0 must be at least 1"),
        (("features", "--windows", 3), "the text holds 3 windows of the context; at least 4 are needed"),
        (("probe", "nowhere.jsonl"), "[Errno 2] No such file or directory: 'nowhere.jsonl'"),
    ],
)
def test_wrong_input_gets_one_line(run, args, message):
    done = run_script("analyze", run, *args)
    assert done.returncode == 1 and not done.stdout
    assert done.stderr.startswith(f"error: {message}") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("no json", "it must be"),
        ('{"text": "ba"}', "it must be"),
        ('{"text": "ba", "spans": [[0, "x"]]}', "it must be"),
        ('{"text": "ba", "spans": [[0, 3, "x"]]}', "the span [0, 3] is not in the text, which has 2 characters"),
        ('{"text": "", "label": "x"}', "the text '' has no tokens"),
    ],
)
def test_labels_that_do_not_fit_name_their_line(run, tmp_path, line, message):
    path = tmp_path / "labels.jsonl"
    path.write_text(f'{{"text": "ba", "label": "y"}}\n{line}\n')
    done = run_script("analyze", run, "probe", path)
    assert done.returncode == 1 and done.stderr.startswith(f"error: {path}, line 2: {message}")


@pytest.mark.slow
def test_every_analysis_writes_a_page_and_a_picture_that_need_no_network(run, tmp_path):
    for args in (("attention", "ba\nke"), ("lens", "ba\nke"), ("attribute", "ba\nk", "e"), ("heads",), ("norms",),
                 ("heads", "--checkpoints"), ("patch", "ba\nke", "ba\nko", "--answer", "a")):  # fmt: skip
        page, picture = tmp_path / "page.html", tmp_path / "picture.png"
        analyze(run, *args, "--html", page, "--png", picture)
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"(src|href)=|https?://(?!www\.w3\.org)", text)
        data = json.loads(re.search(r'id="data">(.*?)</script>', text)[1])
        assert data["figures"] and data["table"]
        assert picture.read_bytes().startswith(b"\x89PNG")
    done = run_script("analyze", run, "weights", "--png", tmp_path / "none.png")
    assert done.returncode == 1 and "has no figure" in done.stderr


def test_patterns_that_are_too_large_for_a_file_are_refused(run, monkeypatch):
    monkeypatch.setattr("lm.analysis.inside.NUMBERS", 50)
    done = run_script("analyze", run, "attention", "ba\nke", "--json")
    assert (
        done.returncode == 1
        and "100 attention weights, more than 50: choose one with --layer and --head" in done.stderr
    )
    assert analyze(run, "attention", "ba\nke")  # the table needs no patterns in a file
    assert as_json(run, "attention", "ba\nke", "--layer", 0, "--head", 1)["layers"]


def test_labels_show_spaces_and_bytes_that_are_no_whole_character():
    assert [label(x) for x in (b" the", b"\n", b"\xe2", "é".encode(), b"a b")] == ["␣the", r"\n", r"\xe2", "é", "a␣b"]


# ---- the front door


def test_a_loaded_model_generates_scores_and_records(run):
    model = lm.load(run)
    assert model.generate("ba", 5, temperature=0) == model.generate("ba", 5, temperature=0)
    assert len(model.generate("ba", 5, seed=3)) == 5
    with model.record() as trace:
        logits = model("ba\nke")
    assert logits.shape == (5, model.tokenizer.vocab_size) and len(trace.layers) == 2
    scores = model.score("ba\nke")
    expected = -logits.log_softmax(-1)[:-1].gather(1, trace.ids[0, 1:, None])[:, 0]
    assert torch.allclose(torch.from_numpy(scores.nats), expected, atol=1e-5)
    assert scores.loss == pytest.approx(float(expected.mean()), abs=1e-5)
    with pytest.raises(UserError, match="no such run"):
        lm.load(run / "none")
    with pytest.raises(AttributeError, match="lode"):
        _ = lm.lode


# ---- equal to other programs


@pytest.mark.parametrize("base", ["gpt2", "llama"])
@torch.no_grad()
def test_attention_equals_that_of_transformers_on_the_exported_model(base, tmp_path):
    torch.manual_seed(0)
    fields = (
        {"bias": False, "position": "rope", "norm": "rmsnorm", "mlp": "swiglu", "n_kv_head": 1}
        if base == "llama"
        else {}
    )
    model = GPT(GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=16, **fields), 26).eval()
    for p in model.parameters():
        p.normal_(0.0, 0.2)
    export(model, Chars("abcdefghijklmnopqrstuvwxyz"), tmp_path / "hf")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "hf", attn_implementation="eager")
    ids = torch.randint(26, (1, 12))
    expected = theirs(ids, output_attentions=True).attentions
    with record(model) as trace:
        model(ids)
    for layer, attention in zip(trace.layers, expected, strict=True):
        assert float((layer.pattern - attention).abs().max()) < 2e-6
    found = as_json(f"hf:{tmp_path / 'hf'}", "attention", "abc")
    assert len(found["layers"]) == 2 and found["tokens"] == ["a", "b", "c"]


@torch.no_grad()
def test_exported_activations_have_the_names_and_shapes_of_transformerlens(run, tmp_path):
    out = tmp_path / "acts.safetensors"
    done = run_script("export", run, "--format", "activations", "--text", "ba\nke", "--out", out)
    assert done.returncode == 0, done.stderr
    model = lm.load(run)
    with model.record() as trace:
        model("ba\nke")
    with safe_open(out, "pt") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        assert json.loads(file.metadata()["tokens"]) == ["b", "a", r"\n", "k", "e"]
    assert found.keys() == name_activations(trace).keys()
    assert {
        "hook_embed",
        "blocks.1.hook_resid_post",
        "blocks.0.attn.hook_pattern",
        "ln_final.hook_normalized",
    } <= found.keys()
    assert found["blocks.0.attn.hook_z"].shape == found["blocks.0.attn.hook_v"].shape == (1, 5, 2, 16)
    assert torch.equal(found["blocks.1.hook_resid_post"], trace.layers[1].resid_post)
    done = run_script("export", run, "--format", "activations")
    assert done.returncode == 1 and "--format activations needs a text" in done.stderr


@torch.no_grad()
def test_a_tuned_lens_is_no_worse_than_the_plain_one_where_it_was_trained():
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=8, tie_embeddings=False), VOCAB).eval()
    for p in model.parameters():
        p.normal_(0.0, 0.3)
    windows = torch.randint(VOCAB, (40, 8))
    with torch.enable_grad():
        translators = tune(model, windows)
    with record(model) as trace:
        model(windows[:30])  # those that it was trained on
    final = trace.layers[-1].resid_post.flatten(0, 1)
    stages = [trace.layers[0].resid_pre, *(layer.resid_post for layer in trace.layers)]
    for translator, stage in zip(translators, stages, strict=True):
        x = stage.flatten(0, 1)
        assert mean_kl(model, translator(x), final) <= mean_kl(model, x, final)
    assert [t.name for t in translators] == ["embed", "L0", "L1"]
    assert not translators[-1].matrix.any() and translators[-1].tuned_kl == pytest.approx(0.0, abs=1e-6)
    assert translators[0].tuned_kl < translators[0].logit_kl
    assert near(translators[0](stages[0]), stages[0] + stages[0] @ translators[0].matrix + translators[0].bias)
