"""Files that are not read: a note names them, or an error if they cannot be read and are not excluded."""

import gzip
import logging
import os
import re
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_patterns import message, names, write

from lm.data.corpus import CodeConfig, JSONLConfig, StdlibConfig, TextConfig
from lm.data.download import Downloads


@pytest.fixture
def unprivileged(monkeypatch) -> Iterator[Path]:
    """A folder of a user who may not read all files."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        monkeypatch.chdir(folder)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            for base, folders, _ in os.walk(folder):
                for name in folders:
                    Path(base, name).chmod(0o700)
            if root:
                os.seteuid(0)


@pytest.mark.parametrize("path", ["t", "t/**/*.txt", "t/*/*.txt", "t/locked", "t/locked/*.txt", "t/locked/b.txt"])
@pytest.mark.parametrize("mode", [0, 0o444])
def test_the_error_names_a_folder_that_may_not_be_read(unprivileged, path, mode):
    write("t/a.txt", "t/locked/b.txt")
    Path("t/locked").chmod(mode)
    error = message(TextConfig(path=path))
    assert re.fullmatch(
        rf"corpus.path={re.escape(path)}: t/locked(/[^:]*)? cannot be read: Permission denied; change its "
        "permissions, or leave it out with corpus.exclude",
        error,
    )
    if path == "t" and mode == 0:
        assert names(TextConfig(path="t", exclude=["locked"])) == ["t/a.txt"]


def test_the_error_names_a_file_that_may_not_be_read(unprivileged):
    write("t/a.txt", "t/b.txt", "t/c.md")
    Path("t/b.txt").chmod(0)
    for path in ("t", "t/*.txt", "t/b.txt"):
        assert message(TextConfig(path=path)) == "t/b.txt cannot be read: Permission denied"
    assert names(TextConfig(path="t", exclude=["b.txt"])) == ["t/a.txt"]


# ---- notes


def notes(config, caplog) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.INFO, "lm"):
        config.load(Downloads(Path("data")))
        first = [r.message for r in caplog.records if r.message.startswith("note ")]
        caplog.clear()
        config.load(Downloads(Path("data")))  # from the cache
    assert [r.message for r in caplog.records if r.message.startswith("note ")] == first
    return first


def test_a_note_counts_similar_files_that_the_glob_leaves_out(here, caplog):
    write(
        "t/a.txt",
        "t/b.md",
        "t/C.MD",
        "t/sub/d.rst",
        "t/e.text",
        "t/f.png",
        "t/g",
        "t/.h.md",
        "t/x.md",
        "v/a.txt",
        "v/b.md",
    )
    with zipfile.ZipFile("t/texts.zip", "w") as archive:
        archive.writestr("a.txt", "x")
    Path("t/b.md.gz").write_bytes(gzip.compress(b"x"))
    config = TextConfig(path="t", val_path=["v", "t/a.txt"], exclude=["x.md"])
    with pytest.raises(ValueError, match="includes all files of corpus.path=.*; no file is left to train on"):
        config.load(Downloads(Path("data")))
    config = TextConfig(path="t", val_path=["v"], exclude=["x.md"])
    assert notes(config, caplog) == [
        "note      corpus.path=t: corpus.glob='**/*.txt' leaves out files (3 .md, 1 .rst, 1 .text, 1 .zip)",
        "note      corpus.val_path=v: corpus.glob='**/*.txt' leaves out files (1 .md)",
    ]
    assert notes(TextConfig(path="t", glob="**/*"), caplog) == []


def test_there_is_no_note_if_nothing_is_left_out_or_files_are_named(here, caplog):
    write("t/a.txt", "t/b.md", "u/a.txt", "u/b.png")
    for path in ("u", "t/a.txt", "t/*.txt", ["t/a.txt", "u"]):
        assert notes(TextConfig(path=path), caplog) == []
    write("s/a.py", "s/notes.txt")
    assert notes(CodeConfig(path="s"), caplog) == []
    write("s/b.js", "s/c.rs")
    assert notes(CodeConfig(path="s"), caplog) == [
        "note      corpus.path=s: corpus.glob='**/*.py' leaves out files (1 .js, 1 .rs)"
    ]
    assert StdlibConfig.related_suffixes == set()
    write("j/old.json")
    Path("j/a.jsonl").write_text('{"text": "one two three"}\n' * 9, encoding="utf-8")
    assert notes(JSONLConfig(path="j"), caplog) == [
        "note      corpus.path=j: corpus.glob='**/*.jsonl' leaves out files (1 .json)"
    ]


def test_a_note_counts_the_members_of_a_zip_that_are_left_out(here, caplog):
    with zipfile.ZipFile("t.zip", "w") as archive:
        for name in ("a.txt", "b.md", "c.png"):
            archive.writestr(name, name * 9)
    assert notes(TextConfig(path="t.zip"), caplog) == [
        "note      corpus.path=t.zip: corpus.glob='**/*.txt' leaves out files (1 .md)"
    ]
    assert notes(TextConfig(path="t.zip", glob="*.rst"), caplog) == []  # matches no member, so all are read
    assert notes(TextConfig(path="t.zip", exclude=["*.MD"]), caplog) == []


def test_a_note_names_broken_links_and_pipes_in_a_folder(here, caplog):
    write("t/a.txt")
    Path("t/b.txt").symlink_to("nowhere")
    assert notes(TextConfig(path="t"), caplog) == ["note      corpus.path=t: ignored broken links or pipes: t/b.txt"]
    os.mkfifo("t/c.txt")
    (note,) = notes(TextConfig(path="t"), caplog)
    assert note.startswith("note      corpus.path=t: ignored broken links or pipes: t/") and note.endswith(
        " and 1 more"
    )
