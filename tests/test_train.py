"""Whole runs in this process: resuming, stopping, checkpoints, metrics and validation."""

import csv
import json
import math
import shutil
import sys

import pytest
import torch
import yaml
from helpers import NANO, config_of, equal, slow_except, weights
from hydra.core.global_hydra import GlobalHydra

import train as train_script
from lm.config import errors
from lm.data.download import Downloads
from lm.run.directory import Interrupted
from lm.training.callbacks.checkpoints import Checkpoints
from lm.training.module import LanguageModule


def read_metrics(run):
    """Return the rows of metrics.csv without the perf/ columns, which depend on time."""
    with (run / "metrics.csv").open() as file:
        return [{k: v for k, v in row.items() if not k.startswith("perf/")} for row in csv.DictReader(file)]


def equal_nested(a, b):
    """Return True if two nested containers of tensors are equal."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal_nested(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal_nested, a, b))
    return a == b


def interrupt_after(monkeypatch, step):
    """Simulate Ctrl-C during the given step (counted from 1)."""
    original = Checkpoints.on_train_batch_end

    def press(self, trainer, module, *args):
        if trainer.global_step == step and module.stepped:
            self.signals.stop = 2
        original(self, trainer, module, *args)

    monkeypatch.setattr(Checkpoints, "on_train_batch_end", press)


@pytest.mark.slow_after(1)
@pytest.mark.parametrize("step", slow_except([3, 11], [3, 4, 11]))  # between validations, at one, in the second epoch
@pytest.mark.parametrize("optimizer", slow_except(["adamw"], ["adamw", "adamw_8bit"]))
def test_an_interrupted_run_resumes_exactly(nano, monkeypatch, step, optimizer):
    """Weights, optimizer, metrics and samples are equal after a stop in an epoch, with accumulation and dropout."""
    overrides = ("model.dropout=0.2", "data.batch_size=32", "data.micro_batch_size=8", f"optimizer={optimizer}")
    straight = nano(*overrides, name="straight")
    with monkeypatch.context() as patch:
        interrupt_after(patch, step)
        with pytest.raises(Interrupted):
            nano(*overrides)
    halted = nano(*overrides)
    assert json.loads((halted / "run.json").read_text())["sessions"][1]["from_step"] == step
    a, b = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (straight, halted))
    assert equal(a["state_dict"], b["state_dict"])
    assert equal_nested(a["optimizer_states"], b["optimizer_states"]) and equal_nested(a["callbacks"], b["callbacks"])
    assert equal(weights(straight, "best.ckpt"), weights(halted, "best.ckpt"))
    assert read_metrics(straight) == read_metrics(halted)
    assert (straight / "samples.md").read_text() == (halted / "samples.md").read_text()


def test_a_killed_run_resumes_from_its_last_checkpoint_with_one_continuous_curve(nano):
    """Rows, samples and checkpoints after last.ckpt, as a kill leaves them, are written again and not twice."""
    straight = nano()
    killed = straight.with_name("killed")
    shutil.copytree(straight, killed)
    (killed / "checkpoints" / "last.ckpt").unlink()
    (killed / "checkpoints" / "step_000008.ckpt").rename(killed / "checkpoints" / "last.ckpt")
    record = json.loads((killed / "run.json").read_text()) | {"status": "running"}
    (killed / "run.json").write_text(json.dumps(record))
    with (killed / "metrics.csv").open("a") as file:
        file.write("13,0.5")  # an incomplete row
    again = nano(name="killed")
    assert read_metrics(again) == read_metrics(straight)
    assert (again / "samples.md").read_text() == (straight / "samples.md").read_text()
    assert equal(weights(again), weights(straight))


@pytest.mark.slow
def test_extending_a_run_equals_a_longer_run_with_a_constant_learning_rate(nano):
    straight = nano("schedule=constant", "trainer.max_steps=12", name="straight")
    short = nano("schedule=constant", "trainer.max_steps=6")
    assert len(read_metrics(short)) == 6
    longer = nano("schedule=constant", "trainer.max_steps=12")
    assert equal(weights(straight), weights(longer))


@pytest.mark.slow
def test_hardware_settings_may_change_when_a_run_is_resumed(nano, monkeypatch):
    straight = nano(name="straight")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 5)
        with pytest.raises(Interrupted):
            nano()
    halted = nano("data.micro_batch_size=4", "data.num_workers=2", "attention=sdpa", "device=auto")
    for key, value in weights(straight).items():
        torch.testing.assert_close(value, weights(halted)[key], atol=1e-4, rtol=1e-3)
    assert [row["val/loss"] != "" for row in read_metrics(halted)] == [
        row["val/loss"] != "" for row in read_metrics(straight)
    ]


@pytest.mark.slow
def test_loader_workers_do_not_change_the_run(nano):
    assert equal(weights(nano(name="a")), weights(nano("data.num_workers=2", name="b")))


def test_a_changed_config_is_refused_with_the_difference_and_the_run_is_unchanged(nano):
    run = nano()
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(
        ValueError,
        match=r"(?s)trained with a different config.*model.n_layer +was 2 +now 3\n +optimizer.lr +was 0.01 +now 0.02",
    ):
        nano("model.n_layer=3", "optimizer.lr=0.02")
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


@pytest.mark.slow_after(2)
@pytest.mark.parametrize("other", ["optimizer=adamw_8bit", "schedule=constant", "tokenizer=byte", "seed=2"])
def test_another_option_of_a_group_is_a_different_config(nano, other):
    nano("trainer.max_steps=4", "schedule.warmup_steps=2")
    with pytest.raises(ValueError, match="trained with a different config"):
        nano("trainer.max_steps=4", other)


def test_a_finished_run_is_not_trained_again(nano):
    run = nano()
    stamp = (run / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    nano()
    assert (run / "checkpoints" / "last.ckpt").stat().st_mtime_ns == stamp
    assert len(json.loads((run / "run.json").read_text())["sessions"]) == 1


def test_validation_saving_and_logging_count_optimizer_steps(nano):
    run = nano("trainer.val_every=5", "trainer.save_every=3", "trainer.log_every=2", "callbacks.checkpoint.keep_last=9")
    table = {int(row["step"]): row for row in read_metrics(run)}
    assert [s for s, row in table.items() if row["train/loss"]] == [1, 2, 4, 6, 8, 10, 12]
    assert [s for s, row in table.items() if row["val/loss"]] == [5, 10, 12]  # and at the end
    saved = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert saved == ["best.ckpt", "last.ckpt", *(f"step_{s:06d}.ckpt" for s in (3, 6, 9, 12))]


def test_accumulated_gradients_equal_those_of_the_whole_batch(nano):
    whole = nano("data.micro_batch_size=null", "trainer.max_steps=3", name="whole")
    parts = nano("data.micro_batch_size=1", "trainer.max_steps=3", name="parts")
    for a, b in zip(read_metrics(whole), read_metrics(parts), strict=True):
        assert float(a["train/loss"]) == pytest.approx(float(b["train/loss"]), abs=1e-4)
        assert float(a["train/grad_norm"]) == pytest.approx(float(b["train/grad_norm"]), rel=1e-3)


def test_best_ckpt_has_the_lowest_val_loss_and_old_step_checkpoints_are_deleted(nano):
    run = nano("callbacks.checkpoint.keep_last=1", "optimizer.lr=0.3", "optimizer.grad_clip=0")  # unstable
    losses = {int(row["step"]): float(row["val/loss"]) for row in read_metrics(run) if row["val/loss"]}
    best = min(losses, key=losses.get)
    record = json.loads((run / "run.json").read_text())
    assert record["best"] == {"val/loss": losses[best], "step": best}
    assert torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["global_step"] == best
    assert [p.name for p in (run / "checkpoints").glob("step_*")] == ["step_000012.ckpt"]


@pytest.mark.slow_after(1)
@pytest.mark.parametrize("keep_last", [0, 1, 3, 9])
def test_keep_last_step_checkpoints_are_kept(nano, keep_last):
    run = nano("trainer.save_every=1", f"callbacks.checkpoint.keep_last={keep_last}")
    kept = sorted(p.name for p in (run / "checkpoints").glob("step_*"))
    assert kept == [f"step_{step:06d}.ckpt" for step in range(13 - keep_last, 13)]


def test_the_logged_learning_rate_follows_the_schedule(nano):
    rates = [float(row["lr"]) for row in read_metrics(nano("schedule.warmup_steps=3", "trainer.max_steps=9"))]
    cosine = [0.001 + 0.009 * 0.5 * (1 + math.cos(math.pi * k / 6)) for k in range(6)]
    assert rates == pytest.approx([0.0025, 0.005, 0.0075, *cosine])


def test_a_longer_horizon_changes_the_schedule_from_the_next_step(nano):
    nano("schedule.warmup_steps=0", "trainer.max_steps=6")
    longer = read_metrics(nano("schedule.warmup_steps=0", "trainer.max_steps=12"))
    expected = [0.001 + 0.009 * 0.5 * (1 + math.cos(math.pi * k / 12)) for k in range(6, 12)]
    assert [float(row["lr"]) for row in longer[6:]] == pytest.approx(expected)


def test_the_optimizer_gets_clipped_gradients(nano, monkeypatch):
    seen = []
    original = LanguageModule.configure_optimizers

    def record_norm(optimizer, *_):
        grads = [p.grad.flatten() for group in optimizer.param_groups for p in group["params"]]
        seen.append(torch.cat(grads).norm().item())

    def configure(self):
        optimizer = original(self)
        optimizer.register_step_post_hook(record_norm)
        return optimizer

    monkeypatch.setattr(LanguageModule, "configure_optimizers", configure)
    logged = [float(row["train/grad_norm"]) for row in read_metrics(nano("optimizer.grad_clip=0.05"))]
    assert seen == pytest.approx([0.05] * 12, rel=1e-3) and min(logged) > 0.05


def test_the_horizon_can_be_given_in_epochs_or_tokens(nano, tmp_path):
    windows = config_of(*NANO).corpus.load(Downloads(tmp_path)).train.size // 16 - 1
    run = nano("trainer.max_steps=null", "trainer.max_epochs=0.5", "trainer.log_every=1", name="epochs")
    assert len(read_metrics(run)) == windows // 2 // 4
    run = nano("trainer.max_steps=null", f"trainer.max_tokens={4 * 16 * 5}", name="tokens")
    assert len(read_metrics(run)) == 5


def test_a_horizon_before_the_current_step_is_refused(nano, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_after(patch, 3)
        with pytest.raises(Interrupted):
            nano()
    with pytest.raises(ValueError, match="has done 3 steps already, but the new horizon is 2 steps"):
        nano("trainer.max_steps=2")
    with pytest.raises(ValueError, match="stopped at step 3 before it was validated"):
        nano("trainer.max_steps=3")
    assert len(read_metrics(nano())) == 12


def test_tokens_per_second_and_mfu_follow_from_the_step_time(nano):
    run = nano("trainer.peak_tflops=0.5", "trainer.log_every=4")
    with (run / "metrics.csv").open() as file:
        row = list(csv.DictReader(file))[-1]
    seconds = float(row["perf/step_ms"]) / 1e3
    assert float(row["perf/tokens_per_s"]) == pytest.approx(4 * 16 / seconds)
    # two layers of 4 C^2 for attention and 3 x 32 x 128 for a gated MLP, the head, and 12 L C T
    flops = 6 * (2 * (4 * 32**2 + 3 * 32 * 128) + 15 * 32) + 12 * 2 * 32 * 16
    assert float(row["perf/mfu"]) == pytest.approx(4 * 16 / seconds * flops / 0.5e12)


def test_a_warmup_longer_than_the_run_gives_a_warning(nano, caplog):
    with caplog.at_level("INFO", "lm"):
        nano("schedule.warmup_steps=50")
    assert "warning   schedule.warmup_steps=50 is not below the 12 steps" in caplog.text


def test_a_changed_text_at_the_same_path_is_refused(nano, tmp_path):
    (tmp_path / "my.txt").write_text("to be or not to be\n" * 100)
    mine = ("corpus=text", f"corpus.path={tmp_path}/my.txt")
    only = [o for o in NANO if not o.startswith("corpus")]
    train_script.train(config_of(*only, *mine, f"data.root={tmp_path}/data"), tmp_path / "run")
    (tmp_path / "my.txt").write_text("that is the question\n" * 100)
    with pytest.raises(ValueError, match="was trained on a different text"):
        train_script.train(
            config_of(*only, *mine, f"data.root={tmp_path}/data", "trainer.max_steps=20"), tmp_path / "run"
        )


def test_a_run_started_with_init_from_resumes_without_its_parent(nano):
    parent = nano("trainer.max_steps=4", name="parent")
    child = nano(f"init_from={parent}", "corpus.seed=7", "trainer.max_steps=4", name="child")
    before = (child / "tokenizer.json").read_text()
    shutil.rmtree(parent)
    nano("corpus.seed=7", "trainer.max_steps=8", name="child")
    assert (child / "tokenizer.json").read_text() == before and len(read_metrics(child)) == 8


def test_early_stopping_still_stops_a_run_interrupted_at_its_decision(nano, monkeypatch):
    settings = ("callbacks.early_stopping.patience=8", "callbacks.early_stopping.min_delta=100", "trainer.max_steps=40")
    straight = nano(*settings, name="straight")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 12)
        with pytest.raises(Interrupted):
            nano(*settings)
    assert read_metrics(nano(*settings)) == read_metrics(straight)


def test_early_stopping_uses_a_new_patience_and_val_every(nano):
    settings = ("callbacks.early_stopping.min_delta=100", "trainer.max_steps=40")
    nano(*settings, "callbacks.early_stopping.patience=8")
    run = nano(*settings, "callbacks.early_stopping.patience=16", "trainer.val_every=2")
    assert json.loads((run / "run.json").read_text())["metrics"]["step"] == 20


@pytest.mark.slow
def test_text_that_a_user_adds_to_samples_md_does_no_harm(nano, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt_after(patch, 7)
        with pytest.raises(Interrupted):
            nano()
    straight = nano(name="straight")
    with (straight.with_name("run") / "samples.md").open("a") as file:
        file.write("# My run\n## step 9999\n")
    assert (nano() / "samples.md").read_text() == (straight / "samples.md").read_text()


@pytest.mark.slow
def test_two_jobs_of_a_sweep_equal_two_separate_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    overrides = [*NANO, f"data.root={tmp_path}/data", "model.dropout=0.1"]
    monkeypatch.setattr(sys, "argv", ["train.py", *overrides, "optimizer.lr=0.01,0.003", "name=sweep", "-m"])
    errors.run(train_script.main)
    for job, lr in enumerate((0.01, 0.003)):
        GlobalHydra.instance().clear()
        alone, swept = tmp_path / f"alone{job}", tmp_path / f"outputs/sweep/{job}"
        train_script.train(config_of(*overrides, f"optimizer.lr={lr}"), alone)
        assert equal(weights(alone), weights(swept)) and read_metrics(alone) == read_metrics(swept)


def test_early_stopping_counts_optimizer_steps(nano):
    run = nano("callbacks.early_stopping.patience=8", "callbacks.early_stopping.min_delta=100", "trainer.max_steps=40")
    # the best val/loss is that of step 4, and 8 steps without an improvement follow
    assert json.loads((run / "run.json").read_text())["metrics"]["step"] == 12
    assert len(json.loads((run / "run.json").read_text())["sessions"]) == 1
    nano("callbacks.early_stopping.patience=8", "callbacks.early_stopping.min_delta=100", "trainer.max_steps=40")
    assert len(json.loads((run / "run.json").read_text())["sessions"]) == 1  # a run that was stopped early is finished


def test_sampling_and_validating_do_not_change_the_weights(nano):
    often = nano("model.dropout=0.1", "callbacks.sample.every=1", "trainer.val_every=1", name="often")
    never = nano("model.dropout=0.1", "callbacks.sample.enabled=false", "trainer.val_every=12", name="never")
    assert equal(weights(often), weights(never))
    assert (often / "samples.md").read_text().count("## step") == 12 and not (never / "samples.md").exists()


def poison(monkeypatch, step, what):
    """Make the loss or the gradients of one optimizer step (counted from 1) infinite."""
    original = LanguageModule.configure_gradient_clipping

    def clip(self, optimizer, *args, **kwargs):
        if self.trainer.global_step == step - 1:
            if what == "loss":
                self._losses[-1] = self._losses[-1] * math.nan
            next(self.model.parameters()).grad.fill_(math.inf)
        original(self, optimizer, *args, **kwargs)

    monkeypatch.setattr(LanguageModule, "configure_gradient_clipping", clip)


@pytest.mark.slow_after(2)
@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("early_stopping", slow_except(["true"], ["true", "false"]))
@pytest.mark.parametrize(("step", "log_every", "last"), [(10, 1, 8), (8, 100, 4), (6, 100, 4), (3, 100, None)])
def test_a_diverged_run_gives_advice_and_saves_no_bad_checkpoint(
    nano, tmp_path, monkeypatch, what, early_stopping, step, log_every, last
):
    poison(monkeypatch, step, what)
    settings = (f"trainer.log_every={log_every}", f"callbacks.early_stopping.enabled={early_stopping}")
    with pytest.raises(ValueError, match="the run has diverged. Try a lower optimizer.lr .now 0.01"):
        nano(*settings)
    run = tmp_path / "run"
    assert json.loads((run / "run.json").read_text())["status"] == "failed"
    for path in run.glob("checkpoints/*"):
        data = torch.load(path, weights_only=True)
        assert data["global_step"] <= (last or 0)
        assert all(torch.isfinite(value).all() for value in data["state_dict"].values())
    assert (run / "checkpoints" / "last.ckpt").exists() == (last is not None)


def test_the_first_loss_is_ln_vocab_size_and_it_falls(nano):
    run = nano("trainer.max_steps=60", "trainer.val_every=60")
    losses = [float(row["train/loss"]) for row in read_metrics(run)]
    assert losses[0] == pytest.approx(math.log(15), abs=0.1)
    assert losses[-1] < 0.8 * losses[0]


def test_val_loss_is_the_mean_over_the_whole_split(nano, tmp_path):
    """val/loss, val/ppl and val/bpb equal those of a plain loop over the checkpoint."""
    from lm.data.corpus import WordsConfig
    from lm.run.checkpoint import load

    run = nano()
    checkpoint = load(run / "checkpoints" / "last.ckpt")
    val = WordsConfig(lines=300).load(Downloads(tmp_path)).val.read()
    ids = torch.from_numpy(checkpoint.tokenizer.encode(val))
    nats = 0.0
    for target in range(1, len(ids)):
        start = min((target - 1) // 16 * 16, len(ids) - 17)
        with torch.no_grad():
            logits = checkpoint.model(ids[None, start:target])[0, -1]
        nats -= logits.log_softmax(-1)[ids[target]].item()
    last = read_metrics(run)[-1]
    assert float(last["val/loss"]) == pytest.approx(nats / (len(ids) - 1), abs=1e-5)
    assert float(last["val/ppl"]) == pytest.approx(math.exp(nats / (len(ids) - 1)), rel=1e-5)
    assert float(last["val/bpb"]) == pytest.approx(nats / math.log(2) / (len(val) - 1), rel=1e-5)


def test_val_batches_limits_validation_to_windows_spread_over_the_text(nano, tmp_path):
    from lm.data.corpus import WordsConfig
    from lm.run.checkpoint import load

    run = nano("trainer.val_batches=1", "trainer.max_steps=4")
    checkpoint = load(run / "checkpoints" / "last.ckpt")
    ids = torch.from_numpy(checkpoint.tokenizer.encode(WordsConfig(lines=300).load(Downloads(tmp_path)).val.read()))
    last = -(-(len(ids) - 1) // 16) - 1  # index of the last window; four windows of 16, from the first to the last
    nats, count = 0.0, 0
    for window in (0, round(last / 3), round(2 * last / 3), last):
        start = min(window * 16, len(ids) - 17)
        with torch.no_grad():
            logs = checkpoint.model(ids[None, start : start + 16])[0].log_softmax(-1)
        fresh = range(window * 16 - start, 16)  # the last window overlaps the one before it
        nats -= sum(logs[t, ids[start + t + 1]].item() for t in fresh)
        count += len(fresh)
    assert float(read_metrics(run)[-1]["val/loss"]) == pytest.approx(nats / count, abs=1e-5)


def test_the_run_directory_contains_all_files_of_the_run(nano):
    run = nano("logger=default")
    names = {path.name.split(".")[0] for path in run.iterdir()}  # Hydra writes train.log, see test_process.py
    assert names == {"config", "run", "metrics", "samples", "tokenizer", "checkpoints", "events"}
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"]["n_embd"] == 32 and config["optimizer"]["lr"] == 0.01
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "finished" and record["parameters"] > 1000 and record["precision"] == "fp32"
    assert set(record["versions"]) >= {"lm", "torch", "lightning", "python"} and "val/loss" in record["metrics"]


def test_init_from_starts_from_the_weights_with_their_tokenizer(nano):
    parent = nano("trainer.max_steps=8", name="parent")
    child = nano(f"init_from={parent}", "corpus.seed=7", "trainer.max_steps=1", "optimizer.lr=1e-9", name="child")
    assert (child / "tokenizer.json").read_text() == (parent / "tokenizer.json").read_text()
    for key, value in weights(parent, "best.ckpt").items():
        torch.testing.assert_close(weights(child)[key], value, atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="(?s)is a different model.*model.n_layer=3, but the checkpoint has 2"):
        nano(f"init_from={parent}", "model.n_layer=3", name="other")


@pytest.mark.slow_after(2)
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("tokenizer", ["char", "byte", "bpe"])
def test_every_tokenizer_trains_in_every_precision(nano, precision, tokenizer):
    run = nano(
        f"precision={precision}", f"tokenizer={tokenizer}", "trainer.max_steps=4", name=f"{precision}{tokenizer}"
    )
    assert math.isfinite(float(read_metrics(run)[-1]["val/bpb"]))


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_run_trains_and_resumes_on_a_gpu(nano, monkeypatch, precision):
    settings = ("device=cuda", f"precision={precision}", "trainer.max_steps=40")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 7)
        with pytest.raises(Interrupted):
            nano(*settings)
    losses = [float(row["train/loss"]) for row in read_metrics(nano(*settings))]
    assert len(losses) == 40 and losses[-1] < losses[0]


def test_a_run_of_an_older_version_resumes_unless_a_new_setting_is_used(nano):
    run = nano("trainer.max_steps=4")
    config = yaml.safe_load((run / "config.yaml").read_text())
    for section, key in (
        ("model", "window"),
        ("model", "mlp_ratio"),
        ("data", "respect_documents"),
        ("corpus", "clean"),
    ):
        del config[section][key]  # which that version did not have
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ValueError, match=r"model.window  was None  now 8"):
        nano("trainer.max_steps=8", "model.window=8")
    nano("trainer.max_steps=8")
