"""Events that must not lose a run: corrupted files, full disks, two processes at once, kills."""

import errno
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import preloaded
import pytest
import torch
from helpers import NANO, ROOT, config_of, equal, run_script, slow_except, weights
from test_train import interrupt_after, read_metrics

from benchmarks.torture import torture
from lm.base.files import sha256
from lm.experiment import capacity
from lm.model import GPT, GPTConfig, with_weights
from lm.run import checkpoint, lock
from lm.run.checkpoint import find_newest_valid
from lm.run.directory import Interrupted
from lm.run.integrity import verify
from lm.training.callbacks.checkpoints import AtomicIO
from lm.training.trainer import Every

DATA = Path(__file__).parent / "data"


def damage(path):
    """Flip one bit of the largest tensor, in a copy, so that hard links to the file keep the valid content.

    The bit must be in a tensor, because the padding between the records of the archive has no checksum.
    """
    with zipfile.ZipFile(path) as archive:
        record = max(archive.infolist(), key=lambda record: record.file_size)
    data = bytearray(path.read_bytes())
    data[data.index(record.filename.encode()) + 200 + record.file_size // 2] ^= 1
    path.unlink()
    path.write_bytes(data)


def unfinished(run, last):
    """Make the run look as if it was killed right after writing the checkpoint `last`, which becomes last.ckpt."""
    (run / "checkpoints" / "last.ckpt").unlink()
    shutil.copy(run / "checkpoints" / last, run / "checkpoints" / "last.ckpt")
    record = json.loads((run / "run.json").read_text()) | {"status": "running"}
    (run / "run.json").write_text(json.dumps(record))


# ---- checkpoints


def test_a_flipped_bit_that_torch_would_load_is_detected(nano):
    path = nano() / "checkpoints" / "last.ckpt"
    verify(path)
    damage(path)
    torch.load(path, weights_only=True)  # torch does not notice
    with pytest.raises(ValueError, match=r"last.ckpt is corrupted: checksum mismatch in .*"):
        verify(path)


@pytest.mark.slow_after(1)
@pytest.mark.parametrize("how", ["flipped", "cut", "empty", "gone"])
def test_a_run_with_a_corrupted_last_checkpoint_resumes_from_the_one_before(nano, caplog, how):
    straight = nano(name="straight")
    run = nano()
    unfinished(run, "step_000012.ckpt")
    for name in ("last.ckpt", "step_000012.ckpt", "best.ckpt"):
        path = run / "checkpoints" / name
        data = path.read_bytes()
        path.unlink()  # writing through a hard link would change the other names too
        if how != "gone":
            path.write_bytes(b"" if how == "empty" else data[: len(data) // 2] if how == "cut" else data)
        if how == "flipped":
            damage(path)
    caplog.clear()
    nano()
    assert "resuming from step_000008.ckpt instead of last.ckpt" in caplog.text
    if how != "gone":
        assert ("corrupted" if how == "flipped" else "truncated") in caplog.text
    assert json.loads((run / "run.json").read_text())["sessions"][1]["from_step"] == 8
    for name in ("last.ckpt", "best.ckpt"):
        assert equal(weights(run, name), weights(straight, name))
    assert read_metrics(run) == read_metrics(straight)


def test_a_run_whose_checkpoints_are_all_corrupted_is_refused_and_not_changed(nano):
    run = nano()
    unfinished(run, "step_000012.ckpt")
    for path in (run / "checkpoints").iterdir():
        damage(path)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match="every checkpoint is corrupted; remove them to start this run from scratch"):
        nano()
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_a_folder_without_checkpoints_has_no_newest_one(tmp_path):
    assert find_newest_valid(tmp_path) is None and find_newest_valid(tmp_path / "nowhere") is None


def test_best_is_the_best_of_all_validations_including_one_after_last(nano):
    """A run is killed after best.ckpt and before last.ckpt is written, then resumed with another horizon.

    The later validations differ, but the one that best.ckpt records still counts.
    """
    run = nano("optimizer.lr=0.02")
    best = checkpoint.read(run / "checkpoints" / "best.ckpt")
    assert best["global_step"] == 12
    unfinished(run, "step_000008.ckpt")
    nano("optimizer.lr=0.02", "trainer.max_steps=9")  # its final validation is worse
    losses = [float(row["val/loss"]) for row in read_metrics(run) if row["val/loss"]]
    again = checkpoint.read(run / "checkpoints" / "best.ckpt")
    assert min(losses) > best["lm"]["metrics"]["val/loss"] and again["global_step"] == 12
    assert json.loads((run / "run.json").read_text())["best"]["step"] == 12


def test_last_is_never_older_than_best(nano, monkeypatch):
    seen = []
    original = checkpoint.write

    def write(data, path):
        original(data, path)
        seen.append((path.name, data["global_step"]))

    monkeypatch.setattr(checkpoint, "write", write)
    run = nano("trainer.val_every=3", "trainer.save_every=100")
    assert ("best.ckpt", 3) in seen
    record = json.loads((run / "run.json").read_text())
    assert checkpoint.read(run / "checkpoints/last.ckpt")["global_step"] >= record["best"]["step"]
    assert [path.name for path in sorted((run / "checkpoints").iterdir())] == ["best.ckpt", "last.ckpt"]


def test_keep_last_never_removes_best_or_last(nano):
    run = nano("trainer.save_every=1", "callbacks.checkpoint.keep_last=1")
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [
        "best.ckpt",
        "last.ckpt",
        "step_000012.ckpt",
    ]


# ---- files from untrusted sources


def bomb(path, compress):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * 10_000_000)
    return path


def test_a_compressed_archive_is_refused(tmp_path):
    path = bomb(tmp_path / "bomb.ckpt", compress=True)
    assert path.stat().st_size < 20_000
    for function in (checkpoint.read, checkpoint.load, verify):
        with pytest.raises(ValueError, match="bomb.ckpt cannot be loaded: it is compressed, but checkpoints never are"):
            function(path)


@pytest.mark.parametrize(
    "claim", [{"n_layer": 10**9}, {"n_embd": 2**40, "n_head": 1}, {"block_size": 2**50}, {"vocab_multiple": 10**12}]
)
def test_a_checkpoint_with_a_false_model_size_is_refused_before_allocation(nano, claim):
    path = nano("trainer.max_steps=4") / "checkpoints" / "last.ckpt"
    data = checkpoint.read(path)
    data["lm"]["model"] |= claim
    claims = path.with_name("claims.ckpt")
    torch.save(data, claims)
    with pytest.raises(ValueError, match="its weights do not match the model that it describes"):
        checkpoint.load(claims)


def test_weights_that_are_expanded_from_one_number_are_refused():
    config = GPTConfig(n_layer=1, n_head=1, n_embd=4096, block_size=8)
    with torch.device("meta"):
        shapes = {name: t.shape for name, t in GPT(config, 10**6).state_dict().items()}
    with pytest.raises(ValueError, match="its weights do not match"):
        with_weights(config, 10**6, {name: torch.zeros(1).expand(shape) for name, shape in shapes.items()})


def test_a_checkpoint_of_format_1_loads_but_cannot_be_resumed(nano, tmp_path):
    source = checkpoint.load(DATA / "format_1.ckpt")
    assert source.step == 4 and source.model(torch.zeros(1, 3, dtype=torch.long)).shape == (1, 3, 15)
    with pytest.raises(
        ValueError, match="format_1_first.ckpt, written by version 0.1.0, cannot be loaded: not a tokenizer"
    ):
        checkpoint.load(DATA / "format_1_first.ckpt")
    run = nano("trainer.max_steps=2")
    for path in (run / "checkpoints").iterdir():
        path.unlink()
    shutil.copy(DATA / "format_1.ckpt", run / "checkpoints" / "last.ckpt")
    with pytest.raises(
        ValueError,
        match=r"written by version 0.1.0 in format 1, and this version \(.*\) cannot resume its optimizer; to start a new run from its weights, use init_from=",
    ):
        nano("trainer.max_steps=6")


def test_a_checkpoint_of_format_2_can_be_continued(nano, tmp_path):
    """The file was committed when format 2 was introduced, so this test fails if a change breaks the format."""
    source = checkpoint.load(DATA / "format_2.ckpt")
    about = checkpoint.read(DATA / "format_2.ckpt")["lm"]
    assert about["format_version"] == 2 and source.step == 4
    (tmp_path / "old" / "checkpoints").mkdir(parents=True)
    shutil.copy(DATA / "format_2.ckpt", tmp_path / "old" / "checkpoints" / "last.ckpt")
    shutil.copy(DATA / "format_2.yaml", tmp_path / "old" / "config.yaml")
    run = nano(*SAMPLE, "trainer.max_steps=6", f"trainer.fork={tmp_path}/old/checkpoints/last.ckpt")
    assert [row["step"] for row in read_metrics(run)] == ["5", "6"]


SAMPLE = ("model.n_layer=1", "model.n_embd=8", "model.n_head=1", "model.block_size=8", "trainer.max_steps=4")


# ---- the lock of a run directory


@pytest.mark.slow
def test_a_second_process_is_refused_and_the_lock_of_a_killed_process_is_free(tmp_path):
    hold = "import sys, time; from pathlib import Path; from lm.run.lock import acquire\nwith acquire(Path(sys.argv[1])): print('mine', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", hold, tmp_path], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "mine\n"
    assert lock.current_owner(tmp_path).pid == process.pid
    with (
        pytest.raises(
            lock.RunLocked,
            match=rf"is already being trained by process {process.pid} \(.*, since .*\). Choose another name=.*\n  .*scripts/control.py .* status",
        ),
        lock.acquire(tmp_path),
    ):
        pass
    process.kill()
    process.wait()
    assert lock.current_owner(tmp_path) is None and (tmp_path / lock.OWNER).exists()
    with lock.acquire(tmp_path) as mine:
        assert lock.current_owner(tmp_path) == mine and mine.pid == os.getpid()
    assert not list(tmp_path.iterdir())


def test_a_second_start_does_not_change_a_run_that_is_training(nano, tmp_path):
    run = nano("trainer.max_steps=4")
    with lock.acquire(run):
        before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
        with pytest.raises(lock.RunLocked, match="is already being trained by process"):
            nano("trainer.max_steps=8")
        assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_the_processes_for_further_devices_share_the_lock_of_the_main_process(tmp_path, monkeypatch):
    with lock.acquire(tmp_path):
        monkeypatch.setenv("LOCAL_RANK", "1")
        with lock.acquire(tmp_path):
            assert lock.current_owner(tmp_path).pid == os.getpid()
        assert (tmp_path / lock.LOCK).exists() and (tmp_path / lock.OWNER).exists()


def test_signals_are_sent_only_to_running_processes_of_this_machine(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="is not being trained now"):
        lock.send_signal(tmp_path, "stop")
    with lock.acquire(tmp_path) as mine:
        lock.write_owner(tmp_path, replace(mine, host="elsewhere"))
        with pytest.raises(
            ValueError,
            match=rf"is being trained by process {os.getpid()} on elsewhere; run this command on that machine",
        ):
            lock.send_signal(tmp_path, "stop")
        lock.write_owner(tmp_path, replace(mine, paused=True))
        monkeypatch.setattr(os, "kill", None)
        assert lock.send_signal(tmp_path, "pause").paused  # a second signal would resume it, so none is sent


# ---- full disks


@pytest.mark.slow
@pytest.mark.parametrize("background", ["true", "false"])
def test_a_full_disk_ends_the_run_and_leaves_the_last_checkpoint_valid(nano, monkeypatch, background):
    straight = nano(name="straight")
    original, calls = torch.save, []

    def save(data, file):
        calls.append(data["global_step"])
        original(data, file)
        if data["global_step"] == 8:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    typed = f"callbacks.checkpoint.background={background}"
    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", save)
        with pytest.raises(
            ValueError,
            match=r"not enough disk space in .*/run \(No space left on device; .* MB are free\): choose another place with hydra.run.dir=.*, or free some space and run the same command again",
        ):
            nano(typed)
    run = straight.with_name("run")
    assert 8 in calls and json.loads((run / "run.json").read_text())["status"] == "failed"
    assert checkpoint.read(find_newest_valid(run / "checkpoints"))["global_step"] == 4
    assert not list((run / "checkpoints").glob(".*"))
    assert equal(weights(nano(typed)), weights(straight)) and read_metrics(run) == read_metrics(straight)


def test_a_directory_that_cannot_be_written_to_is_reported(nano, monkeypatch):
    def refuse(self, *args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(
        ValueError,
        match=r"/run cannot be written to \(Read-only file system\): choose another place with hydra.run.dir=",
    ):
        nano()


def test_an_unreadable_text_is_not_reported_as_an_unwritable_run(nano, tmp_path, monkeypatch):
    def refuse(self, *args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path / "my.txt"))

    monkeypatch.setattr("lm.data.corpus.WordsConfig.load", refuse)
    with pytest.raises(PermissionError, match=r"Permission denied: '.*my.txt'"):
        nano()


# ---- background writing and save intervals


def test_background_writing_writes_one_checkpoint_at_a_time(monkeypatch, tmp_path):
    at_once, most = [], 0

    def write(data, path):
        nonlocal most
        at_once.append(path)
        most = max(most, len(at_once))
        time.sleep(0.02)
        path.write_text(str(float(data["w"])))
        at_once.pop()

    monkeypatch.setattr(checkpoint, "write", write)
    io, w, done = AtomicIO(background=True), torch.zeros(()), []
    for i in range(5):
        io.save_checkpoint({"w": w}, tmp_path / str(i), storage_options=lambda i=i: done.append(i))
        w += 1  # training continues; the copy must be written
    io.join()
    assert most == 1 and done == [0, 1, 2, 3, 4]
    assert [(tmp_path / str(i)).read_text() for i in range(5)] == ["0.0", "1.0", "2.0", "3.0", "4.0"]


def test_background_writing_gives_equal_weights_and_raises_its_errors(nano):
    a, b = nano(name="a"), nano("callbacks.checkpoint.background=true", name="b")
    assert equal(weights(a), weights(b)) and equal(weights(a, "best.ckpt"), weights(b, "best.ckpt"))
    io = AtomicIO(background=True)
    io.save_checkpoint({}, Path("/nowhere/here"), storage_options=None)
    with pytest.raises((OSError, TypeError)):
        io.join()
    io.join()  # the error is raised only once


@pytest.mark.parametrize("typed, every", [
    (250, Every(steps=250)), ("10min", Every(seconds=600)), ("90s", Every(seconds=90)), ("1.5h", Every(seconds=5400)),
    ("10 min", Every(seconds=600)), (0, None), (-1, None), (True, None), (2.5, None), ("10", None), ("10 days", None),
    ("1.2.3s", None), ("0s", None), (None, None),
])  # fmt: skip
def test_intervals_are_parsed(typed, every):
    assert Every.parse(typed) == every


def test_saving_by_the_clock_changes_only_the_checkpoints(nano, monkeypatch):
    ticks = iter(range(10**6))
    straight = nano(name="straight")
    monkeypatch.setattr(time, "monotonic", lambda: float(next(ticks)))
    run = nano("trainer.save_every=2s", "callbacks.checkpoint.keep_last=100")
    assert equal(weights(run), weights(straight)) and read_metrics(run) == read_metrics(straight)
    assert len(list((run / "checkpoints").glob("step_*"))) > 3


# ---- forks and changed settings


@pytest.mark.slow
def test_a_fork_with_another_schedule_equals_a_run_with_that_schedule(nano):
    """A run that is constant until step 8 and then forked with wsd equals wsd, whose decay starts at step 8."""
    wsd = ("schedule=wsd", f"schedule.decay_fraction={1 / 3}", "model.dropout=0.1")
    straight = nano(*wsd, name="straight")
    nano("schedule=constant", "model.dropout=0.1", "trainer.max_steps=10", name="trunk")
    fork = straight.with_name("trunk") / "checkpoints" / "step_000008.ckpt"
    run = nano(*wsd, f"trainer.fork={fork}", name="branch")
    a, b = (torch.load(r / "checkpoints" / "last.ckpt", weights_only=True) for r in (straight, run))
    assert equal(a["state_dict"], b["state_dict"]) and json.loads((run / "run.json").read_text())["forked_from"] == str(
        fork
    )
    assert read_metrics(run) == read_metrics(straight)[8:]
    again = nano(*wsd, f"trainer.fork={fork}", "trainer.max_steps=12", name="branch")  # finished already
    assert equal(weights(again), weights(straight))


@pytest.mark.slow
def test_an_interrupted_fork_resumes_without_its_origin(nano, monkeypatch):
    trunk = nano("schedule=constant", name="trunk")
    fork = trunk / "checkpoints" / "step_000008.ckpt"
    typed = ("schedule=linear", f"trainer.fork={fork}", "trainer.max_steps=16")
    straight = nano(*typed, name="straight")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 10)
        with pytest.raises(Interrupted):
            nano(*typed)
    fork.rename(fork.with_name("moved"))
    assert equal(weights(nano(*typed)), weights(straight))


def test_a_fork_with_another_model_or_seed_is_refused(nano):
    trunk = nano("trainer.max_steps=4")
    fork = trunk / "checkpoints" / "last.ckpt"
    with pytest.raises(
        ValueError,
        match=r"(?s)a fork may change the schedule.*from the weights alone, use init_from=.*\n  model.n_layer +was 2 +now 3\n  seed +was 1337 +now 2",
    ):
        nano("model.n_layer=3", "seed=2", f"trainer.fork={fork}", name="branch")
    with pytest.raises(
        ValueError, match="config.yaml is missing; it contains the config that the run was trained with"
    ):
        moved = trunk.parent / "alone" / "checkpoints"
        moved.mkdir(parents=True)
        shutil.copy(fork, moved)
        nano(f"trainer.fork={moved}/last.ckpt", name="branch")
    assert not (trunk.parent / "branch" / "config.yaml").exists()


@pytest.mark.slow
def test_the_effect_of_a_longer_horizon_on_the_schedule_is_logged(nano, caplog):
    nano("schedule=cosine")
    nano("schedule=cosine", "trainer.max_steps=24")
    assert "24 steps instead of 12: the learning rate jumps here from 0.1 to 0.614 of its peak" in caplog.text
    caplog.clear()
    nano("schedule=constant", name="flat")
    nano("schedule=constant", "trainer.max_steps=24", name="flat")
    assert "24 steps instead of 12: the result is identical to that of a run of 24 steps from the start" in caplog.text


def test_the_effect_of_changed_keys_is_logged(nano, caplog):
    nano("trainer.max_steps=4")
    nano("trainer.max_steps=8", "data.micro_batch_size=4", "trainer.val_every=2")
    assert "data.micro_batch_size: the same batches are split differently, so sums round differently" in caplog.text
    assert (
        "trainer.val_every: early stopping, the plateau schedule and best.ckpt are based on different validations"
        in caplog.text
    )


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", slow_except(["adamw", "muon"], ["adamw", "muon", "lion", "adamw_8bit"]))
def test_init_optimizer_keep_loads_the_optimizer_state(nano, optimizer):
    parent = nano(f"optimizer={optimizer}")
    typed = (
        f"init_from={parent}/checkpoints/last.ckpt",
        f"optimizer={optimizer}",
        "optimizer.lr=1e-12",
        "trainer.max_steps=1",
    )
    states = {}
    for keep in ("new", "keep"):
        child = nano(*typed, f"init_optimizer={keep}", name=keep)
        (states[keep],) = checkpoint.read(child / "checkpoints" / "last.ckpt")["optimizer_states"]
    (before,) = checkpoint.read(parent / "checkpoints" / "last.ckpt")["optimizer_states"]
    assert states["keep"]["state"].keys() == before["state"].keys() == states["new"]["state"].keys()
    if optimizer in ("adamw", "muon"):
        assert {float(s["step"]) for s in before["state"].values()} >= {12.0}
        assert {float(s["step"]) for s in states["keep"]["state"].values()} >= {13.0}
        assert not {float(s["step"]) for s in states["new"]["state"].values()} & {12.0, 13.0}
    if optimizer == "lion":  # beta2 = 0.99: 99 % of the old average remains after one step
        for i, s in before["state"].items():
            new, kept = states["new"]["state"][i]["average"], states["keep"]["state"][i]["average"]
            torch.testing.assert_close(kept, 0.99 * s["average"] + new, atol=1e-6, rtol=1e-4)


def test_init_optimizer_keep_needs_a_state_of_the_same_kind(nano):
    parent = nano("trainer.max_steps=4")
    with pytest.raises(
        ValueError,
        match=r"init_optimizer=keep needs a state of Lion, but .* contains a state of AdamW; use init_optimizer=new",
    ):
        nano(f"init_from={parent}", "init_optimizer=keep", "optimizer=lion", name="child")
    with pytest.raises(ValueError, match="^init_optimizer=keep must be new without init_from"):
        nano("init_optimizer=keep", name="child")


# ---- kills


@pytest.mark.slow
def test_a_run_killed_at_random_equals_an_uninterrupted_run(tmp_path):
    """Run a short version of scripts/torture.py; docs/reliability.md has the results of longer ones."""
    lines = []
    (result,) = torture(tmp_path, 1, seed=1, names=["adamw, cosine, accumulation, dropout"], report=lines.append)
    assert result.kills == 1 and not result.differences and not result.lost, result


# ---- the record


def script(name, *args):
    done = run_script(name.removesuffix(".py"), *args)
    return done.returncode, done.stdout, done.stderr


def test_the_record_contains_everything_the_run_depends_on(nano):
    run = nano("trainer.max_steps=4")
    record = json.loads((run / "run.json").read_text())
    assert len(record["git_commit"]) == 40 and record["versions"]["torch"] == torch.__version__
    assert {"lm", "python", "torch", "lightning", "hydra-core", "omegaconf", "tokenizers", "numpy"} == set(
        record["versions"]
    )
    assert len(record["text"]) >= 16 and len(record["tokenizer"]) == 64 and record["device_name"]
    assert record["tokenizer"] == sha256(run / "tokenizer.json")


def test_deterministic_algorithms_are_enabled_only_during_the_run(nano):
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "write", lambda *_: seen.append(torch.are_deterministic_algorithms_enabled()))
        patch.setattr("lm.training.callbacks.checkpoints.link", lambda *_: None)
        nano("trainer.deterministic=true", "trainer.max_steps=4")
        nano("trainer.max_steps=4", name="other")
    assert seen == [True, False]


@pytest.mark.slow
def test_reproduce_prints_the_command_and_reports_differences(tmp_path):
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, ROOT / "train.py", *NANO, f"data.root={tmp_path}/data", "model.dropout=0.1"]
    assert preloaded.run([*command, "name=first"], cwd=tmp_path, env=env).returncode == 0
    run = tmp_path / "outputs" / "first"
    status, out, err = script("reproduce.py", run, "--name", "second")
    assert (status, err) == (0, ""), out
    interpreter, program, *typed = shlex.split(out.splitlines()[0])
    assert interpreter.endswith("python") and program == "train.py"
    assert set(typed) == {*NANO, f"data.root={tmp_path}/data", "model.dropout=0.1", "name=second"}
    assert preloaded.run([sys.executable, ROOT / "train.py", *typed], cwd=tmp_path, env=env).returncode == 0
    assert equal(weights(run), weights(run.with_name("second")))
    record = json.loads((run / "run.json").read_text())
    record["versions"]["torch"], record["text"] = "2.0.0", "another"
    (run / "run.json").write_text(json.dumps(record))
    status, out, _ = script("reproduce.py", run, "--json")
    assert status == 1 and json.loads(out)["differ"] == ["torch", "text"]
    status, _, err = script("reproduce.py", tmp_path)
    assert status == 1 and err.startswith("error: ") and "no run.json" in err and "Traceback" not in err


# ---- control


@pytest.mark.slow
def test_a_running_run_is_paused_saved_resumed_and_stopped_from_another_terminal(tmp_path):
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    typed = [*NANO, "trainer.max_steps=100000", "trainer.val_every=100000", "trainer.save_every=100000", "name=live"]
    command = [sys.executable, ROOT / "train.py", *typed]
    run = tmp_path / "outputs" / "live"
    process = preloaded.Preloaded(command, cwd=tmp_path, env=env)
    while not (run / "metrics.csv").exists() or len((run / "metrics.csv").read_text().splitlines()) < 20:
        assert process.poll() is None
        time.sleep(0.05)

    def control(action):
        status, out, err = script("control.py", run, action, "--json")
        assert status == 0, err
        return json.loads(out)

    found = control("status")
    assert found["status"] == "running" and found["process"] == process.pid and found["horizon"] == 100000
    second = preloaded.run(command, cwd=tmp_path, env=env)
    assert (
        second.returncode == 1
        and second.stderr.startswith("error: ")
        and "is already being trained by process" in second.stderr
    )
    assert control("pause")["status"] == "paused"
    at = control("status")["step"]
    time.sleep(0.5)
    assert control("status")["step"] == at and control("pause")["status"] == "paused"
    assert control("save")["saved_s_ago"] < 5
    assert checkpoint.read(run / "checkpoints" / "last.ckpt")["global_step"] >= at
    assert control("resume")["status"] == "running"
    time.sleep(0.5)
    assert control("status")["step"] > at
    found = control("stop")
    assert found["status"] == "stopped" and process.wait(10) == 143
    status, _, err = script("control.py", run, "stop")
    assert status == 1 and err == f"error: {run} is not being trained now\n"
    status, _, err = script("control.py", tmp_path / "nowhere", "stop")
    assert status == 1 and err == f"error: {tmp_path}/nowhere: no such run\n"


@pytest.mark.slow
def test_a_real_full_disk_ends_the_run_cleanly(tmp_path):
    """A file size limit, like a quota, is exceeded by the optimizer state of the second checkpoint."""
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, ROOT / "train.py", *NANO, "model.n_embd=64", "logger=csv", "name=full"]
    limit = "import resource, sys, os; resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2); import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); os.execv(sys.argv[2], sys.argv[2:])"
    done = subprocess.run(
        [sys.executable, "-c", limit, "300000", *map(str, command)],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr + done.stdout
    assert (
        done.stderr.startswith("error: not enough disk space in ")
        and "free some space and run the same command again" in done.stderr
    )
    done = preloaded.run(command, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr


def test_the_memory_estimate_includes_the_copy_for_background_writing():
    config = config_of("model=small", "device=cpu", "precision=fp32")
    there = replace(
        config, callbacks=replace(config.callbacks, checkpoint=replace(config.callbacks.checkpoint, background=True))
    )
    a, b = (capacity.estimate_for(c, 2048, "cpu") for c in (config, there))
    with torch.device("meta"):
        parameters = GPT(config.model, 2048).num_params
    assert b.weights - a.weights == 4 * parameters and b.optimizer - a.optimizer == 8 * parameters
    assert capacity.estimate_for(there, 2048, "cuda").optimizer == capacity.estimate_for(config, 2048, "cuda").optimizer
