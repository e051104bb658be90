"""List, download and inspect the corpora of `corpus=`, and manage the cache of prepared texts.

python scripts/corpora.py list                             name, download size, license, description
python scripts/corpora.py fetch tinystories wikitext2      download now, train later
python scripts/corpora.py show tinystories corpus.part=train      its splits, documents and first lines
python scripts/corpora.py show text corpus.path=my.txt
python scripts/corpora.py cache [--prune --days 30]        list prepared texts and token files, or remove them
"""

import argparse
import sys
from pathlib import Path

try:
    from lm import cli
except ModuleNotFoundError:
    raise SystemExit("error: lm is not installed; run `make install`, then use .venv/bin/python") from None

from lm.experiment import corpora


@cli.script
def main() -> None:
    args = parse()
    try:
        args.run(args)
    except KeyboardInterrupt:
        print("interrupted; run the same command again to continue", file=sys.stderr)
        sys.exit(130)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="list | fetch | show | cache")
    for verb, run in corpora.COMMANDS.items():
        sub = verbs.add_parser(verb, description=run.__doc__)
        sub.set_defaults(run=run)
        sub.add_argument("--json", action="store_true", help="print JSON instead of a table")
        sub.add_argument(
            "--dir", type=cli.path, default=Path("data"), help="data.root, the folder of downloads and caches"
        )
        if verb in ("fetch", "show"):
            sub.add_argument("names", nargs="*" if verb == "fetch" else "+", metavar="NAME or key=value")
            sub.add_argument("--offline", action="store_true", help="do not download anything")
            sub.add_argument("--mirror", help="a server that has the files under /<host>/<path>")
    verbs.choices["list"].add_argument("--markdown", action="store_true", help="print the table of docs/corpora.md")
    verbs.choices["fetch"].add_argument("--all", action="store_true", help="fetch all corpora; PG-19 alone has 11 GB")
    prune, days = "remove the entries; they are created again when needed", "only entries not used for this many days"
    verbs.choices["cache"].add_argument("--prune", action="store_true", help=prune)
    verbs.choices["cache"].add_argument("--days", type=float, default=0, help=days)
    return parser.parse_args()


if __name__ == "__main__":
    main()
