"""Measurements that justify the automatic choices of the project and some figures in docs/."""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import resource
import statistics
import tempfile
import time
from functools import partial
from random import Random
from typing import Any

import torch

from benchmarks.timing import time_alternately
from lm.base.hardware import resolve_device_type
from lm.config import compose_config, load_option
from lm.data.token_files import cache_tokens, cached_tokenizer
from lm.experiment.inputs import load_text
from lm.model.attention import attend, choose_backend
from lm.model.precision import DTYPES

SHAPES = [  # B, H, T, D
    (16, 4, 64, 32), (16, 4, 128, 32), (16, 6, 256, 64), (8, 8, 256, 64), (4, 8, 512, 64), (1, 12, 1024, 64),
]  # fmt: skip
TOKENIZERS = [  # the vocabulary sizes of feste, the default, and the tokenizers that need no training
    *(["tokenizer=bpe", f"tokenizer.vocab_size={size}"] for size in (512, 1024, 1536, 2048, 20534)),
    ["tokenizer=char"], ["tokenizer=byte"],
]  # fmt: skip


def attention(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Median milliseconds of forward and backward with each attention backend; `auto` is the backend that `auto`
    picks, and `loses` how much slower it is than the fastest."""
    device = resolve_device_type(args.device, "--device")
    rows = []
    for dtype in ("fp32", "bf16"):
        for shape in SHAPES:
            qkv = torch.randn(3, *shape, device=device, dtype=DTYPES[dtype], requires_grad=True)
            tasks = {b: partial(forward_backward, qkv, b) for b in ("manual", "sdpa")}
            times = time_alternately(tasks, args.repeats, device)
            ms = {backend: statistics.median(seconds) for backend, seconds in times.items()}
            chosen = choose_backend(device, DTYPES[dtype], shape[2])
            loses = ms[chosen] / min(ms.values()) - 1
            rows.append({"dtype": dtype, "B, H, T, D": shape, **ms, "auto": chosen, "loses": loses})
    return rows


def forward_backward(qkv: torch.Tensor, backend: str) -> None:
    """Run attention and its gradient on `qkv` (3, B, H, T, D)."""
    q, k, v = qkv.unbind(0)
    attend(q, k, v, backend).sum().backward()


def tokenizer(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Median seconds to learn a vocabulary, to encode the corpus, and to load both from the cache at the second start;
    the number of tokens, and how much memory the process gained. Each measurement runs in its own process."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as tmp:
        corpus = [f"corpus={args.corpus}", f"data.root={args.dir}"]
        config = compose_config(corpus)
        load_text(config)  # download it before anything is measured
        for overrides in TOKENIZERS:
            runs = []
            for i in range(args.repeats):
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    runs.append(pool.apply(measure_tokenizer, ([*corpus, *overrides], f"{tmp}/{i}-{len(rows)}")))
            floats = [key for key, value in runs[0].items() if isinstance(value, float)]
            rows.append(runs[0] | {key: statistics.median(run[key] for run in runs) for key in floats})
    return rows


def measure_tokenizer(overrides: list[str], root: str) -> dict[str, Any]:
    """Measure one tokenizer with an empty cache in `root`; the first two overrides choose the corpus."""
    config = compose_config(overrides)
    text = load_text(config)
    downloads = compose_config([f"data.root={root}"]).data.downloads()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    at = [time.perf_counter()]
    trained = cached_tokenizer(config.tokenizer, text, downloads)
    at.append(time.perf_counter())
    tokens = cache_tokens(text, trained, downloads)
    at.append(time.perf_counter())
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    again = load_text(config)
    cache_tokens(again, cached_tokenizer(config.tokenizer, again, downloads), downloads)
    at.append(time.perf_counter())
    count, size = len(tokens.train) + len(tokens.val), text.train.size + text.val.size
    train, encode, load = (b - a for a, b in itertools.pairwise(at))
    name = " ".join(o.rpartition("=")[2] for o in overrides[2:])
    return {
        "tokenizer": name, "train s": train, "encode s": encode, "MB/s": size / 1e6 / encode, "second start s": load,
        "tokens": count, "bytes/token": size / count, "grown MB": grown / 1e3,
    }  # fmt: skip


def floors(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Lowest possible loss, in nats per character, on windows of T characters of new text, given their first
    character; the mean over random windows, with twice its standard error."""
    rows = []
    for name in ("words", "addition", "ten_actions"):
        corpus = load_option("corpus", name, lines=100_000, seed=2)
        text, random = corpus.generate(), Random(0)
        row: dict[str, Any] = {"corpus": name}
        for T in (64, 80, 128, 256):
            starts = [random.randrange(len(text) - T - 2) for _ in range(1000 * args.repeats)]
            windows = [text[start : start + T + 1] for start in starts]
            nats = [(corpus.log_prob(w[:1]) - corpus.log_prob(w)) / T for w in windows]
            error = 2 * statistics.stdev(nats) / len(nats) ** 0.5
            row[f"T={T}"] = f"{statistics.fmean(nats):.4f} +- {error:.4f}"
        rows.append(row)
    return rows
