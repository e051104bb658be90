"""Grids, searches and populations: no job runs twice, no job is lost, and the results are correct."""

import csv
import json
import os
import signal
import statistics
import subprocess
import sys

import pytest
import torch
import yaml
from helpers import NANO, ROOT, config_of, equal, slow_except, weights
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from test_process import LONG, finish, start, train, wait_for

import train as train_script
from lm.base import commands
from lm.config import errors, to_dict
from lm.experiment import inputs
from lm.run.directory import Pruned
from lm.sweep.jobs import Job, best_job, best_validation, describe_changes, group_by_seed
from lm.sweep.search import distribution, open_study
from lm.training.module import LanguageModule
from lm.training.trainer import select_gpu

SHORT = ("trainer.max_steps=4", "trainer.val_every=2", "trainer.save_every=2", "callbacks.sample.enabled=false")


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """Return a function that runs train.py in this process and returns its exit status and the sweep's directory."""
    monkeypatch.chdir(tmp_path)

    def run(*args, name="s"):
        GlobalHydra.instance().clear()
        typed = [*NANO, f"data.root={tmp_path}/data", *SHORT, *args, f"name={name}"]
        monkeypatch.setattr(sys, "argv", ["train.py", *typed])
        try:
            errors.run(train_script.main)
            status = 0
        except SystemExit as end:
            status = end.code
        return status, tmp_path / "outputs" / name

    return run


def read_record(job):
    return json.loads((job / "run.json").read_text())


def read_summary(directory):
    return json.loads((directory / "sweep.json").read_text())


def statuses(directory):
    return [job["status"] for job in read_summary(directory)["jobs"]]


def fail_at(patch, seed, step):
    """Make the run with this seed fail in this optimizer step, counted from 1."""
    original = LanguageModule.optimizer_step

    def optimizer_step(self, *args, **kwargs):
        if self.seed == seed and self.trainer.global_step == step - 1:
            raise RuntimeError("out of luck")
        original(self, *args, **kwargs)

    patch.setattr(LanguageModule, "optimizer_step", optimizer_step)


# ---- the grid


@pytest.mark.slow
def test_a_failed_job_does_not_stop_the_others_and_only_it_is_run_again(sweep, monkeypatch, tmp_path, capsys):
    with monkeypatch.context() as patch:
        fail_at(patch, seed=2, step=4)
        status, directory = sweep("-m", "seed=1,2,3")
    assert status == 1 and statuses(directory) == ["finished", "failed", "finished"]
    assert read_record(directory / "1")["status"] == "failed"
    assert read_summary(directory)["jobs"][1]["error"] == "out of luck"
    assert "RuntimeError: out of luck" in capsys.readouterr().err  # an unexpected error has a traceback
    loaded = []
    with monkeypatch.context() as patch:
        patch.setattr(inputs, "cache_tokens", lambda *a, kept=inputs.cache_tokens: loaded.append(a) or kept(*a))
        status, _ = sweep("-m", "seed=1,2,3")
    assert status == 0 and statuses(directory) == ["finished"] * 3
    assert len(loaded) == 1  # the two finished jobs did not load the corpus
    assert [len(read_record(directory / str(n))["sessions"]) for n in range(3)] == [1, 2, 1]
    assert read_record(directory / "1")["sessions"][1]["from_step"] == 2
    train_script.train(config_of(*NANO, f"data.root={tmp_path}/data", *SHORT, "seed=2"), tmp_path / "alone")
    assert equal(weights(tmp_path / "alone"), weights(directory / "1"))


@pytest.mark.slow
def test_fail_fast_stops_at_the_first_failure(sweep, monkeypatch):
    fail_at(monkeypatch, seed=1, step=1)
    status, directory = sweep("-m", "seed=1,2", "sweep.fail_fast=true")
    assert status == 1 and statuses(directory) == ["failed", "not run"] and not (directory / "1").exists()


@pytest.mark.slow
def test_a_changed_grid_is_refused_before_any_job_runs(sweep, monkeypatch, capsys):
    status, directory = sweep("-m", "seed=1,2")
    kept = read_summary(directory)
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(train_script, "train", lambda *_: pytest.fail("a job ran"))
        status, _ = sweep("-m", "seed=1,3", "model.n_layer=1")
    (line,) = capsys.readouterr().err.splitlines()
    assert status == 1 and "(model.n_layer was 2, now 1; seed was 1,2, now 1,3)" in line and "another name=" in line
    assert read_summary(directory) == kept
    status, directory = sweep("-m", "seed=1,2,3")  # values added at the end
    assert status == 0 and [len(read_record(directory / str(n))["sessions"]) for n in range(3)] == [1, 1, 1]
    assert read_summary(directory)["jobs"][:2] == kept["jobs"]


@pytest.mark.parametrize(
    ("swept", "fixed", "changes"),
    [
        ({"a": ["1", "2", "3"], "b": ["x", "y"]}, {}, []),
        ({"a": ["1", "2"], "b": ["x", "y", "z"]}, {}, ["b was x,y, now x,y,z"]),  # renumbers the jobs with a=2
        ({"a": ["1"], "b": ["x", "y"]}, {}, ["a was 1,2, now 1"]),
        ({"b": ["x", "y"], "a": ["1", "2"]}, {}, ["the order of its keys has changed"]),
        ({"a": ["1", "2"]}, {}, ["b was x,y, now not given"]),
        ({"a": ["1", "2"], "b": ["x", "y"]}, {"c": "5"}, ["c was not given, now 5"]),
    ],
)
def test_a_grid_may_only_be_extended(swept, fixed, changes):
    old = {"kind": "grid", "swept": {"a": ["1", "2"], "b": ["x", "y"]}, "fixed": {}}
    assert describe_changes(old, {"kind": "grid", "swept": swept, "fixed": fixed}) == changes


@pytest.mark.slow
def test_settings_that_a_resumed_run_may_change_may_change_in_a_grid(sweep):
    sweep("-m", "seed=1,2")
    status, directory = sweep("-m", "seed=1,2", "trainer.max_steps=6", "callbacks.early_stopping.patience=500")
    assert status == 0 and [read_record(directory / n)["metrics"]["step"] for n in "01"] == [6, 6]


def test_jobs_that_differ_only_in_their_seed_are_averaged():
    losses = {("0.1", "1"): 1.0, ("0.1", "2"): 2.0, ("0.1", "3"): 3.0, ("0.2", "1"): 1.5, ("0.2", "2"): None}
    jobs = [
        Job(n, {"optimizer.lr": lr, "seed": seed}, "finished" if loss else "failed", loss)
        for n, ((lr, seed), loss) in enumerate(losses.items())
    ]
    assert group_by_seed(jobs) == [
        {"overrides": {"optimizer.lr": "0.1"}, "n": 3, "mean": 2.0, "sd": 1.0},  # n - 1 in the denominator
        {"overrides": {"optimizer.lr": "0.2"}, "n": 1, "mean": 1.5, "sd": None},
    ]
    assert best_job(jobs) is jobs[0]
    assert best_job([Job(0, {}, "pruned", 0.5), Job(1, {}, "failed")]) is None


@pytest.mark.slow
def test_the_results_of_a_sweep_over_seeds(sweep, capsys):
    _, directory = sweep("-m", "optimizer.lr=0.01,1e-9", "seed=1,2")
    out = capsys.readouterr().out
    found = read_summary(directory)
    values = [job["best"] for job in found["jobs"]]
    assert values == [min(val_losses(directory / str(n)).values()) for n in range(4)]
    assert [job["overrides"] for job in found["jobs"][:2]] == [
        {"optimizer.lr": "0.01", "seed": "1"},
        {"optimizer.lr": "0.01", "seed": "2"},
    ]
    assert found["best"] in (0, 1)  # 1e-9 learns nothing
    assert found["seeds"][1]["sd"] == pytest.approx(abs(values[2] - values[3]) / 2**0.5)
    assert f"{statistics.fmean(values[:2]):.4f}" in out and "finished  best" in out and "4 jobs: 4 finished" in out


def val_losses(run):
    with (run / "metrics.csv").open() as file:
        return {int(row["step"]): float(row["val/loss"]) for row in csv.DictReader(file) if row["val/loss"]}


def test_the_result_of_a_job_is_its_best_validation(tmp_path):
    assert best_validation(tmp_path, "val/loss") == (None, None)
    (tmp_path / "metrics.csv").write_text("step,val/loss,val/bpb\n1,,\n2,3.0,5.0\n4,2.0,4.5\n6,2.5,4.0\n")
    assert best_validation(tmp_path, "val/loss") == (2.0, 4)
    assert best_validation(tmp_path, "val/bpb") == (4.0, 6)


def test_the_config_of_a_run_does_not_contain_the_sweep():
    assert "sweep" not in to_dict(config_of(*NANO, "sweep.trials=3"))


@pytest.mark.slow_after(2)
@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["sweep=serch"], "did you mean 'search'?"),
        (["sweep.trails=3"], "did you mean 'sweep.trials'?"),
        (["-m", "optimizer.lr=interval(1e-4,1e-2)"], "is a range, but a grid takes values: use sweep=search"),
        (["optimizer.lr=interval(1e-4,1e-2)"], "requires --multirun"),
        (["-m", "seed=1,2", "hydra/launcher=slurm"], "-m pip install hydra-submitit-launcher"),
        (["-m", "seed=1,2", "hydra/launcher=joblb"], "hydra/launcher=joblb is not an option; did you mean 'joblib'?"),
        (["sweep=search", "sweep.sampler=tpa"], "sweep.sampler=tpa must be one of tpe, random; did you mean 'tpe'?"),
        (["sweep=search", "optimizer.lr=0.1"], "a search needs a range or a list of values"),
        (["sweep=search", "optimizer.lr=interval(1,0)"], "optimizer.lr=interval(1,0) is not a valid range"),
        (["sweep=search", "model.n_layer=range(4,4)"], "model.n_layer=range(4,4) is not a valid range"),
        (["sweep=population", "optimizer.lr=0.1,0.2"], "give optimizer.lr one value"),
        (["sweep=population", "sweep.survivors=5"], "sweep.survivors=5 must be at most sweep.population=4"),
    ],
)
def test_invalid_settings_give_an_error_in_one_line(sweep, capsys, args, says):
    status, directory = sweep(*args)
    (line,) = capsys.readouterr().err.splitlines()
    assert status == 1 and line.startswith("error: ") and says in line and not directory.exists()


def test_a_launcher_that_is_not_installed_gives_the_install_command(sweep, capsys, monkeypatch):
    from hydra.core.config_store import ConfigStore

    monkeypatch.delitem(ConfigStore.instance().repo["hydra"]["launcher"], "joblib.yaml")
    assert sweep("-m", "seed=1,2", "hydra/launcher=joblib")[0] == 1
    assert f"hydra/launcher=joblib is not installed: {commands.install('.[sweep]')}" in capsys.readouterr().err


def test_a_sweep_in_the_directory_of_a_run_is_refused(sweep, nano, tmp_path, capsys):
    nano(*SHORT, name="outputs/s")
    assert sweep("-m", "seed=1,2")[0] == 1
    assert "is a run, not a sweep" in capsys.readouterr().err and not (tmp_path / "outputs/s/0").exists()


def test_parallel_jobs_select_gpu_on_the_devices(monkeypatch):
    taken = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    for job in range(4):
        select_gpu(job)
    assert taken == [0, 1, 0, 1]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    select_gpu(4)
    assert len(taken) == 4


# ---- the search


@pytest.mark.parametrize(
    ("typed", "kind", "low", "high", "log", "step"),
    [
        ("a=interval(0,0.5)", "Float", 0.0, 0.5, False, None),
        ("a=tag(log,interval(1e-4,1e-2))", "Float", 1e-4, 1e-2, True, None),
        ("a=int(interval(1,8))", "Int", 1, 8, False, 1),
        ("a=tag(log,int(interval(1,64)))", "Int", 1, 64, True, 1),
        ("a=range(1,9)", "Int", 1, 8, False, 1),  # without its end, as in Python
        ("a=range(2,9,3)", "Int", 2, 8, False, 3),
        ("a=range(0.1,0.5,0.1)", "Float", 0.1, 0.4, False, 0.1),
    ],
)
def test_ranges_of_hydra_become_distributions_of_optuna(typed, kind, low, high, log, step):
    (override,) = OverridesParser.create().parse_overrides([typed])
    found = distribution(override)
    assert type(found).__name__ == f"{kind}Distribution"
    assert (found.low, found.high, found.log, found.step) == (low, pytest.approx(high), log, step)


@pytest.mark.parametrize("typed", ["a=x,y", "a=choice(x,y)"])
def test_a_list_of_values_becomes_a_categorical_distribution(typed):
    (override,) = OverridesParser.create().parse_overrides([typed])
    assert distribution(override).choices == ("x", "y")


def test_a_search_without_optuna_gives_the_install_command(sweep, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    status, directory = sweep("sweep=search")
    assert status == 1 and f"sweep=search needs Optuna: {commands.install('.[sweep]')}" in capsys.readouterr().err
    assert not directory.exists()


SPACE = ("sweep=search", "optimizer.lr=tag(log,interval(1e-3,1e-1))", "model.dropout=0,0.1")


@pytest.mark.slow
def test_a_search_reports_its_best_run_and_resumes_with_more_trials(sweep, capsys):
    status, directory = sweep(*SPACE, "sweep.trials=2", "sweep.pruner=none", name="a")
    assert status == 0 and statuses(directory) == ["finished"] * 2
    status, directory = sweep(*SPACE, "sweep.trials=3", "sweep.pruner=none", name="a")
    out = capsys.readouterr().out
    found = read_summary(directory)
    assert "2 of 3 trials are done" in out and statuses(directory) == ["finished"] * 3
    assert [len(read_record(directory / str(n))["sessions"]) for n in range(3)] == [1, 1, 1]
    best = min(found["jobs"], key=lambda job: job["best"])
    assert found["best"] == best["number"]
    line = out.splitlines()[-1]
    assert all(f"{key}={value}" in line for key, value in best["overrides"].items())
    assert line.startswith(f"  {commands.train(['name=a-best'])} ") and "sweep" not in line
    rows = list(csv.DictReader((directory / "study.csv").open()))
    assert [float(row["val/loss"]) for row in rows] == [min(val_losses(directory / str(n)).values()) for n in range(3)]
    lrs = {job["overrides"]["optimizer.lr"] for job in found["jobs"]}
    assert len(lrs) == 3 and all(1e-3 <= float(lr) <= 1e-1 for lr in lrs)


@pytest.mark.parametrize(("others", "seen"), [(0.0, [4, 8]), (100.0, [4, 8, 12])])
def test_a_trial_worse_than_the_median_ends_early(nano, tmp_path, others, seen):
    """Five earlier trials had 0 nats, or 100, at every validation. A trial cannot end at its first validation."""
    from optuna.distributions import FloatDistribution
    from optuna.trial import create_trial

    study = open_study(tmp_path)
    for x in range(5):
        study.add_trial(
            create_trial(
                params={"x": x},
                distributions={"x": FloatDistribution(0, 9)},
                value=others,
                intermediate_values=dict.fromkeys((4, 8, 12), others),
            )
        )
    assert study.ask().number == 5
    settings = ("sweep.trial=5", "sweep.warmup=1", "sweep.startup=5")
    if others:
        nano(*settings, name="5")
    else:
        with pytest.raises(Pruned):
            nano(*settings, name="5")
    assert read_record(tmp_path / "5")["status"] == ("finished" if others else "pruned")
    reported = open_study(tmp_path).trials[5].intermediate_values
    assert reported == val_losses(tmp_path / "5") and sorted(reported) == seen


# ---- the population


@pytest.mark.slow
def test_a_population_continues_from_the_best_runs(sweep):
    args = ("sweep=population", "sweep.population=4", "sweep.survivors=2", "sweep.rounds=2", "sweep.steps=4", "seed=10")
    status, directory = sweep(*args)
    found = read_summary(directory)["jobs"]
    assert status == 0 and statuses(directory) == ["finished"] * 8
    losses = [read_record(directory / str(n))["metrics"]["val/loss"] for n in range(4)]
    first, second = sorted(range(4), key=losses.__getitem__)[:2]
    assert [job["parent"] for job in found] == [None] * 4 + [first, second, first, second]
    configs = [yaml.safe_load((directory / str(n) / "config.yaml").read_text()) for n in range(8)]
    assert [config["seed"] for config in configs] == list(range(10, 18))
    assert configs[4]["init_from"] == str(
        directory.relative_to(directory.parents[1]) / f"{first}/checkpoints/last.ckpt"
    )
    assert all(config["init_optimizer"] == "keep" for config in configs[4:])
    assert not equal(weights(directory / "4"), weights(directory / "6"))  # same parent, different seeds


@pytest.mark.slow
def test_a_population_can_insert_layers(sweep):
    size = ("sweep.population=1", "sweep.survivors=1", "sweep.rounds=2", "sweep.steps=2", "optimizer.lr=1e-9")
    status, directory = sweep("sweep=population", "sweep.grow=true", *size)
    assert status == 0
    configs = [yaml.safe_load((directory / n / "config.yaml").read_text()) for n in "01"]
    assert [config["model"]["n_layer"] for config in configs] == [2, 3]
    small, grown = (read_record(directory / n)["metrics"]["val/loss"] for n in "01")
    assert grown == pytest.approx(small, abs=1e-5)  # the new layer changes nothing, and nothing is learned with lr=1e-9


# ---- real processes


def jobs_of(directory):
    return sorted(int(path.name) for path in directory.iterdir() if path.name.isdigit())


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_grid_is_resumed_by_the_same_command(tmp_path, signum):
    args = ("-m", *LONG, "seed=1,2,3", "name=grid")
    process, grid = start(tmp_path, *args), tmp_path / "outputs/grid"
    wait_for(grid / "1/checkpoints/last.ckpt", process)
    process.send_signal(signum)
    status, _, err = finish(process)
    assert status == (-signum if signum == signal.SIGKILL else 128 + signum) and "Traceback" not in err
    assert jobs_of(grid) == [0, 1]
    before = (grid / "0/checkpoints/last.ckpt").stat().st_mtime_ns
    train(tmp_path, *args)
    assert statuses(grid) == ["finished"] * 3
    assert (grid / "0/checkpoints/last.ckpt").stat().st_mtime_ns == before
    assert [len(read_record(grid / n)["sessions"]) for n in "012"] == [1, 2, 1]
    assert read_record(grid / "1")["sessions"][1]["from_step"] > 0
    train(tmp_path, *LONG, "seed=2", "name=alone")
    assert equal(weights(tmp_path / "outputs/alone"), weights(grid / "1"))


PARALLEL = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")


@pytest.mark.slow
def test_parallel_jobs_equal_separate_runs(tmp_path):
    train(tmp_path, "-m", "model.dropout=0.1", "optimizer.lr=0.01,0.003,0.001", *PARALLEL, "name=grid")
    for job, lr in enumerate(("0.01", "0.003", "0.001")):
        train(tmp_path, "model.dropout=0.1", f"optimizer.lr={lr}", f"name=alone{job}")
        assert equal(weights(tmp_path / f"outputs/alone{job}"), weights(tmp_path / f"outputs/grid/{job}"))


@pytest.mark.slow
def test_parallel_jobs_share_the_cores(tmp_path):
    env = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    command = [sys.executable, str(ROOT / "train.py"), *NANO, "-m", "seed=1,2", *PARALLEL, "name=grid"]
    subprocess.run(command, cwd=tmp_path, env=env, check=True, capture_output=True, timeout=300)
    share = max(len(os.sched_getaffinity(0)) // 2, 1)
    assert all(f", {share} threads" in read_record(tmp_path / "outputs/grid" / n)["device_name"] for n in "01")


@pytest.mark.slow
def test_parallel_jobs_save_and_stop_on_sigterm(tmp_path):
    args = ("-m", *LONG, "trainer.max_steps=100000", "seed=1,2,3", *PARALLEL, "name=grid")
    process, grid = start(tmp_path, *args), tmp_path / "outputs/grid"
    for job in "01":
        wait_for(grid / job / "checkpoints/last.ckpt", process)
    process.terminate()
    assert finish(process)[0] == 128 + signal.SIGTERM
    assert [read_record(grid / job)["status"] for job in "01"] == ["stopped", "stopped"]
    assert jobs_of(grid) == [0, 1] or not list((grid / "2").glob("checkpoints/*"))


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [(), PARALLEL])
def test_a_killed_search_resumes_with_the_same_trials(tmp_path, launcher):
    quick = ("trainer.max_steps=60", "trainer.val_every=10", "trainer.save_every=10", "callbacks.sample.enabled=false")
    space = ("sweep=search", "optimizer.lr=tag(log,interval(1e-4,1e-1))", "optimizer=adamw,lion")
    args = (*quick, *space, "sweep.trials=8", "sweep.startup=3", "sweep.warmup=1", *launcher)
    train(tmp_path, *args, "name=straight")
    process, killed = start(tmp_path, *args, "name=killed"), tmp_path / "outputs/killed"
    wait_for(killed / "4/checkpoints/last.ckpt", process)
    process.kill()  # its parallel jobs keep running until the next command ends them
    process.wait()
    # the newest job may only have its directory
    started = [n for n in jobs_of(killed) if (killed / str(n) / "run.json").exists()]
    done = [n for n in started if read_record(killed / str(n))["status"] in ("finished", "pruned")]
    train(tmp_path, *args, "name=killed")
    a, b = (read_summary(tmp_path / "outputs" / name) for name in ("straight", "killed"))
    assert len(b["jobs"]) == 8 and {job["status"] for job in b["jobs"]} == {"finished", "pruned"}
    assert all(len(read_record(killed / str(n))["sessions"]) == 1 for n in done[:4])
    assert sorted(job["number"] for job in b["jobs"]) == list(range(8))
    assert b["jobs"][b["best"]]["best"] == min(job["best"] for job in b["jobs"] if job["status"] == "finished")
    if not launcher:
        assert a["jobs"] == b["jobs"]


@pytest.mark.slow
def test_a_killed_population_resumes_with_the_same_results(tmp_path):
    args = ("sweep=population", "sweep.rounds=2", "sweep.steps=60", "trainer.save_every=10")
    train(tmp_path, *args, "name=straight")
    process, killed = start(tmp_path, *args, "name=killed"), tmp_path / "outputs/killed"
    wait_for(killed / "5/checkpoints/last.ckpt", process)
    process.kill()
    process.communicate()
    train(tmp_path, *args, "name=killed")
    a, b = (read_summary(tmp_path / "outputs" / name) for name in ("straight", "killed"))
    for key in ("number", "parent", "status", "best", "step"):
        assert [job[key] for job in a["jobs"]] == [job[key] for job in b["jobs"]]
    assert [len(read_record(killed / str(n))["sessions"]) for n in range(8)] == [1, 1, 1, 1, 1, 2, 1, 1]


@pytest.mark.slow_after(1)
@pytest.mark.parametrize(
    "key", slow_except(["name=a,b"], ["name=a,b", "sweep.metric=val/loss,val/bpb", "sweep.fail_fast=true,false"])
)
@pytest.mark.parametrize("kind", [[], ["sweep=search", "sweep.trials=1"], ["sweep=population"]])
def test_settings_of_the_whole_sweep_cannot_be_swept(sweep, capsys, key, kind):
    status, directory = sweep(
        "-m", *kind, "seed=1", *([key] if key[:4] != "name" else []), name="a,b" if key[:4] == "name" else "s"
    )
    assert status == 1
    assert f"{key.partition('=')[0]} takes one value: the jobs of a sweep are the runs" in capsys.readouterr().err
    assert not directory.exists()
