"""Tests of the evaluation, against slow reference implementations that share no code with it, and Hugging Face."""

import io
import json
import math
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import NANO, config_of
from hydra.core.global_hydra import GlobalHydra
from tokenizers import Tokenizer as HFTokenizer
from tokenizers import decoders, models, pre_tokenizers

import train as train_script
from lm.data.batches import IGNORE, ValBatches
from lm.data.corpus import Split, Text
from lm.data.download import Downloads
from lm.data.tokenizer import BPEConfig, Bytes, Chars, Subword
from lm.evaluate.score import (
    Scores,
    Spelling,
    count_words,
    group_positions,
    mean_by_position,
    score,
    summarize,
    worst_passages,
)
from lm.model import GPT, GPTConfig, huggingface
from lm.run.checkpoint import load
from scripts import evaluate

T, V = 8, 20
RHYME = "Ein Kätzchen saß im Gras — 🐈 war's!\nDer Hund,  der bellt\nund fällt.\n\n"
BPE = BPEConfig(vocab_size=300).build(Text(Split.of(RHYME * 9), Split.of(RHYME)), Downloads(None))
SENTENCES = "the cat sat on the mat. a dog ran by the house.\n"


def tiny(**fields):
    torch.manual_seed(0)
    model = GPT(GPTConfig(**{"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": T} | fields), V).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return model


def uniform(vocab_size):
    """Return a model that gives every token the same probability."""
    model = GPT(GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=T, tie_embeddings=False), vocab_size).eval()
    torch.nn.init.zeros_(model.head.weight)
    return model


def random_ids(n):
    return np.random.default_rng(n).integers(0, V, n).astype(np.uint16)


@torch.no_grad()
def one_by_one(model, ids, stride):
    """Return (nats, rank, context) of each token, predicted alone from the window that it belongs to."""
    results, last = [], len(ids) - 1
    for t in range(1, last + 1):
        end = min(T, last)
        while end < t:
            end = min(end + stride, last)
        context = ids[max(0, end - T) : t]
        logits = model(torch.tensor(context.astype(int))[None])[0, -1]
        order = sorted(range(V), key=lambda v: (-float(logits[v]), v))
        results.append((-float(logits.log_softmax(0)[int(ids[t])]), order.index(ids[t]), len(context)))
    return results


@pytest.fixture
def own(tmp_path):
    """Return own(text, *overrides), which trains the NANO run on a text and returns its directory."""

    def run(text, *overrides):
        (tmp_path / "own.txt").write_text(text)
        only = [override for override in NANO if not override.startswith("corpus")]
        corpus = ("corpus=text", f"corpus.path={tmp_path}/own.txt", f"data.root={tmp_path}/data")
        train_script.train(config_of(*only, *corpus, *overrides), tmp_path / "run")
        return tmp_path / "run"

    return run


@pytest.fixture
def script(monkeypatch, capsys):
    """Return script(*args, stdin=b""): run scripts/evaluate.py in this process, return (status, stdout, stderr)."""

    def run(*args, stdin=b""):
        monkeypatch.setattr(sys, "argv", ["evaluate.py", *map(str, args), "--device", "cpu"])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        GlobalHydra.instance().clear()
        status = 0
        capsys.readouterr()
        try:
            evaluate.main()
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def evaluate_json(script):
    def run(*args, **kwargs):
        status, out, err = script(*args, "--json", **kwargs)
        assert status == 0 and "tokens/s" in err
        return json.loads(out)

    return run


@pytest.fixture(scope="module")
def lone_checkpoint(tmp_path_factory):
    """A checkpoint outside a run directory, of a character model that gives each token the same probability."""
    from lm.run.checkpoint import describe, write

    tokenizer = Chars("".join(sorted(set(SENTENCES))))
    model = uniform(tokenizer.vocab_size)
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    path = tmp_path_factory.mktemp("lone") / "model.ckpt"
    write({"state_dict": state, "global_step": 3, "lm": describe(model, tokenizer) | {"metrics": {}}}, path)
    return path


# ---- scores


@pytest.mark.parametrize("n", [2, 5, T, T + 1, T + 2, 2 * T, 2 * T + 1, 43])
@pytest.mark.parametrize("stride", [1, 3, T - 1, T])
def test_scores_equal_those_of_each_token_predicted_alone(n, stride):
    model, ids = tiny(), random_ids(n)
    done = []
    found = score(model, ids, stride, batch_size=3, progress=done.append)
    nats, rank, context = map(np.array, zip(*one_by_one(model, ids, stride), strict=True))
    np.testing.assert_allclose(found.nats, nats, atol=1e-5, rtol=0)
    assert found.nats.dtype == np.float32 and len(found.nats) == n - 1 == sum(done)
    assert found.top1.tolist() == (rank == 0).tolist() and found.top5.tolist() == (rank < 5).tolist()
    assert found.position.tolist() == context.tolist()
    assert (context >= np.minimum(np.arange(1, n), T - stride + 1)).all()


def test_a_stride_of_one_gives_the_largest_possible_context():
    model, ids = tiny(position="rope", window=5), random_ids(40)
    found = score(model, ids, stride=1)
    with torch.no_grad():
        for t in range(1, len(ids)):
            logits = model(torch.tensor(ids[max(0, t - T) : t].astype(int))[None])[0, -1]
            assert found.nats[t - 1] == pytest.approx(-float(logits.log_softmax(0)[int(ids[t])]), abs=1e-5)
    assert found.position.tolist() == [min(t, T) for t in range(1, 40)]


def test_default_windows_are_those_of_validation():
    model, ids = tiny(), random_ids(100)
    with torch.no_grad():
        nats = [float(model(x, None, y)[1]) for x, y in ValBatches(ids, T, 4)]
    assert score(model, ids).loss == pytest.approx(sum(nats) / 99, abs=1e-6)
    assert score(model, ids).loss != pytest.approx(score(model, ids, T // 2).loss, abs=1e-4)


def test_batch_and_chunk_sizes_do_not_change_the_scores(monkeypatch):
    model, ids = tiny(), random_ids(90)
    once = score(model, ids, 3, batch_size=100)
    monkeypatch.setattr("lm.model.loss.TOKENS", 7)
    monkeypatch.setattr("lm.model.loss.CHUNK", 1)
    for batch_size in (1, 2, 5):
        again = score(model, ids, 3, batch_size)
        np.testing.assert_allclose(again.nats, once.nats, atol=1e-5)
        assert np.array_equal(again.top1, once.top1) and np.array_equal(again.position, once.position)


def test_attention_stays_within_documents_on_request():
    model, ids = tiny(), random_ids(30)
    ids[7] = 3
    separate, whole = score(model, ids[:9], end_of_text=3), score(model, ids[:9])
    assert separate.nats[:7].tolist() == whole.nats[:7].tolist()
    with torch.no_grad():
        x = torch.tensor(ids[:8].astype(int))[None]
        alone = model(x, torch.tensor([[0] * 7 + [1]]))[0, -1].log_softmax(0)[int(ids[8])]
    assert separate.nats[7] == pytest.approx(-float(alone), abs=1e-5)
    assert separate.nats[7] != pytest.approx(whole.nats[7], abs=1e-3)


@pytest.mark.parametrize("stride", [-1, 0, T + 1])
def test_a_stride_larger_than_the_context_or_below_one_is_refused(stride):
    with pytest.raises(ValueError, match=f"--stride={stride} must be at least 1 and at most model.block_size=8"):
        score(tiny(), random_ids(30), stride)


@pytest.mark.parametrize(("n", "message"), [(0, "has 0 tokens;"), (1, "has 1 token;")])
def test_a_text_of_fewer_than_two_tokens_is_refused(n, message):
    with pytest.raises(ValueError, match=message):
        score(tiny(), random_ids(n))


def test_losses_by_position_add_up_to_the_loss():
    scores = score(tiny(), random_ids(3 * T + 4))
    nats, tokens = mean_by_position(scores)
    assert tokens.tolist() == [3, 3, 3, 3, 3, 4, 4, 4]  # only the last three of the last window count
    assert nats @ tokens / tokens.sum() == pytest.approx(scores.loss, abs=1e-9)
    assert nats[0] == pytest.approx(scores.nats[[0, T, 2 * T]].mean(), abs=1e-6)
    rows = group_positions(nats[:7], tokens[:7])
    assert [row[:2] for row in rows] == [(1, 1), (2, 2), (3, 4), (5, 7)] and [row[3] for row in rows] == [3, 3, 6, 11]
    assert rows[3][2] == pytest.approx((3 * nats[4] + 4 * nats[5] + 4 * nats[6]) / 11)


# ---- figures


def test_a_uniform_model_needs_eight_bits_per_byte():
    tokenizer, ids = Bytes(), np.arange(1, 201, dtype=np.uint16) % 10
    found = summarize(score(uniform(256), ids), ids, tokenizer)
    assert found["loss"] == pytest.approx(math.log(256), abs=1e-6) and found["ppl"] == pytest.approx(256, abs=1e-3)
    assert found["bits_per_byte"] == pytest.approx(8, abs=1e-6)
    assert found["accuracy"] == 20 / 199  # of equal probabilities, that of the lowest id counts as the highest
    assert found["accuracy_top5"] == 99 / 199


def test_models_with_different_tokenizers_count_the_same_bytes():
    chars = Chars("".join(sorted(set(RHYME))))
    found = {}
    for name, tokenizer in (("byte", Bytes()), ("char", chars), ("bpe", BPE)):
        ids = tokenizer.encode(RHYME)
        found[name] = summarize(score(uniform(tokenizer.vocab_size), ids), ids, tokenizer)
        first = len(tokenizer.decode(ids[:1].tolist()))
        assert found[name]["chars"] == len(RHYME) - first and found[name]["bytes"] == len(RHYME[first:].encode())
        rest = RHYME[first:]
        assert found[name]["words"] == len(rest.split()) + rest.count("\n") and found[name]["unknown"] == 0
    assert found["byte"]["bytes"] == found["char"]["bytes"] > found["char"]["chars"] == found["byte"]["chars"]
    assert found["byte"]["bits_per_byte"] == pytest.approx(8, abs=1e-6)
    bits = math.log2(chars.vocab_size) * found["char"]["chars"]
    assert found["char"]["bits_per_byte"] == pytest.approx(bits / found["char"]["bytes"], abs=1e-6)
    assert found["char"]["bits_per_char"] == pytest.approx(math.log2(chars.vocab_size), abs=1e-6)
    assert found["char"]["word_ppl"] == pytest.approx(2 ** (bits / found["char"]["words"]), rel=1e-6)


def test_words_are_separated_by_white_space_and_line_ends_count_too():
    text = "To be,\n or not  to\n\nbe"
    tokenizer = Chars("".join(sorted(set(text))))
    ids = tokenizer.encode(text)
    assert count_words(ids, tokenizer, Spelling.of(tokenizer)) == 6 + 3  # o be, or not to be
    assert count_words(ids[:2], tokenizer, Spelling.of(tokenizer)) == 1
    assert count_words(ids[1:3], tokenizer, Spelling.of(tokenizer)) == 0


def metaspace():
    """Return a tokenizer whose decoder drops the space at the beginning of a text."""
    vocab = {"<unk>": 0} | {f"▁{word}": i for i, word in enumerate(("the", "cat", "sat", "on", "a", "mat"), 1)}
    tokenizer = HFTokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return Subword(tokenizer, ["<|endoftext|>"])


@pytest.mark.parametrize("tokenizer", [Bytes(["<|endoftext|>"]), BPE, metaspace()], ids=["byte", "bpe", "metaspace"])
def test_the_number_of_words_does_not_depend_on_how_many_tokens_are_decoded_at_once(tokenizer):
    text = "the cat sat on a mat " * 3 if tokenizer.vocab_size == 8 else RHYME
    ids, spelling = tokenizer.encode(text.strip()), Spelling.of(tokenizer)
    rest = tokenizer.decode(ids.tolist())[len(tokenizer.decode(ids[:1].tolist())) :]
    expected = len(rest.split()) + rest.count("\n")
    assert {count_words(ids, tokenizer, spelling, n) for n in range(1, len(ids) + 1)} == {expected}


def test_documents_separate_words_and_unknown_tokens_are_counted():
    tokenizer = Chars("ab", ["<|endoftext|>"], unknown=True)
    ids = np.concatenate([tokenizer.encode("ab"), [tokenizer.end_of_text], tokenizer.encode("béa")])
    found = summarize(score(uniform(4), ids), ids, tokenizer)
    counts = {"tokens": 5, "bytes": 4, "chars": 4, "words": 2, "unknown": 1}
    assert {key: found[key] for key in counts} == counts


def test_a_text_without_words_has_no_perplexity_per_word():
    ids = Bytes().encode("€  ")
    spaces = summarize(score(uniform(256), ids[2:]), ids[2:], Bytes())
    assert spaces["word_ppl"] is None and spaces["bits_per_char"] == pytest.approx(8, abs=1e-6)
    part = summarize(score(uniform(256), ids[:3]), ids[:3], Bytes())  # a part of one character that began before it
    assert (part["bytes"], part["chars"], part["bits_per_char"]) == (2, 0, None)
    assert worst_passages(score(uniform(256), ids[:3]), ids[:3], Bytes(), 1) == []


def test_words_are_counted_as_wikitext_does(shared):
    """Its authors report 245,569 tokens in the test text; the first, a line end, is not predicted."""
    text = (shared / "wikitext-2" / "test.txt").read_text()
    tokenizer = Bytes()
    assert count_words(tokenizer.encode(text), tokenizer, Spelling.of(tokenizer)) == 245_569 - (text[0] == "\n")


# ---- passages


@pytest.mark.parametrize("tokenizer", [Bytes(), BPE, Chars("".join(sorted(set(RHYME))))], ids=["byte", "bpe", "char"])
def test_the_worst_passages_are_those_with_the_highest_loss(tokenizer):
    ids = tokenizer.encode(RHYME * 30)
    bad = len(ids) // 2
    nats = np.ones(len(ids) - 1, np.float32)
    nats[bad : bad + 20] = 5
    scores = Scores(nats, nats > 1, nats > 1, np.ones(len(nats), np.int32))
    first, *_ = worst_passages(scores, ids, tokenizer, 1, size=20)
    before = len(tokenizer.decode(ids[: bad + 1].tolist()))
    assert first["nats"] > 2.5 and abs(first["offset"] - before) <= 40
    cut = worst_passages(scores, ids, tokenizer, 10**6, size=20)
    assert [p["nats"] for p in cut] == sorted((p["nats"] for p in cut), reverse=True)
    in_order = sorted(cut, key=lambda p: p["offset"])
    assert (
        "".join(p["text"] for p in in_order) == (RHYME * 30)[in_order[0]["offset"] :]
    )  # each passage once, and none is cut
    assert all((RHYME * 30)[p["offset"] :].startswith(p["text"]) and "\ufffd" not in p["text"] for p in cut)
    assert sum(p["nats"] * p["tokens"] for p in cut) == pytest.approx(nats.sum(), abs=1e-6)
    assert max(p["tokens"] for p in cut) <= 24


# ---- Hugging Face


def test_the_loss_equals_that_of_transformers(tmp_path, evaluate_json):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=32), 300).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    huggingface.export(model, BPE, tmp_path / "hf")
    (tmp_path / "rhyme.txt").write_text(RHYME * 20, encoding="utf-8")
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "hf").eval()
    nats, tokens = 0.0, 0
    with torch.no_grad():
        for x, y in ValBatches(BPE.encode(RHYME * 20), 32, 4):
            logits = theirs(x).logits
            nats += float(F.cross_entropy(logits.flatten(0, 1), y.flatten(), ignore_index=IGNORE, reduction="sum"))
            tokens += int((y != IGNORE).sum())
    found = evaluate_json(f"hf:{tmp_path / 'hf'}", tmp_path / "rhyme.txt")
    assert found["tokens"] == tokens and found["loss"] == pytest.approx(nats / tokens, abs=1e-4)


# ---- the script


def test_a_run_has_the_same_loss_as_in_its_validation(nano, evaluate_json):
    run = nano("trainer.val_batches=null")
    recorded = load(run).metrics
    found = evaluate_json(run)
    assert found["loss"] == pytest.approx(recorded["val/loss"], abs=1e-6)
    assert found["bits_per_byte"] == pytest.approx(recorded["val/bpb"], abs=1e-5)
    last = evaluate_json(run / "checkpoints" / "last.ckpt")
    metrics = json.loads((run / "run.json").read_text())["metrics"]
    assert last["step"] == 12 and last["loss"] == pytest.approx(metrics["val/loss"], abs=1e-6)
    assert evaluate_json(run, "--stride", 4)["tokens"] == found["tokens"]


@pytest.mark.slow
@pytest.mark.parametrize("respect", [True, False])
def test_documents_are_handled_as_in_training(own, evaluate_json, respect):
    settings = ("corpus.separator=---", "corpus.val_fraction=0.3", "tokenizer=byte", "trainer.val_batches=null")
    text = "---\n".join(SENTENCES[i % 20 :] for i in range(60))
    run = own(text, *settings, f"data.respect_documents={respect}")
    recorded = load(run).metrics
    found = evaluate_json(run)
    assert found["loss"] == pytest.approx(recorded["val/loss"], abs=1e-6)
    assert found["bits_per_byte"] == pytest.approx(recorded["val/bpb"], abs=1e-5)
    assert found["tokens"] > found["bytes"] == found["chars"]  # an end-of-text token stands for no text


def test_a_note_says_that_the_text_has_changed_since_training(own, script, tmp_path):
    run = own(SENTENCES * 50, "trainer.max_steps=1")
    assert "has changed" not in script(run)[2]
    (tmp_path / "own.txt").write_text(SENTENCES * 60)
    status, out, err = script(run)
    assert status == 0 and "note: the text of the corpus has changed since the run was trained" in err and "287" in out


@pytest.mark.slow
def test_the_worst_passage_is_the_one_with_garbage(own, script, evaluate_json, tmp_path):
    run = own(SENTENCES * 100, "trainer.max_steps=40", "trainer.val_every=40")
    garbage = "hdtgnbtuh eehytac omb drsynahe tmeo. stbb hodcyt nu"
    (tmp_path / "garbage.txt").write_text(SENTENCES * 20 + garbage + SENTENCES * 20)
    args = (run, tmp_path / "garbage.txt", "--worst", 1, "--positions", "--stride", 8)
    found = evaluate_json(*args)
    (passage,) = found["worst"]
    begins = len(SENTENCES) * 20
    assert begins - 64 < passage["offset"] < begins + len(garbage) and passage["nats"] > found["loss"] + 1
    assert len(found["positions"]["nats"]) == 16 and sum(found["positions"]["tokens"]) == found["tokens"]
    _, table, _ = script(*args)
    assert json.dumps(passage["text"]) in table and f"{found['loss']:.4f}" in table and "9-16" in table


def test_a_text_can_be_a_file_standard_input_or_a_split(lone_checkpoint, evaluate_json, tmp_path):
    text = SENTENCES * 10
    (tmp_path / "own.txt").write_text(text)
    found = evaluate_json(lone_checkpoint, tmp_path / "own.txt")
    assert found["tokens"] == found["bytes"] == found["chars"] == len(text) - 1 and found["step"] == 3
    assert found["loss"] == pytest.approx(math.log(len(set(SENTENCES))), abs=1e-6)
    timed = {"seconds", "tokens_per_s", "text"}
    again = evaluate_json(lone_checkpoint, "-", stdin=text.encode())
    assert {k: v for k, v in again.items() if k not in timed} == {k: v for k, v in found.items() if k not in timed}
    corpus = ("--corpus", "text", f"corpus.path={tmp_path}/own.txt", f"data.root={tmp_path}/data")
    assert evaluate_json(lone_checkpoint, *corpus)["tokens"] == len(text) // 10 - 1
    assert evaluate_json(lone_checkpoint, *corpus, "--split", "train")["tokens"] == len(text) * 9 // 10 - 1
    assert evaluate_json(lone_checkpoint, *corpus, "--split", "train", "--max-tokens", 50)["tokens"] == 49
    assert evaluate_json(lone_checkpoint, tmp_path / "own.txt", "--max-tokens", 5)["words"] == 2  # he c


def test_a_corpus_can_have_a_test_split(lone_checkpoint, evaluate_json, tmp_path):
    parquet, table = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow").table
    for name, times in (("train", 5), ("validation", 2), ("test", 3)):
        parquet.write_table(table({"text": [SENTENCES * times]}), tmp_path / f"{name}.parquet")
    corpus = ("--corpus", "hf", f"corpus.path={tmp_path}", f"data.root={tmp_path}/data")
    for name, times in (("val", 2), ("test", 3)):
        assert evaluate_json(lone_checkpoint, *corpus, "--split", name)["tokens"] == len(SENTENCES) * times - 1


@pytest.mark.slow_after(10)
@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "is not in a run directory, so its corpus is unknown; name a text: FILE or --corpus"),
        (["{}/nowhere.txt"], "nowhere.txt cannot be read: No such file"),
        (["{}"], "cannot be read: Is a directory"),
        (["{}/empty.txt"], "empty.txt is empty"),
        (["{}/one.txt"], "has 1 token; evaluation needs at least 2, because the first cannot be predicted"),
        (["{}/binary.txt"], "binary.txt is binary, not text"),
        (["{}/latin.txt"], "latin.txt is not UTF-8"),
        (["{}/russian.txt"], "the character vocabulary lacks 'ж'"),
        (["-"], "standard input is empty"),
        (["{}/own.txt", "--stride", "9"], "--stride=9 must be at least 1 and at most model.block_size=8"),
        (["{}/own.txt", "--stride", "0"], "--stride=0 must be at least 1"),
        (["{}/own.txt", "--batch-size", "0"], "--batch-size=0 must be at least 1"),
        (["{}/own.txt", "--max-tokens", "1"], "--max-tokens=1 must be at least 2"),
        (["{}/own.txt", "--worst", "-1"], "--worst=-1 must be at least 0"),
        (["{}/own.txt", "--split", "val"], "is a single text without splits"),
        (["{}/own.txt", "--corpus", "words"], "name one text, not 2: "),
        (["{}/own.txt", "{}/one.txt"], "name one text, not 2: "),
        (["corpus.path=x"], "corpus.path=x is a setting of a corpus; name the corpus with --corpus"),
        (["--corpus", "shakespear"], "did you mean 'shakespeare'?"),
        (["--corpus", "text", "corpus.path={}/own.txt", "data.root={}/data", "--split", "test"], "has only the splits train and val"),
        (["--corpus", "text", "corpus.path={}", "data.root={}/data", "corpus.glob=o*.txt"], "no end-of-text token"),
    ],
)  # fmt: skip
def test_an_invalid_argument_or_text_is_refused_in_one_line(args, message, lone_checkpoint, script, tmp_path):
    files = {"empty": b"", "one": b"t", "binary": b"t\0t", "latin": b"caf\xe9 cat", "russian": "жt".encode()}
    for name, data in (files | {"own": SENTENCES.encode() * 3}).items():
        (tmp_path / f"{name}.txt").write_bytes(data)
    refusal, out, _ = script(lone_checkpoint, *(arg.format(tmp_path) for arg in args))
    assert refusal.startswith("error: ") and message in refusal and "\n" not in refusal and not out


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"caf\xe9", "not UTF-8: byte 0xe9 at offset 3"),
        (b"t\0", "is UTF-16LE without a byte-order mark"),
        (b"text\0", "is binary"),
    ],
)
def test_standard_input_that_is_not_text_is_refused(data, message, lone_checkpoint, script):
    refusal, out, _ = script(lone_checkpoint, "-", stdin=data)
    assert refusal.startswith("error: standard input is ") and message in refusal and not out
