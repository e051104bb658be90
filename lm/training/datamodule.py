"""TokenData: the batches of a run, as Lightning asks for them."""

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
    """Serves micro-batches of `tokens` from the step that the trainer stands at, so a resumed run sees what it would
    have seen. `val_batches` limits validation to so many batches of windows, spread evenly over the text; None: all.

    Raises UserError when the text is too small for one batch or one validation window.
    """

    def __init__(
        self, tokens: Tokens, config: DataConfig, block_size: int, seed: int, val_batches: int | None, devices: int = 1
    ) -> None:
        super().__init__()
        self.tokens, self.config, self.T, self.seed = tokens, config, block_size, seed
        self.limit = val_batches and val_batches * config.batch_size  # windows
        # both refuse what is too small, before anything is built
        self.windows = TrainBatches(tokens.train, block_size, config, seed).windows
        ValBatches(tokens.val, block_size, 1, devices=devices, val_key=tokens.val_key)

    def floor(self, val: Split, tokenizer: Tokenizer, log_prob: Callable[[str], float | None]) -> float | None:
        """The least val/loss, in nats per token, that a model can have that sees the text `val` in these windows.

        `log_prob` is the corpus's law (CorpusConfig.log_prob): known for made-up languages, told character by
        character. None where it is not known, or tokens are not the text's characters.
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
            if math.isfinite(whole):  # the end of a text, a blank line perhaps, can be outside the law
                nats, targets = nats + given - whole, targets + counted
        return nats / targets if targets else None

    def train_dataloader(self) -> Batches:
        assert self.trainer is not None
        rank, devices = self.trainer.global_rank, self.trainer.world_size
        batches = TrainBatches(self.tokens.train, self.T, self.config, self.seed, rank, devices)
        return self._loader(batches, From(self.trainer.global_step * self.config.accumulate(devices)))

    def val_dataloader(self) -> Batches:
        assert self.trainer is not None
        rank, devices = self.trainer.global_rank, self.trainer.world_size
        batches = ValBatches(self.tokens.val, self.T, self.config.micro(devices), self.limit, devices)
        return self._loader(batches, range(rank, len(batches), devices))

    def _loader(self, batches: Dataset[tuple[Tensor, Tensor]], order: Sampler[int] | range) -> Batches:
        workers = self.config.num_workers
        return DataLoader(
            batches,
            batch_size=None,  # an item is a batch already
            sampler=order,
            num_workers=workers,
            persistent_workers=workers > 0,
            worker_init_fn=ignore_interrupt,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # a loader draws a seed for its workers: not out of the run's own stream
        )


class From(Sampler[int]):
    """start, start + 1, start + 2, ... without end: what ends a run is its horizon."""

    def __init__(self, start: int) -> None:
        self.start = start

    def __iter__(self) -> Iterator[int]:
        return itertools.count(self.start)


def ignore_interrupt(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; the run still needs its batches to finish the step and save."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
