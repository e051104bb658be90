"""The summaries that a run prints at its start and at its end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm.base import commands
from lm.base.hardware import device_name, memory_bytes
from lm.config import Config
from lm.data.corpus import Text
from lm.data.tokenizer import Tokenizer
from lm.experiment.capacity import format_bytes
from lm.model import GPT
from lm.optim.schedule import ScheduleConfig
from lm.run.directory import Run

if TYPE_CHECKING:
    from lm.training.datamodule import TokenData


def start_summary(
    config: Config, model: GPT, tokenizer: Tokenizer, text: Text, data: TokenData, chosen: dict[str, Any]
) -> str:
    """Return the lines before the first step: the main settings, and what was chosen for this machine."""
    c, batch, horizon, device = model.config, config.data.batch_size, chosen["horizon"], chosen["device"]
    train, val = len(data.tokens.train), len(data.tokens.val)
    tokens = horizon * batch * c.block_size
    warmup = config.schedule.warmup(horizon)
    attention = config.attention.resolve(device, chosen["precision"], c.block_size)
    rows = {
        "model": f"{model.num_params:,} parameters: {c.n_layer} layers of {c.n_embd}, {c.n_head} heads, "
        f"context {c.block_size}, {c.position} positions, {c.norm}, {c.mlp}",
        "corpus": f"{train:,} tokens to train on, {val:,} ({100 * val / (train + val):.1f} %) to validate"
        + (f", in {len(text.train.ends):,} and {len(text.val.ends):,} documents" if text.documents else "")
        + f"; vocabulary {tokenizer.vocab_size:,}",
        "training": f"{horizon:,} steps of {batch} x {c.block_size} = {tokens:,} tokens, "
        f"{horizon * batch / data.windows:.1f} passes over the text",
        "schedule": f"learning rate {chosen['lr']:g} (peak), after {warmup} warmup steps",
        "device": f"{device} ({device_name(device)}), precision {chosen['precision']}, attention {attention}",
    }
    micro = chosen["micro_batch_size"]
    sequences = "1 sequence" if micro == 1 else f"{micro} sequences"
    rows["memory"] = (
        f"about {format_bytes(chosen['memory'])} of {format_bytes(memory_bytes(device))} for {sequences} at a time "
        "(see scripts/memory.py)"
    )
    if chosen["floor"] is not None:
        rows["optimum"] = f"lowest possible val/loss {chosen['floor']:.4f}; val/excess is the difference to it"
    lines = [f"{name:<9} {row}" for name, row in rows.items()]
    if config.init_from and config.init_tokenizer == "keep":
        lines.append(f"note      the tokenizer comes with the weights of {config.init_from}; tokenizer= is ignored")
    if config.data.respect_documents and not text.documents:
        lines.append("warning   data.respect_documents=true has no effect: the corpus is one document")
    if warmup >= horizon:
        lines.append(
            f"warning   schedule.warmup_steps={warmup} is not below the {horizon} steps of the "
            "run: the learning rate never reaches optimizer.lr"
        )
    return "\n".join(lines)


def schedule_change(schedule: ScheduleConfig, step: int, before: int, now: int) -> str:
    """Describe what a new number of steps changes for a run at `step`; empty if the number is the same."""
    if now == before:
        return ""
    old, new = ([schedule.factor(s, horizon) for s in range(step + 1)] for horizon in (before, now))
    change = f"{now:,} steps instead of {before:,}: "
    if old[:step] == new[:step]:
        return change + f"the result is identical to that of a run of {now:,} steps from the start"
    return change + (
        f"the learning rate jumps here from {old[step]:.3g} to {new[step]:.3g} of its peak; a run of {now:,} steps "
        "from the start would have had other learning rates so far"
    )


def end_summary(run: Run, overrides: Sequence[str], seconds: float | None = None) -> str:
    """Return the final metrics, the directory of the run, and commands to paste for the next steps."""
    metrics, best, directory = run.record["metrics"], run.record["best"], commands.shortest_path(run.directory)
    status = f"finished in {format_duration(seconds)}" if seconds else "already finished"
    figures = "  ".join(f"{key} {metrics[key]:.4f}" for key in ("val/loss", "val/ppl", "val/bpb"))
    outputs = "outputs" if Path(directory).parts[0] == "outputs" else directory
    next_commands = [
        commands.script("generate", directory, "--max-new-tokens", 300),
        commands.tool("tensorboard", "tensorboard.main", "--logdir", outputs),
        commands.resume(run.directory, overrides, extend(run)),
    ]
    return "\n".join([
        f"{status}: step {metrics['step']}  {figures}  (best val/loss {best['val/loss']:.4f} at step {best['step']})",
        f"the run is in {directory}; next commands:",
        *(f"  {line}" for line in next_commands),
    ])  # fmt: skip


def extend(run: Run) -> dict[str, object]:
    """Return the setting that continues a finished run: twice its length, in the unit in which it was set.

    A run that was stopped early has steps left, so it needs early stopping turned off.
    """
    trainer, step = run.config["trainer"], run.record["metrics"]["step"]
    if step < run.record["horizon"]:
        return {"callbacks.early_stopping.enabled": False}
    unit = next((key for key in ("max_epochs", "max_tokens") if trainer[key] is not None), "max_steps")
    return {f"trainer.{unit}": 2 * step if unit == "max_steps" else 2 * trainer[unit]}


def format_duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else time.strftime("%H:%M:%S", time.gmtime(seconds))
