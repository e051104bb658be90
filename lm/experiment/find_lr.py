"""Learning-rate range test (Smith 2017): train while the learning rate rises, and find where the loss stops falling.

The learning rate is multiplied by the same factor at each step. The suggestion is a third of the learning rate at which
the fall of the smoothed loss ends, or a tenth of the one at which the loss has diverged, whichever is lower. Reasons:

- Other tools suggest the learning rate of the steepest fall. It is too low for a transformer, whose loss falls fastest
  while it learns which tokens are frequent.
- The lowest loss says little. After the fall there may be a plateau over a factor of 10 or more, on which each step
  undoes what the previous step has learned.
- Where the fall ends, the learning rate is already too high: the smoothed loss shows this late, and a learning rate
  that does no harm within a few steps may do so within thousands.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import torch

from lm.base.errors import UserError
from lm.base.hardware import memory_bytes, resolve_device_type, seed_generators
from lm.config import Config
from lm.data.batches import TrainBatches, document_numbers, dropout_seed
from lm.experiment import capacity
from lm.experiment.build import build_model
from lm.experiment.inputs import load_text, prepare_inputs
from lm.experiment.loop import TrainingLoop
from lm.experiment.start import find_start

# The smoothing averages over about 1/SPAN of the steps, so its delay is the same factor of the learning rate in a test
# of any length.
SPAN = 20
# The fall has ended at a step if no learning rate up to CONFIRMED times as high lowers the loss by CREEP nats.
CONFIRMED, CREEP = 2.0, 0.02
# The smoothed loss has diverged this many nats above its minimum. With clipping it may never reach a multiple of it.
MARGIN = 0.5


class Curve:
    """The loss at each learning rate of a test, in nats per token, just before the update with that learning rate."""

    def __init__(self, lrs: Sequence[float]) -> None:
        self.lrs = lrs  # of the whole test
        self.losses: list[float] = []  # of the steps done, while it was finite
        self.smoothed: list[float] = []  # exponential average, corrected for its bias towards 0
        self.diverged: int | None = None  # the step, counted from 0
        self._beta, self._sum = 1 - SPAN / len(lrs), 0.0  # 0.9 in 200 steps

    def add(self, loss: float) -> bool:
        """Add the loss of the next step, and return False if the loss has diverged."""
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
        """The step of the lowest smoothed loss."""
        return self.smoothed.index(min(self.smoothed))

    @property
    def steepest(self) -> int:
        """The step at which the steepest fall to a new low starts, over the window of the smoothing."""
        width = len(self.lrs) // SPAN
        falls = {
            i: self.smoothed[i + width] - before
            for i, before in enumerate(self.smoothed[:-width])
            if self.smoothed[i + width] <= min(self.smoothed[: i + width])
        }
        return min(falls, key=falls.__getitem__, default=0)

    @property
    def fall_end(self) -> int | None:
        """The step at which the fall ends: no step up to CONFIRMED times its learning rate is lower by CREEP.

        The search starts at the steepest fall. None if the test ended too early to tell.
        """
        ahead = math.ceil(math.log(CONFIRMED) / math.log(self.lrs[1] / self.lrs[0]))
        for i in range(self.steepest, len(self.smoothed)):
            later = self.smoothed[i + 1 : i + 1 + ahead]
            if len(later) < ahead and self.diverged is None:
                return None
            if self.smoothed[i] <= min(later, default=math.inf) + CREEP:
                return i
        return None

    def suggestion(self) -> tuple[float | None, str]:
        """Return a peak learning rate and its reason, or None and what to change in the test to get one."""
        end = self.fall_end
        if self.diverged is None and end is None:
            return None, f"the loss was still falling at the highest learning rate: raise --max {self.lrs[-1]:g}"
        if end is None or end < len(self.lrs) // SPAN:
            return None, f"the loss never fell before it rose: lower --min {self.lrs[0]:g}"
        third, tenth = self.lrs[end] / 3, math.inf if self.diverged is None else self.lrs[self.diverged] / 10
        if third <= tenth:
            return third, "a third of the learning rate at which the fall ends"
        return tenth, "a tenth of the learning rate at which the loss has diverged"


def spaced_learning_rates(low: float, high: float, steps: int) -> list[float]:
    """Return `steps` learning rates from low to high, evenly spaced on a logarithmic scale. Raises UserError."""
    if not 0 < low < high < math.inf:
        raise UserError(f"--min {low:g} must be above 0 and below --max {high:g}")
    if steps < SPAN:
        raise UserError(f"--steps {steps} must be at least {SPAN}")
    return [low * (high / low) ** (i / (steps - 1)) for i in range(steps)]


def range_test(
    config: Config, lrs: Sequence[float], wrap: Callable[[Iterable[float]], Iterable[float]] = iter
) -> Curve:
    """Train with these learning rates until the loss diverges. `wrap` may wrap the losses to show progress."""
    curve = Curve(lrs)
    for loss in wrap(train_losses(config, lrs)):
        if not curve.add(loss):
            break
    return curve


def train_losses(config: Config, lrs: Sequence[float]) -> Iterator[float]:
    """Yield the train/loss of each optimizer step of the run of train.py, with these learning rates.

    It uses one device and the full batch, even if trainer.devices is larger. Raises UserError as train.py does.
    """
    # still "auto" if it was configured so
    micro = config.data.micro_batch_size or config.data.device_batch_size(config.trainer.devices)
    data, trainer = replace(config.data, micro_batch_size=micro), replace(config.trainer, devices=1)
    c = replace(config, data=data, trainer=trainer)
    device = resolve_device_type(c.trainer.accelerator, "device")
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
