import numpy as np
import pytest
import torch

from lm.data.batches import IGNORE, DataConfig, TrainBatches, ValBatches

TOKENS = np.arange(1000, dtype=np.uint16)  # each token is its own position
GOLDEN = [47, 79, 383, 863, 431, 959]  # computed from the raw Philox stream, independently of the code


def batches(**kwargs):
    config = DataConfig(batch_size=kwargs.pop("batch_size", 4), micro_batch_size=kwargs.pop("micro", None))
    return TrainBatches(
        kwargs.pop("tokens", TOKENS), T=kwargs.pop("T", 16), config=config, seed=kwargs.pop("seed", 1), **kwargs
    )


def test_y_is_x_shifted_by_one_token():
    x, y = batches()[3]
    assert x.shape == y.shape == (4, 16) and x.dtype == torch.int64
    assert torch.equal(x[:, 1:], y[:, :-1]) and torch.equal(y, x + 1)


@pytest.mark.parametrize("size", [17, 31, 32, 33, 40, 999, 1000])
def test_an_epoch_visits_each_window_exactly_once(size):
    data = batches(tokens=TOKENS[:size], batch_size=1)
    orders = []
    for epoch in range(5):
        starts = [data.start(epoch * data.windows + i) for i in range(data.windows)]
        assert len(set(starts)) == data.windows  # no window twice
        assert sorted(starts) == list(range(min(starts), size, 16))[: data.windows]  # adjacent, without gaps
        assert min(starts) < 16 and max(starts) + 16 < size
        orders.append(tuple(starts))
    assert data.windows == 1 or len(set(orders)) == 5  # every epoch has its own order and offset


def test_epochs_cut_the_text_at_many_offsets():
    data = batches(batch_size=1)
    offsets = {data.start(epoch * data.windows) % 16 for epoch in range(200)}
    assert offsets == set(range(16))


def test_a_batch_depends_only_on_seed_and_step():
    a, b = batches(), batches()
    for k in (700, 3, 700, 0):
        assert torch.equal(a[k][0], b[k][0])
    assert not torch.equal(batches(seed=2)[3][0], a[3][0])


@pytest.mark.parametrize(("micro", "devices"), [(4, 1), (2, 1), (1, 1), (2, 2), (1, 4)])
def test_an_optimizer_step_has_the_same_sequences_for_every_micro_batch_size_and_number_of_devices(micro, devices):
    whole = batches()
    parts = [batches(micro=micro, rank=rank, devices=devices) for rank in range(devices)]
    steps = DataConfig(batch_size=4, micro_batch_size=micro).accumulation_steps(devices)
    for step in (0, 5, 17):
        seen = [part[step * steps + m][0] for m in range(steps) for part in parts]
        assert torch.equal(torch.cat(seen), whole[step][0])


def test_the_first_batches_never_change():
    """Golden values: if they change, runs can no longer be resumed exactly."""
    assert [batches(batch_size=1).start(i) for i in range(6)] == GOLDEN


@pytest.mark.parametrize(("size", "T", "batch"), [(100, 16, 4), (97, 16, 4), (98, 16, 1), (17, 16, 8), (1000, 33, 7)])
def test_validation_covers_every_target_exactly_once(size, T, batch):
    data = ValBatches(TOKENS[:size], T, batch)
    targets = []
    for k in range(len(data)):
        x, y = data[k]
        counted = y != IGNORE
        assert torch.equal(y[counted], x[counted] + 1)
        targets += y[counted].tolist()
    assert targets == list(range(1, size))


def test_texts_that_are_too_short_are_refused_with_advice():
    with pytest.raises(
        ValueError, match="1 windows of model.block_size=16 tokens, fewer than one batch of data.batch_size=4"
    ):
        batches(tokens=TOKENS[:40])
    with pytest.raises(
        ValueError, match="validation text has 16 tokens, too few for one window of model.block_size=16"
    ):
        ValBatches(TOKENS[:16], 16, 1)
    for key, advice in (("corpus.val_path", "validate on more text (corpus.val_path), or lower"), ("", "lower")):
        with pytest.raises(ValueError) as caught:
            ValBatches(TOKENS[:16], 16, 1, val_key=key)
        assert str(caught.value).endswith(f" of model.block_size=16: {advice} model.block_size")


def test_a_batch_size_that_is_not_divisible_is_refused():
    with pytest.raises(
        ValueError, match="data.batch_size=10 must be a multiple of data.micro_batch_size=4 times 1 device, e.g. 12"
    ):
        DataConfig(batch_size=10, micro_batch_size=4).accumulation_steps(1)


def test_limited_validation_is_spread_over_the_text_and_does_not_depend_on_the_batch_size():
    def targets(batch):
        data = ValBatches(TOKENS, 16, batch, limit=5)
        return [y[y != IGNORE].tolist() for k in range(len(data)) for y in data[k][1]]

    assert targets(1) == targets(2) == targets(64)
    assert [y[0] for y in targets(1)][:4] == [1, 257, 497, 737] and targets(1)[-1][-1] == 999


@pytest.mark.slow_after(1)
@pytest.mark.parametrize("devices", [1, 2, 3, 4, 7, 8])
@pytest.mark.parametrize("batch", [1, 2, 3, 16])
def test_every_device_has_a_validation_batch_and_every_target_occurs_once(devices, batch):
    """5 windows on 4 devices in batches of 2 would be 3 batches: none for the fourth device."""
    for windows in range(devices, 61):
        tokens = np.arange(16 * windows + 1, dtype=np.uint16)
        data = ValBatches(tokens, 16, batch, devices=devices)
        parts = [list(range(rank, len(data), devices)) for rank in range(devices)]
        assert all(parts), f"{windows} windows"
        seen = [int(t) for part in parts for k in part for y in data[k][1] for t in y if t != IGNORE]
        assert sorted(seen) == list(range(1, 16 * windows + 1))
