"""A learning-rate range test (Smith 2017): train for real while the rate rises, and see where the loss stops falling.

The rate rises by the same factor at each step. The suggestion is a third of the rate at which the fall of the smoothed
loss ends, or a tenth of that at which it has diverged, whichever is lower. The reasons: the rate of the steepest fall,
which others suggest, is a timid one for a transformer, whose loss falls fastest while it learns which tokens are
frequent. The lowest loss of all says little, since behind the fall there may be a plateau over a decade or more, where
every step undoes what the one before has learnt. And where the fall ends the rate is too high already: the smoothed
loss is late to show it, and a rate that does no harm yet for some steps is none to keep for thousands.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import torch

from lm.base.errors import UserError
from lm.base.hardware import device_type, memory_bytes, seed_generators
from lm.config import Config
from lm.data.batches import TrainBatches, document_numbers, dropout_seed
from lm.experiment import capacity
from lm.experiment.build import build_model
from lm.experiment.inputs import load_text, prepare_inputs
from lm.experiment.loop import TrainingLoop
from lm.experiment.start import find_start

SPAN = 20  # the smoothing looks back over this share of the steps: so it is late by one factor in tests of any length
CONFIRMED, CREEP = 2.0, 0.02  # the fall has ended where no rate up to twice as high brought so many nats
MARGIN = 0.5  # nats above its lowest at which the smoothed loss has diverged; clipped, it may never be twice as high


class Curve:
    """The loss at each rate of a test, in nats per token, just before the update with that rate."""

    def __init__(self, lrs: Sequence[float]) -> None:
        self.lrs = lrs  # of the whole test
        self.losses: list[float] = []  # of the steps made, as far as it was finite
        self.smoothed: list[float] = []  # an exponential average, without its bias towards 0
        self.diverged: int | None = None  # the step from 0
        self._beta, self._sum = 1 - SPAN / len(lrs), 0.0  # 0.9 in 200 steps

    def add(self, loss: float) -> bool:
        """Take in the loss of the next step. False when it has diverged."""
        if not math.isfinite(loss):
            self.diverged = len(self.losses)
            return False
        self.losses.append(loss)
        self._sum = self._beta * self._sum + (1 - self._beta) * loss
        self.smoothed.append(self._sum / (1 - self._beta ** len(self.losses)))
        if self.smoothed[-1] > min(self.smoothed) + MARGIN:
            self.diverged = len(self.losses) - 1
        return self.diverged is None

    @property
    def lowest(self) -> int:
        return self.smoothed.index(min(self.smoothed))

    @property
    def steepest(self) -> int:
        """Where the steepest fall to a new low begins, over as many steps as the smoothing looks back."""
        width = len(self.lrs) // SPAN
        falls = {
            i: self.smoothed[i + width] - before
            for i, before in enumerate(self.smoothed[:-width])
            if self.smoothed[i + width] <= min(self.smoothed[: i + width])
        }
        return min(falls, key=falls.__getitem__, default=0)

    @property
    def fall_end(self) -> int | None:
        """The first step from the steepest on that is not undercut, by CREEP, up to CONFIRMED times its rate.

        None when the test ended without showing that.
        """
        ahead = math.ceil(math.log(CONFIRMED) / math.log(self.lrs[1] / self.lrs[0]))
        for i in range(self.steepest, len(self.smoothed)):
            seen = self.smoothed[i + 1 : i + 1 + ahead]
            if len(seen) < ahead and self.diverged is None:
                return None
            if self.smoothed[i] <= min(seen, default=math.inf) + CREEP:
                return i
        return None

    def suggestion(self) -> tuple[float | None, str]:
        """A peak rate, or None, and what it rests on or what to do for one."""
        end = self.fall_end
        if self.diverged is None and end is None:
            return None, f"the loss was still falling at the highest rate: raise --max {self.lrs[-1]:g}"
        if end is None or end < len(self.lrs) // SPAN:
            return None, f"the loss never fell before it rose: lower --min {self.lrs[0]:g}"
        third, tenth = self.lrs[end] / 3, math.inf if self.diverged is None else self.lrs[self.diverged] / 10
        if third <= tenth:
            return third, "a third of the rate at which the fall ends"
        return tenth, "a tenth of the rate at which the loss has diverged"


def spaced_rates(low: float, high: float, steps: int) -> list[float]:
    """`steps` rates from low to high, each the same multiple of the one before. Raises UserError."""
    if not 0 < low < high < math.inf:
        raise UserError(f"--min {low:g} must be above 0 and below --max {high:g}")
    if steps < SPAN:
        raise UserError(f"--steps {steps} must be at least {SPAN}")
    return [low * (high / low) ** (i / (steps - 1)) for i in range(steps)]


def range_test(
    config: Config, lrs: Sequence[float], watched: Callable[[Iterable[float]], Iterable[float]] = iter
) -> Curve:
    """Train with these rates until the loss diverges; `watched` may look at each loss as it passes."""
    curve = Curve(lrs)
    for loss in watched(train_losses(config, lrs)):
        if not curve.add(loss):
            break
    return curve


def train_losses(config: Config, lrs: Sequence[float]) -> Iterator[float]:
    """The train/loss of each optimizer step of the run that train.py would make, if its rates were these.

    On one device, whatever trainer.devices says: the batch is the same. Raises UserError as train.py does.
    """
    micro = config.data.micro_batch_size or config.data.micro(config.trainer.devices)  # or auto, still
    data, trainer = replace(config.data, micro_batch_size=micro), replace(config.trainer, devices=1)
    c = replace(config, data=data, trainer=trainer)
    device = device_type(c.trainer.accelerator, "device")
    start = find_start(c)
    inputs = prepare_inputs(c, load_text(c), start)
    c = capacity.resolve_micro_batch(c, inputs.vocab_size, device, memory_bytes(device))
    capacity.require_memory(c, inputs.vocab_size, device, memory_bytes(device))
    batches = TrainBatches(inputs.tokens.train, c.model.block_size, c.data, c.seed)
    model, _ = build_model(replace(c, init_optimizer="new"), inputs, start)
    c.precision.apply()
    c.trainer.prepare(model, device)
    loop = TrainingLoop(c, inputs.vocab_size, device, model)
    respect_documents = c.data.respect_documents and inputs.text.documents
    end_of_text = inputs.tokenizer.end_of_text if respect_documents else None
    for step, lr in enumerate(lrs):
        nats = []
        for k in range(step * loop.accumulate, (step + 1) * loop.accumulate):
            seed_generators(dropout_seed(c.seed, k), device)
            x, y = (ids.to(device) for ids in batches[k])  # (B, T) each
            objective, total = loop.forward(x, y, document_numbers(x, end_of_text))
            loop.backward(objective)
            nats.append(total / y.numel())
        yield float(torch.stack(nats).mean())
        loop.update(lr)
