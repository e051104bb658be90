"""Fixtures and helpers shared by the tests: composing configs and training small runs in this process."""

from __future__ import annotations

import copy
import logging
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import cache
from pathlib import Path

# Environment variables of the user must not change the result of a test, in this process or in its child processes.
for name in list(os.environ):
    if re.match(
        r"(?i)(http|https|ftp|no|all)_proxy$|SLURM_|HYDRA_|TQDM_|PYTHONIOENCODING$|COLUMNS$|LINES$|(NO|FORCE)_COLOR$",
        name,
    ):
        del os.environ[name]
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    # nohup and scripts that run pytest in the background ignore these signals, and child processes would inherit that
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)
os.environ["OMP_NUM_THREADS"] = "1"  # faster for models of this size, and tests run in parallel

import hypothesis
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import train as train_script
from lm.base.console import ConsoleHandler
from lm.config import CONF, SCHEMAS, Config, register, resolve
from lm.config.typed import quote_text

register()
# Use the same examples every time, on machines of any speed. `pytest --hypothesis-profile=search` tries new ones.
hypothesis.settings.register_profile(
    "fixed", deadline=None, derandomize=True, database=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile("search", deadline=None, print_blob=True, database=None)
hypothesis.settings.load_profile("fixed")
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


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Start each test without the Hydra state of the previous one, and remove the log handlers of its runs."""
    GlobalHydra.instance().clear()
    yield
    root = logging.getLogger()  # Hydra adds the handlers of a run to the root logger
    root.handlers = [h for h in root.handlers if not isinstance(h, logging.FileHandler | ConsoleHandler)]


@pytest.fixture(autouse=True)
def no_internet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse to resolve any host except localhost, so that no test depends on an internet connection."""
    resolve = socket.getaddrinfo

    def local(host: str | None, *args: object, **kwargs: object) -> object:
        if host in (None, "localhost", "127.0.0.1"):
            return resolve(host, *args, **kwargs)
        raise socket.gaierror(socket.EAI_NONAME, "tests do not use the internet")

    monkeypatch.setattr(socket, "getaddrinfo", local)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an empty folder the current directory and return it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def shared() -> Path:
    """Return the folder of real texts next to the checkout; skip the test if there is none."""
    folder = ROOT.parent / "shared" / "corpora"
    if not folder.exists():
        pytest.skip("the shared corpora are not on this machine")
    return folder


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


@pytest.fixture
def nano(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that trains the NANO run and returns its directory: nano("key=value", ..., name="run").

    `skip` omits the settings of NANO that start with these strings, for example because another corpus lacks them.
    """

    def run(*overrides: str, name: str = "run", skip: tuple[str, ...] = ("\0",)) -> Path:
        config = config_of(
            *(typed for typed in NANO if not typed.startswith(skip)), f"data.root={tmp_path}/data", *overrides
        )
        train_script.train(config, tmp_path / name)
        return tmp_path / name

    return run


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


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Use a value in the name of a test only if it is short ASCII text, otherwise the name of the parameter.

    Bytes may contain the time (gzip writes it). pytest-xdist refuses to run if its workers, which collect at different
    moments, find different names. pytest numbers equal names itself.
    """
    if isinstance(val, bytes) or (isinstance(val, str) and not (val.isascii() and val.isprintable() and len(val) < 60)):
        return argname
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="torch finds no CUDA device here"))
