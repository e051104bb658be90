"""The named experiments in conf/experiment/: their questions, results, sizes and estimated times."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from lm.base.checks import did_you_mean
from lm.base.console import format_table
from lm.base.errors import UserError
from lm.config import CONF, compose_config
from lm.config.help import comment, option_names
from lm.experiment.capacity import known_vocab_size
from lm.experiment.summary import format_duration
from lm.model import GPT
from lm.model.meta import without_numbers

CPU, GPU = 3e11, 0.4 * 989e12  # FLOP/s
CPU_STEP, GPU_STEP = 8e-3, 2e-3  # seconds that a step takes at least
CHARACTERS = {
    "tinyshakespeare": 65,
    "WordsConfig": 15,
    "AdditionConfig": 15,
    "TenActionsConfig": 25,
    "RepeatsConfig": 27,
}


def select(names: Sequence[str]) -> list[str]:
    """Return the experiments with these names or in these families, or all of them. Raises UserError."""
    every = option_names("experiment")
    families = {name.partition("/")[0] for name in every}
    for name in names:
        if name not in {*families, *every}:
            raise UserError(f"there is no experiment {name}{did_you_mean(name, [*families, *every])}")
    return [name for name in every if not names or name in names or name.partition("/")[0] in names]


def experiment_facts(name: str) -> dict[str, Any]:
    """Return the size and estimated times of an experiment, and the parts of its comment."""
    c = compose_config([f"experiment={name}"], here=False)
    corpus = getattr(c.corpus, "name", type(c.corpus).__name__)
    characters = CHARACTERS.get(corpus) if type(c.tokenizer).__name__ == "CharConfig" else None
    with without_numbers():
        model = GPT(c.model, characters or known_vocab_size(c))
    figures: dict[str, Any] = dict.fromkeys(("steps", "tokens", "cpu_s", "h100_s"))
    if c.trainer.max_epochs is None:  # otherwise the number of steps depends on the text
        steps = c.trainer.horizon(0, c.data.batch_size, c.model.block_size)
        tokens = steps * c.data.batch_size * c.model.block_size
        flops = tokens * model.flops_per_token
        figures = {
            "steps": steps,
            "tokens": tokens,
            "cpu_s": max(flops / CPU, steps * CPU_STEP),
            "h100_s": max(flops / GPU, steps * GPU_STEP),
        }
    head, _, measured = comment(CONF / "experiment" / f"{name}.yaml").partition(" Measured: ")
    question, _, reported = head.partition(" Reported: ")
    parts = {"question": question, "reported": reported, "measured": measured}
    return parts | {"parameters": model.num_params} | figures


def format_catalog(experiments: Mapping[str, dict[str, Any]]) -> str:
    """Return a table with a row for each experiment."""
    rows = [("experiment", "parameters", "steps", "tokens", "CPU", "H100", "measured")]
    return format_table([*rows, *((name, *format_cells(facts)) for name, facts in experiments.items())])


def format_cells(facts: dict[str, Any]) -> tuple[str, ...]:
    """Return the cells of an experiment in the table, except its name."""
    figures = (facts[key] and f"{facts[key]:,}" for key in ("parameters", "steps", "tokens"))
    times = (facts[key] and format_duration(facts[key]) for key in ("cpu_s", "h100_s"))
    measured = facts["measured"].split(";")[0].removesuffix(".")
    return tuple(cell or "-" for cell in (*figures, *times, measured))


def format_experiment(name: str, facts: dict[str, Any]) -> str:
    """Return the full description of an experiment."""
    parameters, steps, tokens, cpu, gpu, _ = format_cells(facts)
    parts = [facts["question"]]
    if facts["reported"]:
        parts.append(f"Reported: {facts['reported']}")
    parts.append(f"Measured: {facts['measured'] or 'not yet'}")
    parts.append(f"{parameters} parameters, {steps} steps, {tokens} tokens; about {cpu} on two cores, {gpu} on an H100")
    return "\n".join([f"experiment={name}", *(textwrap.indent(textwrap.fill(p, 110), "  ") for p in parts if p)])
