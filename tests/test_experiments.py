"""Every named experiment composes, has a description, and trains two steps."""

import json
import re
from pathlib import Path

import pytest
import torch
from helpers import ROOT, config_of, run_script, slow_except

import train as train_script
from lm.config import CONF
from lm.config.help import comment
from lm.model import GPT
from lm.run import checkpoint

FOLDER = CONF / "experiment"
NAMES = sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.yaml"))
SOME = ["femtogpt/01", "femtogpt/12", "femtogpt/20", "fundamentallm/small", "lab/smoke", "lab/precision", "nanogpt/cpu"]
QUICK = ["smoke", "femtogpt/01"]
FAMILIES = {"feste": 13, "femtogpt": 28, "fundamentallm": 3, "lab": 7, "nanogpt": 2}


@pytest.fixture(scope="session")
def text(tmp_path_factory) -> Path:
    """Half a megabyte of prose and code from this repository, which replaces downloads."""
    path = tmp_path_factory.mktemp("text") / "text.txt"
    sources = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md")), *sorted((ROOT / "lm").rglob("*.py"))]
    path.write_text("\n".join(source.read_text() for source in sources))
    return path


def train_two_steps(name: str, text: Path, directory: Path, *overrides: str) -> dict:
    typed = [f"experiment={name}"]
    config = config_of(*typed)
    if type(config.corpus).__name__ in ("DownloadConfig", "PackageConfig", "TinyStoriesConfig", "StdlibConfig"):
        typed += ["corpus=text", f"corpus.path={text}"]
    if type(config.tokenizer).__name__ == "GPT2Config":
        typed += ["tokenizer=byte"]
    typed += ["trainer.max_steps=2", "trainer.max_epochs=null", "trainer.val_batches=1", "data.num_workers=0"]
    typed += ["callbacks.sample.enabled=false", "device=cpu", "logger=csv", f"data.root={text.parent}/data"]
    train_script.train(config_of(*typed, *overrides), directory / "run")
    assert checkpoint.read(directory / "run" / "checkpoints" / "last.ckpt")["global_step"] == 2
    return json.loads((directory / "run" / "run.json").read_text())["metrics"]


@pytest.mark.parametrize(
    "name", slow_except(QUICK, [name for name in NAMES if "/" not in name] + ["feste/spider", *SOME])
)
def test_it_trains_two_steps_at_a_small_size(name, text, tmp_path):
    """One layer and two short sequences; the slow test below uses the real sizes."""
    size = (
        "model.n_layer=1",
        "model.block_size=32",
        "data.batch_size=2",
        "data.micro_batch_size=null",
        "precision=fp32",
    )
    assert train_two_steps(name, text, tmp_path, *size)["val/loss"] < 12


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_trains_two_steps_at_its_real_size(name, text, tmp_path):
    """The batch is smaller if a step would be more than 0.01 TFLOP, which takes 20 s on a slow CPU."""
    config = config_of(f"experiment={name}")
    with torch.device("meta"):
        flops = 6 * GPT(config.model, 2048).num_params * config.model.block_size  # per sequence
    most = max(1, int(0.01e12 / flops))
    less = [f"data.batch_size={most}", "data.micro_batch_size=null"] if config.data.batch_size > most else []
    assert train_two_steps(name, text, tmp_path, *less)["val/loss"] < 12


@pytest.mark.parametrize("family", FAMILIES)
def test_every_experiment_of_a_family_is_there(family):
    assert sum(name.startswith(f"{family}/") for name in NAMES) == FAMILIES[family]


@pytest.mark.parametrize("name", [name for name in NAMES if "/" in name])
def test_each_comment_has_a_question_and_a_reported_result(name):
    text = comment(FOLDER / f"{name}.yaml")
    question, _, rest = text.partition(" Reported: ")
    assert len(question) > 20 and len(rest) > 5
    for figure in re.findall(r"val/loss ([\d.]+)", rest.partition("Measured:")[2]):
        assert 0 < float(figure) < 12


@pytest.mark.slow
def test_the_script_describes_experiments():
    def script(*args):
        done = run_script("experiments", *args)
        return done.returncode, done.stdout, done.stderr

    status, out, err = script("--json", "feste", "nanogpt/cpu")
    found = json.loads(out)
    assert (status, err) == (0, "") and len(found) == 14
    assert found["feste/gpt2"]["parameters"] == 116_989_440 and found["feste/gpt2"]["tokens"] == 5000 * 8 * 512
    assert found["nanogpt/cpu"]["parameters"] == 804_096 and found["nanogpt/cpu"]["steps"] == 2000
    status, out, err = script("fest")
    assert (status, out) == (1, "") and err == "error: there is no experiment fest; did you mean 'feste'?\n"
