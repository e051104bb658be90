"""Learning-rate schedules, and the script that draws them."""

import json
import math
import sys
from itertools import pairwise

import pytest
from helpers import ROOT, config_of
from hypothesis import given
from hypothesis import strategies as st

from lm.base import commands
from lm.config import default_values, load_option
from lm.config.help import option_names
from lm.optim.schedule import (
    SCHEDULES,
    ConstantConfig,
    CosineConfig,
    ExponentialConfig,
    InverseSqrtConfig,
    LinearConfig,
    PlateauConfig,
    StepConfig,
    WSDConfig,
)
from scripts import schedules

FALLING = [LinearConfig, CosineConfig, WSDConfig, ExponentialConfig, StepConfig, InverseSqrtConfig]

DECAYING = "|".join(name for name in option_names("schedule") if hasattr(load_option("schedule", name), "min_lr_ratio"))


@pytest.mark.parametrize("kind", SCHEDULES)
def test_warmup_is_linear_from_above_zero_to_the_peak(kind):
    schedule = kind(warmup_steps=4)
    assert [schedule.factor(step, 100) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_values_of_cosine():
    schedule = CosineConfig(warmup_steps=100, min_lr_ratio=0.1)
    assert schedule.factor(100, 1100) == pytest.approx(1.0)
    assert schedule.factor(600, 1100) == pytest.approx(0.55)  # halfway: the mean of 1 and 0.1
    assert schedule.factor(350, 1100) == pytest.approx(0.1 + 0.9 * (2 + 2**0.5) / 4)  # cos 45 degrees
    assert schedule.factor(1100, 1100) == pytest.approx(0.1)
    assert schedule.factor(5000, 1100) == pytest.approx(0.1)  # constant beyond the horizon


def test_constant_and_cosine_without_warmup_start_at_one():
    assert [ConstantConfig(warmup_steps=0).factor(step, 10) for step in (0, 5, 10)] == [1, 1, 1]
    assert CosineConfig(warmup_steps=0).factor(0, 10) == 1


# {step: factor}, computed by hand, with 100 steps of warmup in runs of 1100 steps (wsd: 1000).
ANCHORS = [
    (LinearConfig(), {0: 1 / 101, 100: 1, 350: 0.75, 600: 0.5, 1100: 0, 9999: 0}),
    (LinearConfig(min_lr_ratio=0.2), {100: 1, 350: 0.8, 600: 0.6, 1100: 0.2, 9999: 0.2}),
    (ExponentialConfig(), {0: 1 / 101, 100: 1, 600: 0.1**0.5, 1100: 0.1, 9999: 0.1}),
    (ExponentialConfig(min_lr_ratio=0.0625), {100: 1, 350: 0.5, 600: 0.25, 850: 0.125, 1100: 0.0625}),
    (StepConfig(), {0: 1 / 101, 100: 1, 599: 1, 600: 0.5, 1099: 0.5, 1100: 0.25, 2600: 1 / 32, 9999: 0.01}),
    (StepConfig(step_size=200, gamma=0.1, min_lr_ratio=0.05), {299: 1, 300: 0.1, 499: 0.1, 500: 0.05, 1100: 0.05}),
    (InverseSqrtConfig(), {0: 1 / 101, 100: 1, 400: 0.5, 900: 1 / 3, 1600: 0.25, 10_000: 0.1}),
    (InverseSqrtConfig(min_lr_ratio=0.3), {100: 1, 400: 0.5, 900: 1 / 3, 1600: 0.3}),
    (InverseSqrtConfig(warmup_steps=0), {0: 1, 1: 1, 4: 0.5, 100: 0.1}),
    (CosineConfig(), {0: 1 / 101, 50: 51 / 101, 100: 1, 600: 0.55, 1100: 0.1}),
    (ConstantConfig(), {0: 1 / 101, 99: 100 / 101, 100: 1, 600: 1, 1100: 1}),
]
WSD_ANCHORS = [
    (WSDConfig(), {0: 1 / 101, 100: 1, 500: 1, 800: 1, 850: 0.75, 900: 0.5, 999: 0.005, 1000: 0, 9999: 0}),
    (WSDConfig(min_lr_ratio=0.2), {800: 1, 900: 0.6, 1000: 0.2}),
    (WSDConfig(decay_shape="sqrt"), {800: 1, 802: 0.9, 850: 0.5, 928: 0.2, 1000: 0}),
    (WSDConfig(decay_shape="cosine"), {800: 1, 850: (2 + 2**0.5) / 4, 900: 0.5, 1000: 0}),
    (WSDConfig(decay_fraction=0.5), {500: 1, 600: 0.8, 750: 0.5, 1000: 0}),
    (WSDConfig(decay_fraction=1), {100: 1, 550: 0.5, 1000: 0}),  # the warmup overlaps with the decay
    (WSDConfig(warmup_fraction=0.3), {299: 300 / 301, 300: 1, 800: 1, 900: 0.5}),
]


@pytest.mark.parametrize(
    ("schedule", "horizon", "anchors"), [(s, 1100, a) for s, a in ANCHORS] + [(s, 1000, a) for s, a in WSD_ANCHORS]
)
def test_values_computed_by_hand(schedule, horizon, anchors):
    factors = {step: schedule.factor(step, horizon) for step in anchors}
    assert factors == pytest.approx(anchors, abs=1e-12)


@given(st.integers(0, 3000), st.integers(1, 2000), st.integers(0, 500), st.floats(0, 1))
def test_cosine_equals_its_first_implementation_bit_for_bit(step, horizon, warmup, minimum):
    """Runs of versions that had only this schedule resume exactly."""
    expected = (step + 1) / (warmup + 1)
    if step >= warmup:
        progress = min(1.0, (step - warmup) / max(1, horizon - warmup))
        expected = minimum + (1 - minimum) * 0.5 * (1 + math.cos(math.pi * progress))
    assert CosineConfig(warmup_steps=warmup, min_lr_ratio=minimum).factor(step, horizon) == expected


MINIMUMS = st.floats(1e-3, 1)
SCHEDULE = st.one_of(
    st.builds(ConstantConfig, st.integers(0, 50)),
    *(st.builds(kind, st.integers(0, 50), min_lr_ratio=MINIMUMS) for kind in FALLING if kind is not WSDConfig),
    st.builds(
        StepConfig, st.integers(0, 50), step_size=st.integers(1, 300), gamma=st.floats(0.1, 0.9), min_lr_ratio=MINIMUMS
    ),
    st.builds(
        WSDConfig,
        st.integers(0, 50),
        min_lr_ratio=MINIMUMS,
        decay_fraction=st.floats(0.01, 1),
        decay_shape=st.sampled_from(["linear", "sqrt", "cosine"]),
    ),
)


@given(SCHEDULE, st.integers(60, 400))
def test_factors_rise_to_the_peak_and_then_decay_to_the_minimum(schedule, horizon):
    factors = [schedule.factor(step, horizon) for step in range(2 * horizon)]
    warmup, minimum = schedule.warmup_steps, getattr(schedule, "min_lr_ratio", 1.0)
    assert all(0 < factor <= 1 for factor in factors) and factors[warmup] == 1
    assert factors[: warmup + 1] == sorted(factors[: warmup + 1])
    after = factors[warmup:]
    assert all(b <= a + 1e-12 for a, b in pairwise(after))
    assert min(after) >= minimum - 1e-12
    if isinstance(schedule, (LinearConfig, CosineConfig, WSDConfig, ExponentialConfig)):
        assert factors[horizon:] == pytest.approx([minimum] * horizon)  # constant after it is reached


# The largest decrease from one step to the next, with w steps of warmup in a run of n steps.
SLOPES = {
    LinearConfig: lambda w, n: 1 / (n - w),
    CosineConfig: lambda w, n: math.pi / 2 / (n - w),
    ExponentialConfig: lambda w, n: math.log(10) / (n - w),
    WSDConfig: lambda w, n: 1 / min(n - w, n // 5),
    InverseSqrtConfig: lambda w, n: 1 / (2 * max(1, w)),
}


@pytest.mark.slow_after(1)
@pytest.mark.parametrize("kind", SLOPES)
@given(warmup=st.integers(0, 50), horizon=st.integers(60, 2000))
def test_there_are_no_jumps(kind, warmup, horizon):
    factors = [kind(warmup_steps=warmup).factor(step, horizon) for step in range(horizon + 1)]
    falls = [a - b for a, b in pairwise(factors)]
    assert max(falls) <= SLOPES[kind](warmup, horizon) * (1 + 1e-9)
    assert -min(falls) <= 1 / (warmup + 1) + 1e-12


@pytest.mark.parametrize("kind", [ConstantConfig, StepConfig, InverseSqrtConfig])
@given(st.integers(0, 3000), st.integers(1, 2000), st.integers(1, 2000))
def test_constant_step_and_inverse_sqrt_do_not_depend_on_the_horizon(kind, step, a, b):
    assert kind().factor(step, a) == kind().factor(step, b)


@pytest.mark.slow_after(3)
@pytest.mark.parametrize("kind", SCHEDULES)
@given(data=st.data(), horizon=st.integers(1, 2000))
def test_a_warmup_as_a_fraction_equals_one_in_steps(kind, data, horizon):
    warmup = data.draw(st.integers(0, horizon - 1))
    more = {"decay_fraction": 0.001} if kind is WSDConfig else {}  # leave room for the warmup
    if kind is WSDConfig and warmup / horizon > 0.999:
        warmup = horizon // 2
    fraction, steps = kind(warmup_fraction=warmup / horizon, **more), kind(warmup_steps=warmup, **more)
    assert fraction.warmup(horizon) == steps.warmup(horizon) == warmup
    for step in data.draw(st.lists(st.integers(0, horizon), max_size=20)):
        assert fraction.factor(step, horizon) == steps.factor(step, horizon)


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 1000))
def test_a_warmup_as_a_fraction_always_reaches_the_peak(fraction, horizon):
    schedule = ConstantConfig(warmup_fraction=fraction)
    assert schedule.factor(horizon - 1, horizon) == 1


def test_warmup_fraction_overrides_warmup_steps():
    assert ConstantConfig(warmup_steps=7, warmup_fraction=0.1).warmup(200) == 20
    assert ConstantConfig(warmup_steps=7, warmup_fraction=0).warmup(200) == 0
    assert ConstantConfig(warmup_steps=7).warmup(200) == 7
    assert ConstantConfig(warmup_fraction=0.29).warmup(100) == 29  # 0.29 * 100 is 28.999...


def test_a_horizon_inside_the_warmup_stays_below_the_peak():
    factors = [CosineConfig(warmup_steps=100).factor(step, 10) for step in range(10)]
    assert factors == sorted(factors) and factors[-1] == pytest.approx(10 / 101)


def test_wsd_starts_to_decay_after_a_warmup_that_overlaps_with_the_decay():
    schedule = WSDConfig(warmup_steps=90)
    assert [schedule.factor(step, 100) for step in (89, 90, 95, 100)] == pytest.approx([90 / 91, 1, 0.5, 0])


REFUSED = [
    ({"warmup_steps": -1}, CosineConfig),
    *(({"warmup_fraction": value}, kind) for value in (-0.1, 1.0, math.nan) for kind in SCHEDULES),
    *(({"min_lr_ratio": value}, kind) for value in (-0.1, 1.5, math.nan) for kind in FALLING),
    ({"min_lr_ratio": 0.0}, ExponentialConfig),
    *(({"decay_fraction": value}, WSDConfig) for value in (0.0, -0.1, 1.1, math.nan)),
    ({"decay_shape": "exponential"}, WSDConfig),
    ({"warmup_fraction": 0.9}, WSDConfig),  # with decay_fraction=0.2
    *(({"step_size": value}, StepConfig) for value in (0, -5)),
    *(({"gamma": value}, StepConfig) for value in (0.0, 1.0, 2.0, -0.5, math.nan)),
    *(({"factor": value}, PlateauConfig) for value in (0.0, 1.0, 2.0, math.nan)),
    ({"patience": 0}, PlateauConfig),
    ({"cooldown": -1}, PlateauConfig),
    *(({"min_factor": value}, PlateauConfig) for value in (-0.1, 1.5, math.nan)),
    *(({"min_delta": value}, PlateauConfig) for value in (-0.1, math.inf, math.nan)),
]


@pytest.mark.parametrize(("fields", "kind"), REFUSED)
def test_values_out_of_range_are_refused(fields, kind):
    ((key, value),) = fields.items()
    section = "schedule.plateau" if kind is PlateauConfig else "schedule"
    with pytest.raises(ValueError, match=rf"^{section}\.{key}={value} must [^\n]*$"):
        kind(**fields)


def test_all_errors_of_a_schedule_are_reported_together():
    with pytest.raises(
        ValueError, match="(?s)warmup_steps=-1.*min_lr_ratio=2.*decay_fraction=0 .*decay_shape=sqr .*'sqrt'"
    ):
        WSDConfig(warmup_steps=-1, min_lr_ratio=2, decay_fraction=0, decay_shape="sqr")


def test_warmup_and_decay_fractions_may_add_up_to_one():
    schedule = WSDConfig(warmup_fraction=0.7, decay_fraction=0.3)
    assert [schedule.factor(step, 100) for step in (69, 70, 85, 100)] == pytest.approx([70 / 71, 1, 0.5, 0])


@pytest.mark.slow
def test_every_schedule_composes_and_has_the_expected_defaults():
    """The defaults describe runs of versions without these keys."""
    plateau = {"enabled": False, "factor": 0.5, "patience": 500, "cooldown": 0, "min_factor": 0.01, "min_delta": 0.0}
    kinds = []
    for name in option_names("schedule"):
        config = config_of(f"schedule={name}")
        kinds.append(type(config.schedule))
        defaults = default_values(config)["schedule"]
        assert defaults["warmup_fraction"] is None and defaults["plateau"] == plateau
    assert sorted(map(str, kinds)) == sorted(map(str, SCHEDULES))


# ---- scripts/schedules.py


@pytest.fixture
def script(monkeypatch, capsys):
    """Run the script in this process, and return its exit status or error and its standard output."""

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["schedules.py", *map(str, args)])
        status = 0
        try:
            schedules.main()
        except SystemExit as stop:
            status = stop.code
        return status, capsys.readouterr().out

    return run


def test_json_has_the_factor_of_every_step(script):
    status, out = script("schedule=wsd", "schedule.warmup_steps=2", "trainer.max_steps=10", "--json")
    answer = json.loads(out)
    assert status == 0 and list(answer) == ["steps", "wsd"] and answer["steps"] == list(range(11))
    assert answer["wsd"] == pytest.approx([1 / 3, 2 / 3, 1, 1, 1, 1, 1, 1, 1, 0.5, 0])


@pytest.mark.slow
def test_compared_schedules_are_named_and_keys_apply_to_schedules_that_have_them(script):
    run = ("trainer.max_steps=100000", "--points", "11", "--json")
    answer = json.loads(script("schedule=cosine,wsd", "schedule.decay_fraction=0.5,1", *run)[1])
    assert list(answer) == ["steps", "cosine", "wsd decay_fraction=0.5", "wsd decay_fraction=1"]
    assert answer["steps"] == list(range(0, 100_001, 10_000))
    assert answer["wsd decay_fraction=0.5"][5:] == pytest.approx([1, 0.8, 0.6, 0.4, 0.2, 0])
    answer = json.loads(script("schedule.min_lr_ratio=0.5", *run)[1])
    assert list(answer) == ["steps", "cosine"] and answer["cosine"][-1] == 0.5
    assert list(json.loads(script("schedule=inverse_sqrt", *run)[1])) == ["steps", "inverse_sqrt"]


@pytest.mark.slow
def test_the_chart_shows_the_last_value_of_each_schedule(script):
    status, out = script("schedule=constant,linear", "schedule.warmup_steps=0", "schedule.plateau.enabled=true")
    lines = out.splitlines()
    assert status == 0 and max(map(len, lines)) <= 90
    assert lines[1].startswith(" 1.00 |") and lines[1].endswith("*" * 60)
    rows = [line.partition("|")[2] for line in lines[1:18]]
    assert rows[8].index("o") == 34 and rows[8].count("o") == 5  # halfway down and halfway along
    assert rows[16].strip() == "ooo"
    assert lines[18:21] == [
        "      +" + "-" * 72,
        "       0                                1,000                             2,000  steps",
        "      *  constant  ends at 1",
    ]
    assert lines[21:] == [
        "      o  linear    ends at 0",
        "schedule.plateau lowers the learning rate further when val/loss stops improving",
    ]


@pytest.mark.slow
def test_a_picture_is_saved_and_requires_matplotlib(tmp_path, script, monkeypatch):
    pytest.importorskip("matplotlib")
    status, out = script("schedule=step,linear", "--json", "--out", tmp_path / "a.png")
    assert status == 0 and list(json.loads(out)) == ["steps", "step", "linear"]
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    status, out = script("--out", tmp_path / "b.png")
    assert status == f"error: drawing needs matplotlib; install it with {commands.install('.[report]')}" and not out
    assert script()[0] == 0


@pytest.mark.slow_after(1)
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["schedule=cosine,csine"], "schedule=csine: there is no such option; "),
        (["schedule=wsd", "schedule.decay_fracton=1"], "unknown key schedule.decay_fracton; did you mean 'schedule.decay_fraction'?"),
        (["schedule=cosine,linear", "schedule.gamma=0.5"], "unknown key schedule.gamma; it needs schedule=step"),
        (["schedule=constant", "schedule.min_lr_ratio=0"], f"it needs schedule={DECAYING}"),
        (["schedule=wsd", "schedule.decay_fraction=0.5,2"], "schedule.decay_fraction=2.0 must be above 0"),
        (["trainer.max_epochs=2"], "trainer.max_epochs=2.0 counts passes over a text"),
        (["--points", "1"], "--points 1 must be at least 2"),
        (["--out", "nowhere/at/all.png"], "nowhere/at/all.png"),
        (["--out", "a.what"], "'what' is not supported"),
    ],
)  # fmt: skip
def test_refusals_are_one_line(args, message, script, monkeypatch):
    monkeypatch.chdir(ROOT)
    status, out = script(*args)
    assert status.startswith("error: ") and message in status and "\n" not in status and not out
