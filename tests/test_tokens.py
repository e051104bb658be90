import json
import os
import random
import signal
import subprocess
import sys
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.data import token_files as tokens_module
from lm.data.corpus import Split, Text
from lm.data.corpus.text import BORDER
from lm.data.download import Downloads
from lm.data.token_files import cache_tokens, cached_tokenizer, encode_split
from lm.data.tokenizer import BPEConfig, ByteConfig, Bytes, CharConfig, FileConfig

ROOT = Path(__file__).parents[1]
TEXT = Text(Split.of("to be or not to be\n" * 20), Split.of("that is the question\n" * 3))
DOCUMENTS = Text(Split.of("to be", "or", "not to be\n"), Split.of("that is the question\n"))
WORDS = ["To be", "don't", " ", "  ", "\n", "\n\n", ".", ",", "12", "é",
    "日本。", "\u0301", "😀", "\x85", "\u3000", "'ll", "_"
]  # fmt: skip
SMALL = st.lists(st.sampled_from(WORDS) | st.text(st.characters(codec="utf-8"), max_size=3), max_size=30).map("".join)


def build(config, text=TEXT):
    return config.build(text, Downloads(Path("nowhere")))


def entries(root, kind=""):
    """Return the names in the cache, without its locks."""
    return sorted(
        p.name for p in (root / "cache").iterdir() if p.name.startswith(kind) and not p.name.endswith(".lock")
    )


# Content of the files


@pytest.mark.parametrize("config", [ByteConfig(), CharConfig(), BPEConfig(vocab_size=270)])
def test_the_files_contain_the_ids(tmp_path, config):
    tokenizer = build(config)
    tokens = cache_tokens(TEXT, tokenizer, Downloads(tmp_path))
    for ids, split in ((tokens.train, TEXT.train), (tokens.val, TEXT.val)):
        assert isinstance(ids, np.memmap) and ids.dtype == np.uint16 and not ids.flags.writeable
        assert ids.tolist() == tokenizer.encode(split.read()).tolist()


@pytest.mark.slow
@pytest.mark.parametrize(("size", "dtype"), [(1 << 16, np.uint16), ((1 << 16) + 1, np.uint32)])
def test_a_large_vocabulary_takes_four_bytes(tmp_path, size, dtype):
    tokenizer = build(ByteConfig(reserved_tokens=size - 257), DOCUMENTS)
    tokenizer.end_of_text = size - 1  # the highest id
    tokens = cache_tokens(DOCUMENTS, tokenizer, Downloads(tmp_path))
    assert tokens.train.dtype == dtype and tokens.train[5] == size - 1 == tokens.val[-1]


def test_the_end_of_text_follows_every_document_of_both_splits(tmp_path):
    one = Text(Split.of("ab"), Split.of("b", "a"))
    for config, end in ((ByteConfig(), [256]), (CharConfig(unknown=True), None), (BPEConfig(vocab_size=257), [256])):
        tokenizer = build(config, one)
        a, b = tokenizer.encode("a").tolist(), tokenizer.encode("b").tolist()
        end = end or [tokenizer.special_tokens["<|endoftext|>"]]
        tokens = cache_tokens(one, tokenizer, Downloads(tmp_path))
        assert (tokens.train.tolist(), tokens.val.tolist()) == (a + b + end, b + end + a + end)
    tokens = cache_tokens(TEXT, build(ByteConfig(), DOCUMENTS), Downloads(tmp_path))
    assert 256 not in tokens.train  # a text without documents


def test_documents_require_an_end_of_text(tmp_path):
    with pytest.raises(ValueError, match="the corpus has documents, but .* has no end-of-text token"):
        cache_tokens(DOCUMENTS, build(ByteConfig()), Downloads(tmp_path))
    assert not (tmp_path / "cache").exists()


def test_a_split_without_a_token_is_refused(tmp_path):
    path = tmp_path / "tokenizer.json"
    model = {"type": "WordLevel", "vocab": {"to": 0, "[UNK]": 1}, "unk_token": "[UNK]"}
    path.write_text(json.dumps({"model": model, "pre_tokenizer": {"type": "WhitespaceSplit"}}))
    with pytest.raises(ValueError, match="produces no token for the text of val"):
        blank = Text(TEXT.train, Split.of(" \n"))
        cache_tokens(blank, build(FileConfig(path=str(path))), Downloads(tmp_path))
    assert entries(tmp_path) == []


# Pieces


def in_pieces(size, *documents):
    """Return a split whose documents are read in pieces of `size` bytes."""

    class Pieces(Split):
        def pieces(self, _=0, border=BORDER):
            return super().pieces(size, border)

    whole = Split.of(*documents)
    return Pieces(whole.source, whole.ends)


BPE = build(
    BPEConfig(vocab_size=400), Text(Split.of("To be, don't, we'll 12, 日本。\n\n  é\n" * 50, "x"), Split.of("y"))
)


@pytest.mark.slow
@settings(max_examples=300)
@given(
    documents=st.lists(SMALL, min_size=1, max_size=3),
    batch_chars=st.sampled_from([1, 7, 50, 1 << 20]),
    size=st.sampled_from([1, 2, 5, 40]),
    several=st.booleans(),
)
def test_ids_of_pieces_equal_those_of_whole_documents(documents, batch_chars, size, several):
    split = in_pieces(size, *documents)
    end = [BPE.end_of_text] * several
    stretches = list(encode_split(split, BPE, several, batch_chars))
    expected = [i for text in documents for i in [*BPE.hf.encode(text, add_special_tokens=False).ids, *end]]
    assert [i for ids, _ in stretches for i in ids.tolist()] == expected
    assert sum(size for _, size in stretches) == split.size


@pytest.mark.slow
@settings(max_examples=300)
@given(text=SMALL)
def test_bpe_splits_words_at_every_border(text):
    def words(text):
        return [word for word, _ in BPE.hf.pre_tokenizer.pre_tokenize_str(text)]

    cuts = [0, *(match.start() for match in BPE.border.finditer(text)), len(text)]
    parts = [text[a:b] for a, b in pairwise(cuts)]
    assert [word for part in parts for word in words(part)] == words(text)


REAL = ["tinyshakespeare.txt", "shakespeare_pg100.txt", "enwik/enwik5", "tinystories/TinyStories-train.first2MiB.txt"]


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_real_text_in_pieces_has_the_ids_of_the_whole_text(shared, name):
    text = (shared / name).read_bytes()[:300_000].decode(errors="ignore")
    parts = [part for part in text.split("<|endoftext|>") if part] if "stories" in name else [text]
    data = Text(Split.of(*parts), Split.of("a", "b"))
    tokenizer = build(BPEConfig(vocab_size=700), data)
    whole = [[*e.ids, tokenizer.end_of_text] for e in tokenizer.hf.encode_batch(parts)]
    for batch_chars in (1, 100_000, 1 << 30):
        stretches = [ids for ids, _ in encode_split(data.train, tokenizer, True, batch_chars)]
        assert np.concatenate(stretches).tolist() == [i for ids in whole for i in ids]
        assert (len(stretches) == 1) == (batch_chars > len(text))


# The cache


def test_a_second_call_builds_and_encodes_nothing(tmp_path, monkeypatch):
    downloads, config = Downloads(tmp_path), BPEConfig(vocab_size=270)
    tokenizer = cached_tokenizer(config, TEXT, downloads)
    first = cache_tokens(TEXT, tokenizer, downloads)
    monkeypatch.setattr(BPEConfig, "build", None)
    monkeypatch.setattr(type(tokenizer), "encode_batch", None)
    again = cached_tokenizer(config, TEXT, downloads)
    assert again.to_json() == tokenizer.to_json()
    assert np.array_equal(cache_tokens(TEXT, again, downloads).train, first.train)


def test_the_cache_key_depends_on_text_split_documents_and_tokenizer(tmp_path):
    train, val, downloads = TEXT.train.read(), TEXT.val.read(), Downloads(tmp_path)
    splits = [
        ([train], [val]),
        ([train + "!"], [val]),
        ([train + val[:1]], [val[1:]]),
        ([train[:9], train[9:]], [val]),
        ([train[:8], train[8:]], [val]),
        ([train], [val[:9], val[9:]]),
    ]
    configs = [ByteConfig(), ByteConfig(reserved_tokens=1), CharConfig(), BPEConfig(vocab_size=260)]
    for train, val in splits:
        for config in configs:
            text = Text(Split.of(*train), Split.of(*val))
            cache_tokens(text, cached_tokenizer(config, text, downloads), downloads)
    for kind in ("tokens-", "tokenizer-"):
        assert len(entries(tmp_path, kind)) == len(splits) * len(configs)


def test_a_failed_build_leaves_nothing(tmp_path, monkeypatch):
    tokenizer, encode = build(ByteConfig()), Bytes.encode

    def fail(self, text):
        if text.startswith("that"):  # the validation text, when the training text has been written
            raise MemoryError
        return encode(self, text)

    monkeypatch.setattr(Bytes, "encode", fail)
    with pytest.raises(MemoryError):
        cache_tokens(TEXT, tokenizer, Downloads(tmp_path))
    assert entries(tmp_path) == []
    monkeypatch.setattr(Bytes, "encode", encode)
    assert len(cache_tokens(TEXT, tokenizer, Downloads(tmp_path)).train) == TEXT.train.size


def test_progress_counts_the_bytes_of_the_text(tmp_path, monkeypatch):
    calls = []

    @contextmanager
    def progress(what, total):
        calls.append((what, total))
        yield calls.append

    monkeypatch.setattr(tokens_module, "progress", progress)
    text = Text(Split.of("é" * 100_000, "日本。" * 50_000), Split.of("x"))
    monkeypatch.setattr(tokens_module.encode_split, "__defaults__", (50_000,))
    cache_tokens(text, build(ByteConfig(), text), Downloads(tmp_path))
    assert calls[0] == ("tokenizing", 650_001) and len(calls) > 4 and sum(calls[1:]) == 650_001


BUILD = """
import sys, time
from pathlib import Path
from lm.data.corpus import Split, Text
from lm.data.download import Downloads
from lm.data.tokenizer import Bytes
from lm.data.token_files import cache_tokens
class Slow(Bytes):
    def encode(self, text):
        print("encoding", flush=True)
        time.sleep(float(sys.argv[2]))
        return super().encode(text)
tokens = cache_tokens(Text(Split.of("a" * 1000), Split.of("b" * 100)), Slow(), Downloads(Path(sys.argv[1])))
print(tokens.train[:].sum(), tokens.val[:].sum())
"""


def start(root, seconds):
    command = [sys.executable, "-c", BUILD, str(root), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})


@pytest.mark.slow
def test_of_several_processes_one_encodes_and_all_receive_the_complete_tokens(tmp_path):
    workers = [start(tmp_path, 0.5) for _ in range(3)]
    lines = [worker.communicate()[0].splitlines() for worker in workers]
    assert [output[-1] for output in lines] == ["97000 9800"] * 3 and all(worker.returncode == 0 for worker in workers)
    assert sorted(len(output) for output in lines) == [1, 1, 3]  # both splits, once
    assert len(entries(tmp_path)) == 1


@pytest.mark.slow
def test_when_a_build_is_killed_the_next_process_takes_over(tmp_path):
    worker = start(tmp_path, 30)
    assert worker.stdout.readline() == "encoding\n"
    waiting = start(tmp_path, 0)
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(1.5)
    os.kill(worker.pid, signal.SIGKILL)
    worker.communicate()
    assert waiting.communicate()[0].splitlines() == ["encoding", "encoding", "97000 9800"]
    cache_tokens(TEXT, build(ByteConfig()), Downloads(tmp_path))  # removes the remains of the killed build
    assert len(entries(tmp_path)) == len(entries(tmp_path, "tokens-")) == 2


MEMORY = """
import resource, sys
from pathlib import Path
import numpy as np
from lm.data.corpus import Split, Text
from lm.data.download import Downloads
from lm.data.tokenizer import BPEConfig
from lm.data.token_files import cache_tokens
path, root, documents = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
size = path.stat().st_size
text = Text(Split(path, np.linspace(0, size, documents + 1, dtype=np.int64)[1:]), Split.of("a"))
chars = 100_000_000 if "learning" in sys.argv else 1_000_000
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
tokenizer = BPEConfig(vocab_size=512, train_chars=chars).build(text, Downloads(root))
if "learning" not in sys.argv:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
tokens = cache_tokens(text, tokenizer, Downloads(root))
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((after - before) / 1024, len(tokens.train))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("megabytes", "documents"), [(100, 1), (40, 100_000)])
def test_tokenizing_a_long_text_needs_little_memory(tmp_path, shared, megabytes, documents):
    story = (shared / "tinyshakespeare.txt").read_text()
    assert story.isascii()  # so that a document can end anywhere
    path = tmp_path / "long.txt"
    path.write_text((story * 90)[: megabytes * 1_000_000])
    command = [sys.executable, "-c", MEMORY, str(path), str(tmp_path), str(documents)]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    grown, count = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.split()
    assert float(grown) < 400 and 0.3 < int(count) / path.stat().st_size < 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "alphabet", ["ACGT", "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", "日本語文字"]
)
def test_tokenizing_a_text_without_borders_needs_little_memory(tmp_path, alphabet):
    """The limit includes learning the vocabulary."""
    path = tmp_path / "line.txt"
    path.write_text("".join(random.Random(0).choices(alphabet, k=12_000_000)))
    command = [sys.executable, "-c", MEMORY, str(path), str(tmp_path), "1", "learning"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    grown, count = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.split()
    assert float(grown) < 400 and int(count) > 0
