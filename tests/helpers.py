"""Helpers shared by the tests: composing configs, and reading and comparing what runs wrote."""

from __future__ import annotations

import copy
import io
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Collection, Iterable
from contextlib import chdir, redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from unittest import mock

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from lm.config import CONF, SCHEMAS, Config, register, resolve
from lm.config.typed import quote_text

ROOT = Path(__file__).parents[1]
register()
torch.set_num_threads(1)

# A run of about one second that uses every part of the project.
NANO = [
    "corpus=words",
    "corpus.lines=300",
    "tokenizer=char",
    "model.n_layer=2",
    "model.n_head=2",
    "model.n_embd=32",
    "model.block_size=16",
    "data.batch_size=4",
    "data.micro_batch_size=2",
    "optimizer.lr=0.01",
    "schedule.warmup_steps=2",
    "trainer.max_steps=12",
    "trainer.val_every=4",
    "trainer.save_every=4",
    "trainer.log_every=1",
    "callbacks.sample.every=6",
    "callbacks.sample.max_new_tokens=8",
    "logger=csv",
    "device=cpu",
    "precision=fp32",
]


def config_of(*overrides: str) -> Config:
    """Compose and check a configuration, as the command line does.

    Composing the groups takes Hydra a third of a second, so the result is cached for each choice of groups. The
    assignments to single keys are then applied by the same code of Hydra, in their order. `tests/test_config.py` checks
    that this gives the same config as composing everything at once.
    """
    typed = quote_text([*overrides, "name=test"], Config, SCHEMAS)
    keys = [word for word in typed if re.match(r"[a-z_]+(\.\w+)+=|(name|seed|init_\w+)=", word)]
    cfg = copy.deepcopy(composed(*(word for word in typed if word not in keys)))
    ConfigLoaderImpl._apply_overrides_to_config([_parsed(word) for word in keys], cfg)
    return resolve(cfg)


@cache
def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", list(overrides))


@cache
def _parsed(override: str) -> Override:
    return OverridesParser.create().parse_override(override)


def run_script(name: str, *args: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run scripts/<name>.py from the root of the project, in this process, which saves the seconds of the imports.

    Tests of what only a process of its own has, such as pipes and signals, start one.
    """
    path, out, err = ROOT / "scripts" / f"{name}.py", io.StringIO(), io.StringIO()
    argv = [str(path), *map(str, args)]
    typed = io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8")
    GlobalHydra.instance().clear()
    status: object = 0
    with (
        mock.patch.multiple(sys, argv=argv, stdin=typed), mock.patch.dict(os.environ), chdir(ROOT),
        redirect_stdout(out), redirect_stderr(err),
    ):  # fmt: skip
        try:
            runpy.run_path(str(path), run_name="__main__")
        except SystemExit as stop:
            status = stop.code
            if isinstance(status, str):  # the interpreter prints the message and exits with 1
                print(status, file=err)
                status = 1
    return subprocess.CompletedProcess(argv, int(status or 0), out.getvalue(), err.getvalue())


def weights(run: Path, name: str = "last.ckpt") -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / name, weights_only=True)["state_dict"]


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Return whether two tensors of logits agree to 1e-5, relative to the largest if that is more than 1."""
    a, b = a.detach(), b.detach()
    return a.shape == b.shape and float((a - b).abs().max()) <= 1e-5 * max(1.0, float(b.abs().max()))


def slow_except(fast: Collection[object], values: Iterable[object]) -> list[object]:
    """Mark the values that are not in `fast` as slow, so that `make test` tries only a few values of a parameter."""
    return [
        value
        if value in fast
        else pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.slow)
        for value in values
    ]
