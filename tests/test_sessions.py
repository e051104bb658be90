"""Sessions of one run with different settings: enabled and disabled callbacks, remaining steps, origin."""

import json
import shutil

import pytest
import torch
from helpers import equal, weights
from test_train import interrupt_after, read_metrics

from lm.data.tokenizer import from_json
from lm.run import checkpoint
from lm.run.directory import Interrupted

AVERAGE = "callbacks.average.enabled=true"
CONSTANT = ("schedule=constant", "schedule.warmup_steps=0")


def state(run, name="last.ckpt"):
    return torch.load(run / "checkpoints" / name, weights_only=True)


def status(run):
    return json.loads((run / "run.json").read_text())


# ---- averaged weights


@pytest.mark.slow
def test_an_average_that_is_disabled_is_absent_from_every_later_checkpoint(nano):
    plain = nano(*CONSTANT, "trainer.max_steps=20", name="plain")
    nano(*CONSTANT, AVERAGE, "trainer.max_steps=8")
    run = nano(*CONSTANT, "trainer.max_steps=20")
    assert equal(weights(run), weights(plain))
    for path in (run / "checkpoints").iterdir():
        if state(run, path.name)["global_step"] > 8:
            assert not state(run, path.name)["lm"]["average"]
    loaded = checkpoint.load(run / "checkpoints" / "last.ckpt").model
    assert all(torch.equal(p, weights(run)[f"model.{name}"]) for name, p in loaded.named_parameters())
    assert (
        read_metrics(run)[-1]["val/loss"] == read_metrics(plain)[-1]["val/loss"]
    )  # not the loss of the average from step 8


@pytest.mark.slow
def test_an_average_that_is_enabled_again_starts_from_the_current_weights(nano):
    first = (AVERAGE, "callbacks.average.decay=0.5")
    nano(*CONSTANT, *first, "trainer.max_steps=4")
    nano(*CONSTANT, "trainer.max_steps=8")
    before = weights(nano(*CONSTANT, "trainer.max_steps=8", name="before"))
    run = nano(*CONSTANT, *first, "trainer.max_steps=9")
    after = weights(run)
    for name, average in state(run)["lm"]["average"].items():
        expected = 0.5 * before[f"model.{name}"] + 0.5 * after[f"model.{name}"]
        torch.testing.assert_close(average, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("enabled", [True, False])
def test_a_fork_has_an_average_only_if_it_is_enabled(nano, enabled):
    trunk = nano(*CONSTANT, AVERAGE, "trainer.max_steps=8", name="trunk")
    fork = f"trainer.fork={trunk}/checkpoints/last.ckpt"
    run = nano(*CONSTANT, f"callbacks.average.enabled={enabled}".lower(), fork, "trainer.max_steps=12", name="fork")
    assert bool(state(run)["lm"]["average"]) == enabled


@pytest.mark.slow
def test_the_average_of_bf16_weights_is_kept_in_fp32(nano):
    """In bf16 a step of size 1 - decay is below the precision of the average, which would never change."""
    run = nano("precision=bf16_true", AVERAGE, "callbacks.average.decay=0.999", "trainer.max_steps=40")
    averages = state(run)["lm"]["average"]
    assert all(a.dtype == torch.float32 for a in averages.values())
    assert all(w.dtype == torch.bfloat16 for w in weights(run).values())
    exact = {name: (a.bfloat16().float() == a).float().mean().item() for name, a in averages.items() if a.dim() == 2}
    assert max(exact.values()) < 0.1  # most values are not representable in bf16


# ---- samples


@pytest.mark.slow
def test_samples_are_kept_when_they_are_disabled_for_a_session(nano, recwarn):
    nano(*CONSTANT, "callbacks.sample.every=4", "trainer.max_steps=8")
    nano(*CONSTANT, "callbacks.sample.enabled=false", "trainer.max_steps=12")
    run = nano(*CONSTANT, "callbacks.sample.every=4", "trainer.max_steps=16")
    assert [line for line in (run / "samples.md").read_text().splitlines() if line.startswith("##")] == [
        "## step 4",
        "## step 8",
        "## step 16",
    ]
    assert not [w for w in recwarn if "callbacks used to create the checkpoint" in str(w.message)]


@pytest.mark.slow
def test_samples_after_the_checkpoint_are_replaced_if_it_has_no_sample_count(nano):
    """A run is killed at step 12 after a session without samples; the samples of steps 10 and 12 are written again."""
    nano(*CONSTANT, "callbacks.sample.every=2", "trainer.max_steps=4")
    nano(*CONSTANT, "callbacks.sample.enabled=false", "trainer.max_steps=8")
    run = nano(*CONSTANT, "callbacks.sample.every=2", "trainer.max_steps=12")
    for name in ("last.ckpt", "best.ckpt", "step_000012.ckpt"):
        (run / "checkpoints" / name).unlink(missing_ok=True)
    (run / "run.json").write_text(json.dumps(status(run) | {"status": "running"}))
    expected = (run / "samples.md").read_text()
    assert (nano(*CONSTANT, "callbacks.sample.every=2", "trainer.max_steps=12") / "samples.md").read_text() == expected


def test_a_run_that_stops_early_has_a_final_sample_and_a_final_task(nano):
    run = nano(
        "callbacks.early_stopping.patience=8", "callbacks.early_stopping.min_delta=100", "trainer.max_steps=40",
        "callbacks.sample.every=5", "callbacks.task.name=words", "callbacks.task.every=5", "callbacks.task.cases=1",
    )  # fmt: skip
    assert (run / "samples.md").read_text().count("## step 12") == 1
    table = {int(row["step"]): row for row in read_metrics(run)}
    assert [step for step, row in table.items() if row["task/rate"]] == [5, 10, 12]


@pytest.mark.slow
def test_a_run_killed_before_its_final_sample_writes_it_when_restarted(nano, monkeypatch):
    early = ("callbacks.early_stopping.patience=8", "callbacks.early_stopping.min_delta=100", "trainer.max_steps=40",
             "callbacks.sample.every=5")  # fmt: skip
    straight = nano(*early, name="straight")
    with monkeypatch.context() as patch:
        patch.setattr(
            "lm.training.callbacks.samples.Samples.on_train_end", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            nano(*early)
    assert "## step 12" not in (straight.with_name("run") / "samples.md").read_text()
    assert (nano(*early) / "samples.md").read_text() == (straight / "samples.md").read_text()


WHITE = ('{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,'
         '"pre_tokenizer":{"type":"WhitespaceSplit"},"post_processor":null,"decoder":null,'
         '"model":{"type":"WordLevel","vocab":%s,"unk_token":"<unk>"}}')  # fmt: skip


def test_a_prompt_without_tokens_is_skipped(nano, tmp_path, caplog):
    """A tokenizer that splits at white space makes no token of the default prompt, a newline."""
    (tmp_path / "my.txt").write_text("to be or not to be that is the question\n" * 100)
    words = ["<unk>", "to", "be", "or", "not", "that", "is", "the", "question"]
    (tmp_path / "words.json").write_text(WHITE % json.dumps({word: i for i, word in enumerate(words)}))
    assert len(from_json((tmp_path / "words.json").read_text()).encode("\n")) == 0
    typed = ("corpus=text", f"corpus.path={tmp_path}/my.txt", "tokenizer=file", f"tokenizer.path={tmp_path}/words.json")
    with caplog.at_level("INFO", "lm"):
        run = nano(*typed, "trainer.val_every=2", skip=("corpus.lines",))
    assert "no samples from '\\n': the tokenizer produces no tokens for it" in caplog.text
    assert (run / "samples.md").read_text().count("## step") == 2 and "failed" not in caplog.text


# ---- no steps left


@pytest.mark.slow_after(1)
@pytest.mark.parametrize("change", ["trainer.log_every=5", "callbacks.sample.every=3", "trainer.val_every=6", AVERAGE])
def test_a_finished_run_with_a_change_that_adds_no_step_stays_finished(nano, change):
    run = nano()
    before = {path.name: path.read_bytes() for path in (run / "checkpoints").iterdir()}
    record = status(run)
    nano(change)
    assert before == {path.name: path.read_bytes() for path in (run / "checkpoints").iterdir()}
    after = status(run)
    assert after["status"] == "finished" and after["best"] == record["best"]
    assert after["metrics"]["val/loss"] == record["metrics"]["val/loss"] and after["metrics"]["step"] == 12


def test_a_run_that_stopped_early_stays_finished_after_an_unrelated_change(nano):
    early = ("callbacks.early_stopping.patience=8", "callbacks.early_stopping.min_delta=100", "trainer.max_steps=40")
    run = nano(*early)
    before, record = weights(run), status(run)
    nano(*early, "trainer.log_every=5")
    assert status(run)["status"] == "finished" and status(run)["metrics"]["step"] == 12
    assert equal(before, weights(run)) and status(run)["best"] == record["best"]


def test_a_run_killed_before_it_was_recorded_as_finished_is_finished_by_a_restart(nano):
    run = nano()
    record = status(run)
    kept = {key: value for key, value in record.items() if key not in ("metrics", "best")} | {"status": "running"}
    (run / "run.json").write_text(json.dumps(kept))
    nano()
    assert status(run)["status"] == "finished" and status(run)["best"] == record["best"]
    assert status(run)["metrics"]["val/loss"] == record["metrics"]["val/loss"]


@pytest.mark.slow
def test_a_fork_without_a_step_left_is_refused_and_writes_nothing(nano):
    trunk = nano(name="trunk")
    for name in ("last.ckpt", "step_000012.ckpt"):
        with pytest.raises(ValueError, match=r"trainer.fork=.* is at step 12.*no steps are left.*trainer.max_steps=24"):
            nano(f"trainer.fork={trunk}/checkpoints/{name}", name="fork")
    assert not (trunk.parent / "fork" / "run.json").exists()
    with pytest.raises(ValueError, match="has done 12 steps already, but the new horizon is 6 steps"):
        nano(f"trainer.fork={trunk}/checkpoints/last.ckpt", "trainer.max_steps=6", name="fork")
    fork = nano(f"trainer.fork={trunk}/checkpoints/last.ckpt", "trainer.max_steps=24", name="fork")
    assert (fork / "checkpoints" / "last.ckpt").exists()


# ---- the origin of a run


@pytest.mark.slow
def test_another_origin_for_a_started_run_is_refused(nano):
    trunk, other = nano(name="trunk"), nano("seed=2", name="other")
    for typed in (f"trainer.fork={trunk}/checkpoints/step_000008.ckpt", f"init_from={trunk}"):
        with pytest.raises(ValueError, match=r"was already started from scratch and .* would have no effect"):
            nano(typed, "trainer.max_steps=16", "seed=2", name="other")
    fork = f"trainer.fork={trunk}/checkpoints/step_000008.ckpt"
    nano(fork, "trainer.max_steps=16", name="fork")
    for typed in (f"trainer.fork={trunk}/checkpoints/last.ckpt", f"init_from={other}"):
        with pytest.raises(ValueError, match=r"was already started from trainer.fork=.*step_000008"):
            nano(typed, "trainer.max_steps=20", name="fork")
    child = nano(f"init_from={trunk}", name="child")
    with pytest.raises(ValueError, match="was already started from init_from="):
        nano(f"init_from={other}", name="child")
    assert status(child)["status"] == "finished"


@pytest.mark.slow
def test_the_origin_may_be_repeated_or_omitted_when_resuming(nano, tmp_path, monkeypatch):
    trunk = nano(name="trunk")
    fork = f"trainer.fork={trunk}/checkpoints/step_000008.ckpt"
    run = nano(fork, "trainer.max_steps=16", name="fork")
    nano("trainer.max_steps=20", name="fork")
    monkeypatch.chdir(tmp_path)
    nano("trainer.fork=trunk/checkpoints/../checkpoints/step_000008.ckpt", "trainer.max_steps=24", name="fork")
    nano("trainer.max_steps=28", name="fork")
    assert status(run)["metrics"]["step"] == 28
    assert "step_000008.ckpt" in (run / "config.yaml").read_text()
    child = nano(f"init_from={trunk}", name="child")
    nano("trainer.max_steps=16", name="child")
    assert f"init_from: {trunk}" in (child / "config.yaml").read_text()


@pytest.mark.parametrize("key", ["trainer.fork", "init_from"])
def test_a_missing_origin_is_named(nano, tmp_path, monkeypatch, key):
    monkeypatch.chdir(tmp_path)
    trunk = nano("trainer.max_steps=4", name="outputs/trunk")
    for value, message in {
        "nowhere/last.ckpt": "nowhere/last.ckpt: no such run or checkpoint",
        "trunk": "trunk: no such run or checkpoint; did you mean outputs/trunk",
        f"{trunk}/checkpoints/step_000099.ckpt": "step_000099.ckpt: no such run or checkpoint",
    }.items():
        with pytest.raises(ValueError, match=message):
            nano(f"{key}={value}", "trainer.max_steps=8", name="new")
    shutil.rmtree(trunk / "checkpoints")
    with pytest.raises(ValueError, match="has no checkpoint yet"):
        nano(f"{key}={trunk}", "trainer.max_steps=8", name="new")


@pytest.mark.slow
def test_an_interrupted_run_with_an_origin_is_resumed_by_the_same_command(nano, monkeypatch):
    trunk = nano(name="trunk")
    typed = (f"init_from={trunk}", "init_optimizer=keep")
    straight = nano(*typed, name="straight")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 5)
        with pytest.raises(Interrupted):
            nano(*typed)
    assert equal(weights(nano(*typed)), weights(straight))
