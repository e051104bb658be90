"""Evaluate a checkpoint on a text or on a task, and format the result."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lm.base.console import format_table, progress
from lm.base.errors import UserError
from lm.base.hardware import resolve_device_type
from lm.config import compose_config, load_section
from lm.config.words import split_files_and_settings
from lm.data import user_text
from lm.data.corpus import Split
from lm.data.token_files import cache_tokens, encode_split
from lm.evaluate.score import group_positions, mean_by_position, score, summarize, worst_passages
from lm.evaluate.tasks import TASKS, score_task
from lm.evaluate.tasks.cases import SEED
from lm.evaluate.tasks.scoring import has_passed
from lm.run.checkpoint import Checkpoint, load
from lm.run.directory import find_run, parses_special, read_record

FIGURES = {  # key of the result: (label, format)
    "loss": ("nats per token", ".4f"),
    "ppl": ("perplexity", ",.3f"),
    "bits_per_byte": ("bits per byte", ".4f"),
    "bits_per_char": ("bits per character", ".4f"),
    "word_ppl": ("perplexity per word", ",.2f"),
    "accuracy": ("accuracy", ".2%"),
    "accuracy_top5": ("accuracy of the top 5", ".2%"),
    "tokens": ("tokens", ",d"),
    "bytes": ("bytes", ",d"),
    "chars": ("characters", ",d"),
    "words": ("words and line ends", ",d"),
    "unknown": ("unknown tokens", ",d"),
}


@dataclass(frozen=True)
class EvaluationOptions:
    """Options of an evaluation, named as the flags of scripts/evaluate.py."""

    run: str
    words: Sequence[str] = ()  # files, and key=value settings of `corpus`
    corpus: str | None = None
    split: str | None = None
    max_tokens: int | None = None
    parse_special: bool = False
    task: str | None = None
    procedure: str = "strict"
    cases: int = 100
    seed: int = SEED
    stride: int | None = None
    batch_size: int = 16
    device: str = "auto"
    positions: bool = False
    worst: int = 0


def evaluate_task(options: EvaluationOptions) -> dict[str, Any]:
    """Ask the model the cases of a task. Raises UserError for options that do not fit together."""
    assert options.task
    if options.words or options.corpus:
        raise UserError(f"--task {options.task} uses a text of its own; give neither FILE nor --corpus")
    if options.cases < 1:
        raise UserError(f"--cases={options.cases} must be at least 1")
    device = resolve_device_type(options.device, "--device")
    checkpoint = load(options.run)
    run = find_run(checkpoint.path)
    corpus = load_section(run / "config.yaml", "corpus") if run else None
    model = checkpoint.model.to(device)
    started = time.perf_counter()
    rates = score_task(
        model, checkpoint.tokenizer, options.task, corpus, options.procedure, options.cases, options.seed
    )
    seconds = time.perf_counter() - started
    print(f"{sum(rate.asked for rate in rates):,} answers in {seconds:.1f} s", file=sys.stderr)
    return {
        "checkpoint": str(checkpoint.path),
        "step": checkpoint.step,
        "task": options.task,
        "procedure": options.procedure,
        "seed": options.seed,
        "passed": has_passed(rates, options.procedure),
        "rates": [
            {
                "kind": rate.kind,
                "right": rate.right,
                "asked": rate.asked,
                "rate": rate.rate,
                "low": rate.interval[0],
                "high": rate.interval[1],
            }
            for rate in rates
        ],
    }


def format_task_result(result: dict[str, Any]) -> str:
    """Return the result of `evaluate_task` as a table with one row per kind."""
    rows = []
    for rate in result["rates"]:
        wrong = rate["asked"] - rate["right"]
        shares = (f"{rate[key]:.1%}" for key in ("rate", "low", "high"))
        rows.append((rate["kind"], f"{rate['right']:,}", f"{wrong:,}", *shares))
    kind = TASKS[result["task"]].kind
    heading = (kind, "right", "wrong", "rate", "95 % from", "to")
    title = f"{result['checkpoint']}, step {result['step']}, {result['task']}, {result['procedure']} procedure"
    required = "more than 70 %" if result["procedure"] == "log" else "at least 95 %"
    verdict = f"{'passed' if result['passed'] else 'not passed'}: every {kind} needs {required} right"
    return "\n\n".join([title, format_table([heading, *rows]), verdict])


def evaluate_text(options: EvaluationOptions) -> dict[str, Any]:
    """Score a text with the model. Raises UserError for invalid options and for a text that cannot be scored."""
    limits = {"batch_size": 1, "max_tokens": 2, "worst": 0}
    for key, lowest in limits.items():
        if (value := getattr(options, key)) is not None and value < lowest:
            raise UserError(f"--{key.replace('_', '-')}={value} must be at least {lowest}")
    device = resolve_device_type(options.device, "--device")
    checkpoint = load(options.run)
    name, ids, end_of_text = select_text(options, checkpoint)
    model, tokenizer = checkpoint.model.to(device), checkpoint.tokenizer
    n_bytes = int(tokenizer.token_bytes[ids[1:]].sum())
    started = time.perf_counter()
    with progress("evaluating", n_bytes) as advance:

        def report(tokens: int) -> None:
            advance(tokens * n_bytes // (len(ids) - 1))

        scores = score(model, ids, options.stride, options.batch_size, end_of_text, report)
    seconds = time.perf_counter() - started
    speed = (len(ids) - 1) / seconds
    print(f"{len(ids) - 1:,} tokens in {seconds:.1f} s, {speed:,.0f} tokens/s", file=sys.stderr)
    result: dict[str, Any] = {
        "checkpoint": str(checkpoint.path),
        "step": checkpoint.step,
        "text": name,
        "block_size": model.config.block_size,
        "stride": options.stride or model.config.block_size,
    }
    result |= summarize(scores, ids, tokenizer) | {"seconds": seconds, "tokens_per_s": speed}
    if options.positions:
        nats, tokens = mean_by_position(scores)
        result["positions"] = {"nats": nats.tolist(), "tokens": tokens.tolist()}
    if options.worst:
        result["worst"] = worst_passages(scores, ids, tokenizer, options.worst)
    return result


def select_text(options: EvaluationOptions, checkpoint: Checkpoint) -> tuple[str, np.ndarray, int | None]:
    """Return the name of the text, its ids, and the end-of-text token if attention must stay within documents.

    The text is a file, a corpus, or by default the corpus of the run. Raises UserError if none or several are given.
    """
    files, overrides = split_files_and_settings(options.words)
    if overrides and not options.corpus:
        raise UserError(f"{overrides[0]} is a setting of a corpus; name the corpus with --corpus")
    texts = [*files, f"--corpus {options.corpus}"] if options.corpus else files
    if len(texts) > 1:
        raise UserError(f"name one text, not {len(texts)}: {', '.join(texts)}")
    if not files:
        return load_corpus(options, checkpoint, overrides)
    if options.split:
        raise UserError(f"--split {options.split}: {files[0]} is a single text without splits; remove --split")
    special = options.parse_special or parses_special(find_run(checkpoint.path))
    split = Split.of(user_text.read(files[0]))
    return files[0], encode(split, checkpoint, False, options.max_tokens, special), None


def load_corpus(
    options: EvaluationOptions, checkpoint: Checkpoint, overrides: list[str]
) -> tuple[str, np.ndarray, int | None]:
    """Return a split of the corpus in --corpus, or of the corpus of the run, as `select_text` does."""
    run = find_run(checkpoint.path)
    if options.corpus:
        config = compose_config([f"corpus={options.corpus}", *overrides], here=False)
        corpus, data = config.corpus, config.data
    elif run:
        corpus, data = (load_section(run / "config.yaml", group) for group in ("corpus", "data"))
    else:
        raise UserError(
            f"{options.run} is not in a run directory, so its corpus is unknown; name a text: FILE or --corpus"
        )
    downloads = data.downloads()
    text = corpus.load(downloads)
    if run and not options.corpus and read_record(run / "run.json").get("text", text.digest) != text.digest:
        print("note: the text of the corpus has changed since the run was trained", file=sys.stderr)
    tokenizer = checkpoint.tokenizer
    if text.documents and tokenizer.end_of_text is None:
        raise UserError(
            "the corpus has documents, but the model's tokenizer has no end-of-text token to separate them; "
            "name one FILE instead"
        )
    name, special = options.split or "val", options.parse_special or parses_special(run)
    if name != "test":
        ids = getattr(cache_tokens(text, tokenizer, downloads, special), name)[: options.max_tokens]
    elif text.test is None:
        raise UserError("--split test: the corpus has only the splits train and val")
    else:
        ids = encode(text.test, checkpoint, text.documents, options.max_tokens, special)
    separate = load_section(run / "config.yaml", "data").respect_documents if run else data.respect_documents
    end_of_text = tokenizer.end_of_text if separate and text.documents else None
    return f"{name} of {options.corpus or 'its own corpus'}", ids, end_of_text


def encode(split: Split, checkpoint: Checkpoint, documents: bool, most: int | None, special: bool) -> np.ndarray:
    """Return the ids of a split, or its first `most` ids."""
    parts, size = [], 0
    for ids, _ in encode_split(split, checkpoint.tokenizer, documents, special=special):
        parts.append(ids)
        size += len(ids)
        if most and size >= most:
            break
    return np.concatenate(parts)[:most]


def format_text_result(result: dict[str, Any]) -> str:
    """Return the result of `evaluate_text` as tables, followed by the worst passages."""
    context = f"windows of {result['block_size']} tokens, one every {result['stride']}"
    cells = []
    for key, (label, form) in FIGURES.items():
        cells.append((label, "-" if result[key] is None else format(result[key], form)))
    title = f"{result['checkpoint']}, step {result['step']}, on {result['text']} ({context})"
    parts = [title, format_table(cells)]
    if "positions" in result:
        rows = [("tokens before", "nats per token", "tokens")]
        for first, last, nats, tokens in group_positions(*map(np.array, result["positions"].values())):
            rows.append((f"{first}-{last}" if last > first else f"{first}", f"{nats:.4f}", f"{tokens:,}"))
        parts.append(format_table(rows))
    for passage in result.get("worst", []):
        heading = f"{passage['nats']:.3f} nats per token, {passage['tokens']} tokens at character {passage['offset']:,}"
        parts.append(f"{heading}\n{json.dumps(passage['text'], ensure_ascii=False)}")
    return "\n\n".join(parts)
