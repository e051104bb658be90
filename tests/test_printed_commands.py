"""Printed commands: they are quoted for the shell and for Hydra, and every printed command can be executed."""

import json
import os
import re
import shlex
import subprocess
import sys

import preloaded
import pytest
from helpers import NANO, ROOT
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from lm.base import commands

TEXTS = st.text(alphabet="ab1e.-+_'\"\\ $={}[]:,()#~!&;|<>*?%@/\n\té日", max_size=12)


@given(TEXTS)
def test_hydra_reads_back_the_text_of_an_override(text):
    override = OverridesParser.create().parse_override(commands.override("key", text))
    assert not override.is_sweep_override()
    assert OmegaConf.create({"key": override.value()}).key == text


@given(st.lists(TEXTS, min_size=1))
def test_a_shell_reads_back_the_words(words):
    assert shlex.split(commands.shell(*words)) == words


@pytest.mark.parametrize("value", [True, False, 3, 0.5, 1e-7, 10**20])
def test_numbers_and_booleans_keep_their_types(value):
    assert OverridesParser.create().parse_override(commands.override("key", value)).value() == value


def test_a_run_is_resumed_with_its_overrides_except_those_that_change(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    typed = [
        "name=a",
        "model=tiny",
        "trainer.max_epochs=2",
        "corpus.path='my file.txt'",
        "sweep=seeds",
        "sweep.steps=3",
    ]
    words = shlex.split(commands.resume(tmp_path / "outputs" / "a b" / "0", typed, {"trainer.max_epochs": 4.0}))
    assert words[1:] == [
        str(ROOT / "train.py"), "name='a b/0'", "model=tiny", "corpus.path='my file.txt'", "trainer.max_epochs=4.0",
    ]  # fmt: skip
    words = shlex.split(commands.resume(tmp_path / "else where", typed[:2], {}))
    assert words[2:] == [
        "hydra.run.dir='" + str(tmp_path / "else where").removeprefix(f"{tmp_path}/") + "'",
        "model=tiny",
    ]


def test_flags_for_the_config_directory_are_kept(monkeypatch):
    typed = ["/x/train.py", "--config-dir=my conf", "-cn", "other", "-m", "model=tiny", "--cfg", "job"]
    assert commands.config_flags(typed) == ["--config-dir=my conf", "-cn", "other"]
    monkeypatch.setattr(sys, "argv", typed)
    assert "'--config-dir=my conf' -cn other model=tiny" in commands.train(["model=tiny"])


# ---- execution of every command that real runs print

PRINTED = re.compile(r"^ +((?:\S*python|tensorboard) .*)$", re.MULTILINE)
PLAIN = [typed for typed in NANO if not typed.startswith("corpus")]


def run(cwd, line, status=0):
    """Execute the words that a shell reads in a line, and return the output."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("COV")} | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    done = preloaded.run(shell_words(line), cwd=cwd, env=env)
    assert done.returncode == status, f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def shell_words(line):
    printed = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True).stdout
    return printed.decode("utf-8", "surrogateescape").split("\0")[:-1]


def printed_commands(text):
    return [line for line in PRINTED.findall(text) if "pip install" not in line]


def execute(cwd, line):
    """Execute a printed command and require success. TensorBoard never ends, so it only has to start serving."""
    if "tensorboard" not in line:
        return run(cwd, line)
    process = subprocess.Popen(["bash", "-c", f"exec {line} --port 0"], cwd=cwd, stderr=subprocess.PIPE, text=True)
    output = ""
    while "http://localhost" not in output:
        output += (following := process.stderr.readline())
        assert following, output
    process.terminate()
    process.communicate()
    return output


CASES = {
    "plain": ("name=plain", "corpus.path=my.txt"),
    "space": ("name='two words'", "corpus.path='my text (1).txt'", "trainer.max_steps=null", "trainer.max_epochs=0.2"),
    "equals": ("name=lr=0.1", "corpus.path=a=b.txt", "trainer.max_steps=null", "trainer.max_tokens=400"),
    "quotes": ("name=quotes", 'corpus.path="it\'s \\"here\\", é.txt"', "callbacks.sample.prompts=['it\\'s', 'a, b=c']"),
    "number": ("name=1e3", "corpus.path=my.txt", "callbacks.early_stopping.patience=4",
               "callbacks.early_stopping.min_delta=100"),
    "elsewhere": ("hydra.run.dir='else where/run [1]'", "corpus.path=my.txt"),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """Return a folder outside the checkout, with spaces in its path, that contains a text under several names."""
    here = tmp_path / "a folder"
    here.mkdir()
    for name in ("my.txt", "my text (1).txt", "a=b.txt", 'it\'s "here", é.txt'):
        (here / name).write_text(
            "It's true: a, b=c! To be or not to be, that is the question.\n" * 60, encoding="utf-8"
        )
    return here


def start(*typed):
    return commands.shell(sys.executable, ROOT / "train.py", *PLAIN, "corpus=text", *typed)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_every_command_that_a_run_prints_can_be_pasted(folder, case):
    lines = printed_commands(run(folder, start(*CASES[case])))
    generate, tensorboard, train = lines
    assert "generate.py" in generate and "tensorboard" in tensorboard
    trained = execute(folder, train)
    assert "continuing after step" in trained and "finished in" in trained
    execute(folder, generate)
    if case in ("plain", "elsewhere"):
        execute(folder, tensorboard)
        execute(folder, printed_commands(trained)[2])  # the next command, which trains twice as long


@pytest.mark.slow
def test_every_command_that_a_fork_and_a_transfer_print_can_be_pasted(folder):
    run(folder, start("name='the trunk'", "corpus.path=my.txt", "callbacks.checkpoint.keep_last=9"))
    for number, typed in enumerate((
        "trainer.fork='outputs/the trunk/checkpoints/step_000008.ckpt'", "init_from='outputs/the trunk'",
    )):  # fmt: skip
        text = run(folder, start(f"name=child {number}", "corpus.path=my.txt", "trainer.max_steps=16", typed))
        execute(folder, printed_commands(text)[2])


@pytest.mark.slow
def test_every_command_that_sweeps_print_can_be_pasted(folder):
    grid = run(folder, start("-m", "name='a grid'", "corpus.path='my text (1).txt'", "optimizer.lr=0.01,0.02"))
    lines = printed_commands(grid)
    assert len(lines) == 6
    assert "continuing after step 12" in execute(folder, lines[5])
    pytest.importorskip("optuna")
    search = run(folder, start("sweep=search", "name='a search'", "corpus.path=my.txt", "sweep.trials=2",
                               "optimizer.lr=interval(0.01,0.02)"))  # fmt: skip
    again = [line for line in printed_commands(search) if "-best" in line]
    assert len(again) == 1
    execute(folder, again[0])


@pytest.mark.slow
def test_the_commands_of_scripts_can_be_pasted(folder):
    run(folder, start("name='my run'", "corpus.path=my.txt"))
    for script in ("reproduce", "grow"):
        text = run(folder, commands.shell(sys.executable, ROOT / f"scripts/{script}.py", "outputs/my run"))
        (line,) = printed_commands(text) or [text.splitlines()[0]]
        assert "train.py" in line
        execute(folder, line)
    text = run(folder, commands.shell(sys.executable, ROOT / "scripts/tokenizer.py", "train", "corpus=text",
                                     "corpus.path='my text (1).txt'", "tokenizer.vocab_size=300", "--out", "a b.json"))  # fmt: skip
    lines = printed_commands(text)
    assert len(lines) == 2
    execute(folder, lines[0])
    execute(folder, f"{lines[1]} {commands.shell(*(t for t in PLAIN if not t.startswith('tokenizer')))}")


def interrupted(folder, words, at):
    """Start a command, send SIGTERM when its output matches the pattern `at`, and return the output."""
    process = preloaded.Preloaded(words, cwd=folder, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    output = ""
    while not re.search(at, output):
        output += (following := process.stdout.readline())
        assert following, output
    process.terminate()
    output += process.stdout.read()
    assert process.wait() == 143
    return output


@pytest.mark.slow
@pytest.mark.parametrize("sweep", [False, True])
def test_an_interrupted_run_prints_the_command_that_resumes_it(folder, sweep):
    """The default name is the date and time, so the same command without a name would start another run."""
    typed = start("corpus.path='my text (1).txt'", "trainer.max_steps=100000", *(["-m", "seed=1,2"] if sweep else []))
    (line,) = printed_commands(interrupted(folder, shell_words(typed), "step 8/"))
    assert "continuing after step" in interrupted(folder, shell_words(line), r"step \d+/")
    (record,) = (folder / "outputs").rglob("run.json")
    assert len(json.loads(record.read_text())["sessions"]) == 2
