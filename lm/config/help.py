"""The options under conf/: their names, contents and descriptions, and the overview of `python train.py --help`."""

from __future__ import annotations

import itertools
import textwrap
from pathlib import Path
from typing import Any

import yaml

CONF = Path(__file__).parents[2] / "conf"

USAGE = """\
Train a small GPT language model.

  python train.py                                   a 1M model of the complete Shakespeare, in minutes on a laptop
  python train.py model=small corpus=text corpus.path=my.txt
  python train.py experiment=smoke                  a named experiment: a quick test of the installation
  python train.py name=mine model=medium            a run in outputs/mine; repeat the command to resume it
  python train.py -m model=tiny,small optimizer.lr=1e-3,3e-3         a sweep over all combinations
  python train.py sweep=search sweep.trials=30      search the learning rate with Optuna; repeat it to resume
  python train.py model=small --cfg job             print the whole configuration, run nothing
  tensorboard --logdir outputs                      view the curves
"""

KEYS = """\
Any key can be set: model.n_layer=8, data.batch_size=64, trainer.max_steps=5000 (or max_epochs, max_tokens),
trainer.val_every, optimizer.lr, schedule.warmup_steps, callbacks.sample.prompts=["To be"], device=cpu, seed=1.
`--help optimizer` explains the keys of a group, `--help optimizer.lr` a single key, `--cfg job` prints all values.
A misspelled key is an error before anything starts.

Hydra's own flags: --multirun (-m), --cfg job, --info defaults, --hydra-help, and completion by the tab key:
  eval "$(python train.py -sc install=bash)"
"""


def option_names(group: str) -> list[str]:
    """Return the options of a group, sorted, e.g. `tiny` or `nanogpt/gpu` of `model`."""
    paths = sorted((CONF / group).rglob("*.yaml"))
    return [path.relative_to(CONF / group).with_suffix("").as_posix() for path in paths]


def read_option(group: str, option: str) -> Any:
    """Return the content of conf/<group>/<option>.yaml."""
    return yaml.safe_load((CONF / group / f"{option}.yaml").read_text(encoding="utf-8"))


def option_schema(group: str, option: str) -> str:
    """Return the name of the config class that an option extends, or an empty string if it extends none."""
    first = str((read_option(group, option).get("defaults") or [""])[0])
    return first if first.endswith("Config") else ""


def help_text(conf: Path = CONF) -> str:
    """Return the usage, then one line for each option of each group: the first comment of its YAML file."""
    lines = [USAGE, "Groups and their options (group=option):", ""]
    for group in sorted(path for path in conf.iterdir() if path.is_dir() and path.name != "hydra"):
        rows = [(option.stem, describe(option)) for option in sorted(group.glob("*.yaml"))]
        for family in sorted(path for path in group.iterdir() if path.is_dir()):
            names = [option.stem for option in sorted(family.glob("*.yaml"))]
            rows.append((f"{family.name}/{names[0]}", f"also in {family.name}/: {', '.join(names[1:])}"))
        for i, (name, text) in enumerate(rows):
            begin = f"  {group.name if i == 0 else '':<11} {name:<18} "
            lines += textwrap.wrap(text, 140, initial_indent=begin, subsequent_indent=" " * len(begin))
    return "\n".join([*lines, "", KEYS])


def describe(option: Path) -> str:
    """Return the first sentence of the comment at the top of a YAML file."""
    return comment(option).split(". ")[0].removesuffix(".")


def comment(option: Path) -> str:
    """Return the comment at the top of a YAML file as one line."""
    lines = option.read_text(encoding="utf-8").splitlines()
    comments = itertools.takewhile(lambda line: line.startswith("# "), lines)
    return " ".join(line.removeprefix("# ") for line in comments if not line.startswith("# @package"))
