"""Train, analyze and compare tokenizers, for scripts/tokenizer.py."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lm.analysis.vocabulary import report, report_json
from lm.analysis.vocabulary.analysis import Counts, count_ids, example_text, read_vocabulary
from lm.analysis.vocabulary.page import html_page, render_png
from lm.analysis.vocabulary.sections import Chart, Section
from lm.base import commands
from lm.base.console import progress
from lm.base.errors import UserError
from lm.base.files import atomic_replace, write_text
from lm.config import Config, compose_config
from lm.data.corpus import Split, Text
from lm.data.download import Downloads
from lm.data.token_files import cache_tokens, encode_split
from lm.data.tokenizer import BPEConfig, CharConfig, Tokenizer
from lm.experiment.inputs import load_text
from lm.experiment.tokenizer_sources import describe_settings, find_source

SENTENCE = "In 1605 the café took 3.50 € for tea; wasn't that naïve?"  # with numbers, symbols and multi-byte characters
LADDER = "256,512,1024,2048,4096,8192"  # default of --vocab-sizes
BLOCK = 1 << 22  # ids counted at once

log = logging.getLogger("lm")
Report = tuple[str, list[Section], Callable[[], dict[str, Any]]]  # title, sections, and what returns the same as JSON


def train_tokenizer(words: Sequence[str], out: Path) -> tuple[list[Section], list[str]]:
    """Build a tokenizer and write it to `out`. Return a summary and the commands that use the file."""
    check_outputs(out)
    config = compose_config(words)
    text, downloads = load_text(config), config.data.downloads()
    began = time.perf_counter()
    tokenizer = config.tokenizer.build(text, downloads)
    source = f"{out}, built in {time.perf_counter() - began:.2f} s"
    write_text(out, tokenizer.to_json())
    vocabulary = read_vocabulary(tokenizer)
    counts = count_text(text, tokenizer, config.tokenizer.parse_special)
    rest = [word for word in words if not word.startswith("tokenizer")] or ["corpus=shakespeare"]
    path = commands.override("tokenizer.path", out)
    following = [
        commands.script("tokenizer", "show", out, *rest),
        commands.train([*rest, "tokenizer=file", path]),
    ]
    return [report.summary_table(source, vocabulary, counts), report.text_table(vocabulary, counts)], following


def analyze_tokenizer(words: Sequence[str], texts: list[str], top: int, draw: bool) -> Report:
    """Report on the tokenizer that the words name.

    `texts` are examples to split; without any, there are default ones. `top` is the number of most frequent tokens to
    list, and `draw` says that a chart is needed. Raises UserError if a text cannot be encoded.
    """
    if top < 1:
        raise UserError(f"--top={top} must be at least 1")
    check_texts(texts)
    source = find_source(words)
    for text in texts:
        source.tokenizer.encode(text)  # fails here, before the long work
    if draw and not source.text:
        raise UserError("--png draws the token frequencies of a text; name one, e.g. corpus=shakespeare")
    vocabulary, counts = read_vocabulary(source.tokenizer), None
    if source.text:
        counts = count_text(source.text, source.tokenizer, source.parse_special, source.downloads)
    first = example_text(source.text.val) if source.text else "To be, or not to be: that is the question."
    texts = texts or [first, SENTENCE]
    sections = list(report.tokenizer_sections(source.name, vocabulary, counts, texts, top))
    return (
        f"Tokenizer: {source.name}",
        sections,
        lambda: report_json.tokenizer_json(source.name, vocabulary, counts, texts),
    )


def compare_tokenizers(words: Sequence[str], sizes: str | None, names: str | None, sentence: str | None) -> Report:
    """Report on several tokenizers of the same text, all of which also split `sentence`."""
    check_texts([] if sentence is None else [sentence])
    configs = compose_candidates(words, sizes, names)
    text, downloads = load_text(configs[0]), configs[0].data.downloads()
    rows = []
    for config in configs:
        began = time.perf_counter()
        tokenizer = config.tokenizer.build(text, downloads)
        built = time.perf_counter()
        counts = count_text(text, tokenizer, config.tokenizer.parse_special)
        encoding = time.perf_counter() - built
        learning = built - began if isinstance(config.tokenizer, BPEConfig | CharConfig) else None
        name = type(config.tokenizer).__name__.removesuffix("Config").lower()
        rows.append(report.Candidate(name, read_vocabulary(tokenizer), counts, learning, encoding))
        log.info("%s: %.3f bytes per token", rows[-1].label, counts[0].bytes_per_token)
    sentence = sentence or example_text(text.val)
    sections = list(report.comparison_sections(rows, sentence))
    return (
        f"Comparison of tokenizers: {describe_settings(words)}",
        sections,
        lambda: report_json.comparison_json(rows, sentence),
    )


def compose_candidates(words: Sequence[str], sizes: str | None, names: str | None) -> list[Config]:
    """Return a config for every named tokenizer, and one for every size of those that have a size.

    `sizes` and `names` are the values of --vocab-sizes and --tokenizers.
    """
    numbers = parse_sizes(sizes or LADDER)
    configs, sized = [], False
    for name in names.split(",") if names is not None else [""]:
        settings = [*words, f"tokenizer={name}"] if names is not None else words
        configs.append(compose_config(settings))
        if isinstance(configs[-1].tokenizer, BPEConfig) and (sizes or names is None):
            configs[-1:] = [compose_config([*settings, f"tokenizer.vocab_size={n}"]) for n in numbers]
            sized = True
    if sizes and not sized:
        raise UserError(f"--vocab-sizes={sizes}: none of these tokenizers has a size to set; tokenizer=bpe has one")
    return configs


def parse_sizes(value: str) -> list[int]:
    """Return the numbers of --vocab-sizes. Raises UserError for other values."""
    try:
        sizes = list(map(int, value.split(",")))
    except ValueError:
        raise UserError(f"--vocab-sizes={value} must be numbers separated by commas, e.g. {LADDER}") from None
    if min(sizes) < 256:
        raise UserError(f"--vocab-sizes={value} must be at least 256 each: every byte has a token")
    return sizes


def count_text(
    text: Text, tokenizer: Tokenizer, parse_special: bool, downloads: Downloads | None = None
) -> tuple[Counts, Counts]:
    """Count the tokens of the training text and the held-out text.

    With `downloads`, the ids are those that a run reads from the cache. Otherwise the text is encoded now.
    """
    if downloads:
        tokens = cache_tokens(text, tokenizer, downloads, parse_special)
        train = count_ids(_blocks(tokens.train, text.train.size), tokenizer.vocab_size)
        return train, count_ids(_blocks(tokens.val, text.val.size), tokenizer.vocab_size)
    documents = text.documents and tokenizer.end_of_text is not None
    with progress("counting", text.train.size + text.val.size) as advance:

        def parts(split: Split) -> Iterator[tuple[np.ndarray, int]]:
            for ids, size in encode_split(split, tokenizer, documents, special=parse_special):
                advance(size)
                yield ids, size

        return count_ids(parts(text.train), tokenizer.vocab_size), count_ids(parts(text.val), tokenizer.vocab_size)


def _blocks(ids: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Yield a memory map of ids in blocks, the first with the `size` in bytes of the whole text."""
    for start in range(0, len(ids), BLOCK):
        yield ids[start : start + BLOCK], 0 if start else size


def check_texts(texts: list[str]) -> None:
    """Raise UserError if a text to split is empty."""
    if not all(texts):
        raise UserError("--text is empty: give at least one character to split")


def check_outputs(*paths: Path | None) -> None:
    """Raise UserError if a file cannot be written, before the work begins."""
    for path in filter(None, paths):
        if path.exists() and not path.is_file():
            kind = "a directory" if path.is_dir() else "not a regular file"
            raise UserError(f"{path} is {kind}; name a file to write")
        parent = next(parent for parent in path.absolute().parents if parent.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise UserError(f"{path} cannot be written: {parent} is not a writable directory")


def write_report(title: str, sections: list[Section], html: Path | None, png: Path | None) -> None:
    """Write the HTML page and the chart, if their paths are given."""
    if html:
        write_text(html, html_page(title, sections))
    if png:
        with atomic_replace(png) as temporary:
            temporary.write_bytes(render_png(next(section for section in sections if isinstance(section, Chart))))
    for path in filter(None, (html, png)):
        log.info("wrote %s", path)
