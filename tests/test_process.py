"""Real processes: train.py started, stopped, killed and swept from the command line."""

import fcntl
import json
import os
import pty
import shlex
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
import torch
from helpers import NANO, ROOT, equal, weights
from preloaded import Preloaded, run

pytestmark = pytest.mark.slow
ENV = os.environ | {"OMP_NUM_THREADS": "1"}


def start(cwd, *args):
    command = [sys.executable, str(ROOT / "train.py"), *NANO, *args]
    return Preloaded(command, cwd=cwd, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def train(cwd, *args):
    status, out, err = finish(start(cwd, *args))
    assert status == 0, out + err
    return out


def wait_for(path, process, seconds=60):
    for _ in range(seconds * 50):
        if path.exists():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    raise AssertionError(f"{path} did not appear")


LONG = (
    "trainer.max_steps=400",
    "trainer.val_every=40",
    "trainer.save_every=40",
    "callbacks.sample.every=100",
    "model.dropout=0.1",
)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """An uninterrupted run with the options LONG."""
    folder = tmp_path_factory.mktemp("straight")
    train(folder, *LONG, "name=straight")
    return folder / "outputs" / "straight"


def test_ctrl_c_saves_and_the_same_command_resumes(straight, tmp_path):
    process = start(tmp_path, *LONG, "name=halted")
    wait_for(tmp_path / "outputs/halted/checkpoints/last.ckpt", process)
    process.send_signal(signal.SIGINT)
    status, out, err = finish(process)
    assert status == 128 + signal.SIGINT and "Traceback" not in out + err
    assert "saving at the end of this step" in out and "stopped by SIGINT; resume with:" in out
    record = json.loads((tmp_path / "outputs/halted/run.json").read_text())
    assert record["status"] == "stopped"
    out = train(tmp_path, *LONG, "name=halted")
    assert "continuing after step" in out and "val/loss" in out
    assert equal(weights(straight), weights(tmp_path / "outputs/halted"))


def test_a_second_ctrl_c_exits_immediately(tmp_path):
    slow = (
        "data.batch_size=2048",
        "data.micro_batch_size=1",
        "corpus.lines=8000",
        "trainer.save_every=1",
        "trainer.max_steps=4",
    )
    process = start(tmp_path, *slow, "name=run")
    wait_for(tmp_path / "outputs/run/run.json", process)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=5) == 128 + signal.SIGINT


def test_ctrl_c_in_a_terminal_with_loader_workers_saves(tmp_path):
    """A terminal sends SIGINT to the whole process group, including the workers."""
    command = [sys.executable, str(ROOT / "train.py"), *NANO, *LONG, "data.num_workers=2", "name=run"]
    process = subprocess.Popen(command, cwd=tmp_path, env=ENV, stdout=-1, stderr=-1, text=True, start_new_session=True)
    wait_for(tmp_path / "outputs/run/checkpoints/last.ckpt", process)
    os.killpg(process.pid, signal.SIGINT)
    status, out, err = finish(process)
    assert status == 130, out + err
    assert json.loads((tmp_path / "outputs/run/run.json").read_text())["status"] == "stopped"


def test_sigterm_to_one_of_two_devices_stops_both(tmp_path):
    process = start(tmp_path, *LONG, "trainer.max_steps=4000", "trainer.devices=2", "name=run")
    wait_for(tmp_path / "outputs/run/checkpoints/last.ckpt", process)
    process.terminate()
    assert finish(process)[0] == 128 + signal.SIGTERM
    assert json.loads((tmp_path / "outputs/run/run.json").read_text())["status"] == "stopped"


def test_sigterm_saves_too(tmp_path):
    process = start(tmp_path, *LONG, "name=run")
    wait_for(tmp_path / "outputs/run/checkpoints/last.ckpt", process)
    process.terminate()
    assert finish(process)[0] == 128 + signal.SIGTERM
    assert json.loads((tmp_path / "outputs/run/run.json").read_text())["status"] == "stopped"


@pytest.mark.parametrize("seconds", [0.0, 0.15, 0.4])
def test_a_killed_run_resumes_bit_for_bit(straight, tmp_path, seconds):
    process = start(tmp_path, *LONG, "name=killed")
    wait_for(tmp_path / "outputs/killed/checkpoints/last.ckpt", process)
    time.sleep(seconds)
    process.kill()
    process.communicate()
    train(tmp_path, *LONG, "name=killed")
    killed = tmp_path / "outputs/killed"
    assert equal(weights(straight), weights(killed)) and equal(
        weights(straight, "best.ckpt"), weights(killed, "best.ckpt")
    )
    columns = [
        [line.split(",")[:7] for line in (run / "metrics.csv").read_text().splitlines()] for run in (straight, killed)
    ]
    assert columns[0] == columns[1]
    assert (straight / "samples.md").read_text() == (killed / "samples.md").read_text()


def test_a_sweep_of_two_jobs_equals_two_separate_runs(tmp_path):
    dropout = "model.dropout=0.1"
    out = train(tmp_path, "-m", dropout, "optimizer.lr=0.01,0.003", "name=sweep")
    assert out.count("finished in") == 2
    for job, lr in enumerate(("0.01", "0.003")):
        train(tmp_path, dropout, f"optimizer.lr={lr}", f"name=alone{job}")
        alone, swept = tmp_path / f"outputs/alone{job}", tmp_path / f"outputs/sweep/{job}"
        assert equal(weights(alone), weights(swept))
        assert (alone / "samples.md").read_text() == (swept / "samples.md").read_text()


def test_a_failing_job_does_not_stop_the_others(tmp_path):
    status, out, err = finish(start(tmp_path, "-m", "data.batch_size=100000,4", "name=sweep"))
    assert "error in job 0: the training text" in err
    assert status == 1 and out.count("finished in") == 1 and "fewer than one batch" in err and "Traceback" not in err
    assert not (tmp_path / "outputs/sweep/0").exists() and (tmp_path / "outputs/sweep/1/run.json").exists()


def test_two_devices_give_the_metrics_of_one(tmp_path):
    train(tmp_path, "data.micro_batch_size=2", "name=one")
    train(tmp_path, "data.micro_batch_size=2", "trainer.devices=2", "name=two")
    one, two = ((tmp_path / f"outputs/{name}/metrics.csv").read_text().splitlines() for name in ("one", "two"))
    assert len(one) == len(two)
    for a, b in zip(one[1:], two[1:], strict=True):
        for x, y in zip(a.split(",")[:6], b.split(",")[:6], strict=True):
            assert x == y or float(x) == pytest.approx(float(y), rel=1e-3)


def run_hydra(cwd, *args):
    done = run([sys.executable, ROOT / "train.py", *args], cwd=cwd, env=ENV)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_hydras_own_flags_work_and_write_no_files(tmp_path):
    assert "Groups and their options" in run_hydra(tmp_path, "--help")
    config = run_hydra(tmp_path, "model=medium", "--cfg", "job")
    assert "n_embd: 512" in config and "val_every: 250" in config
    assert "model/medium" in run_hydra(tmp_path, "model=medium", "--info", "defaults")
    assert "complete" in run_hydra(tmp_path, "-sc", "install=bash")
    assert list(tmp_path.iterdir()) == []


def test_tab_completion_knows_options_and_keys(tmp_path):
    for line, expected in {"train.py model=m": "model=medium", "train.py optimizer.l": "optimizer.lr="}.items():
        env = ENV | {"COMP_LINE": line, "COMP_POINT": str(len(line))}
        done = run([sys.executable, ROOT / "train.py", "-sc", "query=bash"], cwd=tmp_path, env=env)
        assert expected in done.stdout.split()


def test_a_run_writes_train_log(tmp_path):
    out = train(tmp_path, "name=run")
    log = (tmp_path / "outputs/run/train.log").read_text()
    assert "val/loss" in log and "parameters" in log
    assert f"{shlex.quote(str(ROOT / 'scripts' / 'generate.py'))} outputs/run" in out


# ---- consoles that can no longer be written to


def require_finished(run):
    assert json.loads((run / "run.json").read_text())["status"] == "finished"
    log = (run / "train.log").read_text(encoding="utf-8")
    assert "finished in" in log
    return log


def test_a_closed_pipe_does_not_end_training(tmp_path):
    """The reader ends, as in `python train.py ... | head -1`."""
    process = start(tmp_path, *LONG, "name=run")
    assert process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(300) == 0 and "Traceback" not in err
    log = require_finished(tmp_path / "outputs/run")
    assert log.count("can no longer be written to (") == 1


def test_a_console_on_a_full_disk_does_not_end_training(tmp_path):
    command = [sys.executable, str(ROOT / "train.py"), *NANO, "name=run"]
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        done = subprocess.run(command, cwd=tmp_path, env=ENV, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert "No space left on device" in require_finished(tmp_path / "outputs/run")


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_a_console_that_cannot_encode_the_text_does_not_end_training(tmp_path, encoding):
    (tmp_path / "he.txt").write_text("שלום עולם 🎉\n" * 300, encoding="utf-8")
    command = [sys.executable, str(ROOT / "train.py"), *(o for o in NANO if not o.startswith("corpus"))]
    command += ["corpus=text", "corpus.path=he.txt", "name=run"]
    env = ENV | {"PYTHONIOENCODING": encoding}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert rb"\u05" in done.stdout
    assert "ש" in require_finished(tmp_path / "outputs/run")


def test_a_closed_terminal_saves_and_the_same_command_resumes(tmp_path):
    """A real terminal is closed: SIGHUP is sent, and every write to the terminal fails."""
    train(tmp_path, *LONG, "name=straight")
    master, slave = pty.openpty()
    command = [sys.executable, str(ROOT / "train.py"), *NANO, *LONG, "name=run"]
    process = subprocess.Popen(command, cwd=tmp_path, env=ENV, stdin=slave, stdout=slave, stderr=slave,
                               preexec_fn=take_controlling_terminal)  # fmt: skip
    os.close(slave)
    wait_for(tmp_path / "outputs/run/checkpoints/last.ckpt", process)
    os.close(master)
    assert process.wait(60) == 128 + signal.SIGHUP
    record = json.loads((tmp_path / "outputs/run/run.json").read_text())
    assert record["status"] == "stopped" and record["error"] == "stopped by SIGHUP"
    train(tmp_path, *LONG, "name=run")
    assert equal(weights(tmp_path / "outputs/straight"), weights(tmp_path / "outputs/run"))


def take_controlling_terminal():
    """Start a session with standard input as its controlling terminal."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_every_signal_that_ends_a_run_saves_first(tmp_path, number):
    process = start(tmp_path, *LONG, "trainer.max_steps=100000", "trainer.save_every=100000", "name=run")
    wait_for(tmp_path / "outputs/run/metrics.csv", process)
    while "\n40," not in (tmp_path / "outputs/run/metrics.csv").read_text():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    if number == signal.SIGHUP:
        process.send_signal(number)  # the kernel and the shell both send it, so a second one is ignored
    status, out, err = finish(process)
    assert status == 128 + number and "Traceback" not in out + err
    saved = torch.load(tmp_path / "outputs/run/checkpoints/last.ckpt", weights_only=True)["global_step"]
    last = int((tmp_path / "outputs/run/metrics.csv").read_text().splitlines()[-1].split(",")[0])
    assert saved == last


def test_a_run_under_nohup_ignores_sighup(tmp_path):
    command = ["nohup", sys.executable, str(ROOT / "train.py"), *NANO, *LONG, "name=run"]
    process = subprocess.Popen(command, cwd=tmp_path, env=ENV, stdout=-1, stderr=-1, text=True)
    wait_for(tmp_path / "outputs/run/checkpoints/last.ckpt", process)
    process.send_signal(signal.SIGHUP)
    assert finish(process)[0] == 0
