"""Look inside a trained model.

  python scripts/analyze.py outputs/mine attention "To be, or not"           where each head looks
  python scripts/analyze.py outputs/mine lens "To be, or not"                the prediction after each layer
  python scripts/analyze.py outputs/mine attribute "To be, or not" " to"     which parts make this logit
  python scripts/analyze.py outputs/mine patch "A cat" "A dog" --answer s    which values carry the answer
  python scripts/analyze.py outputs/mine ablate                              loss without each head or MLP
  python scripts/analyze.py outputs/mine heads --checkpoints                 induction heads as they form
  python scripts/analyze.py outputs/mine norms                               sizes of stream and branches
  python scripts/analyze.py outputs/mine probe labels.jsonl                  what a linear probe reads, by layer
  python scripts/analyze.py outputs/mine features                            features of a sparse autoencoder
  python scripts/analyze.py outputs/mine tokens A ' the' '#17'               the nearest tokens of each
  python scripts/analyze.py outputs/mine weights                             statistics of every tensor
  python scripts/analyze.py outputs/mine diff outputs/other                  difference between two checkpoints
  python scripts/analyze.py outputs/mine chunks text.txt --easiest           passages of a text by their loss

`analyze.py outputs/mine attention --help` describes the options of a subcommand. Each prints a table; --json prints
JSON, --html writes a page, --png a picture (needs matplotlib).
"""

import argparse
import json
from collections.abc import Sequence

try:
    from lm import cli
except ModuleNotFoundError:
    raise SystemExit("error: lm is not installed; run `make install`, then use .venv/bin/python") from None

from lm.analysis.page import render_report
from lm.analysis.picture import draw_report
from lm.base.page import nan_to_none
from lm.experiment.analyses import COMMANDS


@cli.script
def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    report = args.command(args)
    if args.png:
        draw_report(report, args.png)
    if args.html:
        args.html.write_text(render_report(report), encoding="utf-8")
    print(json.dumps(nan_to_none({"run": str(args.run), **report.data})) if args.json else report.table)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=cli.path, metavar="RUN", help="a run directory (its best checkpoint is used), a "
                        ".ckpt file or hf:DIRECTORY")  # fmt: skip
    commands = parser.add_subparsers(required=True, metavar="|".join(COMMANDS))
    for name, (command, add_arguments) in COMMANDS.items():
        sub = commands.add_parser(name, help=command.__doc__, description=command.__doc__)
        sub.set_defaults(command=command)
        add_arguments(sub)
        sub.add_argument("--json", action="store_true", help="print JSON instead of a table")
        sub.add_argument("--html", type=cli.path, metavar="FILE", help="write a page that works offline")
        sub.add_argument("--png", type=cli.path, metavar="FILE", help="draw the figures (needs matplotlib)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
