"""Find a learning rate: python scripts/find_lr.py model=tiny corpus=shakespeare --out lr.png

Takes the arguments of train.py and trains the same way, from the same weights and on the same batches, while the
learning rate rises from --min to --max. The trained model is discarded. The suggestion is a first guess that a sweep
can improve.
"""

import argparse
import json

try:
    from lm import cli
except ModuleNotFoundError:
    raise SystemExit("error: lm is not installed; run `make install`, then use .venv/bin/python") from None

from rich.console import Console
from rich.progress import track

from lm.base.plotting import save_figure
from lm.config import compose_config
from lm.experiment import find_lr_report
from lm.experiment.find_lr import range_test, spaced_learning_rates


@cli.script
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="settings as for train.py: model=small optimizer=muon ...")
    parser.add_argument("--min", type=float, default=1e-5, help="the first learning rate (default: 1e-5)")
    parser.add_argument("--max", type=float, default=1.0, help="the last learning rate (default: 1)")
    parser.add_argument("--steps", type=int, default=200, help="number of optimizer steps (default: 200)")
    parser.add_argument("--out", type=cli.path, metavar="FILE.png", help="also write a plot (needs matplotlib)")
    parser.add_argument("--logdir", type=cli.path, metavar="DIR", help="also write curve and plot for TensorBoard")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_intermixed_args()
    lrs = spaced_learning_rates(args.min, args.max, args.steps)
    find_lr_report.check_outputs(args.out, args.logdir)
    config = compose_config(args.overrides)
    console = Console(stderr=True)
    hidden = not console.is_terminal
    curve = range_test(
        config, lrs, lambda losses: track(losses, "testing", len(lrs), console=console, transient=True, disable=hidden)
    )
    summary = find_lr_report.summarize(curve, config)
    if args.out:
        save_figure(find_lr_report.plot(curve, summary), args.out)
    if args.logdir:
        find_lr_report.write_tensorboard(curve, summary, args.logdir)
    if args.json:
        points = {"lrs": curve.lrs[: len(curve.losses)], "losses": curve.losses, "smoothed": curve.smoothed}
        print(json.dumps(summary | points))
    else:
        print(find_lr_report.format_report(curve, summary))


if __name__ == "__main__":
    main()
