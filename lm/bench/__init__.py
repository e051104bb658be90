"""What scripts/bench.py measures: each sub-bench takes its arguments and returns rows of a table.

Timings on shared machines swing, so what is compared runs alternately in one process, and the median counts.
"""

from lm.bench.choices import attention, floors, tokenizer
from lm.bench.memory import memory
from lm.bench.speed import step

__all__ = ["BENCHES"]

BENCHES = {  # and how often each is repeated
    "step": (step, 30),
    "memory": (memory, 1),
    "attention": (attention, 30),
    "tokenizer": (tokenizer, 3),
    "floors": (floors, 10),
}
