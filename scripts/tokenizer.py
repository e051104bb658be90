"""Train tokenizers, look into them, compare them.

  python scripts/tokenizer.py train corpus=shakespeare tokenizer=bpe tokenizer.vocab_size=1024 --out my.json
  python scripts/tokenizer.py show outputs/mine --html mine.html         a run's tokenizer, on the run's text
  python scripts/tokenizer.py show my.json corpus=shakespeare            any tokenizer.json, on any text
  python scripts/tokenizer.py show corpus=words tokenizer=char           what train.py would make of these
  python scripts/tokenizer.py compare corpus=shakespeare --vocab-sizes 256,512,1024 --tokenizers byte,bpe,gpt2

Settings are those of train.py: corpus=, tokenizer=, data.root=, and whatever else it composes.
"""

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

try:
    from lm import cli
except ModuleNotFoundError:
    raise SystemExit("error: lm is not installed; run `make install`, then use .venv/bin/python") from None

import numpy as np

from lm.analysis.vocabulary import report
from lm.analysis.vocabulary.analysis import Counts, count, example, take_apart
from lm.analysis.vocabulary.page import page, png
from lm.analysis.vocabulary.sections import Chart, Section, tell
from lm.base import commands
from lm.base.console import progress
from lm.base.errors import UserError
from lm.base.files import replacing, write_text
from lm.config import Config, compose_config, load_section
from lm.config.words import files_and_settings
from lm.data.corpus import Split, Text
from lm.data.download import Downloads
from lm.data.token_files import cache_tokens, cached_tokenizer, encode_split
from lm.data.tokenizer import BPEConfig, CharConfig, Tokenizer, from_json
from lm.run import checkpoint
from lm.run.directory import parses_special

SENTENCE = "In 1605 the café took 3.50 € for tea; wasn't that naïve?"  # numbers, marks, and more bytes than characters
LADDER = "256,512,1024,2048,4096,8192"  # what is compared unless sizes are named
BLOCK = 1 << 22  # ids counted at once

log = logging.getLogger("lm")


@cli.script
def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    sys.stdout.reconfigure(errors="replace")  # a terminal that cannot show ↵ shows ?
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)
    args.command(args)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    commands = parser.add_subparsers(required=True, metavar="{train,show,compare}")
    for verb, words in ((train, "KEY=VALUE"), (show, "RUN_OR_FILE or KEY=VALUE"), (compare, "KEY=VALUE")):
        sub = commands.add_parser(verb.__name__, help=verb.__doc__, description=verb.__doc__)
        sub.add_argument("words", nargs="*", metavar=words, help="settings as train.py takes them, e.g. corpus=words")
        sub.set_defaults(command=verb)
        if verb is train:
            sub.add_argument("--out", type=cli.path, required=True, help="the tokenizer.json to write")
            continue
        if verb is show:
            sub.add_argument("--text", action="append", help="a text to split, more than once if you like")
            sub.add_argument("--top", type=int, default=30, help="how many of the most frequent tokens (default: 30)")
        else:
            sub.add_argument("--text", help="the text that all of them split")
            sub.add_argument("--vocab-sizes", metavar="N,N,...", help="of tokenizers that learn so many tokens")
            sub.add_argument("--tokenizers", metavar="NAME,NAME,...", help="options of tokenizer=, e.g. byte,char,bpe")
        sub.add_argument("--html", type=cli.path, help="write a page to this file")
        sub.add_argument("--png", type=cli.path, help="write its picture to this file")
        sub.add_argument("--json", action="store_true", help="print JSON, with all tokens, instead of tables")
    args, more = parser.parse_known_args(argv)
    if flags := [word for word in more if word.startswith("-")]:
        parser.error(f"unrecognized arguments: {' '.join(flags)}")
    args.words += more  # settings may stand between options and behind them
    return args


def train(args: argparse.Namespace) -> None:
    """Learn a tokenizer from a corpus, and write it as a tokenizer.json."""
    check_outputs(args.out)
    config = compose_config(args.words)
    text, downloads = load(config), config.data.downloads()
    began = time.perf_counter()
    tokenizer = config.tokenizer.build(text, downloads)
    source = f"{args.out}, made in {time.perf_counter() - began:.2f} s"
    write_text(args.out, tokenizer.to_json())
    vocabulary = take_apart(tokenizer)
    counts = counted(text, tokenizer, config.tokenizer.parse_special)
    tell([report.summary(source, vocabulary, counts), report.both_texts(vocabulary, counts)])
    rest = [word for word in args.words if not word.startswith("tokenizer")] or ["corpus=shakespeare"]
    path = commands.override("tokenizer.path", args.out)
    print(f"next:\n  {commands.script('tokenizer', 'show', args.out, *rest)}")
    print(f"  {commands.train([*rest, 'tokenizer=file', path])}")


def show(args: argparse.Namespace) -> None:
    """What a tokenizer holds, and what becomes of a text in it."""
    if args.top < 1:
        raise UserError(f"--top={args.top} must be at least 1")
    check_texts(args.text or [])
    check_outputs(args.html, args.png)
    source, tokenizer, text, special, downloads = opened(args.words)
    for typed in args.text or []:
        tokenizer.encode(typed)  # refuse what was asked for and cannot be spelt
    if args.png and not text:
        raise UserError("--png draws how often tokens come in a text: name one, e.g. corpus=shakespeare")
    vocabulary = take_apart(tokenizer)
    counts = counted(text, tokenizer, special, downloads) if text else None
    texts = args.text or [example(text.val) if text else "To be, or not to be: that is the question.", SENTENCE]
    sections = list(report.show(source, vocabulary, counts, texts, args.top))
    found = report.show_json(source, vocabulary, counts, texts) if args.json else {}
    finish(args, f"Tokenizer: {source}", sections, found)


def compare(args: argparse.Namespace) -> None:
    """Several tokenizers on one corpus, in one table."""
    check_texts([] if args.text is None else [args.text])
    check_outputs(args.html, args.png)
    configs = candidates(args.words, args.vocab_sizes, args.tokenizers)
    text, downloads = load(configs[0]), configs[0].data.downloads()
    rows = []
    for config in configs:
        began = time.perf_counter()
        tokenizer = config.tokenizer.build(text, downloads)
        built = time.perf_counter()
        counts = counted(text, tokenizer, config.tokenizer.parse_special)
        encoding = time.perf_counter() - built
        learning = built - began if isinstance(config.tokenizer, BPEConfig | CharConfig) else None
        rows.append(report.Candidate(kind(config), take_apart(tokenizer), counts, learning, encoding))
        log.info("%s: %.3f bytes per token", rows[-1].label, counts[0].bytes_per_token)
    sentence = args.text or example(text.val)
    sections, found = list(report.compare(rows, sentence)), report.compare_json(rows, sentence) if args.json else {}
    finish(args, f"Tokenizers compared: {about(args.words)}", sections, found)


def about(words: Sequence[str]) -> str:
    """What was composed, without where it lies."""
    return " ".join(word for word in words if not word.startswith("data.")) or "corpus=shakespeare tokenizer=bpe"


def load(config: Config) -> Text:
    return config.corpus.load(config.data.downloads())


def candidates(words: Sequence[str], sizes: str | None, names: str | None) -> list[Config]:
    """The compositions to compare: every named tokenizer, at every size where it has one."""
    numbers = vocab_sizes(sizes or LADDER)
    found, sized = [], False
    for name in names.split(",") if names is not None else [""]:
        typed = [*words, f"tokenizer={name}"] if names is not None else words
        found.append(compose_config(typed))
        if isinstance(found[-1].tokenizer, BPEConfig) and (sizes or names is None):
            found[-1:] = [compose_config([*typed, f"tokenizer.vocab_size={n}"]) for n in numbers]
            sized = True
    if sizes and not sized:
        raise UserError(f"--vocab-sizes={sizes}: none of these tokenizers has a size to choose; tokenizer=bpe does")
    return found


def vocab_sizes(typed: str) -> list[int]:
    try:
        sizes = list(map(int, typed.split(",")))
    except ValueError:
        raise UserError(f"--vocab-sizes={typed} must be numbers with commas between, e.g. {LADDER}") from None
    if min(sizes) < 256:
        raise UserError(f"--vocab-sizes={typed} must be at least 256 each: every byte has a token")
    return sizes


def kind(config: Config) -> str:
    return type(config.tokenizer).__name__.removesuffix("Config").lower()


def opened(words: Sequence[str]) -> tuple[str, Tokenizer, Text | None, bool, Downloads | None]:
    """What to call it, the tokenizer, and the text to look at it with: the one that was named, or a run's own.

    And whether the text's special tokens are parsed, and where their ids are cached, if they are what a run trains on.
    """
    paths, typed = files_and_settings(words)
    if not paths:
        config = compose_config(typed)
        text, downloads = load(config), config.data.downloads()
        tokenizer = cached_tokenizer(config.tokenizer, text, downloads)
        return about(typed), tokenizer, text, config.tokenizer.parse_special, downloads
    if len(paths) > 1:
        raise UserError(f"one run or file at a time, not {', '.join(paths)}")
    path = Path(paths[0])
    tokenizer, run = from_path(path)
    keys = {word.lstrip("+").partition("=")[0] for word in typed}
    groups = {key.partition(".")[0] for key in keys}
    if "tokenizer" in groups:
        raise UserError(f"the tokenizer is that of {path}; leave out tokenizer=")
    if "corpus" in groups and not keys & {"corpus", "experiment"}:
        raise UserError("a setting of the corpus needs the corpus named: corpus=...")
    config, special = compose_config(typed), parses_special(run.parent if run else None)
    if keys & {"corpus", "experiment"}:
        return str(path), tokenizer, load(config), special, None
    if not run:
        return str(path), tokenizer, None, special, None
    corpus, data = load_section(run, "corpus"), config.data if "data" in groups else load_section(run, "data")
    return str(path), tokenizer, corpus.load(data.downloads()), special, data.downloads()


def from_path(path: Path) -> tuple[Tokenizer, Path | None]:
    """The tokenizer of a run, a checkpoint or a file, and the config.yaml of its run, if it lies in one."""
    if not path.exists():
        meant = Path("outputs") / path
        raise UserError(f"{path}: no such run or file" + (f"; did you mean {meant}?" if meant.exists() else ""))
    run = path if path.is_dir() else path.parent
    if path.suffix == ".ckpt":
        content, run = checkpoint.read(path)["lm"]["tokenizer"], run.parent
    else:
        file = path / "tokenizer.json" if path.is_dir() else path
        if not file.exists():
            raise UserError(f"{path} holds no tokenizer.json; give a run, a checkpoint or a tokenizer.json")
        try:
            content = file.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            raise UserError(f"{file}: not a tokenizer.json, nor a checkpoint (.ckpt)") from None
    config = run / "config.yaml"
    ours = path.is_dir() or path.suffix == ".ckpt" or path.name == "tokenizer.json"
    try:
        return from_json(content), config if ours and config.exists() else None
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def counted(text: Text, tokenizer: Tokenizer, special: bool, cache: Downloads | None = None) -> tuple[Counts, Counts]:
    """Of training and held-out text, encoded now or, where there is a `cache`, as it was for a run."""
    if cache:
        tokens = cache_tokens(text, tokenizer, cache, special)
        train, val = (count(blocks(ids, split.size), tokenizer.vocab_size)
                      for ids, split in ((tokens.train, text.train), (tokens.val, text.val)))  # fmt: skip
        return train, val
    documents = text.documents and tokenizer.end_of_text is not None
    with progress("counting", text.train.size + text.val.size) as advance:

        def stretches(split: Split) -> Iterator[tuple[np.ndarray, int]]:
            for ids, size in encode_split(split, tokenizer, documents, special=special):
                advance(size)
                yield ids, size

        train, val = (count(stretches(split), tokenizer.vocab_size) for split in (text.train, text.val))
    return train, val


def blocks(ids: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, int]]:
    """A memory map of ids in parts, the first with all the bytes that the ids stand for."""
    for start in range(0, len(ids), BLOCK):
        yield ids[start : start + BLOCK], 0 if start else size


def check_texts(texts: list[str]) -> None:
    if not all(texts):
        raise UserError("--text is empty: give at least one character to split")


def check_outputs(*paths: Path | None) -> None:
    """Before the work, not behind it."""
    for path in filter(None, paths):
        if path.exists() and not path.is_file():
            raise UserError(f"{path} is {'a directory' if path.is_dir() else 'no regular file'}; name a file to write")
        parent = next(parent for parent in path.absolute().parents if parent.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise UserError(f"{path} cannot be written: {parent} is no directory that you may write in")


def finish(args: argparse.Namespace, title: str, sections: list[Section], found: dict[str, Any]) -> None:
    """Page and picture where they were asked for, then tables or JSON."""
    if args.html:
        write_text(args.html, page(title, sections))
    if args.png:
        with replacing(args.png) as aside:
            aside.write_bytes(png(next(load_section for section in sections if isinstance(section, Chart))))
    for path in filter(None, (args.html, args.png)):
        log.info("wrote %s", path)
    if args.json:
        print(json.dumps(found))
    else:
        tell(sections)


if __name__ == "__main__":
    main()
