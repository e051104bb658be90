import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lm.corpus import Text
from lm.tokenizer import BPEConfig, ByteConfig, CharConfig
from lm.tokens import cache_tokens, cached_tokenizer

ROOT = Path(__file__).parents[1]
TEXT = Text("to be or not to be\n" * 20, "that is the question\n" * 3)


def test_the_files_hold_the_ids(tmp_path):
    tokens = cache_tokens(TEXT, CharConfig().build(TEXT), tmp_path)
    tokenizer = CharConfig().build(TEXT)
    assert tokenizer.decode(tokens.train.tolist()) == TEXT.train and tokenizer.decode(tokens.val.tolist()) == TEXT.val
    assert isinstance(tokens.train, np.memmap) and tokens.train.dtype == np.uint16


def test_a_large_vocabulary_takes_four_bytes(tmp_path):
    class Large(type(ByteConfig().build(TEXT))):
        vocab_size = 70_000

    assert cache_tokens(TEXT, Large(), tmp_path).train.dtype == np.uint32


def test_a_second_call_encodes_nothing(tmp_path, monkeypatch):
    tokenizer = ByteConfig().build(TEXT)
    first = cache_tokens(TEXT, tokenizer, tmp_path)
    monkeypatch.setattr(type(tokenizer), "encode", None)
    assert np.array_equal(cache_tokens(TEXT, tokenizer, tmp_path).train, first.train)


def test_the_key_changes_with_text_split_and_tokenizer(tmp_path):
    whole = TEXT.train + TEXT.val
    texts = [TEXT, Text(TEXT.train + "!", TEXT.val), Text(whole[:100], whole[100:]), Text(whole[:101], whole[101:])]
    for text in texts:
        for config in (ByteConfig(), CharConfig(), BPEConfig(260), BPEConfig(261)):
            cache_tokens(text, cached_tokenizer(config, text, tmp_path), tmp_path)
    entries = [p.name.split("-")[0] for p in (tmp_path / "cache").iterdir()]
    assert entries.count("tokens") == 16
    assert entries.count("tokenizer") == 16


def test_a_failed_build_leaves_nothing(tmp_path, monkeypatch):
    tokenizer = ByteConfig().build(TEXT)
    calls = []

    def fail(self, text):
        calls.append(text)
        if len(calls) == 2:
            raise MemoryError
        return np.zeros(3, dtype=np.int64)

    monkeypatch.setattr(type(tokenizer), "encode", fail)
    with pytest.raises(MemoryError):
        cache_tokens(TEXT, tokenizer, tmp_path)
    assert list((tmp_path / "cache").iterdir()) == []


BUILD = """
import sys, time
from pathlib import Path
import numpy as np
sys.path.insert(0, {root!r})
from lm.corpus import Text
from lm.tokenizer import Byte
from lm.tokens import cache_tokens
class Slow(Byte):
    def encode(self, text):
        print("building", flush=True)
        time.sleep({seconds})
        return super().encode(text)
tokens = cache_tokens(Text("a" * 1000, "b" * 100), Slow(), Path({data!r}))
print(tokens.train[:].sum(), tokens.val[:].sum())
"""


def build(tmp_path, seconds):
    code = BUILD.format(root=str(ROOT), data=str(tmp_path), seconds=seconds)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


def test_processes_that_build_at_once_all_get_the_whole(tmp_path):
    workers = [build(tmp_path, 0.3) for _ in range(3)]
    results = {worker.communicate()[0].splitlines()[-1] for worker in workers}
    assert results == {"97000 9800"} and all(worker.returncode == 0 for worker in workers)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_killed_build_leaves_nothing_that_looks_finished(tmp_path):
    worker = build(tmp_path, 30)
    assert worker.stdout.readline() == "building\n"
    time.sleep(0.1)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    assert not list((tmp_path / "cache").glob("tokens-*"))
    after = build(tmp_path, 0)
    assert after.communicate()[0].splitlines()[-1] == "97000 9800"
    assert [p.name.split("-")[0] for p in (tmp_path / "cache").iterdir()] == ["tokens"]  # nor what the killed one left
