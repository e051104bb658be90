"""Analyses of a checkpoint, compared with values computed by hand, and scripts/analyze.py."""

import json
import math

import numpy as np
import pytest
import torch

from lm.analysis import tokens as token_module
from lm.analysis.difference import compare_checkpoints
from lm.analysis.passages import split_passages
from lm.analysis.report import format_count, format_number
from lm.analysis.tensors import tensor_stats, total_stats, weight_stats
from lm.analysis.tokens import nearest_tokens, quote_token, token_id, token_names
from lm.data.corpus import Split, Text
from lm.data.download import Downloads
from lm.data.tokenizer import BPEConfig, Bytes, Chars, Subword
from lm.data.tokenizer.foreign import tokenizer_from_list
from lm.model import GPT, GPTConfig
from lm.run import checkpoint
from lm.run.init_from import shared_tokens
from scripts import analyze as script

SMALL = {"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 8}


def source(tokenizer, seed=0, **fields):
    torch.manual_seed(seed)
    model = GPT(GPTConfig(**SMALL | fields), tokenizer.vocab_size).eval()
    return checkpoint.Checkpoint("run", model, tokenizer, 0, {})


def with_embeddings(tokenizer, rows, **fields):
    result = source(tokenizer, n_embd=len(rows[0]), **fields)
    result.model.wte.weight.data[: len(rows)] = torch.tensor(rows)
    return result


def save(source, path):
    state = {f"model.{name}": value for name, value in source.model.state_dict().items()}
    about = checkpoint.describe(source.model, source.tokenizer) | {"metrics": {}}
    checkpoint.write({"state_dict": state, "global_step": 0, "lm": about}, path)
    return path


@pytest.fixture
def run_script(capsys):
    """Return a function that runs the script and returns its output, or its error message if it exits."""

    def run(*args):
        try:
            script.main([str(arg) for arg in args])
        except SystemExit as stop:
            assert not capsys.readouterr().out
            return stop.code
        return capsys.readouterr().out

    return run


# Embeddings of a, b, c, d. Cosines: ab 0.8, ac 0, ad -1, bc 0.6, bd -0.8, cd 0. The lengths differ.
ROWS = [[5.0, 0.0, 0.0, 0.0], [8.0, 6.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0], [-1.0, 0.0, 0.0, 0.0]]


def test_the_most_similar_pairs_and_the_nearest_tokens_are_returned_in_order(monkeypatch):
    made = with_embeddings(Chars("abcd"), ROWS)
    for block in (1 << 22, 8, 1):  # all rows at once, two rows at a time, one row at a time
        monkeypatch.setattr(token_module, "BLOCK", block)
        pairs = nearest_tokens(made, 2)
        assert [(p.a, p.b) for p in pairs] == [("'a'", "'b'"), ("'b'", "'c'")]
        assert [p.cosine for p in pairs] == pytest.approx([0.8, 0.6], abs=1e-6)
        assert [p.cosine for p in nearest_tokens(made, 99)] == pytest.approx([0.8, 0.6, 0, 0, -0.8, -1], abs=1e-6)
    nearest = nearest_tokens(made, 2, [3, 1])
    assert [(p.a_id, p.b_id) for p in nearest] == [(3, 2), (3, 1), (1, 0), (1, 2)]
    assert [p.cosine for p in nearest] == pytest.approx([0.0, -0.8, 0.8, 0.6], abs=1e-6)


def test_by_head_compares_the_channels_of_each_head_separately():
    made = with_embeddings(Chars("abc"), [[1.0, 0.0, 1.0, 1.0], [2.0, 0.0, 1.0, -1.0], [0.0, 1.0, 3.0, 3.0]])
    pairs = nearest_tokens(made, 1, by_head=True)
    assert [(p.head, p.a, p.b) for p in pairs] == [(0, "'a'", "'b'"), (1, "'a'", "'c'")]
    assert [p.cosine for p in pairs] == pytest.approx([1.0, 1.0], abs=1e-6)
    assert nearest_tokens(made, 1)[0].cosine == pytest.approx((1 * 3 + 1 * 3) / (3**0.5 * 19**0.5))


def test_padding_rows_of_the_vocabulary_are_ignored():
    made = with_embeddings(Chars("abc"), [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], vocab_multiple=8)
    assert len(made.model.wte.weight) == 8
    assert len(nearest_tokens(made, 99)) == 3
    assert len(nearest_tokens(made, 99, [0])) == 2


def test_a_large_vocabulary_is_compared_in_blocks(monkeypatch):
    monkeypatch.setattr(token_module, "BLOCK", 1000)
    rows = torch.nn.functional.normalize(torch.randn(300, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    sizes, ones = [], torch.ones_like
    monkeypatch.setattr(torch, "ones_like", lambda x, **how: sizes.append(x.numel()) or ones(x, **how))
    found = token_module.most_similar_rows(rows, 20)
    assert len(sizes) == 100 and max(sizes) <= 1000
    whole = (rows @ rows.T).triu(1)
    assert [c for *_, c in found] == pytest.approx(whole.flatten().topk(20).values.tolist(), abs=1e-6)
    assert all(whole[i, j] == pytest.approx(c, abs=1e-6) for i, j, c in found)


@pytest.mark.parametrize(
    ("spelling", "quoted"),
    [
        (b" the", "' the'"),
        (b"\n\t\r", r"'\n\t\r'"),
        ("é→".encode(), "'é→'"),
        (b"\xc3", r"'\xc3'"),
        (b"a\x00\xe2\x86", r"'a\x00\xe2\x86'"),
        ("\x85\u2028".encode(), r"'\u0085\u2028'"),  # two characters, not the byte 85
        (b"\\n", r"'\\n'"),
        (b"don't", '"don\'t"'),
    ],
)
def test_quoted_tokens_are_unambiguous(spelling, quoted):
    assert quote_token(spelling) == quoted


def test_token_names_and_ids():
    tokenizer = Bytes(["<|endoftext|>"])
    called = token_names(tokenizer)
    assert called[65] == "'A'" and called[10] == r"'\n'" and called[200] == r"'\xc8'" and called[256] == "<|endoftext|>"
    assert len(set(called)) == 257
    assert token_id("A", tokenizer) == 65 and token_id("#17", tokenizer) == 17 and token_id("#", tokenizer) == 35
    assert token_id("<|endoftext|>", tokenizer) == 256
    listed = Subword(tokenizer_from_list(["a", "b"], "list"))
    assert token_id("b", listed) == 1
    with pytest.raises(ValueError, match="no token for 'é'"):
        token_id("é", listed)
    prose = "the cat and the dog and the bird " * 20
    bpe = BPEConfig(vocab_size=270).build(Text(Split.of(prose), Split.of(prose)), Downloads(None))
    assert token_names(bpe)[token_id(" the", bpe)] == "' the'"


def test_tensor_statistics_agree_with_numpy():
    x = np.array([[1.0, -2.0, 0.0], [0.5, 0.0, 4.0]])
    found = tensor_stats("w", torch.tensor(x, dtype=torch.float32))
    assert (found.name, found.shape, found.numbers, found.nan, found.inf) == ("w", [2, 3], 6, 0, 0)
    expected = [x.mean(), x.std(), np.sqrt((x**2).mean()), -2.0, 4.0, 2 / 6]
    assert [found.mean, found.std, found.rms, found.min, found.max, found.zeros] == pytest.approx(expected, rel=1e-12)
    singular = np.linalg.svd(x, compute_uv=False)
    assert found.spectral_norm == pytest.approx(singular[0], rel=1e-12)
    assert found.stable_rank == pytest.approx((singular**2).sum() / singular[0] ** 2, rel=1e-12)
    tall = tensor_stats("w", torch.tensor(x.T, dtype=torch.float32))
    assert tall.spectral_norm == pytest.approx(singular[0], rel=1e-12)


def test_stable_ranks_and_tensors_without_one():
    one = torch.outer(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4.0, -5.0]))
    assert tensor_stats("w", one).stable_rank == pytest.approx(1.0, rel=1e-12)
    assert tensor_stats("w", torch.eye(4)).stable_rank == pytest.approx(4.0, rel=1e-12)
    vector, zero = tensor_stats("b", torch.ones(3)), tensor_stats("w", torch.zeros(2, 3))
    assert vector.spectral_norm is None and vector.stable_rank is None
    assert zero.spectral_norm == 0 and math.isnan(zero.stable_rank) and zero.zeros == 1
    bad = tensor_stats("w", torch.tensor([[1.0, math.nan], [math.inf, -math.inf]]))
    assert (bad.nan, bad.inf) == (1, 2) and math.isnan(bad.mean) and math.isnan(bad.spectral_norm)


def test_the_total_covers_all_numbers_and_counts_a_tied_matrix_once():
    model = source(Chars("abc")).model
    parts = weight_stats(model)
    assert [part.name for part in parts] == [name for name, _ in model.named_parameters()]
    flat = torch.cat([p.detach().flatten() for p in model.parameters()]).numpy().astype(np.float64)
    whole = total_stats(parts)
    assert whole.numbers == model.num_params == len(flat)
    found = [whole.mean, whole.std, whole.rms, whole.min, whole.max, whole.zeros]
    expected = [flat.mean(), flat.std(), np.sqrt((flat**2).mean()), flat.min(), flat.max(), (flat == 0).mean()]
    assert found == pytest.approx(expected)


def compared(a, b, top=10):
    return compare_checkpoints(a, b, shared_tokens(a.tokenizer, b.tokenizer), top)


def test_equal_checkpoints_have_no_difference():
    made, again = source(Chars("abcd"), init="zero_proj"), source(Chars("abcd"), init="zero_proj")
    found = compared(made, again)
    assert {(t.cosine, t.distance) for t in found.tensors} == {(1.0, 0.0)}  # zero tensors among them
    assert len(found.tensors) == len(list(made.model.parameters())) and not found.only_run + found.only_other
    assert {(h.q, h.k, h.v, h.proj) for h in found.heads} == {(1.0, 1.0, 1.0, 1.0)} and len(found.heads) == 4
    assert found.shared_tokens == 4 and found.tokens == [] and found.other_shape == {}


def test_negating_one_head_changes_only_the_cosines_of_that_head():
    a, b = source(Chars("abcd")), source(Chars("abcd"))
    attention, D = b.model.blocks[1].attn, 8
    for part in range(3):  # head 0 of q, k, v
        attention.c_attn.weight.data[16 * part : 16 * part + D] *= -1
    attention.c_proj.weight.data[:, D:] *= -1  # head 1 of the output
    by_head = {(h.block, h.head): (h.q, h.k, h.v, h.proj) for h in compared(a, b).heads}
    assert by_head[0, 0] == by_head[0, 1] == (1.0, 1.0, 1.0, 1.0)
    assert by_head[1, 0] == pytest.approx((-1.0, -1.0, -1.0, 1.0))
    assert by_head[1, 1] == pytest.approx((1.0, 1.0, 1.0, -1.0))


def test_grouped_heads_share_the_cosines_of_key_and_value():
    """The rows of c_attn are q of 4 heads, k of 2 and v of 2, 4 rows each."""
    a, b = (source(Chars("abcd"), n_head=4, n_kv_head=2) for _ in "ab")
    b.model.blocks[0].attn.c_attn.weight.data[20:24] *= -1  # the second key head
    b.model.blocks[0].attn.c_attn.weight.data[8:12] *= -1  # the third query head
    found = compared(a, b).heads[:4]
    assert [h.k for h in found] == pytest.approx([1, 1, -1, -1]) and [h.v for h in found] == [1.0] * 4
    assert [h.q for h in found] == pytest.approx([1, 1, -1, 1])


def test_cosine_and_distance_agree_with_values_computed_by_hand():
    a, b = (with_embeddings(Chars("ab"), rows) for rows in ([[3.0, 4.0], [0.0, 0.0]], [[4.0, 3.0], [0.0, 1.0]]))
    wte = compared(a, b).tensors[0]
    assert wte.name == "wte.weight" and wte.tokens is None
    assert wte.cosine == pytest.approx(24 / (5 * 26**0.5)) and wte.distance == pytest.approx(3**0.5 / 5)
    changed = compared(a, b).tokens  # the cosine of token b is undefined (a zero vector), so it is not listed
    assert [(t.token, t.cosine) for t in changed] == [("'a'", pytest.approx(0.96))]


def test_tokens_of_different_vocabularies_are_matched_by_their_text():
    a = with_embeddings(Chars("abc"), [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    b = with_embeddings(Chars("bcx"), [[0.0, 2.0], [1.0, -1.0], [5.0, 5.0]])
    found = compared(a, b)
    assert found.shared_tokens == 2
    assert [(t.token, t.id, t.other_id) for t in found.tokens] == [
        ("'c'", 2, 1)
    ]  # the embedding of b only changes its length
    assert found.tokens[0].cosine == pytest.approx(0.0)
    wte = found.tensors[0]
    assert wte.tokens == 2 and wte.cosine == pytest.approx(2 / (3**0.5 * 6**0.5))


def test_tensors_that_cannot_be_compared_are_listed():
    a = source(Chars("abcd"))
    b = source(Chars("abcde"), position="rope", n_head=4, tie_embeddings=False)
    found = compared(a, b)
    assert found.only_run == ["wpe.weight"] and found.only_other == ["head.weight"] and found.heads == []
    assert found.other_shape == {"wte.weight": [[4, 16], [5, 16]]} and len(found.tokens) == 4
    wide = compared(a, source(Chars("abcd"), n_embd=32))
    assert wide.tokens == [] and "norm.weight" in wide.other_shape and not wide.tensors
    deeper = compared(a, source(Chars("abcd"), n_layer=3))
    assert len(deeper.heads) == 4 and all(name.startswith("blocks.2.") for name in deeper.only_other)


def test_passages_have_the_mean_loss_of_their_own_tokens():
    ids, nats = np.array([0, 1, 2, 0, 1, 2, 0]), np.log([2.0, 4, 1, 8, 2, 4]).astype(np.float32)
    first, last = split_passages(ids, nats, Chars("abé"), 3, 9)  # the seventh token is too few for a third passage
    assert (first.token, first.tokens, first.byte, first.text) == (0, 3, 0, "abé")
    assert (last.token, last.tokens, last.byte, last.text) == (3, 4, 4, "abéa")
    assert first.nats == pytest.approx(np.log([2, 4]).mean())
    assert first.sqrt_1_minus_p == pytest.approx((0.5**0.5 + 0.75**0.5) / 2)
    assert last.nats == pytest.approx(np.log([1, 8, 2, 4]).mean())
    assert last.sqrt_1_minus_p == pytest.approx((0 + 0.875**0.5 + 0.5**0.5 + 0.75**0.5) / 4, abs=1e-6)
    assert [p.tokens for p in split_passages(ids, nats, Chars("abé"), 4, 9)] == [4, 3]
    assert [p.byte for p in split_passages(ids, nats, Chars("abé"), 4, 10)] == [
        None,
        None,
    ]  # the tokens do not add up to the length of the text


def test_chunks_are_scored_with_the_tokens_before_them(tmp_path, run_script):
    made = source(Chars("abcd\n"), seed=3)
    made.model.wte.weight.data.normal_(0, 1)
    run = save(made, tmp_path / "a.ckpt")
    text = "abcdabca\ndcbabcdd\nbacd\nabcdabcdab"
    (tmp_path / "a.txt").write_text(text)
    found = json.loads(run_script(run, "chunks", tmp_path / "a.txt", "--json"))
    assert found["size"] == 4 and found["tokens"] == len(text) and found["passages"] == len(found["chunks"]) == 8
    assert [c["nats"] for c in found["chunks"]] == sorted((c["nats"] for c in found["chunks"]), reverse=True)
    assert "".join(c["text"] for c in sorted(found["chunks"], key=lambda c: c["token"])) == text
    ids = torch.from_numpy(made.tokenizer.encode(text))

    @torch.no_grad()
    def nats(i):
        """Return the loss of token i in the window of 8 that ends at the next multiple of 4, so 5 or more tokens precede it."""
        start = max(8, -(-i // 4) * 4) - 8
        return -float(made.model(ids[None, start : start + 8])[0].log_softmax(-1)[i - 1 - start, ids[i]])

    for at in (4, 12, 20):
        chunk = next(c for c in found["chunks"] if c["token"] == at)
        assert chunk["nats"] == pytest.approx(sum(map(nats, range(at, at + 4))) / 4, rel=1e-5) and chunk["byte"] == at
    easiest = json.loads(run_script(run, "chunks", tmp_path / "a.txt", "--json", "--easiest", "--top", 2))["chunks"]
    assert easiest == found["chunks"][:-3:-1]
    table = run_script(run, "chunks", tmp_path / "a.txt", "--top", 1).splitlines()
    assert table[1].split()[:2] == [str(found["chunks"][0]["token"])] * 2 and "1 of 8 passages" in table[-1]


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (0.0, "0"),
        (-0.00085, "-8.5e-4"),
        (0.0012, "0.0012"),
        (-2e-12, "-2.0e-12"),
        (31234.0, "3.1e4"),
        (math.nan, "nan"),
    ],
)
def test_numbers_in_tables_are_short(x, text):
    assert format_number(x) == text


@pytest.mark.parametrize(
    ("n", "text"),
    [(9_999, "9999"), (10_000, "10k"), (123_456, "123k"), (999_499, "999k"), (999_500, "1M"), (12_345_678, "12.3M")],
)
def test_counts_in_tables_are_short(n, text):
    assert format_count(n) == text


def test_tables_are_at_most_100_columns_wide_and_json_is_one_object(tmp_path, run_script):
    a, b = source(Chars("abcd"), init="zero_proj"), source(Chars("abcx"), seed=1)
    a.model.blocks[0].norm_1.weight.data[0] = math.nan
    runs = [save(made, tmp_path / f"{name}.ckpt") for name, made in (("a", a), ("b", b))]
    for args in (["tokens"], ["tokens", "a", "#1", "--by-head"], ["weights"], ["diff", runs[1]]):
        table = run_script(runs[0], *args)
        assert max(map(len, table.splitlines())) <= 100
        found = json.loads(run_script(runs[0], *args, "--json"), parse_constant=pytest.fail)
        assert found["run"] == str(runs[0])
    assert "blocks.0.norm_1.weight has 1 nan and 0 infinite numbers" in run_script(runs[0], "weights")
    found = json.loads(run_script(runs[0], "weights", "--json"))
    assert found["total"]["nan"] == 1 and found["total"]["mean"] is None
    found = json.loads(run_script(runs[0], "diff", runs[1], "--json"))
    assert next(t for t in found["tensors"] if t["name"] == "blocks.0.attn.c_proj.weight")["cosine"] is None
    assert found["shared_tokens"] == 3


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["tokens", "ab"], "'ab' is 2 tokens, not one: 'a' (#0), 'b' (#1)"),
        (["tokens", ""], "'' is 0 tokens"),
        (["tokens", "é"], "the vocabulary has no token for 'é'"),
        (["tokens", "#5"], "#5 is not a token id; ids go from #0 to #4"),
        (["tokens", "--nearest", "0"], "--nearest=0 must be at least 1"),
        (["diff", "nowhere"], "nowhere: no such run or checkpoint"),
        (["chunks", "nowhere.txt"], "nowhere.txt cannot be read"),
        (["chunks", "a.ckpt"], "a.ckpt is a zip archive, not text"),
        (["chunks", "one.txt"], "the text has 1 token"),
        (["chunks", "one.txt", "--size", "1"], "--size=1 must be at least 2"),
    ],
)
def test_errors_are_one_line(args, message, tmp_path, monkeypatch, run_script):
    monkeypatch.chdir(tmp_path)
    save(source(Chars("abcd", unknown=True)), tmp_path / "a.ckpt")
    (tmp_path / "one.txt").write_text("a")
    message_line = run_script("a.ckpt", *args)
    assert message_line.startswith("error: ") and message in message_line and "\n" not in message_line
    assert run_script("gone", *args[:1], *args[1:]).startswith(("error: gone: no such run", "error: --"))
