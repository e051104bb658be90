"""Which files a path, a folder or a pattern stands for, and what is said of those that are left out."""

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
from lm.data.corpus.patterns import alike, excludes, expand, matches
from lm.data.download import Downloads


def names(config: TextConfig, key: str = "train") -> list[str]:
    return [str(path) for path in config.paths()[key]]


def message(config, root: Path = Path("data")) -> str:
    with pytest.raises(ValueError) as caught:
        config.load(Downloads(root))
    return str(caught.value)


def write(*paths: str) -> None:
    """Each file holds its own name."""
    for path in map(Path, paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{path} " * 20)


# ---- upper and lower case


@pytest.mark.parametrize(
    ("path", "keys", "wanted"),
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
def test_patterns_match_in_any_case(here, path, keys, wanted):
    write("t/A.TXT", "t/c.txt", "t/sub/D.TXT")
    Path("t/B.Txt.GZ").write_bytes(gzip.compress(b"packed"))
    assert names(TextConfig(path=path, **keys)) == wanted.split()


def test_files_in_a_zip_match_in_any_case(here):
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
def test_a_pattern_stands_for_no_less_than_in_pythons_glob(files, pattern):
    """And for no more than the same in another case, or a name that is the pattern itself."""
    with tempfile.TemporaryDirectory() as outer:
        folder = Path(outer, "up", "up", "up")  # from which no pattern leads out
        folder.mkdir(parents=True)
        for parts in files:
            path = Path(folder, *parts)
            if not any(parent.is_file() for parent in path.parents) and not path.is_dir():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("x", encoding="utf-8")
        there = {p.resolve() for p in folder.rglob("*") if p.is_file()}
        found = {p.resolve() for p in expand(folder, pattern) if p.is_file()}
        usual = {Path(p).resolve() for p in glob(f"{folder}/{'/'.join(pattern)}", recursive=True) if Path(p).is_file()}  # noqa: PTH207
        assert usual & there <= found
        for extra in (found & there) - usual:
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
def test_exclude_matches_as_pathlib_does_but_for_case(parts, pattern):
    path, typed = Path(*parts), "/".join(pattern)
    usual = path.match(typed)
    assert not usual or excludes(typed, path)
    if excludes(typed, path) and not usual:
        assert any(alike(a, b) for a, b in zip(path.parts[::-1], pattern[::-1], strict=False))
    absolute = Path("/x", *parts)
    assert excludes(f"/x/{path}", absolute) and not excludes(f"/y/{path}", absolute)


# ---- names that are patterns too, and paths that are no files


@pytest.mark.parametrize("folder", ["texts [old]", "what? (1)", "a*b", "[x]/{y}"])
@pytest.mark.parametrize("pattern", ["", "/*.txt", "/**/*.txt", "/a.txt", "/[ab].txt"])
def test_the_part_of_a_pattern_that_exists_is_taken_as_it_is(here, folder, pattern):
    write(f"{folder}/a.txt", "o/a.txt", "what1 (1)/a.txt", "axb/a.txt", "x/{y}/a.txt")
    assert names(TextConfig(path=folder + pattern)) == [f"{folder}/a.txt"]
    assert names(TextConfig(path=["o", folder + pattern]))[1:] == [f"{folder}/a.txt"]


def test_home_is_put_in_place_in_every_path(here, monkeypatch):
    write("home/t/a.txt", "home/t/b.txt", "home/t/c.txt", "~nobody-at-all/x.txt")
    monkeypatch.setenv("HOME", str(here / "home"))
    config = TextConfig(path=["~/t", "~/t/*.txt"], val_path=["~/t/b.txt"], exclude=["~/t/c.txt"])
    assert names(config) == [str(here / "home/t/a.txt")] and names(config, "val") == [str(here / "home/t/b.txt")]
    monkeypatch.chdir(here / "home")
    config = TextConfig(path="t", val_path="t/b.txt", exclude=["~/t/[c].txt"])
    assert names(config) == ["t/a.txt"]
    assert "no such file" in message(TextConfig(path="~nobody-at-all/y.txt"))
    monkeypatch.chdir(here)
    assert names(TextConfig(path="~nobody-at-all/x.txt")) == ["~nobody-at-all/x.txt"]


def test_a_link_to_nothing_is_named_with_what_it_is_to_lead_to(here):
    Path("my.txt").symlink_to("old/yours.txt")
    told = message(TextConfig(path="my.txt"))
    assert told == "corpus.path=my.txt is a link to old/yours.txt, which does not exist"
    Path("loop.txt").symlink_to("loop.txt")
    assert "loop.txt" in message(TextConfig(path="loop.txt"))


@pytest.fixture
def open_socket(here) -> Iterator[str]:
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind("socket")
        yield "socket"


def test_what_can_be_read_only_once_is_refused_before_it_is_opened(here, open_socket):
    os.mkfifo("pipe")
    read, write_end = os.pipe()
    try:
        for path, kind in (
            ("pipe", "a pipe"),
            (f"/dev/fd/{read}", "a pipe"),
            ("socket", "a socket"),
            ("/dev/null", "a device"),
        ):
            told = message(TextConfig(path=path))
            assert told.startswith(
                f"corpus.path={path} is {kind}, and a text is read more than once: write it to a file"
            )
            write("a.txt")
            assert message(TextConfig(path="a.txt", val_path=path)).startswith(f"corpus.val_path={path} is {kind}, ")
    finally:
        os.close(read)
        os.close(write_end)


@pytest.mark.parametrize("path", ["t/19*", "t/**"])
def test_a_pattern_that_matches_folders_only_says_so(here, path):
    Path("t/1900").mkdir(parents=True)
    told = message(TextConfig(path=path))
    assert told == f"corpus.path={path} stands for folders only; for the files in them, name {path}/*"


@pytest.mark.parametrize("inside", [[], ["t/.hidden.txt"], ["t/.git/a.txt"]])
def test_a_folder_without_files_is_named(here, inside):
    Path("t").mkdir()
    write(*inside)
    assert message(TextConfig(path="t")) == (
        "corpus.path=t is a folder without files (hidden ones and links to folders do not count)"
    )


def test_a_name_that_is_too_long_is_refused(here):
    told = message(TextConfig(path="x" * 5000))
    assert told.startswith("corpus.path=xxx") and "File name too long" in told
