"""Comparison of runs: the figures of handwritten run directories, checked against values computed by hand."""

import csv
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

import lm
from lm.base.page import nan_to_none
from lm.compare import page, reading, table
from lm.run.lock import acquire, set_paused
from scripts import compare

CONFIG = {
    "model": {"n_layer": 2, "block_size": 16},
    "tokenizer": {"kind": "Char"},
    "data": {"batch_size": 4},
    "optimizer": {"kind": "AdamW", "lr": 0.1},
    "trainer": {"max_steps": 30},
    "seed": 1,
}
HEAD = "step,train/loss,val/loss,val/bpb,lr,perf/tokens_per_s,perf/step_ms\n"
CURVE = HEAD + "1,3.0,,,0.01,,\n10,2.5,2.5,3.5,0.1,1000,10\n20,2.1,2.0,2.8,0.1,2000,20\n30,2.0,2.2,3.08,0.1,6000,30\n"
FENCE = "`" * 3


def make_run(path, *overrides, curve=CURVE, status="finished", **record):
    """Write a run directory with overrides of CONFIG, as in make_run(path, "optimizer.lr=0.2"), and return its path."""
    config = json.loads(json.dumps(CONFIG))
    for override in overrides:
        key, value = override.split("=")
        section, _, name = key.rpartition(".")
        (config.setdefault(section, {}) if section else config)[name] = yaml.safe_load(value)
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    facts = {"status": status, "parameters": 500, "tokenizer": "a", "text": "b", "error": None}
    (path / "run.json").write_text(json.dumps(facts | record))
    if curve is not None:
        (path / "metrics.csv").write_text(curve)
    return path


def validation_curve(*losses):
    """Return a metrics.csv with validations at steps 10, 20, ..."""
    return "step,val/loss,val/bpb\n" + "".join(f"{10 * i},{loss},{2 * loss}\n" for i, loss in enumerate(losses, 1))


def rows(*paths):
    return {row["run"]: row for row in table.rows_of_runs(reading.find_runs(paths))}


@pytest.fixture
def script(monkeypatch, capsys):
    """script("outputs", ...) runs scripts/compare.py and returns (0 or its exit status or error, standard output)."""

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["compare.py", *map(str, args)])
        status = 0
        try:
            compare.main()
        except SystemExit as stop:
            status = stop.code
        return status, capsys.readouterr().out

    return run


# ---- figures


def test_figures_are_read_from_the_files(tmp_path):
    (row,) = rows(make_run(tmp_path / "run")).values()
    assert row == {
        "run": "run", "parameters": 500, "tokens": 30 * 4 * 16, "best val/loss": 2.0, "best step": 20,
        "final val/loss": 2.2, "val/bpb": 2.8, "seconds": pytest.approx(0.1 + 0.2 + 0.3), "tokens/s": 2000,
        "status": "finished",
    }  # fmt: skip


def test_seconds_are_interpolated_between_log_steps_and_a_fork_counts_only_its_own(tmp_path):
    (run,) = reading.find_runs([make_run(tmp_path / "run")])
    assert run.seconds([1, 10, 15, 20, 40]) == pytest.approx([0.01, 0.1, 0.2, 0.3, 0.6])
    forked = HEAD + "110,2.5,,,0.1,1000,10\n"
    fork = make_run(tmp_path / "fork", curve=forked, sessions=[{"from_step": 100}, {"from_step": 105}])
    (run,) = reading.find_runs([fork])
    assert table.run_figures(run)["seconds"] == pytest.approx(0.1) and table.run_figures(run)["tokens"] == 110 * 64


def test_an_incomplete_last_row_is_ignored_and_a_corrupted_row_is_an_error(tmp_path):
    torn = make_run(tmp_path / "torn", curve=CURVE + "40,1.0,1.0,1.4,0.1,90")
    assert rows(torn)["torn"]["tokens"] == 30 * 64 and rows(torn)["torn"]["best val/loss"] == 2.0
    half = make_run(tmp_path / "half", curve=HEAD[:20])
    assert rows(half)["half"]["tokens"] is None
    damaged = make_run(tmp_path / "damaged", curve=CURVE + "forty,1,1,1,1,1,1\n")
    with pytest.raises(ValueError, match=r"damaged/metrics.csv is corrupted: row 5"):
        reading.find_runs([damaged])


def test_without_a_curve_the_best_and_last_validation_come_from_the_record(tmp_path):
    metrics = {"step": 30, "val/loss": 2.2, "val/bpb": 3.08, "perf/tokens_per_s": 9.0, "perf/step_ms": 9.0}
    run = make_run(tmp_path / "run", curve=None, metrics=metrics, best={"step": 20, "val/loss": 2.0})
    row = rows(run)["run"]
    assert (row["best val/loss"], row["best step"], row["final val/loss"], row["tokens"]) == (2.0, 20, 2.2, 1920)
    assert (
        row["val/bpb"] is None and row["seconds"] is None and row["tokens/s"] is None
    )  # unknown for the best step and for the whole run
    assert rows(make_run(tmp_path / "none", curve=None, status="failed"))["none"]["best val/loss"] is None


def test_a_loss_that_is_not_finite_is_shown_and_is_never_the_best(tmp_path):
    row = rows(make_run(tmp_path / "run", curve=validation_curve(2.0, float("nan"))))["run"]
    assert row["best val/loss"] == 2.0 and row["final val/loss"] != row["final val/loss"]
    assert table.format_cell("final val/loss", row) == "nan"
    assert nan_to_none([row["final val/loss"], float("inf"), 1.5]) == [None, None, 1.5]


def test_the_status_distinguishes_running_and_killed_runs(tmp_path):
    run = make_run(tmp_path / "run", status="running", error="stopped by SIGTERM")  # in an earlier session
    assert reading.find_runs([run])[0].status == "killed" and reading.find_runs([run])[0].error is None
    with acquire(run):
        assert reading.find_runs([run])[0].status == "running"
        set_paused(run, paused=True)
        assert reading.find_runs([run])[0].status == "paused"
    assert reading.find_runs([run])[0].status == "killed"
    failed = reading.find_runs([make_run(tmp_path / "failed", status="failed", error="no room")])[0]
    assert (failed.status, failed.error) == ("failed", "no room")


# ---- finding runs, and differences


def test_runs_are_found_once_and_named_relative_to_their_common_directory(tmp_path):
    for job in (0, 2, 10):
        make_run(tmp_path / "sweep" / str(job))
    make_run(tmp_path / "other" / "run")
    (tmp_path / "sweep" / "empty").mkdir()
    found = reading.find_runs([tmp_path / "sweep", tmp_path / "sweep" / "10", tmp_path / "other"])
    assert [run.name for run in found] == ["sweep/0", "sweep/2", "sweep/10", "other/run"]
    assert [run.name for run in reading.find_runs([tmp_path / "sweep"])] == ["0", "2", "10"]
    assert [run.name for run in reading.find_runs([tmp_path / "other" / "run"])] == ["run"]


def test_only_keys_that_affect_training_count_as_differences(tmp_path):
    a = make_run(tmp_path / "a", "optimizer.lr=0.1", "name=a", "trainer.val_every=1", "callbacks.sample.every=5")
    b = make_run(tmp_path / "b", "optimizer.lr=0.2", "name=b", "trainer.log_every=7", "data.root=/elsewhere")
    assert table.differing_keys(reading.find_runs([a, b])) == ["optimizer.lr"]
    assert [row["optimizer.lr"] for row in rows(a, b).values()] == [0.1, 0.2]


def test_keys_of_another_kind_are_no_differences_and_missing_keys_have_their_default(tmp_path):
    adamw = make_run(tmp_path / "a", "optimizer.beta1=0.9")
    sgd = make_run(tmp_path / "b", "optimizer.kind=SGD", "optimizer.momentum=0.5")
    older = make_run(tmp_path / "c")
    assert table.differing_keys(reading.find_runs([adamw, older])) == []  # AdamW's beta1 is 0.9
    assert table.differing_keys(reading.find_runs([adamw, sgd])) == [
        "optimizer.kind",
        "optimizer.weight_decay",
    ]  # 0.1 and 0
    other = make_run(tmp_path / "d", "model.qk_norm=true")
    assert table.differing_keys(reading.find_runs([older, other])) == ["model.qk_norm"]


def test_a_default_learning_rate_is_read_from_the_record(tmp_path):
    a = make_run(tmp_path / "a", "optimizer.lr=null", lr=0.006)
    assert reading.find_runs([a])[0].config["optimizer.lr"] == 0.006


def test_short_keys_are_unique():
    keys = ["model.n_layer", "model.dropout", "data.dropout", "optimizer.kind", "seed", "loss.seconds"]
    assert list(table.short_keys(keys, ["seconds"]).values()) == [
        "n_layer", "model.dropout", "data.dropout", "optimizer.kind", "seed", "loss.seconds"
    ]  # fmt: skip


# ---- ranking, sorting, filtering, seeds


def test_runs_with_different_tokenizers_are_ranked_by_bits_per_byte(tmp_path):
    a = make_run(tmp_path / "a", curve="step,val/loss,val/bpb\n10,1.0,3.0\n")
    b = make_run(tmp_path / "b", curve="step,val/loss,val/bpb\n10,2.0,2.5\n")
    runs = reading.find_runs([a, b])
    found = table.rows_of_runs(runs)
    assert (
        table.ranking_column(runs) == "best val/loss"
        and table.best_row(found, table.ranking_column(runs))["run"] == "a"
    )
    (b / "run.json").write_text(json.dumps({"status": "finished", "tokenizer": "other", "text": "b"}))
    runs = reading.find_runs([a, b])
    assert table.ranking_column(runs) == "val/bpb" and table.best_row(found, table.ranking_column(runs))["run"] == "b"
    assert table.caveats(runs) == ["tokenizers differ, so losses per token cannot be compared: use val/bpb"]


def test_notes_explain_why_losses_cannot_be_compared(tmp_path):
    a, b = make_run(tmp_path / "a"), make_run(tmp_path / "b", text="another")
    assert "different texts" in table.caveats(reading.find_runs([a, b]))[0]
    c = make_run(tmp_path / "c", "trainer.val_batches=3")
    assert "trainer.val_batches differs" in table.caveats(reading.find_runs([a, c]))[0]
    assert table.caveats(reading.find_runs([a])) == []


def test_sorting_puts_unknown_values_last(tmp_path):
    for name, lr, losses in (("a", 0.3, [2.0]), ("b", 0.1, [3.0]), ("c", 0.2, [])):
        make_run(tmp_path / name, f"optimizer.lr={lr}", curve=validation_curve(*losses))
    found = table.rows_of_runs(reading.find_runs([tmp_path]))

    def order(sort):
        return "".join(row["run"] for row in table.sort_rows(found, sort))

    assert order("best val/loss") == "abc" and order("-best val/loss") == "bac"
    assert order("lr") == order("optimizer.lr") == "bca" and order("-run") == "cba"
    with pytest.raises(ValueError, match=r"--sort secnds: there is no such column; did you mean 'seconds'\?"):
        order("secnds")


def test_where_compares_numbers_and_text(tmp_path):
    for i, lr in enumerate((0.001, 0.01, 0.01)):
        make_run(tmp_path / str(i), f"optimizer.lr={lr}", f"seed={i}", status="failed" if i == 2 else "finished")
    runs = reading.find_runs([tmp_path])

    def left(*wheres):
        return [run.name for run in table.filter_runs(runs, wheres)]

    assert left("optimizer.lr=1e-2") == left("lr=0.01") == ["1", "2"]
    assert left("lr=0.01", "status=failed") == ["2"] and left("tokenizer.kind=Char") == ["0", "1", "2"]
    assert left("model.qk_norm=false") == ["0", "1", "2"] and left() == ["0", "1", "2"]
    for where, message in (
        ("lr", "--where lr must be key=value"),
        ("optimizer.lrr=1", "did you mean 'optimizer.lr'"),
        ("kind=Char", "--where kind could be tokenizer.kind or optimizer.kind"),
        ("lr=5", "--where lr=5 matches no run; optimizer.lr is 0.001, 0.01"),
    ):
        with pytest.raises(ValueError) as error:
            left(where)
        assert message in str(error.value)


def test_seeds_are_merged_into_mean_and_sample_deviation(tmp_path):
    for seed, losses in enumerate(([1.0, 1.5], [2.0, 2.5], [3.0, 6.5])):
        make_run(tmp_path / f"a{seed}", f"seed={seed}", "name=other", curve=validation_curve(*losses))
    make_run(tmp_path / "a9", "seed=9", curve=validation_curve(0.5), status="killed")
    make_run(tmp_path / "b", "model.n_layer=3", curve=validation_curve(5.0))
    many, one = table.merge_seeds(reading.find_runs([tmp_path]))
    assert many["run"] == "a0, a1, a2, a9" and many["n"] == 3 and many["status"] == "3 finished, 1 killed"
    assert (many["best val/loss"], many["best val/loss sd"]) == (2.0, 1.0)  # of 1, 2, 3
    assert many["final val/loss"] == 3.5 and many["final val/loss sd"] == pytest.approx(7**0.5)  # of 1.5, 2.5, 6.5
    assert (many["val/bpb"], many["val/bpb sd"]) == (4.0, 2.0)
    assert one["n"] == 1 and one["best val/loss"] == 5.0 and one["best val/loss sd"] is None
    assert (many["model.n_layer"], one["model.n_layer"]) == (2, 3) and "seed" not in many


# ---- the script


def test_the_table_marks_the_best_run_and_shortens_keys_if_it_is_too_wide(tmp_path, script, monkeypatch):
    make_run(tmp_path / "worse", "optimizer.lr=0.1", curve=validation_curve(3.0))
    make_run(tmp_path / "better", "optimizer.lr=0.2", curve=validation_curve(2.0))
    monkeypatch.setenv("COLUMNS", "300")
    _, out = script(tmp_path)
    head, first, second, mark = out.splitlines()
    assert "  optimizer.lr  " in head and first.startswith("* better") and second.startswith("  worse")
    assert "2.0000" in first and mark == "* the best by val/loss"
    monkeypatch.setenv("COLUMNS", "60")
    assert script(tmp_path)[1].split("\n")[0].split()[:3] == ["run", "lr", "parameters"]
    assert script(tmp_path, "--sort", "-best val/loss")[1].splitlines()[1].startswith("  worse")


def test_json_and_csv_contain_the_same_rows(tmp_path, script):
    make_run(tmp_path / "runs" / "a", curve=validation_curve(2.0, float("inf")))
    make_run(tmp_path / "runs" / "b", status="failed", curve=None, error="no room\nat all")
    status, out = script(tmp_path / "runs", "--json", "--csv", tmp_path / "t.csv", "--html", tmp_path / "p.html")
    found = json.loads(out)
    assert status == 0 and (found["best"], found["by"], found["differ"]) == ("a", "best val/loss", [])
    assert found["errors"] == {"b": "no room\nat all"} and found["runs"][0]["final val/loss"] is None
    with (tmp_path / "t.csv").open(newline="") as file:
        kept = list(csv.DictReader(file))
    assert [row["run"] for row in kept] == ["a", "b"] and kept[0]["best val/loss"] == "2.0"
    assert list(kept[0]) == list(found["runs"][0]) and kept[1]["best val/loss"] == ""
    seeds = json.loads(script(tmp_path / "runs", "--seeds", "--json")[1])["runs"]
    assert [(row["run"], row["n"], row["status"]) for row in seeds] == [("a, b", 1, "1 finished, 1 failed")]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nowhere"], "nowhere: no such run"),
        (["empty"], "empty contains no run, i.e. no directory with config.yaml and run.json"),
        (["run", "--sort", "-los"], "--sort los: there is no such column"),
        (["run", "--where", "sed=1"], "--where sed: there is no such column; did you mean 'seed'?"),
        (["run", "--html", "nowhere/a.html"], "No such file or directory: 'nowhere/a.html'"),
        (["broken"], "config.yaml is not the config of a run"),
        (["foreign"], "config.yaml is not the config of a run"),
    ],
)
def test_errors_are_one_line(tmp_path, script, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    make_run(tmp_path / "run")
    (make_run(tmp_path / "broken") / "config.yaml").write_text("{")
    (make_run(tmp_path / "foreign") / "config.yaml").write_text("model: 3\n")
    status, out = script(*args)
    assert status.startswith("error: ") and message in status and "\n" not in status and not out


def test_the_curves_are_drawn_as_png(tmp_path, script, monkeypatch):
    make_run(tmp_path / "runs" / "a")
    make_run(tmp_path / "runs" / "b", curve=None)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "matplotlib", None)
        assert script(tmp_path / "runs", "--png", tmp_path / "a.png")[0].startswith("error: drawing needs matplotlib")
    pytest.importorskip("matplotlib")
    assert script(tmp_path / "runs", "--png", tmp_path / "a.png")[0] == 0
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    status, _ = script(tmp_path / "runs" / "b", "--png", tmp_path / "b.png")
    assert status == "error: no run has been validated yet: there is no val/loss to draw"


# ---- the page


class Parsed(HTMLParser):
    """Elements with their attributes and text; every element must be closed in order."""

    VOID = {"meta"}

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.found = [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.found.append([tag, dict(attrs), ""])
        if tag not in self.VOID:
            self.open.append(self.found[-1])

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        if self.open:
            self.open[-1][2] += data

    def texts(self, tag):
        return [text for name, _, text in self.found if name == tag]

    @property
    def data(self):
        (text,) = [text for tag, attrs, text in self.found if tag == "script" and attrs.get("id") == "data"]
        return json.loads(text)


def test_the_page_is_one_file_with_the_figures_of_the_runs(tmp_path):
    for seed in (1, 2):
        make_run(tmp_path / "runs" / f"s{seed}", f"seed={seed}")
    make_run(tmp_path / "runs" / "best", "model.n_layer=3", curve=validation_curve(1.5))
    make_run(tmp_path / "runs" / "none", "model.n_layer=4", curve=None, status="failed", error="no room")
    runs = reading.find_runs([tmp_path / "runs"])
    text = page.render_page(runs)
    assert "http" not in text and "src=" not in text and "@import" not in text
    assert set(re.findall(r"url\((.)", text)) == {"#"}  # only parts of the page itself
    parsed = Parsed(text)
    assert [len(parsed.texts(tag)) for tag in ("script", "style", "link")] == [2, 1, 0]
    assert parsed.texts("title") == parsed.texts("h1") == ["4 runs: runs"]
    data = parsed.data
    assert (data["best"], data["by"], data["keys"]) == ("best", "best val/loss", ["model.n_layer", "seed"])
    entries = {entry["row"]["run"]: entry for entry in data["runs"]}
    assert list(entries) == ["best", "s1", "s2", "none"] and data["thinned"] == 1
    assert {name: entry["row"] for name, entry in entries.items()} == {
        row["run"]: row for row in table.rows_of_runs(runs)
    }
    assert [entries[name]["group"] for name in ("best", "s1", "s2", "none")] == [None, 0, 0, None]
    one = entries["s1"]
    assert one["train"]["step"] == [1, 10, 20, 30] and one["train"]["train/loss"] == [3.0, 2.5, 2.1, 2.0]
    assert one["train"]["perf/tokens_per_s"] == [None, 1000, 2000, 6000] and one["tokens_per_step"] == 64
    assert one["train"]["seconds"] == pytest.approx([0.01, 0.1, 0.3, 0.6])
    assert one["val"] == {
        "step": [10, 20, 30],
        "seconds": [0.1, 0.3, 0.6],
        "val/loss": [2.5, 2.0, 2.2],
        "val/bpb": [3.5, 2.8, 3.08],
    }
    assert entries["best"]["val"]["seconds"] == [] and entries["none"]["train"]["step"] == []
    assert entries["none"]["error"] == "no room"


def test_text_of_a_run_cannot_inject_markup_into_the_page(tmp_path):
    hostile = "</script><script>alert(1)</script><!-- <b>&amp; \u2028 ' \" \\"
    run = make_run(tmp_path / "<i>&" / 'a"><script>', curve=None, status="failed", error=hostile)
    (run / "samples.md").write_text(f"## step 5\n\n{FENCE}text\n{hostile}\n{FENCE}\n\n", encoding="utf-8")
    make_run(tmp_path / "<i>&" / "b")
    parsed = Parsed(page.render_page(reading.find_runs([tmp_path / "<i>&"])))
    assert len(parsed.texts("script")) == 2 and parsed.texts("h1") == ["2 runs: <i>&"] and not parsed.texts("i")
    entry = parsed.data["runs"][1]
    assert entry["row"]["run"] == 'a"><script>' and entry["error"] == hostile and entry["samples"] == {"5": [hostile]}
    scripts = [*Path(lm.__file__).parent.rglob("*.js")]  # they create elements and never parse markup
    js = "".join(script.read_text(encoding="utf-8") for script in scripts)
    assert len(scripts) >= 5 and not any(
        way in js for way in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(")
    )


def test_samples_are_read_by_step_and_prompt_and_an_incomplete_one_is_ignored(tmp_path):
    run = make_run(tmp_path / "run")
    longer = FENCE + "`"
    (run / "samples.md").write_text(
        f"## step 10\n\n{FENCE}text\na\n## step 3\n{FENCE}\n\n{FENCE}text\n\n{FENCE}\n\n"
        f"## step 20\n\n{longer}text\nb {FENCE}\n{FENCE}\nc\n{longer}\n\n## step 30\n\n{FENCE}text\ncut"
    )
    assert reading.find_runs([run])[0].samples == {10: ["a\n## step 3", ""], 20: [f"b {FENCE}\n{FENCE}\nc"]}


def test_long_curves_are_thinned_to_logged_points_at_the_same_steps_for_all_seeds(tmp_path):
    def curve(last, low):
        return HEAD + "".join(f"{s},{s},{low if s == 777 else s + 5},1,1,1,1\n" for s in range(1, last + 1))

    a = make_run(tmp_path / "a", "seed=1", curve=curve(1000, 2))
    b = make_run(tmp_path / "b", "seed=2", curve=curve(950, 3))
    data = Parsed(page.render_page(reading.find_runs([a, b]))).data
    assert data["thinned"] == 3  # 1000 / 398, upwards
    first, second = ({entry["row"]["run"]: entry for entry in data["runs"]}[name] for name in "ab")
    assert first["train"]["step"] == [*range(1, 1001, 3)] and first["train"]["train/loss"] == first["train"]["step"]
    assert second["train"]["step"] == [*range(1, 950, 3), 950]
    assert sorted({*first["val"]["step"]} - {*first["train"]["step"]}) == [777]  # the lowest is kept
    assert first["val"]["val/loss"][first["val"]["step"].index(777)] == 2


@pytest.mark.slow
def test_a_page_of_200_runs_stays_small(tmp_path):
    figures = "2.123456789,2.0123456789,2.9876543210123,0.00123456789,40123.456789,12.3456789"
    (run,) = reading.find_runs(
        [make_run(tmp_path / "run", curve=HEAD + "".join(f"{s},{figures}\n" for s in range(1, 2001)))]
    )
    text = f"{FENCE}text\n{'word ' * 400}\n{FENCE}\n\n"
    (tmp_path / "run" / "samples.md").write_text("".join(f"## step {s}\n\n{text}" for s in range(20, 2001, 20)))
    runs = [
        replace(run, name=str(i), config=run.config | {"seed": i % 10, "model.n_layer": i // 10}) for i in range(200)
    ]
    text = page.render_page(runs)
    assert len(text.encode()) < 5e6
    data = Parsed(text).data
    assert len(data["runs"]) == 200 and {entry["group"] for entry in data["runs"]} == set(range(20))
    assert all(100 <= len(entry[kind]["step"]) <= 160 for entry in data["runs"] for kind in ("train", "val"))
    steps = [int(step) for step in data["runs"][0]["samples"]]
    assert len(steps) == 12 and steps[0] == 20 and steps[-1] == 2000


def test_the_figures_of_a_real_run(nano):
    run = nano("callbacks.sample.every=4")
    record = json.loads((run / "run.json").read_text())
    (row,) = rows(run).values()
    assert row["final val/loss"] == pytest.approx(record["metrics"]["val/loss"]) and row["status"] == "finished"
    assert (row["best val/loss"], row["best step"]) == (
        pytest.approx(record["best"]["val/loss"]),
        record["best"]["step"],
    )
    assert row["tokens"] == 12 * 4 * 16 and row["parameters"] == record["parameters"]
    (entry,) = Parsed(page.render_page(reading.find_runs([run]))).data["runs"]
    assert entry["val"]["step"] == [4, 8, 12] and list(entry["samples"]) == ["4", "8", "12"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fragment", "lines"), [("", 3), ("#y=train/loss&x=seconds", 2), ("#bands=range", 2), ("#runs=none", 0)]
)
def test_a_browser_draws_the_page(tmp_path, fragment, lines):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no browser on this machine")
    for seed in (1, 2):
        make_run(tmp_path / "runs" / f"s{seed}", f"seed={seed}")
    make_run(tmp_path / "runs" / "best", "model.n_layer=3", curve=validation_curve(1.5, 1.4))
    (tmp_path / "page.html").write_text(page.render_page(reading.find_runs([tmp_path / "runs"])))
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000", "--dump-dom"]
    command += [f"--user-data-dir={tmp_path}/profile", f"{(tmp_path / 'page.html').as_uri()}{fragment}"]
    html = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    chart = html.split('id="chart"')[1].split("</svg>")[0]
    assert chart.count("stroke-dasharray") == lines
    body = html.split('id="runs"')[1].split("</tbody>")[0]
    assert body.count("<tr") == 4 and body.index(">best<") < body.index(">s1<") < body.index(">s2<")
