"""Warnings about a run whose metrics look wrong, with a remedy. This module does not depend on a trainer."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

FIRST_STEPS = 5  # a loss logged up to this step counts as the initial loss; later ones are the result of training
FIRST_EXCESS = 0.10  # allowed excess of the initial loss as a share of ln V; init=normal starts within 2 % of ln V
FIRST_NATS = 0.5  # allowed excess in nats; init=he_uniform starts 0.33 nats above ln V even for small vocabularies
FLAT_STEPS = 200  # or the warm-up if it is longer: before that, a constant loss means little
FLAT_DROP = 0.02  # of the initial loss; letter frequencies alone lower it by 10 % and more
DEAD_NORM = 1e-7  # about the rounding error of fp32: a smaller gradient has no meaningful direction
DEAD_LOSS = 0.01  # nats; below it nothing is left to learn, so a zero gradient is correct
HUGE_NORM = 1000.0  # clipped to 1, such a step is divided by 1,000
SPIKE = 100.0  # times the median: not an ordinary batch, but a broken one or a run that begins to diverge
SPIKE_NORM = 1.0  # smaller norms are not clipped by the usual grad_clip=1
NORMS = (10, 100)  # fewest logged norms for a median, and the number of latest norms it is computed from
RECENT = 10  # the current train/loss is the median of this many logged losses: a single batch is noisy
OVERFIT_RISE = 0.02  # of the best val/loss; each validation uses the same tokens, so there is little noise
OVERFIT_TIMES = 2  # validations in a row: a single one can be chance
TOKENS_PER_PARAMETER = 0.5  # 20 are compute-optimal (Hoffmann et al. 2022); experiment=smoke gives 0.94
PASSES = 10  # up to 4 are as good as new text, at 16 a token is worth a third (Muennighoff et al. 2023)
MEMORIZED = 10  # tokens per parameter; at 3.6 bits per parameter (Morris et al. 2025) more cannot be memorized
VAL_TOKENS = 1000  # a token's loss has a standard deviation of about 2 nats: the mean of 1,000 has one of 0.06


@dataclass(frozen=True)
class Facts:
    """Facts about a run that are known before its first step."""

    parameters: int
    vocab_size: int
    tokens: int  # trained on in the whole run
    train_tokens: int
    val_tokens: int  # used by one validation
    dropout: bool
    warmup_steps: int
    lr: float
    grad_clip: float  # 0: none
    warmup_key: str = "warmup_steps"  # the field of schedule= that sets the warm-up
    val_key: str = "corpus.val_fraction"  # the setting that adds validation text, if any
    new: bool = True  # True if this process starts from untrained weights, not from a checkpoint


class Advice(NamedTuple):
    level: int  # a level of `logging`
    text: str


class Health:
    """Check the metrics of a run and give each kind of advice once.

    It sees the metrics of this process only. Checks that need the first steps of the run are therefore skipped when the
    run was started by another process or from a checkpoint (`Facts.new`).
    """

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.given: set[str] = set()  # kinds of advice given so far
        self.first: float | None = None  # initial train/loss
        self.losses: deque[float] = deque(maxlen=RECENT)
        self.norms: deque[float] = deque(maxlen=NORMS[1])
        self.best: tuple[float, int, float] | None = None  # lowest val/loss, its step, and train/loss at that step
        self.risen = 0  # number of validations in a row above the best

    # ---- called before the first step, at each log step, and after each validation

    def check_start(self) -> list[Advice]:
        return self._select_new(self._check_start())

    def check_step(self, step: int, loss: float, grad_norm: float, skipped: int = 0) -> list[Advice]:
        """Check the metrics logged after `step` steps.

        A norm that is not finite comes from the gradient scaler of fp16 and is ignored.
        """
        self.losses.append(loss)
        advice = self._select_new(self._check_step(step, loss, grad_norm, skipped))
        if math.isfinite(grad_norm):
            self.norms.append(grad_norm)
        return advice

    def check_validation(self, step: int, loss: float) -> list[Advice]:
        return self._select_new(self._check_validation(step, loss))

    def _select_new(self, advice: Iterator[tuple[str, str]]) -> list[Advice]:
        new = {kind: text for kind, text in advice if kind not in self.given}
        self.given |= new.keys()
        return [Advice(logging.INFO if kind == "tokens" else logging.WARNING, text) for kind, text in new.items()]

    # ---- the checks, which yield pairs of a kind and a text

    @property
    def lower_lr(self) -> str:
        """Settings that make steps smaller, for the end of a message."""
        f = self.facts
        return f"a lower optimizer.lr (now {f.lr:g}) or a longer schedule.{f.warmup_key} (now {f.warmup_steps} steps)"

    def _check_start(self) -> Iterator[tuple[str, str]]:
        f = self.facts
        ratio, passes = f.tokens / f.parameters, f.tokens / f.train_tokens
        if f.new and ratio < TOKENS_PER_PARAMETER:
            yield (
                "tokens",
                f"the run trains on {ratio:.2g} tokens per parameter, but about 20 are compute-optimal (Chinchilla): "
                "use a smaller model=, or raise trainer.max_steps",
            )
        if passes > PASSES and not f.dropout and f.train_tokens < MEMORIZED * f.parameters:
            yield (
                "passes",
                f"{passes:.0f} passes over {f.train_tokens:,} tokens without dropout: {f.parameters:,} parameters can "
                "memorize such a text; try model.dropout=0.1, a smaller model=, fewer steps, or more text",
            )
        if f.val_tokens < VAL_TOKENS:
            more_text = f"validate on more text ({f.val_key}) or " if f.val_key else ""
            yield (
                "validation",
                f"a validation uses only {f.val_tokens:,} tokens, so val/loss is uncertain by about "
                f"{2 / math.sqrt(f.val_tokens):.2f} nats; {more_text}raise trainer.val_batches",
            )

    def _check_step(self, step: int, loss: float, norm: float, skipped: int) -> Iterator[tuple[str, str]]:
        f, uniform = self.facts, math.log(self.facts.vocab_size)
        if f.new and self.first is None and step <= FIRST_STEPS:
            self.first = loss
            if loss > uniform + max(FIRST_EXCESS * uniform, FIRST_NATS):
                yield (
                    "first",
                    f"train/loss {loss:.2f} at step {step} is far above ln {f.vocab_size} = {uniform:.2f}, the loss of "
                    f"guessing at random: check model.init, the tokenizer and its targets, or lower optimizer.lr "
                    f"(now {f.lr:g})",
                )
        now = median(self.losses)
        if self.first is not None and step >= max(f.warmup_steps, FLAT_STEPS) and now > (1 - FLAT_DROP) * self.first:
            # a constant loss needs larger steps, a rising one smaller steps
            lr = f.lr / 10 if now > (1 + FLAT_DROP) * self.first else f.lr * 3
            yield (
                "flat",
                f"train/loss does not fall: {self.first:.3f} at the start, {now:.3f} after {step} steps; try "
                f"optimizer.lr={lr:.2g} (now {f.lr:g})",
            )
        if norm < DEAD_NORM and loss > DEAD_LOSS:
            yield (
                "dead",
                f"train/grad_norm {norm:.1g} at step {step}: the model learns nothing; check that the weights are not "
                "frozen, and the initialization (model.init)",
            )
        typical = median(self.norms) if len(self.norms) >= NORMS[0] else math.inf
        if HUGE_NORM < norm < math.inf or max(SPIKE * typical, SPIKE_NORM) < norm < math.inf:
            ratio = f", {norm / typical:.0f} times its median" if typical < math.inf else ""
            clip = ", or optimizer.grad_clip=1" if not 0 < f.grad_clip <= 1 else ""
            yield (
                "explosion",
                f"train/grad_norm {norm:.3g} at step {step}{ratio}: try {self.lower_lr}{clip}",
            )
        if skipped:
            steps = "1 optimizer step" if skipped == 1 else f"{skipped} optimizer steps"
            yield (
                "skipped",
                f"{steps} skipped up to step {step}, because the loss or a gradient was infinite or nan (train/skipped "
                f"counts them): if more follow, try {self.lower_lr}",
            )

    def _check_validation(self, step: int, loss: float) -> Iterator[tuple[str, str]]:
        train = median(self.losses) if self.losses else math.inf
        if self.best is None or loss < self.best[0]:
            self.best = loss, step, train
        best, best_step, train_at_best = self.best
        self.risen = self.risen + 1 if loss >= (1 + OVERFIT_RISE) * best and train < train_at_best else 0
        if self.risen >= OVERFIT_TIMES:
            dropout = "more model.dropout" if self.facts.dropout else "model.dropout=0.1"
            yield (
                "overfit",
                f"val/loss {loss:.3f} at step {step} is {loss / best - 1:.0%} above its best ({best:.3f} at step "
                f"{best_step}, kept in best.ckpt) while train/loss falls: the model memorizes the text; try {dropout}, "
                "a smaller model=, more text, or a shorter callbacks.early_stopping.patience",
            )
