"""Benchmarks of scripts/bench.py.

Each takes the arguments of the script and returns the rows of a table. Its docstring is printed above the table.
"""

import argparse
from collections.abc import Callable
from typing import Any

from benchmarks.choices import attention, floors, tokenizer
from benchmarks.cost import data, optimizer, overhead, startup
from benchmarks.memory import memory
from benchmarks.peer import loss_curve, peer
from benchmarks.speed import generate, step

Bench = Callable[[argparse.Namespace], list[dict[str, Any]]]

BENCHES: dict[str, tuple[Bench, int]] = {  # with the default number of repeats
    "step": (step, 30),
    "peer": (peer, 3),
    "loss_curve": (loss_curve, 3),
    "overhead": (overhead, 3),
    "generate": (generate, 3),
    "optimizer": (optimizer, 30),
    "data": (data, 30),
    "startup": (startup, 3),
    "memory": (memory, 1),
    "attention": (attention, 30),
    "tokenizer": (tokenizer, 3),
    "floors": (floors, 10),
}


GPT2 = "model=nanogpt/gpt2 model.vocab_multiple=64 precision=bf16"  # GPT-2 124M, context 1024

# The benchmarks of `bench.py gpu` and their configurations
GPU: list[tuple[str, list[str]]] = [
    ("step", [
        f"{GPT2} data.batch_size=16", f"{GPT2} data.batch_size=32 trainer.compile=true",
        f"{GPT2} data.batch_size=32 trainer.compile=true optimizer=muon",
        f"{GPT2} data.batch_size=16 attention=flex trainer.compile=true",
        "model=nanogpt/gpt2 data.batch_size=8 precision=tf32",
        "model=nanogpt/baby data.batch_size=64 precision=bf16 trainer.compile=true",
    ]),
    ("overhead", [f"{GPT2} data.batch_size=16", "model=nanogpt/baby data.batch_size=64 precision=bf16"]),
    ("attention", []), ("optimizer", ["model=nanogpt/gpt2"]), ("memory", []), ("startup", []), ("generate", []),
]  # fmt: skip
