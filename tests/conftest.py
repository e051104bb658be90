"""Fixtures shared by the tests, and the environment in which they run."""

from __future__ import annotations

import gc
import importlib
import logging
import os
import re
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator
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
gc.disable()  # until all tests are collected, which creates millions of objects that live as long as the process
os.environ["OMP_NUM_THREADS"] = "1"  # faster for models of this size, and tests run in parallel

import hypothesis
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
# What takes seconds to import is imported in the fixtures, because the process that distributes the tests to the
# workers of pytest-xdist reads this file first.

# Use the same examples every time, on machines of any speed. `pytest --hypothesis-profile=search` tries new ones.
hypothesis.settings.register_profile(
    "fixed", deadline=None, derandomize=True, database=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile("search", deadline=None, print_blob=True, database=None)
hypothesis.settings.load_profile("fixed")


@pytest.fixture(autouse=True, scope="session")
def prepared() -> None:
    """Register the config groups and limit torch to one thread, also for tests that do not import the helpers."""
    importlib.import_module("helpers")


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Start each test without the Hydra state of the previous one, and remove the log handlers of its runs."""
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    yield
    root = logging.getLogger()  # Hydra adds handlers to it, whose files and streams are closed by now
    root.handlers = [h for h in root.handlers if type(h).__module__.startswith("_pytest")]


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
    folder = Path(__file__).parents[2] / "shared" / "corpora"
    if not folder.exists():
        pytest.skip("the shared corpora are not on this machine")
    return folder


@pytest.fixture
def nano(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that trains the NANO run and returns its directory: nano("key=value", ..., name="run").

    `skip` omits the settings of NANO that start with these strings, for example because another corpus lacks them.
    """
    from helpers import NANO, config_of

    import train as train_script

    def run(*overrides: str, name: str = "run", skip: tuple[str, ...] = ("\0",)) -> Path:
        config = config_of(
            *(typed for typed in NANO if not typed.startswith(skip)), f"data.root={tmp_path}/data", *overrides
        )
        train_script.train(config, tmp_path / name)
        return tmp_path / name

    return run


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Use a value in the name of a test only if it is short ASCII text, otherwise the name of the parameter.

    Bytes may contain the time (gzip writes it). pytest-xdist refuses to run if its workers, which collect at different
    moments, find different names. pytest numbers equal names itself.
    """
    if isinstance(val, bytes) or (isinstance(val, str) and not (val.isascii() and val.isprintable() and len(val) < 60)):
        return argname
    return None


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.hookimpl(tryfirst=True)  # before pytest selects by -m
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    import torch

    cases = Counter[tuple[Path, str]]()
    for item in items:
        if after := item.get_closest_marker("slow_after"):
            function = item.path, item.originalname  # type: ignore[attr-defined]
            cases[function] += 1
            if cases[function] > after.args[0]:
                item.add_marker(pytest.mark.slow)
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="torch finds no CUDA device here"))
