"""Which learning rate? python scripts/find_lr.py model=tiny corpus=shakespeare --out lr.png

Takes what train.py takes, and trains as it would, on a copy, while the rate rises from --min to --max: the same weights
to begin with, the same batches. Nothing is kept of it. What it suggests is a first guess, for a sweep to improve on.
"""

import argparse
import json
from pathlib import Path

try:
    from lm import cli
except ModuleNotFoundError:
    raise SystemExit("error: lm is not installed; run `make install`, then use .venv/bin/python") from None

from rich.console import Console
from rich.progress import track

from lm.base.console import format_table
from lm.base.errors import UserError
from lm.base.plotting import pyplot
from lm.config import Config, compose_config
from lm.experiment.find_lr import Curve, range_test, spaced_rates

ROWS = 20  # of the table, beside the points
POINTS = {"fall_ends": "the fall ends", "lowest": "lowest", "diverged": "diverged"}


@cli.script
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="as for train.py: model=small optimizer=muon ...")
    parser.add_argument("--min", type=float, default=1e-5, help="the first rate (default: 1e-5)")
    parser.add_argument("--max", type=float, default=1.0, help="the last rate (default: 1)")
    parser.add_argument("--steps", type=int, default=200, help="optimizer steps between them (default: 200)")
    parser.add_argument("--out", type=cli.path, metavar="FILE.png", help="also draw a picture (needs matplotlib)")
    parser.add_argument("--logdir", type=cli.path, metavar="DIR", help="also write it for TensorBoard, with a picture")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_intermixed_args()
    lrs = spaced_rates(args.min, args.max, args.steps)
    check(args.out, args.logdir)
    config = compose_config(args.overrides)
    curve = range_test(config, lrs, watched=lambda losses: bar(losses, len(lrs)))
    found = summary(curve, config)
    if args.out:
        draw(curve, found).savefig(args.out, dpi=120)
    if args.logdir:
        record(curve, found, args.logdir)
    if args.json:
        points = {"lrs": curve.lrs[: len(curve.losses)], "losses": curve.losses, "smoothed": curve.smoothed}
        print(json.dumps(found | points))
    else:
        print(shown(curve, found))


def check(out: Path | None, logdir: Path | None) -> None:
    """What would fail only after the test. Raises UserError."""
    if out and (out.suffix != ".png" or not out.parent.is_dir()):
        raise UserError(f"--out {out} must be a .png file in a directory that is there")
    if logdir and any(logdir.glob("events.out.tfevents.*")):
        raise UserError(f"--logdir {logdir} has curves already, which this one would be mixed with: choose another")
    if out or logdir:
        pyplot()


def bar(losses, total):
    console = Console(stderr=True)
    return track(losses, "testing", total, console=console, transient=True, disable=not console.is_terminal)


def summary(curve: Curve, config: Config) -> dict:
    """The figures, each point as its step, rate and losses."""
    suggestion, why = curve.suggestion()

    def point(step: int | None) -> dict | None:
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
        "now": config.optimizer.for_width(config.model.n_embd).lr,
    }


def shown(curve: Curve, found: dict) -> str:
    marks: dict[int, str] = {}
    for key, name in POINTS.items():
        if found[key]:
            step = found[key]["step"] - 1
            marks[step] = f"{marks[step]}, {name}" if step in marks else name
    last = len(curve.losses) - 1
    steps = sorted({round(i * last / (ROWS - 1)) for i in range(ROWS)} | marks.keys()) if last >= 0 else sorted(marks)
    rows = [("rate", "loss", "smoothed")]
    for step in steps:
        finite = step <= last
        figures = (f"{curve.losses[step]:.3f}", f"{curve.smoothed[step]:.3f}") if finite else ("not finite", "")
        rows.append((f"{curve.lrs[step]:.2e}", *figures))
    lines = format_table(rows).splitlines()
    lines[1:] = [f"{line:<28}  {marks.get(step, '')}".rstrip() for line, step in zip(lines[1:], steps, strict=True)]
    now = f"optimizer.lr is {found['now']:g} now"
    if found["suggestion"] is None:
        return "\n".join([*lines, "", f"no suggestion: {found['why']} ({now})"])
    return "\n".join([*lines, "", f"suggestion: optimizer.lr={found['suggestion']:.2g}, {found['why']} ({now})"])


def draw(curve: Curve, found: dict):
    figure, axes = pyplot().subplots(figsize=(8, 4.5), layout="constrained")
    lrs = curve.lrs[: len(curve.losses)]
    axes.plot(lrs, curve.losses, alpha=0.4, linewidth=1, label="loss")
    axes.plot(lrs, curve.smoothed, label="smoothed")
    for (key, name), marker in zip(POINTS.items(), "ovx", strict=True):
        if found[key] and found[key]["loss"] is not None:
            lr, smoothed = found[key]["lr"], found[key]["smoothed"]
            axes.plot(lr, smoothed, marker, color="black", label=f"{name}: {lr:.2g}")
        elif found[key]:
            axes.axvline(found[key]["lr"], color="black", linestyle=":", label=f"not finite: {found[key]['lr']:.2g}")
    if found["suggestion"]:
        axes.axvline(found["suggestion"], color="green", linestyle="--", label=f"suggestion: {found['suggestion']:.2g}")
    axes.set(xscale="log", xlabel="learning rate", ylabel="nats per token", title="learning-rate range test")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def record(curve: Curve, found: dict, logdir: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(logdir)) as writer:
        for step, (lr, loss) in enumerate(zip(curve.lrs, curve.losses, strict=False), 1):
            writer.add_scalar("find_lr/lr", lr, step)
            writer.add_scalar("find_lr/loss", loss, step)
        writer.add_figure("find_lr", draw(curve, found), len(curve.losses))


if __name__ == "__main__":
    main()
