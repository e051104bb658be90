"""List, download and describe corpora, and list what the cache holds (the logic of scripts/corpora.py)."""

from __future__ import annotations

import json
import os
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lm.base.console import print_rows
from lm.base.errors import UserError
from lm.config import CONF, compose_config, load_option
from lm.config.help import describe, option_names
from lm.data.cache import Entry, list_entries, prune
from lm.data.corpus import CorpusConfig, Split
from lm.data.download import Downloads

OWN_CORPORA = ("text", "jsonl", "code", "hf")  # the user supplies their text

Row = dict[str, Any]


def compose_corpus(name: str, overrides: Sequence[str]) -> CorpusConfig:
    """Return the settings of the option `corpus=name` with these overrides."""
    return compose_config([f"corpus={name}", *overrides]).corpus


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Divide the words of a command line into names of corpora and overrides.

    Raises UserError if a word is a file.
    """
    for word in words:
        if os.path.isfile(word) and word not in option_names("corpus"):  # noqa: PTH113 - an override may be too long for a Path
            raise UserError(f"{word} is a file, not a corpus; name it with corpus.path: text corpus.path=my.txt")
    names = [word.removeprefix("corpus=") for word in words if "=" not in word or word.startswith("corpus=")]
    return names, [word for word in words if "=" in word and not word.startswith("corpus=")]


def list_corpora() -> list[Row]:
    """Return a row for each corpus: its name, the size of its download, its license and its description."""
    rows = []
    for name in option_names("corpus"):
        config = load_option("corpus", name, **({"path": "."} if name in OWN_CORPORA else {}))
        about = describe(CONF / "corpus" / f"{name}.yaml")
        rows.append({
            "corpus": name, "download": _download_size(name, config), "licence": config.licence,
            "what it is, and good for": about,
        })  # fmt: skip
    return rows


def _download_size(name: str, config: CorpusConfig) -> str:
    if name in OWN_CORPORA:
        return "yours"
    return "none" if config.download_size == 0 else format_size(config.download_size)


def markdown_table(rows: Sequence[Row]) -> str:
    """Return the rows of `list_corpora` as the table in docs/corpora.md."""
    body = [[f"`{row['corpus']}`", *list(row.values())[1:]] for row in rows]
    lines = [list(rows[0]), ["---"] * len(rows[0]), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def fetch_corpora(names: Sequence[str], overrides: Sequence[str], downloads: Downloads) -> list[Row]:
    """Download corpora and verify them. Return a row for each.

    Raises UserError if `names` is empty.
    """
    if not names:
        raise UserError(f"name the corpora to fetch, of {', '.join(option_names('corpus'))}; or use --all")
    rows = []
    for name in names:
        corpus = compose_corpus(name, overrides)
        corpus.identity(downloads)
        where = "nothing to download" if corpus.download_size == 0 else f"whole, in {downloads.root / 'corpora'}"
        rows.append({"corpus": name, "download": where})
    return rows


def describe_corpus(names: Sequence[str], overrides: Sequence[str], downloads: Downloads) -> tuple[Row, bool]:
    """Prepare the text of the one corpus in `names`, as training would.

    Returns its name, digest, splits and first characters, and True if there is an end-of-text token between documents.
    Raises UserError if there is not exactly one name.
    """
    if len(names) != 1:
        raise UserError(f"name one corpus to show, of {', '.join(option_names('corpus'))}")
    prepared = compose_corpus(names[0], overrides).load(downloads)
    splits = {"train": prepared.train, "val": prepared.val} | ({"test": prepared.test} if prepared.test else {})
    rows = [{"split": name, **split_statistics(split)} for name, split in splits.items()]
    beginning = next(prepared.train.pieces())[0][:400]
    report = {"corpus": names[0], "digest": prepared.digest, "splits": rows, "beginning": beginning}
    return report, prepared.documents


def split_statistics(split: Split) -> dict[str, int]:
    """Return the number of bytes, characters, distinct characters, lines and documents."""
    characters, lines, distinct = 0, 0, set()
    for piece, _ in split.pieces():
        characters, lines = characters + len(piece), lines + piece.count("\n")
        distinct |= set(piece)
    return {
        "bytes": split.size, "characters": characters, "distinct": len(distinct), "lines": lines,
        "documents": len(split.ends),
    }  # fmt: skip


def cache_rows(entries: Sequence[Entry]) -> list[Row]:
    """Return a row with plain numbers for each entry of the cache."""
    return [{"entry": e.path.name, "bytes": e.bytes, "used": e.used, "of": e.about} for e in entries]


def print_cache(entries: Sequence[Entry], root: Path, removed: bool) -> None:
    """Print the entries of the cache below `root`, which may have been removed."""
    total = format_size(sum(e.bytes for e in entries))
    print(f"{'removed' if removed else 'holding'} {len(entries)} entries, {total}, in {root / 'cache'}")
    if entries:
        print_rows([
            {
                "entry": e.path.name, "size": format_size(e.bytes),
                "last used": time.strftime("%Y-%m-%d %H:%M", time.localtime(e.used)), "content": e.about,
            }
            for e in entries
        ])  # fmt: skip


def format_size(size: int | None) -> str:
    """Return a number of bytes as text with a decimal unit; "unknown" for None."""
    if size is None:
        return "unknown"
    if size >= 1e9:
        return f"{size / 1e9:.1f} GB"
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.0f} kB"


# ---- the subcommands of scripts/corpora.py


def print_list(args: Namespace) -> None:
    """List all corpora: the size of the download, the license and a description."""
    rows = list_corpora()
    if args.json:
        print(json.dumps(rows))
    elif args.markdown:
        print(markdown_table(rows))
    else:
        print_rows(rows)


def fetch(args: Namespace) -> None:
    """Download corpora and verify them, without training."""
    names, overrides = split_words(args.names)
    if args.all:
        names = [name for name in option_names("corpus") if name not in OWN_CORPORA]
    rows = fetch_corpora(names, overrides, Downloads(args.dir, args.offline, args.mirror))
    print(json.dumps(rows) if args.json else "\n".join(f"{row['corpus']}: {row['download']}" for row in rows))


def show(args: Namespace) -> None:
    """Prepare a corpus as training would, and print its statistics and its first lines."""
    names, overrides = split_words(args.names)
    report, documents = describe_corpus(names, overrides, Downloads(args.dir, args.offline, args.mirror))
    if args.json:
        print(json.dumps(report))
        return
    print_rows(report["splits"])
    print("documents have an end-of-text token between them\n" if documents else "", report["beginning"], sep="\n")


def print_entries(args: Namespace) -> None:
    """List prepared texts, tokenizers and token files, the least recently used first; remove them with --prune."""
    entries = prune(args.dir, args.days) if args.prune else list(list_entries(args.dir))
    if args.json:
        print(json.dumps(cache_rows(entries)))
    else:
        print_cache(entries, args.dir, args.prune)


COMMANDS: dict[str, Callable[[Namespace], None]] = {
    "list": print_list,
    "fetch": fetch,
    "show": show,
    "cache": print_entries,
}
