"""What tests share: composing configs, and training small runs in this process."""

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

# What a shell may have set must not decide what a test sees, in this process or in those that it starts.
for name in list(os.environ):
    if re.match(
        r"(?i)(http|https|ftp|no|all)_proxy$|SLURM_|HYDRA_|TQDM_|PYTHONIOENCODING$|COLUMNS$|LINES$|(NO|FORCE)_COLOR$",
        name,
    ):
        del os.environ[name]
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    # ignored under nohup and in the background of a script, which children inherit
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)
os.environ["OMP_NUM_THREADS"] = "1"  # nano models are faster so, and tests run side by side

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
from lm.config.typed import keep_typed

register()
# The same examples every time, however slow the machine is. `pytest --hypothesis-profile=search` looks for others.
hypothesis.settings.register_profile(
    "fixed", deadline=None, derandomize=True, database=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile("search", deadline=None, print_blob=True, database=None)
hypothesis.settings.load_profile("fixed")
torch.set_num_threads(1)

# A run of a second: every part real, every size small.
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
    GlobalHydra.instance().clear()
    yield
    root = logging.getLogger()  # where Hydra puts the handlers of a run
    root.handlers = [h for h in root.handlers if not isinstance(h, logging.FileHandler | ConsoleHandler)]


@pytest.fixture(autouse=True)
def no_internet(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a local server lacks must not be found on the web, where there is one."""
    resolve = socket.getaddrinfo

    def local(host: str | None, *args: object, **kwargs: object) -> object:
        if host in (None, "localhost", "127.0.0.1"):
            return resolve(host, *args, **kwargs)
        raise socket.gaierror(socket.EAI_NONAME, "tests do not use the internet")

    monkeypatch.setattr(socket, "getaddrinfo", local)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def shared() -> Path:
    """Real text beside the checkout, where there is any."""
    folder = ROOT.parent / "shared" / "corpora"
    if not folder.exists():
        pytest.skip("the shared corpora are not on this machine")
    return folder


def config_of(*overrides: str) -> Config:
    """Compose and check a configuration, as the command line does.

    Hydra composes a choice of groups once in each process, which takes a third of a second. What it does next, the
    assignments to single keys in their order, is its own code too; `tests/test_config.py` compares the two ways.
    """
    typed = keep_typed([*overrides, "name=test"], Config, SCHEMAS)
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
    """nano("key=value", ..., name="run") trains the NANO run with overrides, and returns its directory.

    `skip` leaves out settings of NANO, by how they begin: what another corpus has no use for.
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
    """Logits that are equal to 1e-5, or to 1e-5 of the largest where that is more than 1."""
    a, b = a.detach(), b.detach()
    return a.shape == b.shape and float((a - b).abs().max()) <= 1e-5 * max(1.0, float(b.abs().max()))


def slow_except(fast: Collection[object], values: Iterable[object]) -> list[object]:
    """Mark the values that are not in `fast` as slow, for a parameter of which `make test` tries only a few values."""
    return [
        value
        if value in fast
        else pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.slow)
        for value in values
    ]


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Name a test after the value only where the value is short, plain text.

    Bytes may hold the time of day (gzip writes it), and pytest-xdist refuses to run when two workers, which collect at
    different moments, find different names. pytest numbers equal names by itself.
    """
    if isinstance(val, bytes) or (isinstance(val, str) and not (val.isascii() and val.isprintable() and len(val) < 60)):
        return argname
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="torch finds no CUDA device here"))
