import io
import json
import math
import os
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pytest
import yaml
from helpers import ROOT, config_of
from rich.console import Console
from tokenizers import Tokenizer as HFTokenizer
from tokenizers import decoders, models, pre_tokenizers

from lm.analysis.vocabulary import report
from lm.analysis.vocabulary.analysis import (
    PARTS,
    Counts,
    composition,
    count_ids,
    count_merges,
    count_rare_merges,
    example_text,
    format_token,
    rank_ids,
    read_vocabulary,
    unused_ids,
)
from lm.analysis.vocabulary.page import html_page
from lm.analysis.vocabulary.sections import Splits, Table, print_sections
from lm.base.files import write_text
from lm.config import to_dict
from lm.data.corpus import Split, Text
from lm.data.download import Downloads
from lm.data.token_files import encode_split
from lm.data.tokenizer import AsciiConfig, BPEConfig, ByteConfig, CharConfig, from_json
from lm.run import checkpoint
from scripts import tokenizer as script

PROSE = "To be, or not to be: that is the question.\nWhether 'tis nobler in the mind to suffer\n\nThe slings <script>alert(1)</script> & arrows of 1600 naïve cafés\n"
TEXT = Text(Split.of(PROSE * 40), Split.of(PROSE * 4))
NOWHERE = Downloads(root=None, offline=True)
SPECIAL = ["<|user|>"]


def built(config):
    return config.build(TEXT, NOWHERE)


BPE = built(BPEConfig(vocab_size=330, special_tokens=SPECIAL))


def count_split(split, tokenizer, batch_chars=1000):
    return count_ids(encode_split(split, tokenizer, False, batch_chars), tokenizer.vocab_size)


def unigram():
    hf = HFTokenizer(
        models.Unigram([("<unk>", 0.0), ("▁the", -1.0), ("▁", -2.0), ("t", -2.0), ("<0x41>", -3.0)], 0, True)
    )
    hf.pre_tokenizer = pre_tokenizers.Metaspace()
    hf.decoder = decoders.Metaspace()
    return from_json(hf.to_str())


def word_piece():
    hf = HFTokenizer(models.WordPiece({"[UNK]": 0, "un": 1, "##arm": 2, "##s": 3, ".": 4}, unk_token="[UNK]"))
    hf.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    hf.decoder = decoders.WordPiece()
    return from_json(hf.to_str())


def test_counts_equal_those_of_a_counter():
    counts = count_split(TEXT.train, BPE)
    expected = Counter(BPE.encode(TEXT.train.read()).tolist())
    assert {i: n for i, n in enumerate(counts.ids.tolist()) if n} == expected
    assert counts.bytes == len(TEXT.train.read().encode()) and counts.tokens == expected.total()
    assert counts.bytes_per_token == pytest.approx(counts.bytes / expected.total())
    p = [n / expected.total() for n in expected.values()]
    assert counts.bits_per_token == pytest.approx(-sum(x * math.log2(x) for x in p))
    assert counts.bits_per_byte == pytest.approx(counts.bits_per_token * counts.tokens / counts.bytes)
    ordinary = set(range(BPE.vocab_size - 1))  # without the last id, which is special
    assert set(unused_ids(read_vocabulary(BPE), counts)) == ordinary - set(expected)


def test_end_of_text_tokens_of_documents_are_counted():
    text = Text(Split.of("ab", "ba", "aa"), Split.of("ab"))
    tokenizer = ByteConfig().build(text, NOWHERE)
    counts = count_ids(encode_split(text.train, tokenizer, True), tokenizer.vocab_size)
    assert counts.ids[tokenizer.end_of_text] == 3 and counts.bytes == 6 and counts.bytes_per_token == 6 / 9


def test_the_entropy_of_known_distributions_is_exact():
    assert Counts(np.array([5, 5, 5, 5, 0]), 40).bits_per_token == pytest.approx(2)
    assert Counts(np.array([5, 5, 5, 5, 0]), 40).bits_per_byte == pytest.approx(1)
    assert Counts(np.array([7, 0]), 7).bits_per_byte == 0


def test_a_text_without_tokens_is_refused():
    with pytest.raises(ValueError, match="no token"):
        count_ids([(np.zeros(0, np.int64), 3)], 10)


def test_the_composition_of_a_small_vocabulary_is_correct():
    tokens = ["a", "Ã", "Ġthe", "ĠcafÃ©", "ing", "Ġ12", "7", "12", "Ġ--", "$.", "ĊĊ", "ĠĠ", "'s", "Ġx1", "âĢ", "ĠÃ"]
    hf = HFTokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=[]))
    hf.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    hf.decoder = decoders.ByteLevel()
    hf.add_special_tokens(["<|user|>"])
    vocabulary = read_vocabulary(from_json(hf.to_str()))
    found = {p.name: [vocabulary.spelling[i] for i in p.examples] for p in composition(vocabulary, None, 99)}
    assert found == {
        "single bytes": [b"a", b"\xc3", b"7"],
        "words: a space and letters": [b" the", " café".encode()],
        "letters without a space": [b"ing"],
        "numbers": [b" 12", b"12"],
        "punctuation and symbols": [b" --", b"$."],
        "white space": [b"\n\n", b"  "],
        "mixed": [b"'s", b" x1"],
        "parts of characters": [b"\xe2\x80", b" \xc3"],
        "special": [b"<|user|>"],
    }
    assert list(found) == list(PARTS)


@pytest.mark.parametrize(
    ("tokenizer", "kind"),
    [
        (BPE, "byte-level BPE"), (built(ByteConfig(special_tokens=SPECIAL)), "bytes"), (built(CharConfig()), "characters"),
        (built(AsciiConfig()), "characters"), (unigram(), "Unigram"), (word_piece(), "WordPiece"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)  # fmt: skip
def test_every_token_belongs_to_one_part_and_has_its_bytes(tokenizer, kind):
    vocabulary = read_vocabulary(tokenizer)
    assert vocabulary.kind == kind and len(vocabulary) == tokenizer.vocab_size
    assert sum(p.tokens for p in composition(vocabulary, None)) == tokenizer.vocab_size
    ordinary = [i for i in range(len(vocabulary)) if i not in vocabulary.special]
    assert [len(vocabulary.spelling[i]) for i in ordinary] == tokenizer.token_bytes[ordinary].tolist()
    if kind in ("byte-level BPE", "bytes", "characters") and not tokenizer.special_tokens.get("<unk>"):
        assert b"".join(vocabulary.spelling[i] for i in tokenizer.encode(PROSE)) == PROSE.encode()


def test_tokens_of_unigram_and_wordpiece_have_their_bytes():
    assert read_vocabulary(unigram()).spelling == [b"<unk>", b" the", b" ", b"t", b"A"]
    assert read_vocabulary(unigram()).singles == {4}
    assert read_vocabulary(unigram()).special == read_vocabulary(word_piece()).special == {0}
    assert read_vocabulary(word_piece()).spelling == [b"[UNK]", b"un", b"arm", b"s", b"."]


def test_shares_of_the_text_add_up_and_examples_occur_in_it():
    counts = count_split(TEXT.train, BPE)
    found = composition(read_vocabulary(BPE), counts)
    assert sum(p.text_tokens for p in found) == counts.tokens and sum(p.text_share for p in found) == pytest.approx(1)
    for part in found[:-1]:  # without special tokens
        times = counts.ids[part.examples].tolist()
        assert min(times) > 0 and times == sorted(times, reverse=True)


def perform_merges(text, merges):
    """Perform the merges one after the other in all words. Return how often each occurs, by position in `merges`."""
    splitter = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words = [list(word) for word, _ in splitter.pre_tokenize_str(text)]
    times = Counter()
    for rank, (a, b) in enumerate(merges):
        for word in words:
            i = 0
            while i < len(word) - 1:
                if word[i] == a and word[i + 1] == b:
                    word[i : i + 2] = [a + b]
                    times[rank] += 1
                i += 1
    return times


def test_merge_counts_equal_those_of_performing_the_merges():
    text = PROSE + "zzzyx Zounds mississippi"
    config = BPEConfig(vocab_size=900)  # enough for all possible merges
    tokenizer = config.build(Text(Split.of(text), Split.of("a")), NOWHERE)
    vocabulary, counts = read_vocabulary(tokenizer), count_split(Split.of(text), tokenizer)
    expected = perform_merges(text, json.loads(tokenizer.to_json())["model"]["merges"])
    times = count_merges(vocabulary, counts)
    assert times.tolist() == [expected[i] for i in range(len(times))]
    assert count_rare_merges(vocabulary, counts) == sum(expected[i] <= 1 for i in range(len(times))) > 20
    elsewhere = count_split(Split.of("zounds"), tokenizer)
    assert count_rare_merges(vocabulary, elsewhere) == len(times)  # none is used more than once


def test_ambiguous_merges_are_not_counted():
    vocab = {c: i for i, c in enumerate(["a", "b", "c", "ab", "bc", "abc"])}
    merges = [("a", "b"), ("b", "c"), ("ab", "c"), ("a", "bc")]
    tokenizer = from_json(HFTokenizer(models.BPE(vocab=vocab, merges=merges)).to_str())
    counts = count_split(Split.of("abc"), tokenizer)
    vocabulary = read_vocabulary(tokenizer)
    assert count_merges(vocabulary, counts) is None
    assert count_rare_merges(vocabulary, counts) is None


def test_a_vocabulary_without_merges_has_no_merge_count():
    tokenizer = built(ByteConfig())
    assert count_rare_merges(read_vocabulary(tokenizer), count_split(TEXT.val, tokenizer)) is None


def test_ids_are_ranked_by_count_and_then_by_number():
    tokenizer = ByteConfig().build(TEXT, NOWHERE)
    found = rank_ids(read_vocabulary(tokenizer), count_split(Split.of("banana b"), tokenizer))
    assert [(r.rank, r.token, r.count) for r in found[:4]] == [(1, "a", 3), (2, "b", 2), (3, "n", 2), (4, "␣", 1)]
    assert [r.cumulated for r in found[:4]] == pytest.approx([3 / 8, 5 / 8, 7 / 8, 1])
    assert len(found) == 256 and found[-1].count == 0 and found[0].hex == "61"


def test_tokens_are_formatted_readably():
    assert format_token(b" a\n\t") == "␣a↵→" and format_token(b" a\n", " ", "|") == " a|"
    assert format_token("é".encode()[:1] + b"x") == "<C3>x" and format_token("ß𝔘".encode()) == "ß𝔘"
    assert format_token(b"\x1b[31m\x00") == "<1B>[31m<00>" and format_token("\u202e\xa0".encode()) == "<U+202E><U+00A0>"


def test_an_example_begins_after_a_newline_and_ends_with_a_word():
    assert example_text(Split.of("alf a line\n\n  Then this.\nAnd that.\n")) == "  Then this.\nAnd that."
    assert example_text(Split.of("word " * 100), 12) == "word word"
    assert example_text(Split.of("x" * 100), 12) == "x" * 12


class Balanced(HTMLParser):
    """An HTML parser that collects text and tags, and fails if tags are not nested correctly."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.text, self.titles = [], Counter(), [], []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags[tag] += 1
        values = dict(attributes)
        assert not {"src", "href", "onclick"} & values.keys()
        self.titles += [values["title"]] if "title" in values else []
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):  # in SVG
        self.tags[tag] += 1

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_a_page_is_self_contained_and_escapes_text():
    vocabulary = read_vocabulary(BPE)
    counts = count_split(TEXT.train, BPE), count_split(TEXT.val, BPE)
    text = "<script>alert('x')</script> & \"so\"\non"
    html = html_page("<b>", list(report.tokenizer_sections("a & b", vocabulary, counts, [text], 30)))
    seen = Balanced(html)
    assert "script" not in seen.tags and "b" not in seen.tags
    assert not re.findall(r"(?:src|href)=.(?!#)|url\((?!#)|@import", html)  # no references to other files
    assert seen.tags["svg"] == 1 and html.count("training text") and html_page("<b>", []) == html_page("<b>", [])
    assert text.replace("\n", "↵\n") in "".join(seen.text)
    ids = BPE.encode(text).tolist()
    assert seen.titles == [f"{i}: {format_token(vocabulary.spelling[i])}" for i in ids]


def test_pages_of_very_short_texts_are_valid():
    text = Text(Split.of("aaaa"), Split.of("aa"))
    tokenizer = ByteConfig().build(text, NOWHERE)
    vocabulary = read_vocabulary(tokenizer)
    counts = count_split(text.train, tokenizer), count_split(text.val, tokenizer)
    assert Balanced(html_page("x", report.tokenizer_sections("x", vocabulary, counts, ["a"], 5)))
    one = report.Candidate("byte", vocabulary, counts, None, 1.0)
    assert Balanced(html_page("x", report.comparison_sections([one], "a")))


def printed(sections, **console):
    out = io.StringIO()
    print_sections(sections, Console(file=out, highlight=False, **console))
    return out.getvalue()


def test_tokens_are_printed_in_colors_or_separated_by_dots():
    pieces = [(1, b"To"), (2, b" [bold]be"), (3, b".\n\nOr"), (4, b"\xc3")]
    splits = [Splits("T", [("4 tokens", pieces), ("", "cannot spell it")])]
    assert printed(splits) == "T\n4 tokens\nTo· [bold]be·.↵\n↵\nOr·<C3>\ncannot spell it\n\n"
    colored = printed(splits, force_terminal=True, color_system="truecolor")
    assert "·" not in colored and "\x1b[30;48;2;169;205;245mTo\x1b[0m" in colored and "↵\x1b[0m\n" in colored
    assert printed(splits, force_terminal=True, color_system="truecolor", no_color=True).count("·") == 3


def test_a_narrow_terminal_wraps_tokens_but_not_numbers():
    table = Table("T", "rrl", ["n", "many\nbytes", "tokens"], [["1", "1,234,567", ["abcdef"] * 9], ["20", "8", ["x"]]])
    assert printed([table], width=46) == (
        "T\n         many\n n      bytes  tokens\n 1  1,234,567  abcdef  abcdef  abcdef  abcdef\n"
        "               abcdef  abcdef  abcdef  abcdef\n               abcdef\n20          8  x\n\n"
    )
    wide = Table("T", "r" * 9, ["figure"] * 9, [["1,234,567,890"] * 9])
    assert printed([wide], width=40).count("1,234,567,890") == 9


@pytest.fixture
def own(tmp_path):
    """Return settings for a small text."""
    (tmp_path / "my.txt").write_text(PROSE * 30)
    return ["corpus=text", f"corpus.path={tmp_path / 'my.txt'}", f"data.root={tmp_path / 'data'}"]


def run(*args):
    script.main(list(map(str, args)))


def test_train_writes_a_tokenizer_and_prints_its_statistics(own, tmp_path, capsys):
    out = tmp_path / "new" / "my.json"
    for size in (300, 280):  # the second replaces the first
        run("train", *own, "tokenizer=bpe", "--out", out, f"tokenizer.vocab_size={size}")
        tokenizer = from_json(out.read_text())
        assert tokenizer.vocab_size == size
    raw = (PROSE * 30).encode()
    train = raw[: round(len(raw) * 0.9)].decode()
    tokens = len(tokenizer.encode(train))
    output = capsys.readouterr().out
    assert (
        f"training  {len(train.encode()):,}   {tokens:,}" in output and f"{len(train.encode()) / tokens:.3f}" in output
    )
    assert f"tokenizer=file tokenizer.path={out}" in output
    assert [path.name for path in out.parent.iterdir()] == ["my.json"]


@pytest.mark.slow
def test_show_as_json_prints_everything_as_one_json_text(own, tmp_path, capsys):
    run("show", *own, "tokenizer.vocab_size=300", "--json", "--text", "to be", "--html", tmp_path / "a.html")
    found = json.loads(capsys.readouterr().out)
    assert Balanced((tmp_path / "a.html").read_text()).tags["section"] == 8
    assert found["kind"] == "byte-level BPE" and found["vocab_size"] == 300 and len(found["merges"]) == 44
    assert len(found["ranks"]) == 300 and sum(r["count"] for r in found["ranks"]) == found["train"]["tokens"]
    assert found["ranks"][-1]["cumulated"] == 1 and sum(p["tokens"] for p in found["composition"]) == 300
    assert found["merges"][0]["used"] >= found["merges"][-1]["used"] > 1 and found["merges_used_once_or_never"] == 0
    (split,) = found["splits"]
    assert "".join(t["token"] for t in split["tokens"]) == "to␣be"
    assert sum(r["count"] == 0 for r in found["ranks"]) == found["train"]["tokens_never_used"]


@pytest.mark.slow
def test_show_accepts_runs_checkpoints_and_files(own, tmp_path, capsys):
    words = ["corpus=words", "corpus.lines=300", "tokenizer=char", f"data.root={tmp_path / 'data'}"]
    run("train", *words, "--out", tmp_path / "run.1" / "tokenizer.json")
    (tmp_path / "run.1" / "config.yaml").write_text(yaml.safe_dump(to_dict(config_of(*words))))
    about = {"format": 1, "tokenizer": (tmp_path / "run.1" / "tokenizer.json").read_text()}
    checkpoint.write({"lm": about}, tmp_path / "run.1" / "checkpoints" / "last.ckpt")
    capsys.readouterr()

    def json_of(*args):
        run("show", *args, "--json")
        return json.loads(capsys.readouterr().out) | {"tokenizer": ""}

    found = json_of(*words)  # the tokenizer that a run would build
    assert found["kind"] == "characters" and found["train"]["bytes_per_token"] == 1
    for name in ("", "checkpoints/last.ckpt", "tokenizer.json"):
        assert json_of(tmp_path / "run.1" / name) == found
    assert json_of(tmp_path / "run.1", "corpus=words", "corpus.lines=300", words[-1]) == found  # not from the cache
    other = json_of(tmp_path / "run.1", "corpus=words", "corpus.lines=200", words[-1])  # with another text
    assert 0 < other["train"]["bytes"] < found["train"]["bytes"] and other["composition"] != found["composition"]

    run("train", *own, "tokenizer.vocab_size=300", "--out", tmp_path / "my.json")
    capsys.readouterr()
    alone = json_of(tmp_path / "my.json")  # without a text there are no counts
    assert alone["ranks"] is None and "train" not in alone and alone["merges"][0]["used"] is None
    run("show", tmp_path / "my.json", *own, "--top", "3")
    assert "\n   3  " in capsys.readouterr().out


@pytest.mark.slow
def test_compare_has_a_row_for_each_tokenizer_and_splits_one_text(own, tmp_path, capsys):
    args = [*own, "--vocab-sizes", "256,300", "--tokenizers", "byte,char,bpe", "--text", "to ☃"]
    run("compare", *args, "--json", "--png", tmp_path / "c.png")
    found = json.loads(capsys.readouterr().out)
    rows = {(row["name"], row["vocab_size"]): row for row in found["tokenizers"]}
    characters = len(set(PROSE))
    assert list(rows) == [("byte", 256), ("char", characters), ("bpe", 256), ("bpe", 300)]
    assert rows["byte", 256]["train"] == rows["bpe", 256]["train"] and rows["byte", 256]["learning_s"] is None
    assert rows["bpe", 300]["train"]["bytes_per_token"] > 1.3 and rows["bpe", 300]["learning_s"] > 0
    assert len(rows["byte", 256]["split"]["tokens"]) == 6 and "'☃'" in rows["char", characters]["split"]["error"]
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    run("compare", *args, "--html", tmp_path / "c.html")
    table = capsys.readouterr().out
    assert f"{rows['bpe', 300]['train']['bytes_per_token']:.3f}" in table and "t·o· ·<E2>·<98>·<83>" in table
    assert Balanced((tmp_path / "c.html").read_text()).tags["svg"] == 1


def test_show_writes_its_chart_as_a_png(own, tmp_path, capsys):
    run("show", *own, "tokenizer=byte", "--png", tmp_path / "s.png")
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow_after(8)
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["show", "nowhere"], "nowhere: no such run or file"),
        (["show", "{tmp}"], "contains no tokenizer.json; name a run"),
        (["show", "{tmp}/my.txt"], "my.txt: not a tokenizer.json"),
        (["show", "{tmp}/noise"], "noise: neither a tokenizer.json nor a checkpoint (.ckpt)"),
        (["show", "{tmp}/noise.ckpt"], "noise.ckpt cannot be loaded"),
        (["show", "{tmp}/my.txt", "{tmp}/noise"], "name one run or file at a time"),
        (["show", "{tmp}/good.json", "tokenizer=char"], "remove tokenizer= from the command"),
        (["show", "{tmp}/good.json", "--png", "{tmp}/a.png"], "name one, e.g. corpus=shakespeare"),
        (["show", "{tmp}/run", "corpus.lines=3"], "a setting of the corpus requires corpus=..."),
        (["show", "{tmp}/run"], "has no valid section 'corpus'"),
        (["show", "corpus=wrods"], "corpus=wrods: there is no such option"),
        (["show", "corpus=words", "corpus.linse=3"], "unknown key corpus.linse; did you mean 'corpus.lines'?"),
        (["show", "corpus=words", "--text", ""], "--text is empty"),
        (["show", "corpus=words", "--top", "0"], "--top=0 must be at least 1"),
        (["show", "{own}", "tokenizer=char", "--text", "☃"], "lacks '☃'"),
        (["show", "corpus=words", "--html", "{tmp}"], "is a directory"),
        (["train", "corpus=words", "tokenizer.vocab_size=3", "--out", "{tmp}/x"], "tokenizer.vocab_size=3 must be at least 256"),
        (["train", "{own}", "--out", "{tmp}/my.txt/x"], "my.txt"),
        (["train", "{own}", "--out", "/proc/x.json"], "/proc"),
        (["train", "{own}", "--out", "{tmp}/pipe"], "is not a regular file"),
        (["compare", "corpus=words", "--vocab-sizes", "256,many"], "--vocab-sizes=256,many must be numbers separated by commas"),
        (["compare", "corpus=words", "--vocab-sizes", "300,255"], "must be at least 256 each"),
        (["compare", "corpus=words", "--tokenizers", "byte,gtp2"], "tokenizer=gtp2: there is no such option"),
        (["compare", "corpus=words", "tokenizer=char", "--vocab-sizes", "300"], "none of these tokenizers has a size"),
        (["compare", "corpus=words", "--text", ""], "--text is empty"),
    ],
)  # fmt: skip
def test_each_error_is_one_message(args, message, own, tmp_path):
    (tmp_path / "noise").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "noise.ckpt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "good.json").write_text(BPE.to_json())
    os.mkfifo(tmp_path / "pipe")
    write_text(tmp_path / "run" / "tokenizer.json", BPE.to_json())
    write_text(tmp_path / "run" / "config.yaml", "corpus: {kind: Lost}")
    words = [word for arg in args for word in (own if arg == "{own}" else [arg.replace("{tmp}", str(tmp_path))])]
    with pytest.raises(SystemExit) as stop:
        run(*words, *([f"data.root={tmp_path / 'data'}"] if "corpus=words" in words else []))
    assert str(stop.value.code).startswith("error: ") and message in str(stop.value.code)


@pytest.mark.slow
def test_errors_of_the_process_go_to_stderr_with_status_1(tmp_path):
    command = [sys.executable, str(ROOT / "scripts" / "tokenizer.py"), "show", "nowhere"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "") and done.stderr == "error: nowhere: no such run or file\n"
