"""Text settings keep the text as it was entered, and `~` is expanded in every path setting."""

import re
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import ClassVar, get_args, get_origin, get_type_hints

import pytest
from helpers import NANO, slow_except
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

import train as train_script
from lm.config import SCHEMAS, Config, compose_config, errors
from lm.config.typed import quote_text, quote_value
from lm.run.checkpoint import load

LOOKS_LIKE_NUMBERS = [
    "1e3",
    "007",
    "1_000",
    "12",
    "-5",
    "0.10",
    ".5",
    "1.",
    "1e-7",
    "+3",
    "true",
    "False",
    "nan",
    "inf",
    "0x10",
    "1:30",
]


@pytest.mark.slow_after(1)
@pytest.mark.parametrize("text", slow_except(["1e3", "1_000"], [t for t in LOOKS_LIKE_NUMBERS if t[0] not in "-+."]))
def test_a_name_that_looks_like_a_number_stays_text(monkeypatch, tmp_path, text):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        sys, "argv", ["train.py", *NANO, "trainer.max_steps=1", f"name={text}", "callbacks.sample.enabled=false"]
    )
    if ":" in text:  # not a valid directory name
        with pytest.raises(SystemExit):
            errors.run(train_script.main)
        return
    errors.run(train_script.main)
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == [text]


def text_fields():
    """Yield (group, class, field, is it a list?) for every text field of every config class."""
    for group, schemas in SCHEMAS.items():
        for schema in schemas:
            for field in fields(schema):
                kind = get_type_hints(schema)[field.name]
                if kind in (str, str | None, list[str]):
                    yield group, schema, field.name, kind == list[str]


@pytest.mark.slow_after(300)
@pytest.mark.parametrize(
    ("group", "schema", "name", "many"), text_fields(), ids=lambda x: getattr(x, "__name__", str(x))
)
@pytest.mark.parametrize("text", LOOKS_LIKE_NUMBERS)
def test_every_text_field_keeps_its_text(group, schema, name, many, text):
    typed = f"{group}.{name}=" + (f"[{text},{text}]" if many else text)
    (kept,) = quote_text([typed], Config, SCHEMAS)
    value = OverridesParser.create().parse_override(kept).value()
    assert [str(v) for v in value] == [text, text] if many else str(value) == text


@pytest.mark.parametrize(
    "key",
    [
        "seed",
        "model.n_layer",
        "optimizer.lr",
        "trainer.max_epochs",
        "corpus.max_chars",
        "model.bias",
        "trainer.save_every",
        "model",
        "schedule",
    ],
)
def test_fields_that_are_not_text_are_not_quoted(key):
    for value in ("1e3", "12", "true", "null", "[1,2]", "1,2"):
        assert quote_text([f"{key}={value}"], Config, SCHEMAS) == [f"{key}={value}"]


@pytest.mark.slow
@given(st.lists(st.one_of(
    st.sampled_from([*LOOKS_LIKE_NUMBERS, "null", "a b", "'1,2'", '"x\'y"', "[a,1]", "abc"]), st.integers().map(str), st.floats(allow_nan=False).map(str),
), min_size=1, max_size=4))  # fmt: skip
def test_quoting_changes_only_types(values):
    """The texts stay the same, in lists and in sweeps, and quoting twice equals quoting once."""

    def texts(value):
        return [texts(v) for v in value] if isinstance(value, list) else value if value is None else str(value)

    parse = OverridesParser.create().parse_override
    for line in (f"[{','.join(values)}]", ",".join(values)):
        try:
            before = parse(f"key={line}")
        except Exception:
            continue
        after = parse(f"key={quote_value(line)}")
        assert before.is_sweep_override() == after.is_sweep_override()
        if not before.is_sweep_override():
            kept = texts(after.value())
            assert all(
                not isinstance(v, bool | int | float)
                for v in (after.value() if isinstance(after.value(), list) else [after.value()])
            )
            assert (
                [v is None for v in kept] == [v is None for v in texts(before.value())]
                if isinstance(kept, list)
                else True
            )
        assert quote_value(quote_value(line)) == quote_value(line)


def test_text_fields_keep_their_text_in_compose_config():
    config = compose_config(
        ["corpus=text", "corpus.path=1e3", "corpus.separator=007", "callbacks.sample.prompts=[1e3,true]"]
    )
    assert config.corpus.path == "1e3" and config.corpus.separator == "007"
    assert config.callbacks.sample.prompts == ["1e3", "true"]


# ---- paths


@pytest.fixture
def home(tmp_path, monkeypatch):
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.slow
def test_data_and_runs_can_be_in_the_home_directory(home, tmp_path, monkeypatch):
    monkeypatch.setattr(
        sys, "argv", ["train.py", *NANO, "trainer.max_steps=1", "hydra.run.dir=~/runs/a", "data.root=~/data"]
    )
    errors.run(train_script.main)
    assert (home / "runs/a/run.json").exists() and (home / "data/cache").is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


@pytest.mark.slow
def test_a_sweep_can_be_in_the_home_directory(home, tmp_path, monkeypatch):
    typed = ["-m", "seed=1,2", "trainer.max_steps=1", "hydra.sweep.dir=~/sweeps/a", "data.root=~/data"]
    monkeypatch.setattr(sys, "argv", ["train.py", *NANO, *typed])
    errors.run(train_script.main)
    assert (home / "sweeps/a/1/run.json").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


@pytest.mark.slow
def test_runs_and_checkpoints_are_found_in_the_home_directory(home, nano):
    run = nano(name="home/run")
    assert load("~/run").step == load(Path("~/run/checkpoints/last.ckpt")).step == 12
    for name, typed in (("fork", "trainer.fork=~/run/checkpoints/step_000008.ckpt"), ("child", "init_from=~/run")):
        nano(typed, "trainer.max_steps=16", name=name)
        nano(typed, "trainer.max_steps=20", name=name)  # the same origin
    assert run.exists()


def test_every_path_field_is_in_this_list():
    """A new path field must be added to this list, and a test must show that `~` is expanded in it."""
    known = {
        "corpus.path", "corpus.val_path", "corpus.exclude", "corpus.glob", "tokenizer.path", "data.root", "data.mirror",
        "trainer.fork", "init_from",
    }  # fmt: skip
    names = re.compile("path|root|file|dir|folder|fork|init_from|exclude|glob|mirror")

    def walk(cls, prefix):
        for name, kind in get_type_hints(cls).items():
            if get_origin(kind) is ClassVar:  # not a field
                continue
            for part in (kind, *get_args(kind)):
                if is_dataclass(part):
                    yield from walk(part, f"{prefix}{name}.")
            if names.search(name) and not re.search("dropout", name) and kind not in (bool, int, float):
                yield f"{prefix}{name}"

    found = {key for group, schemas in SCHEMAS.items() for schema in schemas for key in walk(schema, f"{group}.")}
    assert found | {key for key in walk(Config, "") if "." not in key} <= known | {"corpus.train.urls"}


@pytest.mark.slow
def test_the_location_suggested_for_a_full_disk_is_valid(nano, monkeypatch, tmp_path):
    """name= is a path below outputs/ and cannot name another disk, but hydra.run.dir= can."""
    import errno

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("lm.run.directory.write_text", full)
    with pytest.raises(
        ValueError, match=r"not enough disk space in .*: choose another place with hydra.run.dir=/path/of/the/run"
    ):
        nano()

    with pytest.raises(ValueError, match="name='/tmp/x' must be a directory name"):
        compose_config(["name=/tmp/x"])
