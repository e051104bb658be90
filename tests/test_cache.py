import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from lm.data import cache
from lm.data.corpus import TextConfig
from lm.data.download import Downloads

# Builds root/cache/text-k: creates `began`, waits until `go` exists, and appends to `built` for each build.
BUILDER = """
import sys, time
from pathlib import Path
from lm.data import cache

root = Path(sys.argv[1])

def build(folder):
    (folder / "data").write_text("whole")
    with (root / "built").open("a") as built:
        built.write("x")
    (root / "began").touch()
    while not (root / "go").exists():
        time.sleep(0.01)

(root / f"started{sys.argv[2]}").touch()
print((cache.open_entry(root, "text", "k", "built by a process", build) / "data").read_text())
"""


@pytest.fixture
def start(tmp_path):
    started = []

    def run(code: str, *arguments: object) -> subprocess.Popen:
        command = [sys.executable, "-c", code, str(tmp_path), *map(str, arguments)]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait()


def wait_for(*paths: Path) -> None:
    for _ in range(2000):
        if all(path.exists() for path in paths):
            return
        time.sleep(0.01)
    raise TimeoutError(f"{paths} do not exist")


def make(root: Path, key: str = "k", kind: str = "text", content: str = "whole") -> Path:
    return cache.open_entry(root, kind, key, f"about {key}", lambda folder: (folder / "data").write_text(content))


def left(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "cache").iterdir() if path.suffix != ".lock")


def test_an_entry_is_built_once(tmp_path):
    assert make(tmp_path) == make(tmp_path, content="never") == tmp_path / "cache" / "text-k"
    assert (make(tmp_path) / "data").read_text() == "whole"
    assert json.loads((make(tmp_path) / "about.json").read_text()) == {"of": "about k"}
    assert (make(tmp_path, kind="tokens", content="other") / "data").read_text() == "other"
    assert left(tmp_path) == ["text-k", "tokens-k"]


def test_a_digest_distinguishes_its_parts():
    assert len({cache.digest(*parts) for parts in (["ab"], ["a", "b"], ["", "ab"], ["b", "a"], ["ab", ""])}) == 5
    assert cache.digest("é", "b") == cache.digest("é", "b")


def test_only_one_of_many_processes_builds_and_pruning_does_not_disturb_it(tmp_path, start):
    many = [start(BUILDER, i) for i in range(4)]
    wait_for(tmp_path / "began", *(tmp_path / f"started{i}" for i in range(4)))
    assert list(cache.list_entries(tmp_path)) == cache.prune(tmp_path) == []
    assert len(left(tmp_path)) == 1  # the temporary folder of the build
    (tmp_path / "go").touch()
    assert [process.communicate(timeout=60)[0] for process in many] == ["whole\n"] * 4
    assert (tmp_path / "built").read_text() == "x"
    assert left(tmp_path) == ["text-k"]


@pytest.mark.parametrize("then", ["build", "prune"])
def test_a_killed_build_leaves_nothing_that_looks_finished(tmp_path, start, then):
    process = start(BUILDER, 0)
    wait_for(tmp_path / "began")
    process.kill()
    process.wait()
    assert list(cache.list_entries(tmp_path)) == [] and len(left(tmp_path)) == 1
    if then == "prune":
        cache.prune(tmp_path)
        assert left(tmp_path) == []
    else:
        assert (make(tmp_path, content="new") / "data").read_text() == "new"
        assert left(tmp_path) == ["text-k"]


def test_a_failed_build_leaves_nothing_and_releases_the_lock(tmp_path):
    def fail(folder: Path) -> None:
        (folder / "data").write_text("half")
        raise ValueError("no text")

    for _ in range(2):
        with pytest.raises(ValueError, match="^no text$"):
            cache.open_entry(tmp_path, "text", "k", "", fail)
        assert left(tmp_path) == []
    assert (make(tmp_path) / "data").read_text() == "whole"


@pytest.mark.parametrize("damage", ["no about.json", "empty about.json", "empty folder"])
def test_an_incomplete_entry_is_not_used(tmp_path, damage):
    """An interrupted copy or removal leaves such an entry."""
    path = make(tmp_path, content="half")
    (path / "about.json").unlink()
    if damage == "empty folder":
        (path / "data").unlink()
    elif damage == "empty about.json":
        (path / "about.json").touch()
    (entry,) = cache.list_entries(tmp_path)
    assert (entry.path, entry.about) == (path, "corrupted")
    if damage != "empty about.json":
        assert (make(tmp_path) / "data").read_text() == "whole"
    assert [e.path for e in cache.prune(tmp_path)] == [path] and left(tmp_path) == []


def test_the_least_recently_used_entries_are_listed_first(tmp_path):
    assert list(cache.list_entries(tmp_path)) == cache.prune(tmp_path) == []  # the cache does not exist yet
    for age, kind in enumerate(["tokens", "text", "tokenizer"]):
        os.utime(make(tmp_path, f"k{age}", kind, "x" * age), (0, time.time() - age * 86400 - 60))
    (tmp_path / "cache" / "note.txt").write_text("not an entry of the cache")
    listed = list(cache.list_entries(tmp_path))
    assert [(e.kind, e.about, e.bytes) for e in listed] == [
        ("tokenizer", "about k2", 18 + 2), ("text", "about k1", 18 + 1), ("tokens", "about k0", 18 + 0)
    ]  # fmt: skip
    assert [e.used == e.path.stat().st_mtime for e in listed] == [True] * 3


def test_pruning_depends_on_the_time_of_the_last_use(tmp_path):
    for days in (0, 1, 3, 9):
        os.utime(make(tmp_path, f"k{days}"), (0, time.time() - days * 86400 - 60))
    make(tmp_path, "k3")  # used again
    assert [e.path.name for e in cache.prune(tmp_path, unused_days=2)] == ["text-k9"]
    assert [e.path.name for e in cache.prune(tmp_path, unused_days=0.5)] == ["text-k1"]
    assert cache.prune(tmp_path, unused_days=0.5) == []
    assert {e.path.name for e in cache.prune(tmp_path)} == {"text-k0", "text-k3"}
    assert left(tmp_path) == []


def test_an_entry_is_removed_atomically(tmp_path, monkeypatch):
    """Otherwise a run that starts during the removal could read the rest of the entry."""
    make(tmp_path)
    monkeypatch.setattr(cache, "remove", lambda path: None)  # as if killed here
    assert len(cache.prune(tmp_path)) == 1
    assert not (tmp_path / "cache" / "text-k").exists() and list(cache.list_entries(tmp_path)) == []
    monkeypatch.undo()
    assert cache.prune(tmp_path) == [] and left(tmp_path) == []


def test_pruning_waits_for_the_lock_of_an_entry(tmp_path, start):
    make(tmp_path)
    with FileLock(tmp_path / "cache" / ".text-k.lock"):
        process = start(
            "import sys; from pathlib import Path; from lm.data import cache; cache.prune(Path(sys.argv[1]))"
        )
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        assert left(tmp_path) == ["text-k"]
    assert process.wait(60) == 0 and left(tmp_path) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write everywhere")
def test_a_finished_entry_can_be_read_from_a_read_only_directory(tmp_path):
    (tmp_path / "t.txt").write_text("0123456789" * 10)
    config, downloads = TextConfig(path=f"{tmp_path}/t.txt"), Downloads(tmp_path / "data")
    text = config.load(downloads)
    folders = [*(tmp_path / "data" / "cache").glob("text-*"), tmp_path / "data" / "cache", tmp_path / "data"]
    for folder in folders:
        folder.chmod(0o555)
    again = config.load(downloads)
    assert (again.train.read(), again.digest) == (text.train.read(), text.digest)
    for folder in folders:
        folder.chmod(0o755)
