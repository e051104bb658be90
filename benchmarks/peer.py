"""Comparison with the train.py of nanoGPT (https://github.com/karpathy/nanoGPT) on the same machine and data.

The two programs take turns. The checkout of nanoGPT is not changed: its data and output go to a temporary directory.
Times are those of optimizer steps; the start of the process, validation, saving and compilation are not counted for
either program.
"""

from __future__ import annotations

import argparse
import pickle
import re
import statistics
import subprocess
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.runs import run_training
from lm.base.errors import UserError
from lm.config import compose_config
from lm.data.batches import IGNORE, ValBatches
from lm.experiment.inputs import load_text
from lm.run.metrics_csv import Row, training_seconds

# From the README of nanoGPT: its recipe for a CPU, and its baby GPT with a batch size that suits a CPU
RECIPES = {
    "cpu": (
        "--eval_iters=20 --block_size=64 --batch_size=12 --n_layer=4 --n_head=4 --n_embd=128 --max_iters=2000 "
        "--lr_decay_iters=2000 --dropout=0.0",
        "model=nanogpt/cpu data.batch_size=12 optimizer.lr=1e-3 optimizer.beta2=0.99 schedule.warmup_steps=100",
    ),
    "baby": (
        "--eval_iters=20 --block_size=256 --batch_size=16 --n_layer=6 --n_head=6 --n_embd=384 --max_iters=5000 "
        "--lr_decay_iters=5000 --dropout=0.0",
        "model=nanogpt/baby model.dropout=0 data.batch_size=16 optimizer.lr=1e-3 optimizer.beta2=0.99",
    ),
}
CORPUS = ["corpus=tinyshakespeare", "tokenizer=char"]


def peer(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Tokens per second of the train.py of nanoGPT (--against DIR) and of this project with the same model and batch
    and otherwise default settings; the two take turns. Medians over all steps except the first ten of each turn."""
    if args.against is None:
        raise UserError("peer needs --against DIR, a checkout of nanoGPT")
    rows = []
    with tempfile.TemporaryDirectory() as tmp:
        checkout = prepare_checkout(args.against, Path(tmp), args.dir)
        for recipe, (flags, overrides) in RECIPES.items():
            steps = 150 if recipe == "cpu" else 25
            theirs: list[float] = []
            ours: list[float] = []
            for turn in range(args.repeats):
                short = f"{flags} --eval_interval=100000 --max_iters={steps}"
                theirs += nanogpt_step_times(checkout, short, Path(tmp) / "out")[10:]
                directory = Path(tmp) / f"{recipe}{turn}"
                ours += step_times(f"{overrides} trainer.max_steps={steps}", directory, args.dir)[10:]
            config = compose_config([*CORPUS, *overrides.split()])
            tokens = config.data.batch_size * config.model.block_size
            a, b = statistics.median(theirs), statistics.median(ours)
            rows.append({
                "recipe": recipe, "nanoGPT ms": a, "ours ms": b, "nanoGPT tokens/s": round(1e3 * tokens / a),
                "ours tokens/s": round(1e3 * tokens / b), "ratio": a / b,
            })  # fmt: skip
    return rows


def loss_curve(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Seconds of training until the loss over the whole validation split, in windows of 64, is at most --loss, with
    the CPU recipe of nanoGPT (--against DIR) and with configurations of this project (default:
    experiment=speedrun_cpu); they take turns."""
    if args.against is None:
        raise UserError("loss_curve needs --against DIR, a checkout of nanoGPT")
    ours = args.overrides or ["experiment=speedrun_cpu"]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as tmp:
        checkout = prepare_checkout(args.against, Path(tmp), args.dir)
        for turn in range(args.repeats):
            curve = nanogpt_curve(checkout, Path(tmp) / f"out{turn}")
            rows.append(summarize_curve("nanoGPT, its CPU recipe", curve, args.loss))
            for i, overrides in enumerate(ours):
                curve = our_curve(overrides, Path(tmp) / f"ours{turn}-{i}", args.dir)
                rows.append(summarize_curve(overrides, curve, args.loss))
    return rows


def summarize_curve(name: str, curve: list[tuple[float, float]], loss: float) -> dict[str, Any]:
    """Return a row with the seconds until a curve of (seconds, loss) first reaches `loss`, and where it ends."""
    first = next((seconds for seconds, value in curve if value <= loss), None)
    seconds, final = curve[-1]
    return {"run": name, f"s to {loss:g}": first, "seconds in all": seconds, "final loss": f"{final:.4f}"}


# ---- nanoGPT


def prepare_checkout(checkout: Path, tmp: Path, root: Path) -> Path:
    """Return a copy of the code in `checkout` with the characters of Tiny Shakespeare as its data.

    Raises UserError if `checkout` is not a checkout of nanoGPT.
    """
    if not (checkout / "model.py").exists() or not (checkout / "config/train_shakespeare_char.py").exists():
        raise UserError(f"{checkout} is not a checkout of nanoGPT")
    copy = tmp / "nanogpt"
    copy.mkdir()
    for name in ("train.py", "model.py", "configurator.py", "config"):
        (copy / name).symlink_to((checkout / name).resolve())
    config = compose_config([*CORPUS, f"data.root={root}"])
    split = load_text(config)
    text = split.train.read() + split.val.read()
    chars = sorted(set(text))
    ids = np.array([chars.index(c) for c in text], dtype=np.uint16)
    folder = copy / "data" / "shakespeare_char"
    folder.mkdir(parents=True)
    at = int(0.9 * len(text))
    ids[:at].tofile(folder / "train.bin")
    ids[at:].tofile(folder / "val.bin")
    tables = {"stoi": {c: i for i, c in enumerate(chars)}, "itos": dict(enumerate(chars)), "vocab_size": len(chars)}
    (folder / "meta.pkl").write_bytes(pickle.dumps(tables))
    return copy


# Runs the train.py of nanoGPT and keeps the checkpoint of every evaluation, which it would overwrite
KEEP_CHECKPOINTS = """
import sys, runpy, torch
save = torch.save
torch.save = lambda data, path: save(data["model"], path.replace(".pt", f"-{data['iter_num']}.pt"))
sys.argv = ["train.py", *sys.argv[1:]]
sys.path.insert(0, ".")
runpy.run_path("train.py", run_name="__main__")
"""


def nanogpt_step_times(checkout: Path, flags: str, out: Path) -> list[float]:
    """Run nanoGPT and return the milliseconds per step that it logs; a step with an evaluation includes its time."""
    command = [sys.executable, "-c", KEEP_CHECKPOINTS, "config/train_shakespeare_char.py", "--device=cpu"]
    command += ["--compile=False", "--log_interval=1", f"--out_dir={out}", *flags.split()]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"nanoGPT failed: {done.stderr.strip().splitlines()[-1]}")
    return [float(ms) for ms in re.findall(r"iter \d+: loss [\d.]+, time ([\d.]+)ms", done.stdout)]


def nanogpt_curve(checkout: Path, out: Path, every: int = 100) -> list[tuple[float, float]]:
    """Train the CPU recipe of nanoGPT; return (seconds of training, loss) at each of its evaluations."""
    flags = f"{RECIPES['cpu'][0]} --eval_interval={every} --eval_iters=1 --always_save_checkpoint=True"
    ms = nanogpt_step_times(checkout, flags, out)
    median = statistics.median(ms)
    ms = [median if i % every == 0 else t for i, t in enumerate(ms)]  # do not count evaluations as training time
    val = np.fromfile(checkout / "data" / "shakespeare_char" / "val.bin", dtype=np.uint16)
    curve = []
    for path in sorted(out.glob("ckpt-*.pt"), key=lambda path: int(path.stem.rpartition("-")[2])):
        step = int(path.stem.rpartition("-")[2])
        curve.append((sum(ms[:step]) / 1e3, nanogpt_loss(checkout, torch.load(path, weights_only=True), val)))
    return curve


def nanogpt_loss(checkout: Path, state: dict[str, torch.Tensor], val: np.ndarray, T: int = 64) -> float:
    """Return the mean loss of the model of nanoGPT over the whole split, in the windows of T tokens used here."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("nanogpt_model", checkout / "model.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.GPTConfig(block_size=T, vocab_size=65, n_layer=4, n_head=4, n_embd=128, dropout=0.0, bias=False)
    with redirect_stdout(None):  # it prints its number of parameters
        model = module.GPT(config).eval()
    model.load_state_dict({k.removeprefix("_orig_mod."): v for k, v in state.items()})
    nats = count = 0.0
    batches = ValBatches(val, T, 128)
    with torch.no_grad():
        for x, y in map(batches.__getitem__, range(len(batches))):
            logits, _ = model(x, y.clamp(min=0))  # it returns all logits only if it gets targets
            nats += float(F.cross_entropy(logits.flatten(0, 1), y.flatten(), ignore_index=IGNORE, reduction="sum"))
            count += float((y != IGNORE).sum())
    return nats / count


# ---- this project


def step_times(overrides: str, directory: Path, root: Path, every: int = 1) -> list[float]:
    """Run train.py and return the milliseconds per step that it logs, as means over `every` steps."""
    rows = train_on_shakespeare(f"{overrides} trainer.log_every={every} trainer.val_every=100000", directory, root)
    return [row["perf/step_ms"] for row in rows if "perf/step_ms" in row]


def our_curve(overrides: str, directory: Path, root: Path) -> list[tuple[float, float]]:
    """Run train.py; return (seconds of training, loss over the whole split) at each validation."""
    rows = train_on_shakespeare(f"trainer.val_batches=null trainer.log_every=10 {overrides}", directory, root)
    steps, seconds = training_seconds(rows)
    return [(float(np.interp(row["step"], steps, seconds)), row["val/loss"]) for row in rows if "val/loss" in row]


def train_on_shakespeare(overrides: str, directory: Path, root: Path) -> list[Row]:
    settings = ["name=peer", f"data.root={root.resolve()}"]
    settings += ["callbacks.sample.enabled=false", "callbacks.early_stopping.enabled=false"]
    return run_training(directory, [*CORPUS, *overrides.split(), *settings])
