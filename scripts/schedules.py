"""Draw learning-rate schedules in the terminal or as a picture.

    python scripts/schedules.py schedule=cosine,wsd,linear trainer.max_steps=2000

The overrides are those of train.py. The chart shows the learning rate of each step as a share of the peak. Several
values of schedule= or of schedule.<key>= are compared, in all combinations. A key applies to those of the schedules
that have it.
"""

import argparse
import json

try:
    from lm import cli
except ModuleNotFoundError:
    raise SystemExit("error: lm is not installed; run `make install`, then use .venv/bin/python") from None

from lm.experiment.schedules import format_chart, save_plot, schedule_curves


@cli.script
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "overrides", nargs="*", help="overrides as for train.py: schedule=wsd schedule.decay_fraction=0.5 ..."
    )
    parser.add_argument("--out", type=cli.path, metavar="FILE.png", help="also save a picture (requires matplotlib)")
    parser.add_argument(
        "--points", type=int, default=1000, help="largest number of steps to compute, evenly spaced (default: 1000)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a chart")
    args = parser.parse_intermixed_args()
    steps, curves, plateau = schedule_curves(args.overrides, args.points)
    if args.out:
        save_plot(steps, curves, args.out)
    if args.json:
        print(json.dumps({"steps": steps, **curves}))
        return
    print(format_chart(steps, curves))
    if plateau:
        print("schedule.plateau lowers the learning rate further when val/loss stops improving")


if __name__ == "__main__":
    main()
