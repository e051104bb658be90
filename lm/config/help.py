"""What `python train.py --help` says: the groups and their options, in the words of the files under conf/."""

from __future__ import annotations

import itertools
import textwrap
from pathlib import Path

CONF = Path(__file__).parents[2] / "conf"

USAGE = """\
Train a small GPT language model.

  python train.py                                   a 1M model of the complete Shakespeare, in minutes on a laptop
  python train.py model=small corpus=text corpus.path=my.txt
  python train.py experiment=smoke                  a named experiment: does everything work here?
  python train.py name=mine model=medium            a run called outputs/mine; the same command again continues it
  python train.py -m model=tiny,small optimizer.lr=1e-3,3e-3         a sweep: every combination
  python train.py sweep=search sweep.trials=30      a search for the learning rate, by Optuna; again, and it continues
  python train.py model=small --cfg job             show the whole configuration, run nothing
  tensorboard --logdir outputs                      look at the curves
"""

KEYS = """\
Any key can be set: model.n_layer=8, data.batch_size=64, trainer.max_steps=5000 (or max_epochs, max_tokens),
trainer.val_every, optimizer.lr, schedule.warmup_steps, callbacks.sample.prompts=["To be"], device=cpu, seed=1.
`--help optimizer` explains the keys of a group, `--help optimizer.lr` one of them, `--cfg job` prints all values.
A misspelled key is refused before anything starts.

Hydra's own flags: --multirun (-m), --cfg job, --info defaults, --hydra-help, and completion by the tab key:
  eval "$(python train.py -sc install=bash)"
"""


def help_text(conf: Path = CONF) -> str:
    """Usage, then one line per option of every group: the first comment of its YAML file."""
    lines = [USAGE, "Groups and their options (group=option):", ""]
    for group in sorted(path for path in conf.iterdir() if path.is_dir() and path.name != "hydra"):
        rows = [(option.stem, describe(option)) for option in sorted(group.glob("*.yaml"))]
        for family in sorted(path for path in group.iterdir() if path.is_dir()):
            names = [option.stem for option in sorted(family.glob("*.yaml"))]
            rows.append((f"{family.name}/{names[0]}", f"and, of {family.name}/: {', '.join(names[1:])}"))
        for i, (name, text) in enumerate(rows):
            begin = f"  {group.name if i == 0 else '':<11} {name:<18} "
            lines += textwrap.wrap(text, 140, initial_indent=begin, subsequent_indent=" " * len(begin))
    return "\n".join([*lines, "", KEYS])


def describe(option: Path) -> str:
    """The first sentence of the comment that opens a YAML file."""
    return comment(option).split(". ")[0].removesuffix(".")


def comment(option: Path) -> str:
    """The comment that opens a YAML file, as one line."""
    lines = option.read_text(encoding="utf-8").splitlines()
    said = itertools.takewhile(lambda line: line.startswith("# "), lines)
    return " ".join(line.removeprefix("# ") for line in said if not line.startswith("# @package"))
