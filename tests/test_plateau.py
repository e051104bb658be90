"""schedule.plateau: when it lowers the rate, and that a run with it continues exactly."""

import json
from types import SimpleNamespace

import pytest
import torch
import yaml
from conftest import equal, slow_except, weights
from test_train import interrupt_after, rows, same

from lm.optim.schedule import ConstantConfig, PlateauConfig
from lm.run.directory import Interrupted
from lm.training.callbacks.plateau import Plateau

# A run whose rate halves at steps 8, 12 and 16: no loss is better than the first by 100 nats.
NEVER_BETTER = (
    "schedule=constant",
    "schedule.plateau.enabled=true",
    "schedule.plateau.patience=4",
    "schedule.plateau.min_delta=100",
    "schedule.plateau.min_factor=0.2",
    "trainer.max_steps=20",
)
RATES = [0.01] * 8 + [0.005] * 4 + [0.0025] * 4 + [0.002] * 4


def lowered(losses, every=10, **fields):
    """The factor after each validation, `every` steps apart."""
    config = PlateauConfig(enabled=True, **fields)
    module = SimpleNamespace(schedule=ConstantConfig(plateau=config), latest={}, rate_factor=1.0)
    plateau, factors = Plateau(every), []
    for i, loss in enumerate(losses, 1):
        module.latest["val/loss"] = loss
        plateau.on_validation_end(SimpleNamespace(global_step=i * every), module)
        state = plateau.state_dict()
        plateau = Plateau(every)  # as if killed and continued after each
        plateau.load_state_dict(state)
        module.rate_factor = -1.0
        plateau.on_train_start(SimpleNamespace(), module)
        factors.append(module.rate_factor)
    return factors


@pytest.mark.parametrize(
    ("losses", "fields", "factors"),
    [
        # better, as good (no improvement) for 20 steps, and for 20 more; then better, which raises nothing
        ([3, 2, 2, 2, 2, 2, 1, 1], {"patience": 20}, [1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.25]),
        # patience between two validations waits for the later one
        ([2, 2, 2, 2, 2], {"patience": 11}, [1, 1, 0.5, 0.5, 0.25]),
        # an improvement starts the count anew
        ([3, 3, 2.9, 2.9, 2.9], {"patience": 20}, [1, 1, 1, 1, 0.5]),
        # too small an improvement is none: 0.2 in two steps of 0.1 is one
        ([3, 2.9, 2.8, 2.7, 2.6], {"patience": 10, "min_delta": 0.15}, [1, 0.5, 0.5, 0.25, 0.25]),
        # ten steps of cooldown, and then ten of patience
        ([2] * 6, {"patience": 10, "cooldown": 10}, [1, 0.5, 0.5, 0.25, 0.25, 0.125]),
        # an improvement within the cooldown does not shorten it
        ([2, 2, 1, 1, 1, 1], {"patience": 10, "cooldown": 30}, [1, 0.5, 0.5, 0.5, 0.5, 0.25]),
        # nor go below the floor
        ([2] * 5, {"patience": 10, "factor": 0.1, "min_factor": 0.05}, [1, 0.1, 0.05, 0.05, 0.05]),
        ([2] * 3, {"patience": 10, "min_factor": 1}, [1, 1, 1]),
    ],
)
def test_lowers_after_so_many_steps_without_improvement(losses, fields, factors):
    assert lowered(losses, **fields) == pytest.approx(factors)


def test_the_logged_rate_is_the_lowered_one_and_default_is_off(nano):
    assert [float(row["lr"]) for row in rows(nano(*NEVER_BETTER, "schedule.warmup_steps=0"))] == pytest.approx(RATES)
    plain = nano("schedule=constant", "schedule.warmup_steps=0", name="plain")
    assert [float(row["lr"]) for row in rows(plain)] == [0.01] * 12
    assert not [key for key in torch.load(plain / "checkpoints" / "last.ckpt")["callbacks"] if "Plateau" in key]


@pytest.mark.parametrize(
    "step", slow_except([8], [8, 9, 15, 16])
)  # right after a lowering validation, and between validations
def test_an_interrupted_run_continues_as_if_nothing_had_happened(nano, monkeypatch, step):
    settings = (*NEVER_BETTER, "model.dropout=0.2")
    straight = nano(*settings, name="straight")
    with monkeypatch.context() as patch:
        interrupt_after(patch, step)
        with pytest.raises(Interrupted):
            nano(*settings)
    halted = nano(*settings)
    assert json.loads((halted / "run.json").read_text())["sessions"][1]["from_step"] == step
    a, b = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (straight, halted))
    assert equal(a["state_dict"], b["state_dict"]) and same(a["optimizer_states"], b["optimizer_states"])
    assert same(a["callbacks"], b["callbacks"])
    (state,) = (state for key, state in a["callbacks"].items() if "Plateau" in key)
    assert state["factor"] == pytest.approx(0.2)
    assert rows(straight) == rows(halted)
    assert [float(row["lr"]) for row in rows(halted)][2:] == pytest.approx(RATES[2:])


def test_a_run_made_longer_equals_one_that_was_as_long_at_once(nano):
    """The validation at the old end, six steps after the first, is at no multiple of val_every and does not count."""
    settings = (*NEVER_BETTER, "schedule.plateau.patience=6")
    straight = nano(*settings, name="straight")
    for steps in (7, 10, 20):
        longer = nano(*settings, f"trainer.max_steps={steps}")
    assert equal(weights(straight), weights(longer))


def test_a_plateau_is_part_of_the_config_and_runs_of_before_go_on(nano):
    run = nano("trainer.max_steps=4")
    config = yaml.safe_load((run / "config.yaml").read_text())
    del config["schedule"]["plateau"], config["schedule"]["warmup_fraction"]  # which that version did not know yet
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ValueError, match=r"schedule.plateau.enabled +was False +now True"):
        nano("trainer.max_steps=8", "schedule.plateau.enabled=true")
    with pytest.raises(ValueError, match=r"schedule.warmup_fraction +was None +now 0.1"):
        nano("trainer.max_steps=8", "schedule.warmup_fraction=0.1")
    with pytest.raises(ValueError, match=r"(?s)trained with another config.*schedule.kind +was Cosine +now WSD"):
        nano("trainer.max_steps=8", "schedule=wsd")
    assert len(rows(nano("trainer.max_steps=8"))) == 8


def test_a_warmup_in_fractions_is_told(nano, caplog):
    with caplog.at_level("INFO", "lm"):
        run = nano("schedule.warmup_fraction=0.25")
    assert "0.01 at its peak, after 3 steps of warm-up" in caplog.text and "warning   schedule" not in caplog.text
    assert [float(row["lr"]) for row in rows(run)][:4] == pytest.approx([0.0025, 0.005, 0.0075, 0.01])
