"""Kill training runs at random moments, resume them, and compare them bit for bit with uninterrupted runs."""

from __future__ import annotations

import csv
import itertools
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks.runs import ROOT
from lm.base.console import format_table
from lm.base.errors import UserError
from lm.run import checkpoint

SMALL = [  # a run of a few seconds that uses every part of the project
    "corpus=words", "corpus.lines=3000", "tokenizer=char", "model.n_layer=2", "model.n_head=2", "model.n_embd=32",
    "model.block_size=32", "data.batch_size=8", "optimizer.lr=0.005", "schedule.warmup_steps=5",
    "trainer.max_steps=300", "trainer.val_every=25", "trainer.save_every=20", "trainer.log_every=1",
    "callbacks.sample.every=50", "callbacks.sample.max_new_tokens=16", "callbacks.health.enabled=false", "device=cpu",
]  # fmt: skip
CONFIGURATIONS = {
    "adamw, cosine, accumulation, dropout": "precision=fp32 data.micro_batch_size=2 model.dropout=0.1",
    "muon, wsd, bf16, averaged weights": "optimizer=muon schedule=wsd precision=bf16 callbacks.average.enabled=true",
    "lion, plateau, loader processes": "optimizer=lion schedule.plateau.enabled=true schedule.plateau.patience=25 "
    "schedule.plateau.factor=0.5 data.num_workers=2 precision=fp32 optimizer.lr=0.003",
    "8-bit adamw, linear, background writing": "optimizer=adamw_8bit schedule=linear precision=bf16 model.n_embd=64 "
    "callbacks.checkpoint.background=true",
    "sgd, exponential, BPE, early stopping": "optimizer=sgd schedule=exponential tokenizer=bpe optimizer.lr=0.1 "
    "tokenizer.vocab_size=300 precision=fp32 callbacks.early_stopping.patience=100 "
    "callbacks.early_stopping.min_delta=0.05",
    "rmsprop, inverse_sqrt, saved by the clock": "optimizer=rmsprop schedule=inverse_sqrt trainer.save_every=0.3s "
    "precision=bf16 trainer.on_nonfinite=skip",
    "adam, step, bf16_true, documents": "optimizer=adam schedule=step precision=bf16_true corpus=sequence "
    "corpus.lines=3000 data.respect_documents=true",
    "adamw, constant, compiled": "schedule=constant trainer.compile=true precision=fp32 model.dropout=0.1",
}  # fmt: skip


@dataclass
class Result:
    """Outcome of the kills of one configuration."""

    name: str
    kills: int = 0
    aimed: int = 0  # kills while a checkpoint or a cache entry was written
    runs: int = 0  # completed runs
    lost: list[str] = field(default_factory=list)  # starts from an earlier step than that of the last checkpoint
    differences: list[str] = field(default_factory=list)  # from the uninterrupted run

    def problems(self) -> list[str]:
        return [*self.lost, *self.differences]


def torture(
    folder: Path,
    kills: int,
    seed: int,
    names: list[str],
    jobs: int = 1,
    aim: bool = False,
    report: Callable[[str], None] = print,
) -> list[Result]:
    """Run the test on some of CONFIGURATIONS and return the result of each.

    The same seed draws the same moments in seconds. What a run is doing at such a moment depends on the machine.

    Args:
        folder: directory for the runs.
        kills: number of kills, divided evenly among the configurations.
        names: names of the configurations.
        jobs: number of configurations that run at a time.
        aim: kill only while a checkpoint or a cache entry is written.
        report: called with one line for each configuration that is done.
    """
    share = [kills // len(names) + (i < kills % len(names)) for i in range(len(names))]

    def one(i: int) -> Result:
        result = torture_configuration(folder / str(i), names[i], share[i], Random(f"{seed} {names[i]}"), aim)
        report(f"{result.name}: {result.kills} kills, {len(result.problems())} differences")
        return result

    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(one, range(len(names))))


def format_results(results: Sequence[Result]) -> str:
    """Return a table with one row for each configuration and one for their sums."""
    rows = [("configuration", "kills", "inside a write", "runs", "differences")]
    rows += [(r.name, str(r.kills), str(r.aimed), str(r.runs), str(len(r.problems()))) for r in results]
    kills, aimed, runs = (sum(getattr(r, key) for r in results) for key in ("kills", "aimed", "runs"))
    problems = sum(len(r.problems()) for r in results)
    return format_table([*rows, ("all", str(kills), str(aimed), str(runs), str(problems))])


def torture_configuration(folder: Path, name: str, kills: int, random: Random, aim: bool) -> Result:
    """Kill and resume runs of one configuration until `kills` is reached, and compare each with the same run."""
    result, overrides = Result(name), CONFIGURATIONS[name].split()
    uninterrupted = folder / "straight"
    started = time.monotonic()
    wait_for_success(start(uninterrupted, folder / "data", overrides))
    seconds = time.monotonic() - started
    expected = fingerprint(uninterrupted)
    for number in itertools.count():
        run, data = folder / f"killed{number}", folder / f"data{number}"
        while result.kills < kills:
            process = start(run, data, overrides)
            before = last_step(run)
            if aim:
                inside = wait_for_write(process, run, data, random)
            else:
                inside = wait_at_most(process, random.uniform(0, seconds))
            if process.poll() is not None:
                break
            process.send_signal(signal.SIGKILL)
            process.communicate()
            result.kills += 1
            result.aimed += inside
            if (after := last_step(run)) < before:
                result.lost.append(f"{run}: the last checkpoint went back from step {before} to {after}")
        wait_for_success(process if process.poll() is None else start(run, data, overrides))
        result.runs += 1
        record = json.loads((run / "run.json").read_text(encoding="utf-8"))
        starts = [session["from_step"] for session in record["sessions"]]
        if starts != sorted(starts):
            result.lost.append(f"{run}: it started from an earlier step than before: {starts}")
        result.differences += [f"{run}: {line}" for line in list_differences(expected, fingerprint(run))]
        if result.kills >= kills:
            return result
    raise AssertionError


def start(run: Path, data: Path, overrides: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "train.py"), f"hydra.run.dir={run.resolve()}", f"data.root={data.resolve()}"]
    command += ["name=torture", *SMALL, *overrides]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=-1, stderr=-1, text=True)


def wait_for_success(process: subprocess.Popen[str]) -> None:
    """Wait until a process ends. Raises UserError if it failed."""
    out, err = process.communicate()
    if process.returncode:
        raise UserError(f"{' '.join(map(str, process.args))} failed: {err or out}")  # type: ignore[arg-type]


def wait_at_most(process: subprocess.Popen[str], seconds: float) -> bool:
    """Wait for a process, at most `seconds`; return False because no write is aimed at."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    return False


def wait_for_write(process: subprocess.Popen[str], run: Path, data: Path, random: Random) -> bool:
    """Wait until the process writes a checkpoint or a cache entry, after letting a random number of writes complete.

    Return whether it is writing; it is not if it has ended.
    """
    spared = random.randrange(8)
    seen: set[str] = set()
    while process.poll() is None:
        for file in itertools.chain(temporary_files(run / "checkpoints"), temporary_files(data / "cache")):
            seen.add(file)
            if len(seen) > spared:
                return True
    return False


def temporary_files(folder: Path) -> Iterator[str]:
    """Yield the name and inode of each file in a folder that is being written."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") and "~" in entry.name:
                    yield f"{entry.name} {entry.inode()}"
    except OSError:
        return


def last_step(run: Path) -> int:
    """Return the step of the last checkpoint, 0 if there is none."""
    path = run / "checkpoints" / "last.ckpt"
    return checkpoint.read(path)["global_step"] if path.exists() else 0


def fingerprint(run: Path) -> dict[str, Any]:
    """Collect everything of a completed run that is the same in every run with the same config.

    It consists of the metrics in metrics.csv and in TensorBoard (without speeds), the samples, and the whole state of
    last.ckpt and best.ckpt.
    """
    with (run / "metrics.csv").open(encoding="utf-8", newline="") as file:
        found: dict[str, Any] = {
            f"metrics.csv, step {row['step']}": {k: v for k, v in row.items() if not k.startswith("perf/")}
            for row in csv.DictReader(file)
        }
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it warns about every resumed run
    events = EventAccumulator(str(run), size_guidance={"scalars": 0, "tensors": 0}).Reload()
    for tag in events.Tags()["scalars"]:
        if not tag.startswith("perf/"):
            found[f"TensorBoard, {tag}"] = [(event.step, event.value) for event in events.Scalars(tag)]
    found["samples.md"] = (run / "samples.md").read_text(encoding="utf-8")
    for name in ("last", "best"):
        state = checkpoint.read(run / f"checkpoints/{name}.ckpt")
        found |= {f"{name}.ckpt, {key}": value for key, value in iterate_leaves(state)}
    return found


def iterate_leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the path and the value of every leaf of a nested state, except speeds."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            if not str(key).startswith("perf/"):
                yield from iterate_leaves(value, f"{path}/{key}")
    elif isinstance(tree, list | tuple):
        for i, value in enumerate(tree):
            yield from iterate_leaves(value, f"{path}/{i}")
    else:
        yield path, tree


def list_differences(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Return one line for each entry that differs."""

    def same(a: Any, b: Any) -> bool:
        if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
            return a.dtype == b.dtype and torch.equal(a, b)
        return type(a) is type(b) and (a == b or (a != a and b != b))  # nan

    missing = [f"{key} is missing" for key in expected if key not in found]
    extra = [f"{key} is not in the uninterrupted run" for key in found if key not in expected]
    shared = [key for key in expected if key in found]
    return missing + extra + [f"{key} differs" for key in shared if not same(expected[key], found[key])]
