"""The named experiments: what each asks, what was reported, what was measured: python scripts/experiments.py feste

Give names, or families as `feste`, to see them whole; without, a line for each. python train.py experiment=NAME runs
one. Times are estimates: on two CPU cores with fast bf16 at 300 GFLOP/s and 8 ms a step at least, on an H100 at 40 % of
its peak and 2 ms a step. What was measured stands in the experiment's file, with its time.
"""

import argparse
import json
import textwrap

try:
    from lm import cli
except ModuleNotFoundError:
    raise SystemExit("error: lm is not installed; run `make install`, then use .venv/bin/python") from None

import torch

from lm.base.checks import did_you_mean
from lm.base.console import format_table
from lm.base.errors import UserError
from lm.config import CONF, compose_config
from lm.config.help import comment
from lm.experiment.capacity import known_vocab_size
from lm.experiment.summary import format_duration
from lm.model import GPT

FOLDER = CONF / "experiment"
CPU, GPU = 3e11, 0.4 * 989e12  # FLOP/s
CHARACTERS = {"tinyshakespeare": 65, "WordsConfig": 15, "AdditionConfig": 15, "TenActionsConfig": 25}


@cli.script
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="experiments, or families of them")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    args = parser.parse_args()
    every = sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.yaml"))
    chosen = [name for name in every if not args.names or name in args.names or name.partition("/")[0] in args.names]
    for name in args.names:
        if not any(name in (known, known.partition("/")[0]) for known in every):
            families = {other.partition("/")[0] for other in every}
            raise UserError(f"there is no experiment {name}{did_you_mean(name, [*families, *every])}")
    found = {name: about(name) for name in chosen}
    if args.json:
        print(json.dumps(found))
    elif args.names:
        print("\n\n".join(shown(name, facts) for name, facts in found.items()))
    else:
        rows = [("experiment", "parameters", "steps", "tokens", "CPU", "H100", "measured")]
        rows += [(name, *line(facts)) for name, facts in found.items()]
        print(format_table(rows))


def about(name: str) -> dict:
    """The figures of an experiment, and the parts of its comment."""
    c = compose_config([f"experiment={name}"], here=False)
    corpus = getattr(c.corpus, "name", type(c.corpus).__name__)
    known = CHARACTERS.get(corpus) if type(c.tokenizer).__name__ == "CharConfig" else None
    with torch.device("meta"):
        model = GPT(c.model, known or known_vocab_size(c))
    facts: dict = dict.fromkeys(("steps", "tokens", "cpu_s", "h100_s"))
    if c.trainer.max_epochs is None:  # else the text decides
        steps = c.trainer.horizon(0, c.data.batch_size, c.model.block_size)
        tokens = steps * c.data.batch_size * c.model.block_size
        flops = tokens * model.flops_per_token
        facts = {
            "steps": steps,
            "tokens": tokens,
            "cpu_s": max(flops / CPU, steps * 8e-3),
            "h100_s": max(flops / GPU, steps * 2e-3),
        }
    words = comment(FOLDER / f"{name}.yaml")
    begun, _, measured = words.partition(" Measured: ")
    question, _, reported = begun.partition(" Reported: ")
    said = {"question": question, "reported": reported, "measured": measured}
    return said | {"parameters": model.num_params} | facts


def line(facts: dict) -> tuple[str, ...]:
    figures = (facts[key] and f"{facts[key]:,}" for key in ("parameters", "steps", "tokens"))
    times = (facts[key] and format_duration(facts[key]) for key in ("cpu_s", "h100_s"))
    measured = facts["measured"].split(";")[0].removesuffix(".")
    return tuple(cell or "-" for cell in (*figures, *times, measured))


def shown(name: str, facts: dict) -> str:
    parameters, steps, tokens, cpu, gpu, _ = line(facts)
    figures = f"{parameters} parameters, {steps} steps, {tokens} tokens; about {cpu} on two cores, {gpu} on an H100"
    parts = [facts["question"], f"Reported: {facts['reported']}" * bool(facts["reported"])]
    parts += [f"Measured: {facts['measured'] or 'not yet'}", figures]
    return "\n".join([f"experiment={name}", *(textwrap.indent(textwrap.fill(p, 110), "  ") for p in parts if p)])


if __name__ == "__main__":
    main()
