"""The corpora that `corpus=` knows, and what they have left on this disk.

python scripts/corpora.py list                             name, size, licence, what it is good for
python scripts/corpora.py fetch tinystories wikitext2      download now, train later
python scripts/corpora.py show tinystories corpus.part=train      its splits, documents, first lines
python scripts/corpora.py show text corpus.path=my.txt
python scripts/corpora.py cache [--prune --days 30]        prepared texts and token files: list, or remove
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

try:
    from lm import cli
except ModuleNotFoundError:
    raise SystemExit("error: lm is not installed; run `make install`, then use .venv/bin/python") from None

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lm.base.errors import UserError
from lm.config import CONF, compose_config, load_option
from lm.config.help import describe
from lm.data import cache
from lm.data.corpus import CorpusConfig, Split
from lm.data.download import Downloads

OWN = ("text", "jsonl", "code", "hf")  # the user brings them


@cli.script
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="list | fetch | show | cache")
    for verb, run in (("list", list_corpora), ("fetch", fetch), ("show", show), ("cache", list_cache)):
        sub = verbs.add_parser(verb, description=run.__doc__)
        sub.set_defaults(run=run)
        sub.add_argument("--json", action="store_true", help="print JSON instead of a table")
        sub.add_argument(
            "--dir",
            type=cli.path,
            default=Path("data"),
            help="data.root: downloads and caches",
        )
        if verb in ("fetch", "show"):
            sub.add_argument("names", nargs="*" if verb == "fetch" else "+", metavar="NAME or key=value")
            sub.add_argument("--offline", action="store_true", help="download nothing")
            sub.add_argument("--mirror", help="a server that has the files under /<host>/<path>")
    verbs.choices["list"].add_argument("--markdown", action="store_true", help="the table as README shows it")
    verbs.choices["fetch"].add_argument("--all", action="store_true", help="every one; PG-19 alone has 11 GB")
    verbs.choices["cache"].add_argument("--prune", action="store_true", help="remove entries; they are made again")
    verbs.choices["cache"].add_argument("--days", type=float, default=0, help="only those unused for so many days")
    args = parser.parse_args()
    try:
        args.run(args)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)


def options() -> list[str]:
    return sorted(path.stem for path in (CONF / "corpus").glob("*.yaml"))


def corpus_of(name: str, overrides: list[str]) -> CorpusConfig:
    return compose_config([f"corpus={name}", *overrides]).corpus


def downloads_of(args: argparse.Namespace) -> Downloads:
    return Downloads(args.dir, args.offline, args.mirror)


def named(args: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Corpora, and overrides."""
    for word in args.names:
        if os.path.isfile(word) and word not in options():  # noqa: PTH113  a setting may be too long for a Path
            raise UserError(f"{word} is a file, not a corpus; name it with corpus.path: text corpus.path=my.txt")
    names = [word.removeprefix("corpus=") for word in args.names if "=" not in word or word.startswith("corpus=")]
    return names, [word for word in args.names if "=" in word and not word.startswith("corpus=")]


def list_corpora(args: argparse.Namespace) -> None:
    """Every corpus: the size of its download, its licence, what it is good for."""
    rows = []
    for name in options():
        config = load_option("corpus", name, **({"path": "."} if name in OWN else {}))
        size = "yours" if name in OWN else "none" if config.download_size == 0 else megabytes(config.download_size)
        about = describe(CONF / "corpus" / f"{name}.yaml")
        rows.append({"corpus": name, "download": size, "licence": config.licence, "what it is, and good for": about})
    if args.json:
        print(json.dumps(rows))
    elif args.markdown:
        print("\n".join(markdown(rows)))
    else:
        draw(rows)


def markdown(rows: list[dict[str, str]]) -> list[str]:
    body = [[f"`{row['corpus']}`", *list(row.values())[1:]] for row in rows]
    return ["| " + " | ".join(line) + " |" for line in [list(rows[0]), ["---"] * len(rows[0]), *body]]


def fetch(args: argparse.Namespace) -> None:
    """Download corpora and check them, without training."""
    names, overrides = named(args)
    names = [name for name in options() if name not in OWN] if args.all else names
    if not names:
        raise UserError(f"name corpora to fetch, of {', '.join(options())}; or --all")
    rows = []
    for name in names:
        corpus = corpus_of(name, overrides)
        corpus.identity(downloads_of(args))
        where = "nothing to download" if corpus.download_size == 0 else f"whole, in {args.dir / 'corpora'}"
        rows.append({"corpus": name, "download": where})
    print(json.dumps(rows) if args.json else "\n".join(f"{row['corpus']}: {row['download']}" for row in rows))


def show(args: argparse.Namespace) -> None:
    """Prepare a corpus as training would, and say what is in it."""
    names, overrides = named(args)
    if len(names) != 1:
        raise UserError(f"name one corpus to show, of {', '.join(options())}")
    text = corpus_of(names[0], overrides).load(downloads_of(args))
    splits = {"train": text.train, "val": text.val} | ({"test": text.test} if text.test else {})
    rows = [{"split": split, **statistics(s)} for split, s in splits.items()]
    beginning = next(text.train.pieces())[0][:400]
    if args.json:
        print(json.dumps({"corpus": names[0], "digest": text.digest, "splits": rows, "beginning": beginning}))
        return
    draw([{key: f"{v:,}" if isinstance(v, int) else v for key, v in row.items()} for row in rows])
    print("documents have an end-of-text token between them\n" if text.documents else "", beginning, sep="\n")


def statistics(split: Split) -> dict[str, int]:
    characters, lines, distinct = 0, 0, set()
    for piece, _ in split.pieces():
        characters, lines = characters + len(piece), lines + piece.count("\n")
        distinct |= set(piece)
    return {
        "bytes": split.size, "characters": characters, "distinct": len(distinct), "lines": lines,
        "documents": len(split.ends),
    }  # fmt: skip


def list_cache(args: argparse.Namespace) -> None:
    """Prepared texts, tokenizers and token files, longest unused first; with --prune, remove them."""
    root = args.dir
    entries = cache.prune(root, args.days) if args.prune else list(cache.list_entries(root))
    rows = [{"entry": e.path.name, "bytes": e.bytes, "used": e.used, "of": e.about} for e in entries]
    if args.json:
        print(json.dumps(rows))
        return
    total = megabytes(sum(e.bytes for e in entries))
    print(f"{'removed' if args.prune else 'holding'} {len(rows)} entries, {total}, in {root / 'cache'}")
    if rows:
        day = [time.strftime("%Y-%m-%d %H:%M", time.localtime(e.used)) for e in entries]
        draw([{"entry": e.path.name, "size": megabytes(e.bytes), "last used": d, "of": e.about}
              for e, d in zip(entries, day, strict=True)])  # fmt: skip


def megabytes(size: int | None) -> str:
    if size is None:
        return "unknown"
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.0f} kB"


def draw(rows: list[dict[str, str]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, key in enumerate(rows[0]):
        table.add_column(key, no_wrap=i == 0, overflow="fold")
    for row in rows:
        table.add_row(*(Text(str(value)) for value in row.values()))  # no markup: ".[hf]" is meant as it is
    console = Console()
    console.width = console.width if console.is_terminal else 200
    console.print(table)


if __name__ == "__main__":
    main()
