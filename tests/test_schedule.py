import pytest

from lm.schedule import ConstantConfig, CosineConfig


def test_warmup_is_linear_wastes_no_step_and_ends_at_the_peak():
    schedule = CosineConfig(warmup_steps=4)
    assert [schedule.factor(step, 100) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_cosine_anchors():
    schedule = CosineConfig(warmup_steps=100, min_lr_ratio=0.1)
    assert schedule.factor(100, 1100) == pytest.approx(1.0)
    assert schedule.factor(600, 1100) == pytest.approx(0.55)  # half way: the middle of 1 and 0.1
    assert schedule.factor(350, 1100) == pytest.approx(0.1 + 0.9 * (2 + 2**0.5) / 4)  # cos 45 degrees
    assert schedule.factor(1100, 1100) == pytest.approx(0.1)
    assert schedule.factor(5000, 1100) == pytest.approx(0.1)  # beyond the horizon it stays


def test_constant_and_no_warmup():
    assert [ConstantConfig(warmup_steps=0).factor(step, 10) for step in (0, 5, 10)] == [1, 1, 1]
    assert CosineConfig(warmup_steps=0).factor(0, 10) == 1


def test_a_horizon_inside_the_warmup_stays_below_the_peak():
    factors = [CosineConfig(warmup_steps=100).factor(step, 10) for step in range(10)]
    assert factors == sorted(factors) and factors[-1] == pytest.approx(10 / 101)


@pytest.mark.parametrize("fields", [{"warmup_steps": -1}, {"min_lr_ratio": 1.5}])
def test_ranges(fields):
    with pytest.raises(ValueError, match=f"schedule.{next(iter(fields))}="):
        CosineConfig(**fields)
