"""Scripts as they are typed: what they print where, and how they refuse."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT
from hydra.core.global_hydra import GlobalHydra

from lm.base.plotting import pyplot
from lm.config import CONF
from lm.run.plot import plot_panel, plot_runs
from scripts import corpora

SEPARATOR = 'corpus.separator="<|endoftext|>"'
STORIES = "One day.\n<|endoftext|>\nTwo days, and a night.\n<|endoftext|>\nThree nights.\n"


@pytest.fixture
def script(monkeypatch, capsys):
    """script("list", "--json") runs scripts/corpora.py in this process: (0 or what it ends with, standard output)."""

    def run(*args, cwd=ROOT):
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", ["corpora.py", *map(str, args)])
        GlobalHydra.instance().clear()
        status = 0
        try:
            corpora.main()
        except SystemExit as stop:
            status = stop.code
        return status, capsys.readouterr().out

    return run


@pytest.fixture
def answer(script):
    """Run a command and return the JSON that it prints."""

    def ask(*args, cwd=ROOT):
        status, out = script(*args, "--json", cwd=cwd)
        assert status == 0
        return json.loads(out)

    return ask


def test_the_list_names_every_corpus_and_is_in_the_docs(script, answer):
    rows = answer("list")
    assert [row["corpus"] for row in rows] == sorted(path.stem for path in (CONF / "corpus").glob("*.yaml"))
    assert all(row["what it is, and good for"] for row in rows)
    downloads = {row["corpus"]: row for row in rows if row["download"] not in ("none", "yours")}
    assert set(downloads) >= {"tinyshakespeare", "wikitext2", "enwik8", "pg19_small", "shakespeare", "kjv"}
    assert all(row["licence"] for row in downloads.values())
    assert script("list", "--markdown")[1].strip() in (ROOT / "docs" / "corpora.md").read_text()


@pytest.mark.slow
def test_show_describes_the_text_that_training_would_use(tmp_path, script, answer):
    (tmp_path / "a.txt").write_text(STORIES)
    report = answer("show", "text", "corpus.path=a.txt", SEPARATOR, "corpus.val_fraction=0.3", cwd=tmp_path)
    assert report["beginning"] == "One day.\n"
    train, val = report["splits"]
    assert train == {"split": "train", "bytes": 32, "characters": 32, "distinct": 18, "lines": 2, "documents": 2}
    assert val["characters"] == len("Three nights.\n") and val["documents"] == 1
    _, table = script("show", "text", "corpus.path=a.txt", SEPARATOR, cwd=tmp_path)
    assert "documents have an end-of-text token between them" in table


@pytest.mark.slow
def test_fetch_reports_if_there_is_nothing_to_download_and_offline_where_to_put_a_file(tmp_path, script, answer):
    assert answer("fetch", "words", "--dir", tmp_path) == [{"corpus": "words", "download": "nothing to download"}]
    refusal, _ = script("fetch", "verdict", "--offline", "--dir", tmp_path)
    assert str(tmp_path / "corpora/verdict/the-verdict.txt") in refusal
    assert "raw.githubusercontent.com" in refusal and "b41e41a68f0398a3" in refusal


@pytest.mark.slow_after(3)
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["fetch"], "name the corpora to fetch"),
        (["fetch", "tinyshakespear"], "did you mean 'tinyshakespeare'?"),
        (["show", "words", "addition"], "name one corpus to show"),
        (["show", "words", "corpus.linse=3"], "unknown key corpus.linse; did you mean 'corpus.lines'?"),
        (["show", "words", "corpus.lines=0"], "corpus.lines=0 must be at least 1"),
        (["show", "text", "corpus.path=nowhere.txt"], "nowhere.txt: no such file"),
    ],
)
def test_errors_are_one_line(args, message, tmp_path, script):
    refusal, out = script(*args, "--dir", tmp_path)
    assert refusal.startswith("error: ") and message in refusal and not out


def test_the_cache_is_listed_and_pruned(tmp_path, answer):
    answer("show", "words", "corpus.lines=50", "--dir", tmp_path)
    answer("show", "addition", "corpus.lines=50", "--dir", tmp_path)
    assert sorted(row["of"] for row in answer("cache", "--dir", tmp_path)) == ["addition lines=50", "words lines=50"]
    assert answer("cache", "--prune", "--days", "1", "--dir", tmp_path) == []
    assert len(answer("cache", "--prune", "--dir", tmp_path)) == 2
    assert answer("cache", "--dir", tmp_path) == [] and not list(Path(tmp_path, "cache").glob("[!.]*"))


@pytest.mark.slow
def test_a_full_disk_is_reported_and_leaves_no_files(tmp_path):
    """A limit on the size of files simulates the full disk."""
    (tmp_path / "a.txt").write_text("To be, or not to be: that is the question.\n" * 50_000)
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000));"
        f"sys.path.insert(0, {str(ROOT)!r}); sys.argv = ['corpora.py', 'show', 'text', 'corpus.path=a.txt'];"
        f"import runpy; runpy.run_path({str(ROOT / 'scripts' / 'corpora.py')!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.startswith(
        f"error: not enough disk space in {Path('data/cache')} (File too large;"
    )
    assert "corpora.py cache --prune" in done.stderr
    assert [path.suffix for path in (tmp_path / "data").rglob("*") if path.is_file()] in ([], [".lock"])


def test_a_picture_has_the_curves_and_the_floor(nano, tmp_path):
    pytest.importorskip("matplotlib")
    run = nano()
    _, axes = pyplot().subplots()
    plot_panel(axes, run)
    train, val, floor = axes.get_lines()
    assert train.get_xdata().tolist() == list(range(1, 13)) and val.get_xdata().tolist() == [4, 8, 12]
    known = json.loads((run / "run.json").read_text())["floor"]
    assert set(floor.get_ydata()) == {known} and f"{known:.3f}" in floor.get_label()
    plot_runs([run, run], tmp_path / "two.png")
    assert (tmp_path / "two.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(ValueError, match="has no metrics.csv"):
        plot_runs([tmp_path], tmp_path / "none.png")
