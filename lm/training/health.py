"""Advice while a run trains: its figures in, short warnings with the cure out. It needs no trainer."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

FIRST_STEPS = 5  # a loss logged up to here tells how the run began; later ones have been learnt
FIRST_EXCESS = 0.10  # of ln V; init=normal begins within 2 % of it ...
FIRST_NATS = 0.5  # ... and init=he_uniform 0.33 nats above it, whatever V: small vocabularies need that much room
FLAT_STEPS = 200  # or the warm-up if that is longer: before, a loss that stands still means little
FLAT_DROP = 0.02  # of the first loss; single letters' frequencies alone are worth 10 % and more
DEAD_NORM = 1e-7  # about fp32's rounding: less is no direction
DEAD_LOSS = 0.01  # nats; below it there is nothing left to learn, and no gradient is right
HUGE_NORM = 1000.0  # clipped to 1, a thousandth of such a step is left
SPIKE = 100.0  # times the median: no ordinary batch, a broken one or a run that leaves its course
SPIKE_NORM = 1.0  # a norm below it is what the usual grad_clip=1 lets pass
NORMS = (10, 100)  # the median needs so many logged norms, and forgets all but so many
RECENT = 10  # logged losses whose median stands for train/loss now: one batch is noise
OVERFIT_RISE = 0.02  # of the best val/loss; the same tokens are looked at each time, so little of it is noise
OVERFIT_TIMES = 2  # validations in a row: one can be chance
TOKENS_PER_PARAMETER = 0.5  # 20 are compute-optimal (Hoffmann et al. 2022); experiment=smoke gives 0.94
PASSES = 10  # up to 4 are as good as new text, by 16 a token is worth a third (Muennighoff et al. 2023)
MEMORISED = 10  # tokens per parameter; with 3.6 bits a parameter (Morris et al. 2025) a text beyond is never by heart
VAL_TOKENS = 1000  # a token's loss spreads by some 2 nats: the mean of 1,000 is uncertain by 0.06


@dataclass(frozen=True)
class Facts:
    """What is known of a run before its first step."""

    parameters: int
    vocab_size: int
    tokens: int  # that the whole run sees
    train_tokens: int
    val_tokens: int  # that one validation looks at
    dropout: bool
    warmup_steps: int
    lr: float
    grad_clip: float  # 0: none
    warmup_key: str = "warmup_steps"  # the field of schedule= that decides it
    val_key: str = "corpus.val_fraction"  # the setting that gives more text to validate on, if any
    new: bool = True  # this process begins with untrained weights, not with a checkpoint's


class Advice(NamedTuple):
    level: int  # logging's
    text: str


class Health:
    """Gives each kind of advice once. It remembers what it has seen, and knows of no earlier process of the run: what
    judges a run by its beginning keeps silent about one that began elsewhere (`Facts.new`)."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.told: set[str] = set()
        self.first: float | None = None  # train/loss at the beginning
        self.losses: deque[float] = deque(maxlen=RECENT)
        self.norms: deque[float] = deque(maxlen=NORMS[1])
        self.best: tuple[float, int, float] | None = None  # val/loss, its step, and train/loss then
        self.risen = 0  # validations in a row

    # ---- what to feed it, and when

    def beginning(self) -> list[Advice]:
        return self._new(self._beginning())

    def step(self, step: int, loss: float, grad_norm: float, skipped: int = 0) -> list[Advice]:
        """What a log step shows, after `step` steps. A norm that is not finite is a gradient scaler's, and left out."""
        self.losses.append(loss)
        advice = self._new(self._step(step, loss, grad_norm, skipped))
        if math.isfinite(grad_norm):
            self.norms.append(grad_norm)
        return advice

    def validation(self, step: int, loss: float) -> list[Advice]:
        return self._new(self._validation(step, loss))

    def _new(self, found: Iterator[tuple[str, str]]) -> list[Advice]:
        kinds = {kind: text for kind, text in found if kind not in self.told}
        self.told |= kinds.keys()
        return [Advice(logging.INFO if kind == "tokens" else logging.WARNING, text) for kind, text in kinds.items()]

    # ---- the rules: pairs of a kind and a text

    @property
    def calmer(self) -> str:
        f = self.facts
        return f"a lower optimizer.lr (now {f.lr:g}) or a longer schedule.{f.warmup_key} (now {f.warmup_steps} steps)"

    def _beginning(self) -> Iterator[tuple[str, str]]:
        f = self.facts
        ratio, passes = f.tokens / f.parameters, f.tokens / f.train_tokens
        if f.new and ratio < TOKENS_PER_PARAMETER:
            yield (
                "tokens",
                f"the run sees {ratio:.2g} tokens for each parameter; its computing is best spent at about 20 "
                "(Chinchilla): a smaller model= learns more in the time, or give this one more trainer.max_steps",
            )
        if passes > PASSES and not f.dropout and f.train_tokens < MEMORISED * f.parameters:
            yield (
                "passes",
                f"{passes:.0f} passes over {f.train_tokens:,} tokens without dropout: {f.parameters:,} parameters can "
                "learn such a text by heart; try model.dropout=0.1, a smaller model=, fewer steps, or more text",
            )
        if f.val_tokens < VAL_TOKENS:
            yield (
                "validation",
                f"a validation looks at {f.val_tokens:,} tokens only: val/loss is uncertain by about "
                f"{2 / math.sqrt(f.val_tokens):.2f} nats; "
                f"{f'validate on more text ({f.val_key}) or ' if f.val_key else ''}raise trainer.val_batches",
            )

    def _step(self, step: int, loss: float, norm: float, skipped: int) -> Iterator[tuple[str, str]]:
        f, guess = self.facts, math.log(self.facts.vocab_size)
        if f.new and self.first is None and step <= FIRST_STEPS:
            self.first = loss
            if loss > guess + max(FIRST_EXCESS * guess, FIRST_NATS):
                yield (
                    "first",
                    f"train/loss {loss:.2f} at step {step} is far above ln {f.vocab_size} = {guess:.2f}, the price of "
                    f"blind guesses: check model.init, the tokenizer and its targets, or lower optimizer.lr "
                    f"(now {f.lr:g})",
                )
        now = median(self.losses)
        if self.first is not None and step >= max(f.warmup_steps, FLAT_STEPS) and now > (1 - FLAT_DROP) * self.first:
            # one that stands needs larger steps, one that rose overshoots
            lr = f.lr / 10 if now > (1 + FLAT_DROP) * self.first else f.lr * 3
            yield (
                "flat",
                f"train/loss does not fall: {self.first:.3f} at first, {now:.3f} after {step} steps; try "
                f"optimizer.lr={lr:.2g} (now {f.lr:g})",
            )
        if norm < DEAD_NORM and loss > DEAD_LOSS:
            yield (
                "dead",
                f"train/grad_norm {norm:.1g} at step {step}: nothing is learnt; are weights frozen, or is the model "
                "dead from its start (model.init)?",
            )
        usual = median(self.norms) if len(self.norms) >= NORMS[0] else math.inf
        if HUGE_NORM < norm < math.inf or max(SPIKE * usual, SPIKE_NORM) < norm < math.inf:
            beside = f", {norm / usual:.0f} times its median" if usual < math.inf else ""
            clip = ", or optimizer.grad_clip=1" if not 0 < f.grad_clip <= 1 else ""
            yield (
                "explosion",
                f"train/grad_norm {norm:.3g} at step {step}{beside}: try {self.calmer}{clip}",
            )
        if skipped:
            yield (
                "skipped",
                f"{skipped} optimizer step{'s' * (skipped > 1)} left out by step {step}, for an infinite or nan loss "
                f"or gradient (train/skipped counts them): if more follow, try {self.calmer}",
            )

    def _validation(self, step: int, loss: float) -> Iterator[tuple[str, str]]:
        train = median(self.losses) if self.losses else math.inf
        if self.best is None or loss < self.best[0]:
            self.best = loss, step, train
        best, when, then = self.best
        self.risen = self.risen + 1 if loss >= (1 + OVERFIT_RISE) * best and train < then else 0
        if self.risen >= OVERFIT_TIMES:
            dropout = "more model.dropout" if self.facts.dropout else "model.dropout=0.1"
            yield (
                "overfit",
                f"val/loss {loss:.3f} at step {step} is {loss / best - 1:.0%} above its best ({best:.3f} at step "
                f"{when}, kept in best.ckpt) while train/loss falls: the text is being learnt by heart; try {dropout}, "
                "a smaller model=, more text, or a shorter callbacks.early_stopping.patience",
            )
