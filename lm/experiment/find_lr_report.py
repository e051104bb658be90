"""Reports of a learning-rate range test: figures for JSON, a table, a plot, and TensorBoard logs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm.base.console import format_table
from lm.base.errors import UserError
from lm.base.plotting import pyplot
from lm.config import Config
from lm.experiment.find_lr import Curve

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS = 20  # rows of the table, in addition to the points
POINTS = {"fall_ends": "the fall ends", "lowest": "lowest", "diverged": "diverged"}


def check_outputs(out: Path | None, logdir: Path | None) -> None:
    """Check, before the test runs, that its results can be written. Raises UserError."""
    if out and (out.suffix != ".png" or not out.parent.is_dir()):
        raise UserError(f"--out {out} must be a .png file in an existing directory")
    if logdir and any(logdir.glob("events.out.tfevents.*")):
        raise UserError(
            f"--logdir {logdir} already contains curves, and these would be mixed: choose another directory"
        )
    if out or logdir:
        pyplot()


def summarize(curve: Curve, config: Config) -> dict[str, Any]:
    """Return the suggestion, its reason, the points of the curve as step, lr and losses, and the configured lr."""
    suggestion, why = curve.suggestion()

    def point(step: int | None) -> dict[str, Any] | None:
        if step is None:
            return None
        finite = step < len(curve.losses)
        loss, smoothed = (curve.losses[step], curve.smoothed[step]) if finite else (None, None)
        return {"step": step + 1, "lr": curve.lrs[step], "loss": loss, "smoothed": smoothed}

    return {
        "suggestion": suggestion,
        "why": why,
        "fall_ends": point(curve.fall_end),
        "lowest": point(curve.lowest if curve.losses else None),
        "diverged": point(curve.diverged),
        "now": config.optimizer.with_default_lr(config.model.n_embd).lr,
    }


def format_report(curve: Curve, summary: dict[str, Any]) -> str:
    """Return a table of about ROWS steps of the curve with its points, and the suggestion."""
    marks: dict[int, str] = {}
    for key, name in POINTS.items():
        if summary[key]:
            step = summary[key]["step"] - 1
            marks[step] = f"{marks[step]}, {name}" if step in marks else name
    last = len(curve.losses) - 1
    steps = sorted({round(i * last / (ROWS - 1)) for i in range(ROWS)} | marks.keys()) if last >= 0 else sorted(marks)
    rows = [("lr", "loss", "smoothed")]
    for step in steps:
        finite = step <= last
        figures = (f"{curve.losses[step]:.3f}", f"{curve.smoothed[step]:.3f}") if finite else ("not finite", "")
        rows.append((f"{curve.lrs[step]:.2e}", *figures))
    lines = format_table(rows).splitlines()
    lines[1:] = [f"{line:<28}  {marks.get(step, '')}".rstrip() for line, step in zip(lines[1:], steps, strict=True)]
    configured = f"optimizer.lr is {summary['now']:g} now"
    if summary["suggestion"] is None:
        return "\n".join([*lines, "", f"no suggestion: {summary['why']} ({configured})"])
    suggestion = f"suggestion: optimizer.lr={summary['suggestion']:.2g}, {summary['why']} ({configured})"
    return "\n".join([*lines, "", suggestion])


def plot(curve: Curve, summary: dict[str, Any]) -> Figure:
    """Plot the loss over the learning rate, with the points and the suggestion."""
    figure, axes = pyplot().subplots(figsize=(8, 4.5), layout="constrained")
    lrs = curve.lrs[: len(curve.losses)]
    axes.plot(lrs, curve.losses, alpha=0.4, linewidth=1, label="loss")
    axes.plot(lrs, curve.smoothed, label="smoothed")
    for (key, name), marker in zip(POINTS.items(), "ovx", strict=True):
        point = summary[key]
        if point and point["loss"] is not None:
            axes.plot(point["lr"], point["smoothed"], marker, color="black", label=f"{name}: {point['lr']:.2g}")
        elif point:
            axes.axvline(point["lr"], color="black", linestyle=":", label=f"not finite: {point['lr']:.2g}")
    if suggestion := summary["suggestion"]:
        axes.axvline(suggestion, color="green", linestyle="--", label=f"suggestion: {suggestion:.2g}")
    axes.set(xscale="log", xlabel="learning rate", ylabel="nats per token", title="learning-rate range test")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def write_tensorboard(curve: Curve, summary: dict[str, Any], logdir: Path) -> None:
    """Write the curve and the plot for TensorBoard."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(logdir)) as writer:
        for step, (lr, loss) in enumerate(zip(curve.lrs, curve.losses, strict=False), 1):
            writer.add_scalar("find_lr/lr", lr, step)
            writer.add_scalar("find_lr/loss", loss, step)
        writer.add_figure("find_lr", plot(curve, summary), len(curve.losses))
