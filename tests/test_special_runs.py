"""tokenizer.parse_special in a run: its config stores the setting, and scripts that encode text use it."""

import io
import json
import sys

import pytest
import yaml
from helpers import NANO, config_of
from test_evaluate import evaluate_json, script, uniform  # noqa: F401  fixtures
from test_special_tokens import CHAT

from lm.config import default_values, to_dict
from lm.data.tokenizer import Bytes
from lm.run.checkpoint import describe, write
from lm.run.directory import open_run, parses_special
from scripts import analyze as inspect_script
from scripts import tokenizer as tokenizer_script

ON = "tokenizer.parse_special=true"
PLAIN, PARSED = len(CHAT), len(CHAT) - len("<|user|><|bot|>") + 2


@pytest.fixture
def run(tmp_path):
    """Return a function: run(parse_special) is the directory of a run on a text with names of special tokens."""

    def make(parse_special):
        tokenizer, folder = Bytes(["<|user|>", "<|bot|>"]), tmp_path / "run"
        model = uniform(tokenizer.vocab_size)
        state = {f"model.{name}": value for name, value in model.state_dict().items()}
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        about = describe(model, tokenizer) | {"metrics": {}}
        write({"state_dict": state, "global_step": 3, "lm": about}, folder / "checkpoints" / "best.ckpt")
        (tmp_path / "chat.txt").write_text(CHAT * 10)
        config = config_of(
            "corpus=text", f"corpus.path={tmp_path}/chat.txt", "tokenizer=byte", f"data.root={tmp_path}/data",
            'tokenizer.special_tokens=["<|user|>","<|bot|>"]', f"tokenizer.parse_special={parse_special}",
        )  # fmt: skip
        (folder / "config.yaml").write_text(yaml.safe_dump(to_dict(config)))
        (folder / "run.json").write_text("{}")
        (folder / "tokenizer.json").write_text(tokenizer.to_json())
        return folder

    return make


@pytest.mark.slow
@pytest.mark.parametrize("parse_special", [False, True])
def test_scripts_encode_text_with_the_setting_of_the_run(
    run,
    evaluate_json,  # noqa: F811
    monkeypatch,
    capsys,
    tmp_path,
    parse_special,
):
    folder, path = run(parse_special), tmp_path / "one.txt"
    path.write_text(CHAT)
    tokens = PARSED if parse_special else PLAIN
    assert evaluate_json(folder, path)["tokens"] == tokens - 1
    assert evaluate_json(folder, path, "--parse-special")["tokens"] == PARSED - 1
    assert evaluate_json(folder)["tokens"] == tokens - 1  # the validation text of the run, 10 % of its text
    assert evaluate_json(folder, "--corpus", "text", f"corpus.path={tmp_path}/chat.txt")["tokens"] == tokens - 1
    for name, stdin in ((str(path), b""), ("-", b"\xef\xbb\xbf" + CHAT.encode())):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="ascii"))
        inspect_script.main([str(folder), "chunks", name, "--json"])
        assert json.loads(capsys.readouterr().out)["tokens"] == tokens
    tokenizer_script.main(["show", str(folder), "--json"])
    assert json.loads(capsys.readouterr().out)["train"]["tokens"] == 9 * tokens


def test_a_checkpoint_without_a_run_parses_no_names_by_default(run, evaluate_json, tmp_path):  # noqa: F811
    folder = run(True)
    alone = (folder / "checkpoints" / "best.ckpt").rename(tmp_path / "alone.ckpt")
    (tmp_path / "one.txt").write_text(CHAT)
    assert evaluate_json(alone, tmp_path / "one.txt")["tokens"] == PLAIN - 1
    assert evaluate_json(alone, tmp_path / "one.txt", "--parse-special")["tokens"] == PARSED - 1


def test_a_run_stores_its_setting_and_older_runs_have_none(tmp_path, run):
    assert parses_special(run(True)) and not parses_special(run(False))
    assert not parses_special(None) and not parses_special(tmp_path)
    (tmp_path / "config.yaml").write_text("model: {}\n")
    assert not parses_special(tmp_path)


@pytest.mark.parametrize("init_from", [None, "outputs/other"])
def test_resuming_with_another_setting_is_refused(tmp_path, init_from):
    initial = [f"init_from={init_from}"] if init_from else []
    off, on = (config_of(*NANO, *initial, *more) for more in ([], [ON]))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    old = to_dict(off)
    old["tokenizer"].pop("parse_special", None)  # older versions did not have the key
    for trained, resumed, accepted in (
        (old, off, True),
        (old, on, False),
        (to_dict(on), on, True),
        (to_dict(on), off, False),
    ):
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(trained))
        if accepted:
            kept = open_run(tmp_path, to_dict(resumed), default_values(resumed)).config["tokenizer"]
            assert kept.get("parse_special", False) == resumed.tokenizer.parse_special
            continue
        with pytest.raises(ValueError, match=r"tokenizer.parse_special  was \w+ +now \w+"):
            open_run(tmp_path, to_dict(resumed), default_values(resumed))


def test_a_run_with_a_tokenizer_from_init_from_is_resumed_without_init_from(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    for more in ([], [ON]):
        began, again = config_of(*NANO, "init_from=outputs/other", *more), config_of(*NANO, *more)
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(to_dict(began)))
        kept = open_run(tmp_path, to_dict(again), default_values(again)).config
        assert kept["init_from"] == "outputs/other"
        assert kept["tokenizer"] == {"kind": "InitFrom"} | ({"parse_special": True} if more else {})
