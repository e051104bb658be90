"""The batches of a run as a Lightning data module."""

from __future__ import annotations

import itertools
import math
import signal
from collections.abc import Callable, Iterator

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from lm.data.batches import IGNORE, DataConfig, TrainBatches, ValBatches
from lm.data.corpus import Split
from lm.data.token_files import Tokens
from lm.data.tokenizer import Tokenizer

Batches = DataLoader[tuple[Tensor, Tensor]]


class TokenData(L.LightningDataModule):
    """Serve micro-batches of `tokens`, beginning at the trainer's current step.

    A resumed run therefore sees the same batches as an uninterrupted one. `val_batches` limits validation to that many
    batches of windows, spread evenly over the text; None means the whole text.

    Raises UserError when the text is too small for one batch or one validation window.
    """

    def __init__(
        self, tokens: Tokens, config: DataConfig, block_size: int, seed: int, val_batches: int | None, devices: int = 1
    ) -> None:
        super().__init__()
        self.tokens, self.config, self.T, self.seed = tokens, config, block_size, seed
        self.limit = val_batches and val_batches * config.batch_size  # windows
        # both raise UserError for a text that is too small, before the model is built
        self.windows = TrainBatches(tokens.train, block_size, config, seed).windows
        ValBatches(tokens.val, block_size, 1, devices=devices, val_key=tokens.val_key)

    def lowest_loss(self, val: Split, tokenizer: Tokenizer, log_prob: Callable[[str], float | None]) -> float | None:
        """Return the lowest possible val/loss on the text `val`, in nats per token, for the windows of this module.

        `log_prob` is the log-probability of a text under the distribution that the corpus is drawn from
        (CorpusConfig.log_prob); it is known for synthetic corpora only, character by character. Returns None where it
        is not known, or where a token is not a character of the text.
        """
        if log_prob("a") is None or tokenizer.decode(self.tokens.val.tolist()) != val.read():
            return None
        batches = ValBatches(self.tokens.val, self.T, 1, self.limit)
        nats, targets = 0.0, 0
        for x, y in map(batches.__getitem__, range(len(batches))):
            window = tokenizer.decode([*x[0].tolist(), int(y[0, -1])])
            counted = int((y != IGNORE).sum())
            whole, given = log_prob(window), log_prob(window[:-counted])
            if whole is None or given is None or len(window) != self.T + 1:
                return None
            if math.isfinite(whole):  # the end of a text, such as a blank line, can have probability 0
                nats, targets = nats + given - whole, targets + counted
        return nats / targets if targets else None

    def train_dataloader(self) -> Batches:
        assert self.trainer is not None
        rank, devices = self.trainer.global_rank, self.trainer.world_size
        batches = TrainBatches(self.tokens.train, self.T, self.config, self.seed, rank, devices)
        return self._loader(batches, CountFrom(self.trainer.global_step * self.config.accumulation_steps(devices)))

    def val_dataloader(self) -> Batches:
        assert self.trainer is not None
        rank, devices = self.trainer.global_rank, self.trainer.world_size
        batches = ValBatches(self.tokens.val, self.T, self.config.device_batch_size(devices), self.limit, devices)
        return self._loader(batches, range(rank, len(batches), devices))

    def _loader(self, batches: Dataset[tuple[Tensor, Tensor]], order: Sampler[int] | range) -> Batches:
        workers = self.config.num_workers
        return DataLoader(
            batches,
            batch_size=None,  # each item is a whole batch
            sampler=order,
            num_workers=workers,
            persistent_workers=workers > 0,
            worker_init_fn=ignore_interrupt,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # the loader draws a seed for its workers, not from the run's random stream
        )


class CountFrom(Sampler[int]):
    """Yield start, start + 1, start + 2, ... without end: the run ends at its horizon."""

    def __init__(self, start: int) -> None:
        self.start = start

    def __iter__(self) -> Iterator[int]:
        return itertools.count(self.start)


def ignore_interrupt(worker: int) -> None:
    """Ignore Ctrl-C in a loader's worker process.

    A terminal sends it to all processes, but the run still needs its batches to finish the step and save.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
