"""Files that a path, a folder or a pattern stands for, and the errors for those that are left out."""

import gzip
import os
import socket
import tempfile
import zipfile
from collections.abc import Iterator
from glob import glob
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.data.corpus import TextConfig
from lm.data.corpus.patterns import expand, is_excluded_by, matches, names_match
from lm.data.download import Downloads


def names(config: TextConfig, key: str = "train") -> list[str]:
    return [str(path) for path in config.paths()[key]]


def message(config, root: Path = Path("data")) -> str:
    with pytest.raises(ValueError) as caught:
        config.load(Downloads(root))
    return str(caught.value)


def write(*paths: str) -> None:
    """Write files that contain their own names."""
    for path in map(Path, paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{path} " * 20)


# ---- upper and lower case


@pytest.mark.parametrize(
    ("path", "keys", "expected"),
    [
        ("t", {}, "t/A.TXT t/B.Txt.GZ t/c.txt t/sub/D.TXT"),
        ("t", {"glob": "*.TXT"}, "t/A.TXT t/B.Txt.GZ t/c.txt"),
        ("t", {"glob": "**/[a-c].txt"}, "t/A.TXT t/B.Txt.GZ t/c.txt"),
        ("t", {"exclude": ["*.txt"]}, "t/B.Txt.GZ"),
        ("t", {"exclude": ["a.txt", "SUB"]}, "t/B.Txt.GZ t/c.txt"),
        ("t/*.txt", {}, "t/A.TXT t/c.txt"),
        ("t/**/*.TXT", {}, "t/A.TXT t/c.txt t/sub/D.TXT"),
        ("t/*", {"exclude": ["*.gz"]}, "t/A.TXT t/c.txt"),
    ],
)
def test_patterns_ignore_case(here, path, keys, expected):
    write("t/A.TXT", "t/c.txt", "t/sub/D.TXT")
    Path("t/B.Txt.GZ").write_bytes(gzip.compress(b"packed"))
    assert names(TextConfig(path=path, **keys)) == expected.split()


def test_members_of_a_zip_match_in_any_case(here):
    with zipfile.ZipFile("t.ZIP", "w") as archive:
        for name in ("A.TXT", "b.txt", "c.md"):
            archive.writestr(name, name * 9)
    assert TextConfig(path="t.ZIP").members(Path("t.ZIP")) == ["A.TXT", "b.txt"]


PARTS = ["a", "B", "[old]", "x.txt", "Y.TXT", ".h", "[a]", "*"]
WILD = ["*", "?", "*.txt", "[ab]", "**", "[!a]*", "x*", ".*", "B", "[old]", "x.txt", ".."]


@settings(max_examples=80)
@given(
    st.lists(st.lists(st.sampled_from(PARTS), min_size=1, max_size=3), max_size=8),
    st.lists(st.sampled_from(WILD), min_size=1, max_size=3),
)
def test_a_pattern_matches_at_least_what_pythons_glob_matches(files, pattern):
    """It matches only the same names in another case, and names that equal the pattern, in addition."""
    with tempfile.TemporaryDirectory() as outer:
        folder = Path(outer, "up", "up", "up")  # deep enough for all patterns with ..
        folder.mkdir(parents=True)
        for parts in files:
            path = Path(folder, *parts)
            if not any(parent.is_file() for parent in path.parents) and not path.is_dir():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("x", encoding="utf-8")
        there = {p.resolve() for p in folder.rglob("*") if p.is_file()}
        found = {p.resolve() for p in expand(folder, pattern) if p.is_file()}
        pythons = glob(f"{folder}/{'/'.join(pattern)}", recursive=True)  # noqa: PTH207
        reference = {Path(p).resolve() for p in pythons if Path(p).is_file()}
        assert reference & there <= found
        for extra in (found & there) - reference:
            relative = extra.relative_to(folder.resolve()).parts
            flat = [part for part in pattern if part != ".."]
            assert ".." in pattern or matches(relative, flat)
            assert (
                ".." in pattern
                or pattern[-1] == "**"
                or any(c.isupper() for c in "".join([*relative, *flat]))
                or {*relative} & {*flat}
            )


@settings(max_examples=200)
@given(
    st.lists(st.sampled_from(PARTS), min_size=1, max_size=4), st.lists(st.sampled_from(WILD), min_size=1, max_size=4)
)
def test_exclude_matches_like_pathlib_except_for_case(parts, pattern):
    path, text = Path(*parts), "/".join(pattern)
    reference = path.match(text)
    assert not reference or is_excluded_by(text, path)
    if is_excluded_by(text, path) and not reference:
        assert any(names_match(a, b) for a, b in zip(path.parts[::-1], pattern[::-1], strict=False))
    absolute = Path("/x", *parts)
    assert is_excluded_by(f"/x/{path}", absolute) and not is_excluded_by(f"/y/{path}", absolute)


# ---- names that look like patterns, and paths that are not files


@pytest.mark.parametrize("folder", ["texts [old]", "what? (1)", "a*b", "[x]/{y}"])
@pytest.mark.parametrize("pattern", ["", "/*.txt", "/**/*.txt", "/a.txt", "/[ab].txt"])
def test_a_part_of_a_pattern_that_exists_is_taken_literally(here, folder, pattern):
    write(f"{folder}/a.txt", "o/a.txt", "what1 (1)/a.txt", "axb/a.txt", "x/{y}/a.txt")
    assert names(TextConfig(path=folder + pattern)) == [f"{folder}/a.txt"]
    assert names(TextConfig(path=["o", folder + pattern]))[1:] == [f"{folder}/a.txt"]


def test_a_tilde_is_expanded_in_every_path(here, monkeypatch):
    write("home/t/a.txt", "home/t/b.txt", "home/t/c.txt", "~unknown-user/x.txt")
    monkeypatch.setenv("HOME", str(here / "home"))
    config = TextConfig(path=["~/t", "~/t/*.txt"], val_path=["~/t/b.txt"], exclude=["~/t/c.txt"])
    assert names(config) == [str(here / "home/t/a.txt")] and names(config, "val") == [str(here / "home/t/b.txt")]
    monkeypatch.chdir(here / "home")
    config = TextConfig(path="t", val_path="t/b.txt", exclude=["~/t/[c].txt"])
    assert names(config) == ["t/a.txt"]
    assert "no such file" in message(TextConfig(path="~unknown-user/y.txt"))
    monkeypatch.chdir(here)
    assert names(TextConfig(path="~unknown-user/x.txt")) == ["~unknown-user/x.txt"]


def test_the_error_names_a_broken_link_and_its_target(here):
    Path("my.txt").symlink_to("old/yours.txt")
    error = message(TextConfig(path="my.txt"))
    assert error == "corpus.path=my.txt is a link to old/yours.txt, which does not exist"
    Path("loop.txt").symlink_to("loop.txt")
    assert "loop.txt" in message(TextConfig(path="loop.txt"))


@pytest.fixture
def open_socket(here) -> Iterator[str]:
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind("socket")
        yield "socket"


def test_a_file_that_can_be_read_only_once_is_refused_before_it_is_opened(here, open_socket):
    os.mkfifo("pipe")
    read, write_end = os.pipe()
    try:
        for path, kind in (
            ("pipe", "a pipe"),
            (f"/dev/fd/{read}", "a pipe"),
            ("socket", "a socket"),
            ("/dev/null", "a device"),
        ):
            error = message(TextConfig(path=path))
            assert error.startswith(
                f"corpus.path={path} is {kind}, but a text is read more than once: write it to a file"
            )
            write("a.txt")
            assert message(TextConfig(path="a.txt", val_path=path)).startswith(f"corpus.val_path={path} is {kind}, ")
    finally:
        os.close(read)
        os.close(write_end)


@pytest.mark.parametrize("path", ["t/19*", "t/**"])
def test_a_pattern_that_matches_only_folders_is_refused(here, path):
    Path("t/1900").mkdir(parents=True)
    error = message(TextConfig(path=path))
    assert error == f"corpus.path={path} matches only folders; for the files in them, use {path}/*"


@pytest.mark.parametrize("inside", [[], ["t/.hidden.txt"], ["t/.git/a.txt"]])
def test_the_error_names_a_folder_without_files(here, inside):
    Path("t").mkdir()
    write(*inside)
    assert message(TextConfig(path="t")) == (
        "corpus.path=t is a folder without files (hidden files and links to folders are ignored)"
    )


def test_a_name_that_is_too_long_is_refused(here):
    error = message(TextConfig(path="x" * 5000))
    assert error.startswith("corpus.path=xxx") and "File name too long" in error
