"""Random overrides either train or are refused with a message: no traceback, no hang, no leftover files."""

import io
import os
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import fields, is_dataclass
from pathlib import Path
from unittest import mock

import pytest
from helpers import NANO
from hydra.core.global_hydra import GlobalHydra
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

import train as train_script
from lm.config import CONF, SCHEMAS, Config, errors
from lm.run import checkpoint

# Settings that make a run long or use the internet are fixed. All others are drawn at random.
LAST = ["trainer.max_steps=2", "trainer.max_epochs=null", "trainer.max_tokens=null", "data.offline=true"]
LONG = {"max_new_tokens", "max_steps", "max_epochs", "max_tokens", "offline", "compile", "devices", "mirror", "root"}
WIDE = {"lines", "n_layer", "n_embd", "block_size", "batch_size", "vocab_size", "ns_steps", "num_workers", "mlp_ratio"}

groups = sorted(path for path in CONF.iterdir() if path.is_dir() and path.name not in ("hydra", "experiment", "sweep"))
options = st.sampled_from(groups).flatmap(
    lambda group: st.sampled_from(sorted(group.rglob("*.yaml"))).map(
        lambda path: f"{group.name}={path.relative_to(group).with_suffix('').as_posix()}"
    )
)


def keys(section, schema, prefix=""):
    for field in fields(schema):
        kind = field.default_factory() if callable(field.default_factory) else field.default
        if is_dataclass(kind) and not isinstance(kind, type):
            yield from keys(section, type(kind), f"{prefix}{field.name}.")
        elif field.name not in LONG:
            yield f"{section}.{prefix}{field.name}"


KEYS = sorted({key for group, schemas in SCHEMAS.items() for schema in schemas for key in keys(group, schema)})
KEYS += [f.name for f in fields(Config) if f.name not in SCHEMAS and f.name not in ("name", "device")]
small = st.sampled_from(["0", "1", "2", "3", "4", "7", "8", "16", "-1"])
numbers = st.sampled_from(["0.0", "0.1", "0.5", "1.0", "1e-3", "1e9", "-0.5", "nan", "inf", "100000", "2.5"])
words = st.sampled_from([
    "true", "false", "null", "auto", "abc", "[]", "[a,b]", "[1]", "{}", "{a:1}", "''", "a/b", "../x", "rope", "rmsnorm",
    "swiglu", "manual", "flex", "skip", "stop", "unit", "10min", "1s", "keep", "new", "nowhere.ckpt", "é", "a b", "\\n",
])  # fmt: skip


def settings_of(key):
    values = small | words if key.rpartition(".")[2] in WIDE else small | numbers | words
    return values.map(lambda value: f"{key}={value}")


typed = options | st.sampled_from(KEYS).flatmap(settings_of) | st.sampled_from([
    "model.n_layrs=3", "+model.n_layrs=3", "+new=1", "lr=1", "~model", "experiment=smok", "model=", "=3", "model", "++seed=x",
    "experiment=smoke", "corpus=text corpus.path=.", "model={n_layer:1}", "trainer.save_every=1s", "-1", "seed=1e3",
])  # fmt: skip


def cli(args, folder):
    """Run train.py in this process, and return status, standard error and standard output."""
    GlobalHydra.instance().clear()
    here, out, err = Path.cwd(), io.StringIO(), io.StringIO()
    os.chdir(folder)
    try:
        with mock.patch.object(sys, "argv", ["train.py", *args]), redirect_stdout(out), redirect_stderr(err):
            errors.run(train_script.main)
        return 0, err.getvalue(), out.getvalue()
    except SystemExit as stop:
        return stop.code or 0, err.getvalue(), out.getvalue()
    finally:
        os.chdir(here)


def check(overrides):
    with tempfile.TemporaryDirectory() as folder:
        args = [*NANO, *(part for o in overrides for part in o.split(" ") if part), *LAST, "name=fuzz"]
        status, err, out = cli(args, folder)
        note(f"{overrides}: {status} {err}")
        run = Path(folder) / "outputs" / "fuzz"
        if status == 0:
            assert checkpoint.read(run / "checkpoints" / "last.ckpt")["global_step"] == 2
            return True
        assert status == 1 and err.startswith("error: ") and "Traceback" not in err + out
        assert len(err) < 4000 and len(err.splitlines()) < 40
        if not (run / "config.yaml").exists():  # the run did not start, so it left no directory
            assert not run.exists()
            return False
        assert "infinite or nan" in err or "out of memory" in err, (
            err
        )  # the run started, so only training itself may fail
        return False


@pytest.mark.slow
@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(st.lists(typed, min_size=1, max_size=5))
def test_random_overrides_train_or_are_refused(overrides):
    check(overrides)
