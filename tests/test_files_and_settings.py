"""A command line argument that contains `=` may be a file or a setting."""

import json
import sys

import pytest
from test_evaluate import SENTENCES, evaluate_json, lone_checkpoint, script  # noqa: F401  fixtures

from lm.config.words import split_files_and_settings
from lm.data.tokenizer import Bytes
from scripts import corpora
from scripts import tokenizer as tokenizer_script

NAMES = [
    "lr=0.1.txt",
    "corpus.path=x",
    "model=tiny",
    "=.txt",
    "a b=c d.txt",
    "naïve=é.txt",
    "~x=1",
    "+lr=3",
    "plain.txt",
]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_an_existing_path_is_a_file(here, name):
    (here / name).write_text(SENTENCES)
    for word in (name, f"./{name}", str(here / name)):
        assert split_files_and_settings([word]) == ([word], [])


def test_a_word_without_a_file_is_a_setting_if_it_can_be_one(here):
    words = [
        "corpus=words",
        "corpus.lines=3",
        "+model.n_layer=2",
        "data.root=/tmp/x=y",
        "experiment=pocket_bard",
        "seed=3",
    ]
    assert split_files_and_settings(words) == ([], words)
    assert split_files_and_settings(["missing.txt", "./lr=0.1.txt", "-", "a b=c"]) == (
        ["missing.txt", "./lr=0.1.txt", "-", "a b=c"],
        [],
    )
    long = f"corpus.path=[{'my.txt,' * 1000}other.txt]"
    assert split_files_and_settings([long]) == ([], [long])
    (here / "corpus=words").mkdir()
    assert split_files_and_settings(["corpus=words", "seed=3"]) == (["corpus=words"], ["seed=3"])


@pytest.mark.parametrize("word", ["lr=0.1.txt", "corpos.path=x", "val=3"])
def test_an_ambiguous_word_is_refused_with_both_readings(here, word):
    with pytest.raises(ValueError) as error:
        split_files_and_settings(["seed=1", word])
    message = str(error.value)
    assert message.startswith(f"{word}: there is no such file in {here}, and it is not a setting: unknown key ")
    assert "\n" not in message and ("optimizer.lr" in message) == word.startswith("lr")


def test_evaluate_reads_a_file_of_any_name(lone_checkpoint, evaluate_json, script, here):  # noqa: F811
    for name in ("lr=0.1.txt", "corpus.path=x"):
        (here / name).write_text(SENTENCES * 3)
        for word in (name, f"./{name}"):
            assert evaluate_json(lone_checkpoint, word)["tokens"] == len(SENTENCES) * 3 - 1
    refusal = script(lone_checkpoint, "rate=0.1.txt")[0]
    assert refusal.startswith("error: rate=0.1.txt: there is no such file") and "unknown key rate" in refusal
    assert "error: rate=0.1.txt cannot be read: No such file" in script(lone_checkpoint, "./rate=0.1.txt")[0]
    assert "corpus.lines=3 is a setting of a corpus" in script(lone_checkpoint, "corpus.lines=3")[0]


def test_the_tokenizer_script_opens_a_file_of_any_name(here, capsys):
    (here / "lr=0.1.json").write_text("\ufeff" + Bytes().to_json(), encoding="utf-8")
    tokenizer_script.main(["show", "lr=0.1.json", "--json"])
    assert json.loads(capsys.readouterr().out)["vocab_size"] == 256
    with pytest.raises(SystemExit, match="^error: rate=0.1.json: there is no such file .*unknown key rate"):
        tokenizer_script.main(["show", "rate=0.1.json"])


def test_a_file_is_not_accepted_as_the_name_of_a_corpus(here, monkeypatch):
    (here / "lr=0.1.txt").write_text(SENTENCES)
    monkeypatch.setattr(sys, "argv", ["corpora.py", "show", "lr=0.1.txt"])
    with pytest.raises(SystemExit, match="^error: lr=0.1.txt is a file, not a corpus; name it with corpus.path"):
        corpora.main()
