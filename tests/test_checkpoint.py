import pickle
from pathlib import Path

import pytest
import torch

from lm.run import checkpoint
from lm.run.checkpoint import FORMAT, load, read, write

ROOT = Path(__file__).parents[1]


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("/tmp/evil-was-here"),))


def test_a_run_and_a_file_load_with_model_and_tokenizer(nano):
    run = nano()
    best, step = load(run), load(run / "checkpoints" / "step_000008.ckpt")
    assert best.path.name == "best.ckpt" and step.step == 8
    assert best.tokenizer.vocab_size == 15 and best.model.config.n_embd == 32 and not best.model.training


def test_unusable_files_are_refused_with_one_line(tmp_path, monkeypatch):
    whole = tmp_path / "whole.ckpt"
    torch.save({"lm": {"format": FORMAT}, "state_dict": {}}, whole)
    cases = {
        "missing.ckpt": (None, "no such run or checkpoint"),
        "cut.ckpt": (whole.read_bytes()[:200], "truncated or is not a checkpoint"),
        "text.ckpt": (b"not a checkpoint at all", "truncated or is not a checkpoint"),
        "empty.ckpt": (b"", "truncated or is not a checkpoint"),
    }
    for name, (content, message) in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=message) as error:
            load(tmp_path / name)
        assert "\n" not in str(error.value)
    torch.save({"weights": torch.zeros(1)}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="not a checkpoint of this project"):
        load(tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="has no checkpoint yet"):
        load(tmp_path)
    (tmp_path / "outputs" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="mine: no such run or checkpoint; did you mean outputs/mine?"):
        load("mine")


def test_a_truncated_checkpoint_of_a_run_is_refused(nano):
    path = nano() / "checkpoints" / "last.ckpt"
    data = path.read_bytes()
    for share in (0.1, 0.5, 0.999):
        path.write_bytes(data[: int(share * len(data))])
        with pytest.raises(ValueError, match="truncated or is not a checkpoint"):
            load(path)


@pytest.mark.parametrize("form", ["zip", "pickle"])
def test_pickled_code_is_refused_and_not_run(tmp_path, form):
    path, mark = tmp_path / "evil.ckpt", Path("/tmp/evil-was-here")
    mark.unlink(missing_ok=True)
    if form == "zip":
        torch.save({"lm": Evil()}, path)
    else:
        path.write_bytes(pickle.dumps({"lm": Evil()}, protocol=2))
    with pytest.raises(ValueError, match="cannot be loaded: it contains pickled code, which is never run"):
        load(path)
    assert not mark.exists()


def test_a_newer_format_is_refused_with_its_version(tmp_path):
    torch.save({"lm": {"format": FORMAT + 1, "version": "9.9"}}, tmp_path / "new.ckpt")
    with pytest.raises(ValueError, match=r"version 9.9, which is newer"):
        read(tmp_path / "new.ckpt")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "last.ckpt"
    write({"lm": 1}, path)
    old = path.read_bytes()
    with pytest.raises(Exception, match="pickle"):
        write({"lm": lambda: None}, path)
    assert path.read_bytes() == old and [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_run_saves_every_checkpoint_with_checkpoint_write(nano, monkeypatch):
    written = []
    original = checkpoint.write
    monkeypatch.setattr(checkpoint, "write", lambda data, path: written.append(path.name) or original(data, path))
    nano("trainer.max_steps=5", "callbacks.checkpoint.keep_last=1")
    assert written == ["step_000004.ckpt", "best.ckpt"]  # once a save; the other names are links
