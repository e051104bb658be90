"""Help for every key, docs/configuration.md, and keys of other frameworks."""

import json
import sys
from dataclasses import fields, is_dataclass

import pytest
from helpers import ROOT, config_of
from hydra.core.override_parser.overrides_parser import OverridesParser

from lm.config import SCHEMAS, Config, aliases, errors
from lm.config.reference import help_on, keys, markdown

GROUPS = ["", *SCHEMAS, "sweep"]


def names(cls, prefix):
    for part in fields(cls):
        default = part.default_factory() if callable(part.default_factory) else part.default
        if is_dataclass(default):
            yield from names(type(default), f"{prefix}{part.name}.")
        else:
            yield prefix + part.name


@pytest.mark.parametrize("group", GROUPS)
def test_every_key_has_a_meaning_and_a_type(group):
    found = {key.name: key for key in keys(group)}
    classes = SCHEMAS.get(group) or [type(Config().sweep)]
    assert group == "" or set(found) == {name for cls in classes for name in names(cls, f"{group}.")}
    for key in found.values():
        assert len(key.meaning) > 9 and key.type and not key.meaning.endswith("."), key


def test_the_defaults_are_those_of_a_run_without_overrides():
    config = config_of()
    defaults = {key.name: key.default for group in SCHEMAS for key in keys(group) if not key.options}
    assert len(defaults) > 90
    parser = OverridesParser.create()
    for name, default in defaults.items():
        value = config
        for part in name.split("."):
            value = getattr(value, part)
        read = json.loads(default) if default.startswith("[") else parser.parse_override(f"x={default}").value()
        assert read == value, name


def test_the_configuration_page_is_up_to_date():
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == markdown(), "run: make docs"


def typed(monkeypatch, capsys, *args):
    monkeypatch.setattr(sys, "argv", ["train.py", *args])
    with pytest.raises(SystemExit) as stop:
        errors.run(lambda: None)
    out, err = capsys.readouterr()
    return stop.value.code, out, err


def test_help_on_a_group_a_key_and_an_option(monkeypatch, capsys):
    status, out, _ = typed(monkeypatch, capsys, "--help", "optimizer")
    assert status == 0 and "optimizer=adamw  (default)" in out
    out = " ".join(out.split())
    assert "optimizer.weight_decay=0.1 weight decay of matrices" in out
    assert "0.0 with adam, muon, rmsprop, sgd; 1.0 with lion (number)" in out
    status, out, _ = typed(monkeypatch, capsys, "schedule.plateau", "-h")
    assert status == 0 and len(out.split("schedule.plateau.")) == 7
    assert "tokenizer.vocab_size=2048" in help_on("vocab_size") and "MuonConfig" in help_on("optimizer=muon")
    assert max(map(len, help_on("experiment").splitlines())) <= 118


@pytest.mark.parametrize(
    ("topic", "message"),
    [
        ("optimzer", "no help on optimzer: give a group or a key, e.g. --help optimizer; did you mean 'optimizer'?"),
        ("optimizer=mun", "optimizer has no option mun; did you mean 'muon'?"),
    ],
)
def test_help_on_an_unknown_topic_is_an_error(monkeypatch, capsys, topic, message):
    assert typed(monkeypatch, capsys, "--help", topic) == (1, "", f"error: {message}\n")


FOREIGN = {
    "trainer.precision=bf16-mixed": "unknown key trainer.precision; use precision=bf16",
    "trainer.precision=32": "unknown key trainer.precision; use precision=fp32",
    "trainer.gradient_clip_val=1": "unknown key trainer.gradient_clip_val; use optimizer.grad_clip=1",
    "learning_rate=6e-4": "unknown key learning_rate; use optimizer.lr=6e-4",
    "+max_iters=100": "unknown key max_iters; use trainer.max_steps=100",
    "batch_size=8": "unknown key batch_size; did you mean 'data.batch_size'?",
    "model.d_model=64": "unknown key model.d_model; use model.n_embd=64",
    "model.vocab_size=512": "unknown key model.vocab_size; the tokenizer decides the size of the vocabulary: set tokenizer.vocab_size",
    "max_epochs=3": "unknown key max_epochs; did you mean 'trainer.max_epochs'?",
    "trainer.accumulate_grad_batches=4": "unknown key trainer.accumulate_grad_batches; it follows from data.batch_size, the sequences of an "
    "optimizer step, and data.micro_batch_size, the sequences of a forward pass",
    "min_lr=6e-5": "unknown key min_lr; set schedule.min_lr_ratio, the lowest learning rate as a share of the peak",
}


@pytest.mark.slow_after(1)
@pytest.mark.parametrize("word", FOREIGN)
def test_a_key_of_another_framework_gets_a_suggestion(monkeypatch, word):
    monkeypatch.setattr(sys, "argv", ["train.py", word])
    from lm.config import compose_config

    with pytest.raises(ValueError) as refused:
        compose_config([word])
    assert str(refused.value) == FOREIGN[word]


def test_every_suggested_key_exists_and_no_alias_is_a_valid_key():
    known = {key.name for group in GROUPS for key in keys(group)} | set(SCHEMAS)
    assert len(aliases.NAMES) + len(aliases.REASONS) >= 30
    for theirs, ours in aliases.NAMES.items():
        assert ours in known and theirs not in known, theirs
    assert not set(aliases.REASONS) & known
