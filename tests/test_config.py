"""Checks of the configuration and their messages; every option under conf/ composes."""

import sys
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
import yaml
from helpers import NANO, ROOT, composed, config_of, slow_except
from hydra import compose, initialize_config_dir

import train as train_script
from lm.config import CONF, SCHEMAS, Config, errors, resolve, to_dict
from lm.config.help import help_text
from lm.config.typed import quote_text

GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name != "hydra")
OPTIONS = [
    (group, path.relative_to(CONF / group).with_suffix("").as_posix())
    for group in GROUPS
    for path in sorted((CONF / group).rglob("*.yaml"))
]
NEEDS = {f"corpus={name}": ["corpus.path=x"] for name in ("text", "jsonl", "code", "hf")}
NEEDS["tokenizer=file"] = ["tokenizer.path=x"]


def cli(monkeypatch, capsys, tmp_path, *args):
    """Run train.py in this process with these arguments, and return (status, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py", *args])
    with pytest.raises(SystemExit) as stop:
        errors.run(train_script.main)
    return stop.value.code, capsys.readouterr().err


def test_the_groups_are_the_documented_ones():
    assert (
        sorted(
            [
                "model",
                "attention",
                "corpus",
                "tokenizer",
                "data",
                "optimizer",
                "loss",
                "schedule",
                "precision",
                "trainer",
                "callbacks",
                "logger",
                "experiment",
                "sweep",
            ]
        )
        == GROUPS
    )


@pytest.mark.slow_after(3)
@pytest.mark.parametrize(("group", "option"), slow_except([o for o in OPTIONS if "/" not in o[1]], OPTIONS))
def test_every_yaml_composes(group, option):
    override = f"{group}={option}"
    cfg = composed(override, *NEEDS.get(override, []))
    if override not in ("precision=fp16", "attention=flex"):  # they need a GPU
        resolve(cfg)


def test_config_of_composes_as_hydra_does():
    words = [*NANO, "optimizer=muon", "corpus.lines=7", "seed=3", "corpus.lines=8", "name='a b'", "init_from=x"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", quote_text([*words, "name=test"], Config, SCHEMAS))
    assert to_dict(resolve(cfg)) == to_dict(config_of(*words))


@pytest.mark.parametrize(("group", "option"), [o for o in OPTIONS if o[0] in SCHEMAS])
def test_no_yaml_restates_a_default(group, option):
    content = yaml.safe_load((CONF / group / f"{option}.yaml").read_text())
    schema = next(s for s in SCHEMAS[group] if s.__name__ == content["defaults"][0])
    known = {field.name: field.default for field in fields(schema)}
    for key, value in content.items():
        assert key == "defaults" or known[key] != value, f"conf/{group}/{option}.yaml restates {key}={value}"


@pytest.mark.slow
def test_every_model_preset_works_with_every_corpus_and_tokenizer():
    for model in ("tiny", "small", "medium", "large", "xlarge"):
        for corpus in ("shakespeare", "words", "text"):
            config_of(f"model={model}", f"corpus={corpus}", *(["corpus.path=x"] * (corpus == "text")), "tokenizer=char")


def test_the_command_line_overrides_the_experiment_which_overrides_the_groups():
    assert config_of("experiment=smoke").trainer.max_steps == 100
    assert config_of("experiment=smoke", "trainer.max_steps=7").trainer.max_steps == 7
    assert (
        config_of("experiment=smoke", "model=medium").model.n_layer == 2
    )  # the experiment is applied on top of the model


def test_device_sets_the_accelerator():
    assert config_of("device=cpu").trainer.accelerator == "cpu"


MESSAGES = {
    "model.n_layrs=3": "unknown key model.n_layrs; did you mean 'model.n_layer'?",
    "+model.n_layrs=3": "unknown key model.n_layrs; did you mean 'model.n_layer'?",
    "++callbacks.sample.evry=3": "unknown key callbacks.sample.evry; did you mean 'callbacks.sample.every'?",
    "+lr=1e-3": "unknown key lr; did you mean 'optimizer.lr'?",
    "+corpus.path=my.txt": "unknown key corpus.path; it needs corpus=code|hf|jsonl|stdlib|text",
    "+optimiser=adamw": "unknown key optimiser; did you mean 'optimizer'?",
    "optimiser=adamw": "unknown key optimiser; did you mean 'optimizer'?",
    "nme=x": "unknown key nme; did you mean 'name'?",
    "model=tny": "model=tny: there is no such option; model is one of femtogpt/..., feste/..., fundamentallm/..., lab/..., "
    "large, medium, microgpt, nanogpt/..., small, tiny, xlarge; did you mean 'tiny'?",
    "experiment=smke": "experiment=smke: there is no such option; experiment is one of addition, depth, femtogpt/..., feste/..., fundamentallm/..., induction, lab/..., nanogpt/..., pocket_bard, smoke, speedrun_cpu, speedrun_minute, speedrun_shakespeare, ten_actions, ten_actions_adamw, words; did you mean 'smoke'?",
    "precision=bf61": "precision=bf61: there is no such option; precision is one of auto, bf16, bf16_true, fp16, fp32, tf32; did you mean 'bf16'?",
    "attention.backend=spda": "attention.backend=spda must be one of auto, manual, sdpa, flex; did you mean 'sdpa'?",
    "model.n_layer=three": "model.n_layer: value 'three' of type 'str' could not be converted to Integer",
    "model.n_head=3": "model.n_embd=128 must be divisible by model.n_head=3, e.g. 129",
    "optimizer.lr=-1": "optimizer.lr=-1.0 must be above 0",
    "schedule.warmup_steps=-5": "schedule.warmup_steps=-5 must be at least 0",
    "precision=fp16": "precision=fp16 needs a CUDA GPU, and this run is on cpu: use precision=bf16 or fp32",
    "device=cdua": "device=cdua must be one of auto, cpu, gpu, cuda, mps; did you mean 'cuda'?",
    "corpus=text": "corpus.path= must name a file, a directory or a glob, e.g. corpus.path=my.txt",
    "corpus.path=my.txt": "unknown key corpus.path; it needs corpus=code|hf|jsonl|stdlib|text",
    "lr=1e-3": "unknown key lr; did you mean 'optimizer.lr'?",
    "n_layer=8": "unknown key n_layer; did you mean 'model.n_layer'?",
    "max_steps=10": "unknown key max_steps; did you mean 'trainer.max_steps'?",
    "--n_layer=8": "--n_layer=8: write settings without dashes, e.g. model.n_layer=8",
    "corpus.pth=my.txt": "unknown key corpus.pth; known keys: licence, val_fraction, whole_documents, max_chars, clean, requirement, archive, sha256, size, "
    "members, documents, rstrip, literal",
    "tokenizer.vocab_sise=512": "unknown key tokenizer.vocab_sise; did you mean 'tokenizer.vocab_size'?",
    "trainer.max_steps=0": "trainer.max_steps=0 must be above 0",
    "medium": "'medium' is not a setting; use key=value, e.g. model=small or optimizer.lr=1e-3",
    "callbacks.sample.temperature=-1": "callbacks.sample.temperature=-1.0 must be 0 (greedy) or above",
    "callbacks.early_stopping.patience=0": "callbacks.early_stopping.patience=0 must be at least 1",
    "tokenizer.vocab_size=100": "tokenizer.vocab_size=100 must be at least 256",
    "corpus.val_fraction=1.5": "corpus.val_fraction=1.5 must lie between 0 and 1",
    "trainer.max_epochs=inf": "trainer.max_epochs=inf must be above 0",
    "name=.": "name='.' must be a directory name that consists of letters, digits and . _ - + / =",
    "name=a/b/..": "name='a/b/..' must be a directory name that consists of letters, digits and . _ - + / =",
    "name=../mine": "name='../mine' must be a directory name that consists of letters, digits and . _ - + / =",
    "seed=-1": "seed=-1 must be at least 0 and below 2**63",
    "data.batch_size=0": "data.batch_size=0 must be at least 1",
}


@pytest.mark.slow_after(4)
@pytest.mark.parametrize("typed", MESSAGES)
def test_a_mistake_gets_one_message_and_leaves_no_files(monkeypatch, capsys, tmp_path, typed):
    status, err = cli(monkeypatch, capsys, tmp_path, typed, "device=cpu" if "device" not in typed else "seed=1")
    assert status == 1 and err == f"error: {MESSAGES[typed]}\n"
    assert not [path for path in tmp_path.rglob("*") if ".." not in typed or path.is_file()]


def test_all_problems_are_reported_at_once(monkeypatch, capsys, tmp_path):
    wrong = (
        "optimizer.lr=-1",
        "model.n_layer=0",
        "model.dropout=2",
        "+data.sed=3",
        "trainer.max_steps=5",
        "trainer.max_epochs=1",
    )
    _, err = cli(monkeypatch, capsys, tmp_path, *wrong)
    for part in (
        "optimizer.lr=-1.0",
        "model.n_layer=0",
        "model.dropout=2.0",
        "data.sed",
        "trainer.max_epochs=1.0 must be null",
    ):
        assert part in err
    _, err = cli(
        monkeypatch, capsys, tmp_path, "data.batch_size=9", "data.micro_batch_size=2", "precision=fp16", "device=cpu"
    )
    assert "data.batch_size=9 must be a multiple" in err and "precision=fp16 needs" in err


FILES = {
    "model": ("defaults: [GPTConfig]\nn_layers: 3\n", "unknown key model.n_layers; did you mean 'model.n_layer'?"),
    "experiment": (
        "# @package _global_\ntrainer: {max_stepz: 3}\n",
        "unknown key trainer.max_stepz; did you mean 'trainer.max_steps'?",
    ),
}


@pytest.mark.slow_after(1)
@pytest.mark.parametrize("group", FILES)
def test_a_mistake_in_a_file_names_the_file(monkeypatch, capsys, tmp_path, group):
    content, message = FILES[group]
    (tmp_path / "mine" / group).mkdir(parents=True)
    (tmp_path / "mine" / group / "bad.yaml").write_text(content)
    status, err = cli(monkeypatch, capsys, tmp_path, f"--config-dir={tmp_path}/mine", f"{group}=bad")
    assert status == 1 and err == f"error: {message} (in conf/{group}/bad.yaml)\n"


def leaves(node, path=""):
    for key, value in node.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


@pytest.mark.parametrize("option", slow_except(["smoke", "feste/tiny"], [o for g, o in OPTIONS if g == "experiment"]))
def test_no_experiment_restates_a_value_of_its_groups(option):
    content = yaml.safe_load((CONF / "experiment" / f"{option}.yaml").read_text())
    content.pop("hydra", None)  # the values of a sweep
    choices = []
    for choice in content.pop("defaults", []):
        named = {"experiment": choice} if isinstance(choice, str) else choice  # one built on another
        choices += [f"{key.removeprefix('override /')}={value}" for key, value in named.items()]
    without = dict(leaves(to_dict(config_of(*choices))))
    for key, value in leaves(content):
        assert without[key] != value, f"conf/experiment/{option}.yaml restates {key}={value}"


def test_ctrl_c_before_training_leaves_no_files(monkeypatch, capsys, tmp_path):
    def press(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("lm.data.corpus.WordsConfig.streams", press)
    status, err = cli(monkeypatch, capsys, tmp_path, "experiment=smoke")
    assert status == 130 and err == "interrupted\n" and not list(tmp_path.glob("outputs"))
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"]


@pytest.mark.slow_after(1)
@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), (b"", "is empty"), (b"a\xff", "is not UTF-8: byte 0xff at offset 1"), (b"hello\n" * 9, "windows of model.block_size=128")],
)  # fmt: skip
def test_an_unusable_text_is_refused_without_a_run_directory(monkeypatch, capsys, tmp_path, content, message):
    if content is not None:
        (tmp_path / "my.txt").write_bytes(content)
    status, err = cli(monkeypatch, capsys, tmp_path, "corpus=text", "corpus.path=my.txt", "tokenizer=byte")
    assert status == 1 and message in err and err.count("\n") == 1
    assert not (tmp_path / "outputs").exists()


def test_an_unwritable_output_directory_is_a_one_line_error(monkeypatch, capsys, tmp_path):
    (tmp_path / "outputs").write_text("a file where the folder should be")
    status, err = cli(monkeypatch, capsys, tmp_path, "experiment=smoke")
    assert status == 1 and err.startswith("error: ") and "outputs" in err and err.count("\n") == 1


@pytest.mark.slow_after(1)
@pytest.mark.parametrize(("typed", "kind"), [("model.n_layrs=3", Exception), ("optimizer.lr=-1", ValueError)])
def test_the_traceback_is_shown_on_request(monkeypatch, tmp_path, typed, kind):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr(sys, "argv", ["train.py", typed])
    with pytest.raises(kind, match=typed.partition("=")[0].partition(".")[2]):
        errors.run(train_script.main)


def test_help_lists_every_group_and_option_with_a_description():
    text = help_text(CONF)
    for group, option in OPTIONS:
        assert group in text and all(part in text for part in option.split("/"))
    assert "123" not in text and "nanoGPT's model for Tiny Shakespeare" in text
    assert max(map(len, text.splitlines())) <= 150


def test_config_values_are_plain_python_types(tmp_path):
    """The config contains no OmegaConf nodes after `resolve`."""

    def walk(node):
        for field in fields(node):
            value = getattr(node, field.name)
            if is_dataclass(value):
                walk(value)
            else:
                assert type(value) in (int, float, str, bool, list, type(None)), field.name

    walk(config_of())


def test_conf_is_found_from_anywhere():
    assert Path(CONF) == ROOT / "conf"
