"""The measurements behind the choices that are made for the user, and behind figures in docs/."""

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

import torch

from benchmarks.timing import alternate
from lm.base.hardware import device_type
from lm.config import compose_config, load_option
from lm.data.token_files import cache_tokens, cached_tokenizer
from lm.model.attention import attend, choose_backend
from lm.model.precision import DTYPES

SHAPES = [  # B, H, T, D
    (16, 4, 64, 32), (16, 4, 128, 32), (16, 6, 256, 64), (8, 8, 256, 64), (4, 8, 512, 64), (1, 12, 1024, 64),
]  # fmt: skip
TOKENIZERS = [  # feste's sizes, the default, and what learns nothing
    *(["tokenizer=bpe", f"tokenizer.vocab_size={size}"] for size in (512, 1024, 1536, 2048, 20534)),
    ["tokenizer=char"], ["tokenizer=byte"],
]  # fmt: skip


def attention(args: argparse.Namespace) -> list[dict]:
    """Forward and backward of each backend in ms, medians; what `auto` picks, and how much that loses to the best."""
    device = device_type(args.device, "--device")
    rows = []
    for dtype in ("fp32", "bf16"):
        for shape in SHAPES:
            qkv = torch.randn(3, *shape, device=device, dtype=DTYPES[dtype], requires_grad=True)
            tasks = {b: partial(forward_backward, qkv, b) for b in ("manual", "sdpa")}
            times = alternate(tasks, args.repeats, device)
            ms = {backend: statistics.median(seconds) for backend, seconds in times.items()}
            chosen = choose_backend(device, DTYPES[dtype], shape[2])
            loses = ms[chosen] / min(ms.values()) - 1
            rows.append({"dtype": dtype, "B, H, T, D": shape, **ms, "auto": chosen, "loses": loses})
    return rows


def forward_backward(qkv: torch.Tensor, backend: str) -> None:
    q, k, v = qkv.unbind(0)
    attend(q, k, v, backend).sum().backward()


def tokenizer(args: argparse.Namespace) -> list[dict]:
    """Seconds to learn a vocabulary, to encode the corpus, and to load both from the cache at the second start
    (medians); tokens, and how far the process grew. Each in a process of its own."""
    rows: list[dict] = []
    with tempfile.TemporaryDirectory() as tmp:
        corpus = [f"corpus={args.corpus}", f"data.root={args.dir}"]
        config = compose_config(corpus)
        config.corpus.load(config.data.downloads())  # so that the download is not measured
        for overrides in TOKENIZERS:
            runs = []
            for i in range(args.repeats):
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    runs.append(pool.apply(measure_tokenizer, ([*corpus, *overrides], f"{tmp}/{i}-{len(rows)}")))
            floats = [key for key, value in runs[0].items() if isinstance(value, float)]
            rows.append(runs[0] | {key: statistics.median(run[key] for run in runs) for key in floats})
    return rows


def measure_tokenizer(overrides: list[str], root: str) -> dict:
    config = compose_config(overrides)
    text = config.corpus.load(config.data.downloads())
    downloads = compose_config([f"data.root={root}"]).data.downloads()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    at = [time.perf_counter()]
    made = cached_tokenizer(config.tokenizer, text, downloads)
    at.append(time.perf_counter())
    tokens = cache_tokens(text, made, downloads)
    at.append(time.perf_counter())
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    again = config.corpus.load(config.data.downloads())
    cache_tokens(again, cached_tokenizer(config.tokenizer, again, downloads), downloads)
    at.append(time.perf_counter())
    count, size = len(tokens.train) + len(tokens.val), text.train.size + text.val.size
    train, encode, load = (b - a for a, b in itertools.pairwise(at))
    name = " ".join(o.rpartition("=")[2] for o in overrides[2:])
    return {
        "tokenizer": name, "train s": train, "encode s": encode, "MB/s": size / 1e6 / encode, "second start s": load,
        "tokens": count, "bytes/token": size / count, "grown MB": grown / 1e3,
    }  # fmt: skip


def floors(args: argparse.Namespace) -> list[dict]:
    """The least loss, in nats per character, that any model can have on windows of T characters of fresh text (their
    first given), the mean over windows drawn at random; with twice its standard error."""
    rows = []
    for name in ("words", "addition", "ten_actions"):
        corpus = load_option("corpus", name, lines=100_000, seed=2)
        text, random = corpus.generate(), Random(0)
        row: dict = {"corpus": name}
        for T in (64, 80, 128, 256):
            starts = [random.randrange(len(text) - T - 2) for _ in range(1000 * args.repeats)]
            windows = [text[start : start + T + 1] for start in starts]
            nats = [(corpus.log_prob(w[:1]) - corpus.log_prob(w)) / T for w in windows]
            error = 2 * statistics.stdev(nats) / len(nats) ** 0.5
            row[f"T={T}"] = f"{statistics.fmean(nats):.4f} +- {error:.4f}"
        rows.append(row)
    return rows
