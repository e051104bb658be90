"""Kill training runs at random moments, start them again, and see whether anything of them differs from runs that were
left alone."""

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
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks.runs import ROOT
from lm.base.errors import UserError
from lm.run import checkpoint

SMALL = [  # some seconds: every part real, every size small
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
    name: str
    kills: int = 0
    aimed: int = 0  # of these, inside the write of a checkpoint or of the cache
    runs: int = 0  # carried to their end
    lost: list[str] = field(default_factory=list)  # starts that went back behind the last checkpoint
    differences: list[str] = field(default_factory=list)


def torture(
    folder: Path,
    kills: int,
    seed: int,
    names: list[str],
    jobs: int = 1,
    aim: bool = False,
    said: Callable[[str], None] = print,
) -> list[Result]:
    """`kills` in all, shared out over these of CONFIGURATIONS; with `aim`, into the writing of checkpoints and caches
    only. The same seed draws the same moments, which the machine's speed shifts."""
    share = [kills // len(names) + (i < kills % len(names)) for i in range(len(names))]

    def one(i: int) -> Result:
        result = tortured(folder / str(i), names[i], share[i], Random(f"{seed} {names[i]}"), aim)
        said(f"{result.name}: {result.kills} kills, {len(result.differences) + len(result.lost)} differences")
        return result

    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(one, range(len(names))))


def tortured(folder: Path, name: str, kills: int, random: Random, aim: bool) -> Result:
    result, overrides = Result(name), CONFIGURATIONS[name].split()
    straight = folder / "straight"
    started = time.monotonic()
    finish(start(straight, folder / "data", overrides))
    whole = time.monotonic() - started
    wanted = fingerprint(straight)
    for number in itertools.count():
        run, data = folder / f"killed{number}", folder / f"data{number}"
        while result.kills < kills:
            process = start(run, data, overrides)
            before = step_of(run)
            inside = await_write(process, run, data, random) if aim else wait(process, random.uniform(0, whole))
            if process.poll() is not None:
                break
            process.send_signal(signal.SIGKILL)
            process.communicate()
            result.kills += 1
            result.aimed += inside
            if (then := step_of(run)) < before:
                result.lost.append(f"{run}: the last checkpoint went from step {before} to {then}")
        finish(process if process.poll() is None else start(run, data, overrides))
        result.runs += 1
        record = json.loads((run / "run.json").read_text(encoding="utf-8"))
        starts = [session["from_step"] for session in record["sessions"]]
        if starts != sorted(starts):
            result.lost.append(f"{run}: it began at the steps {starts}")
        result.differences += [f"{run}: {what}" for what in compare(wanted, fingerprint(run))]
        if result.kills >= kills:
            return result
    raise AssertionError


def start(run: Path, data: Path, overrides: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "train.py"), f"hydra.run.dir={run.resolve()}", f"data.root={data.resolve()}"]
    command += ["name=torture", *SMALL, *overrides]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=-1, stderr=-1, text=True)


def finish(process: subprocess.Popen[str]) -> None:
    out, err = process.communicate()
    if process.returncode:
        raise UserError(f"{' '.join(map(str, process.args))}: {err or out}")  # type: ignore[arg-type]


def wait(process: subprocess.Popen[str], seconds: float) -> bool:
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    return False


def await_write(process: subprocess.Popen[str], run: Path, data: Path, random: Random) -> bool:
    """Until the process writes some checkpoint or cache entry, after it has been left alone for a few of them."""
    spared = random.randrange(8)
    seen: set[str] = set()
    while process.poll() is None:
        for aside in itertools.chain(asides(run / "checkpoints"), asides(data / "cache")):
            seen.add(aside)
            if len(seen) > spared:
                return True
    return False


def asides(folder: Path) -> Iterator[str]:
    """What is being written, by name and inode."""
    try:
        with os.scandir(folder) as found:
            yield from (
                f"{entry.name} {entry.inode()}" for entry in found if entry.name.startswith(".") and "~" in entry.name
            )
    except OSError:
        return


def step_of(run: Path) -> int:
    path = run / "checkpoints" / "last.ckpt"
    return checkpoint.read(path)["global_step"] if path.exists() else 0


def fingerprint(run: Path) -> dict[str, Any]:
    """All of a finished run that another one with the same config must have too: its curves in metrics.csv and in
    TensorBoard (speeds aside), its samples, and the whole state of last.ckpt and best.ckpt."""
    with (run / "metrics.csv").open(encoding="utf-8", newline="") as file:
        found: dict[str, Any] = {
            f"metrics.csv, step {row['step']}": {k: v for k, v in row.items() if not k.startswith("perf/")}
            for row in csv.DictReader(file)
        }
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it tells of every continuation
    events = EventAccumulator(str(run), size_guidance={"scalars": 0, "tensors": 0}).Reload()
    for tag in events.Tags()["scalars"]:
        if not tag.startswith("perf/"):
            found[f"TensorBoard, {tag}"] = [(event.step, event.value) for event in events.Scalars(tag)]
    found["samples.md"] = (run / "samples.md").read_text(encoding="utf-8")
    for name in ("last", "best"):
        found |= {
            f"{name}.ckpt, {key}": value for key, value in leaves(checkpoint.read(run / f"checkpoints/{name}.ckpt"))
        }
    return found


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a nested state by its path, what says when or how fast aside."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            if not str(key).startswith("perf/"):
                yield from leaves(value, f"{path}/{key}")
    elif isinstance(tree, list | tuple):
        for i, value in enumerate(tree):
            yield from leaves(value, f"{path}/{i}")
    else:
        yield path, tree


def compare(wanted: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """What differs, in words."""

    def same(a: Any, b: Any) -> bool:
        if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
            return a.dtype == b.dtype and torch.equal(a, b)
        return type(a) is type(b) and (a == b or (a != a and b != b))  # nan

    missing = [f"{key} is missing" for key in wanted if key not in found]
    extra = [f"{key} is too much" for key in found if key not in wanted]
    return missing + extra + [f"{key} differs" for key in wanted if key in found and not same(wanted[key], found[key])]
