"""schedule.plateau: when it lowers the learning rate, and that a run with it resumes exactly."""

import json
from types import SimpleNamespace

import pytest
import torch
import yaml
from helpers import equal, slow_except, weights
from test_train import equal_nested, interrupt_after, read_metrics

from lm.optim.schedule import ConstantConfig, PlateauConfig
from lm.run.directory import Interrupted
from lm.training.callbacks.plateau import Plateau

# A run whose learning rate is halved at steps 8, 12 and 16: no loss is 100 nats below the first.
NEVER_BETTER = (
    "schedule=constant",
    "schedule.plateau.enabled=true",
    "schedule.plateau.patience=4",
    "schedule.plateau.min_delta=100",
    "schedule.plateau.min_factor=0.2",
    "trainer.max_steps=20",
)
RATES = [0.01] * 8 + [0.005] * 4 + [0.0025] * 4 + [0.002] * 4


def factors_after(losses, every=10, **fields):
    """Return the factor after each validation, `every` steps apart."""
    config = PlateauConfig(enabled=True, **fields)
    module = SimpleNamespace(schedule=ConstantConfig(plateau=config), latest={}, lr_factor=1.0)
    plateau, factors = Plateau(every), []
    for i, loss in enumerate(losses, 1):
        module.latest["val/loss"] = loss
        plateau.on_validation_end(SimpleNamespace(global_step=i * every), module)
        state = plateau.state_dict()
        plateau = Plateau(every)  # simulates a run that is killed and resumed after each validation
        plateau.load_state_dict(state)
        module.lr_factor = -1.0
        plateau.on_train_start(SimpleNamespace(), module)
        factors.append(module.lr_factor)
    return factors


@pytest.mark.parametrize(
    ("losses", "fields", "factors"),
    [
        # an improvement, then 20 steps without one, and 20 more; a later improvement does not raise the factor
        ([3, 2, 2, 2, 2, 2, 1, 1], {"patience": 20}, [1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.25]),
        # a patience that ends between two validations takes effect at the later one
        ([2, 2, 2, 2, 2], {"patience": 11}, [1, 1, 0.5, 0.5, 0.25]),
        # an improvement restarts the count
        ([3, 3, 2.9, 2.9, 2.9], {"patience": 20}, [1, 1, 1, 1, 0.5]),
        # a decrease of 0.1 is below min_delta, but two of them count as an improvement
        ([3, 2.9, 2.8, 2.7, 2.6], {"patience": 10, "min_delta": 0.15}, [1, 0.5, 0.5, 0.25, 0.25]),
        # ten steps of cooldown, followed by ten of patience
        ([2] * 6, {"patience": 10, "cooldown": 10}, [1, 0.5, 0.5, 0.25, 0.25, 0.125]),
        # an improvement within the cooldown does not shorten it
        ([2, 2, 1, 1, 1, 1], {"patience": 10, "cooldown": 30}, [1, 0.5, 0.5, 0.5, 0.5, 0.25]),
        # the factor does not fall below min_factor
        ([2] * 5, {"patience": 10, "factor": 0.1, "min_factor": 0.05}, [1, 0.1, 0.05, 0.05, 0.05]),
        ([2] * 3, {"patience": 10, "min_factor": 1}, [1, 1, 1]),
    ],
)
def test_the_factor_is_lowered_after_patience_steps_without_improvement(losses, fields, factors):
    assert factors_after(losses, **fields) == pytest.approx(factors)


@pytest.mark.slow
def test_the_logged_learning_rate_is_the_lowered_one_and_the_default_is_off(nano):
    assert [float(row["lr"]) for row in read_metrics(nano(*NEVER_BETTER, "schedule.warmup_steps=0"))] == pytest.approx(
        RATES
    )
    plain = nano("schedule=constant", "schedule.warmup_steps=0", name="plain")
    assert [float(row["lr"]) for row in read_metrics(plain)] == [0.01] * 12
    assert not [key for key in torch.load(plain / "checkpoints" / "last.ckpt")["callbacks"] if "Plateau" in key]


@pytest.mark.slow
@pytest.mark.parametrize(
    "step", slow_except([8], [8, 9, 15, 16])
)  # right after a lowering validation, and between validations
def test_an_interrupted_run_resumes_exactly(nano, monkeypatch, step):
    settings = (*NEVER_BETTER, "model.dropout=0.2")
    straight = nano(*settings, name="straight")
    with monkeypatch.context() as patch:
        interrupt_after(patch, step)
        with pytest.raises(Interrupted):
            nano(*settings)
    halted = nano(*settings)
    assert json.loads((halted / "run.json").read_text())["sessions"][1]["from_step"] == step
    a, b = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (straight, halted))
    assert equal(a["state_dict"], b["state_dict"]) and equal_nested(a["optimizer_states"], b["optimizer_states"])
    assert equal_nested(a["callbacks"], b["callbacks"])
    (state,) = (state for key, state in a["callbacks"].items() if "Plateau" in key)
    assert state["factor"] == pytest.approx(0.2)
    assert read_metrics(straight) == read_metrics(halted)
    assert [float(row["lr"]) for row in read_metrics(halted)][2:] == pytest.approx(RATES[2:])


@pytest.mark.slow
def test_an_extended_run_equals_one_that_was_as_long_from_the_start(nano):
    """The validation at the old end, six steps after the first, is not at a multiple of val_every and does not count."""
    settings = (*NEVER_BETTER, "schedule.plateau.patience=6")
    straight = nano(*settings, name="straight")
    for steps in (7, 10, 20):
        longer = nano(*settings, f"trainer.max_steps={steps}")
    assert equal(weights(straight), weights(longer))


@pytest.mark.slow
def test_plateau_is_part_of_the_config_and_older_runs_resume(nano):
    run = nano("trainer.max_steps=4")
    config = yaml.safe_load((run / "config.yaml").read_text())
    del config["schedule"]["plateau"], config["schedule"]["warmup_fraction"]  # which that version did not have
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ValueError, match=r"schedule.plateau.enabled +was False +now True"):
        nano("trainer.max_steps=8", "schedule.plateau.enabled=true")
    with pytest.raises(ValueError, match=r"schedule.warmup_fraction +was None +now 0.1"):
        nano("trainer.max_steps=8", "schedule.warmup_fraction=0.1")
    with pytest.raises(ValueError, match=r"(?s)trained with a different config.*schedule.kind +was Cosine +now WSD"):
        nano("trainer.max_steps=8", "schedule=wsd")
    assert len(read_metrics(nano("trainer.max_steps=8"))) == 8


def test_a_warmup_fraction_is_reported_in_steps(nano, caplog):
    with caplog.at_level("INFO", "lm"):
        run = nano("schedule.warmup_fraction=0.25")
    assert "learning rate 0.01 (peak), after 3 warmup steps" in caplog.text and "warning   schedule" not in caplog.text
    assert [float(row["lr"]) for row in read_metrics(run)][:4] == pytest.approx([0.0025, 0.005, 0.0075, 0.01])
