"""Which tokens the model sees when: a pure function of (seed, step), with no state to save.

An epoch is every window of T tokens of the training text once, in an order of its own, and each epoch cuts the text
at an offset of its own, so that no token is always the first of its window. Sequence i of a run lies in epoch
i // windows. Optimizer step s takes sequences [s * batch_size, (s + 1) * batch_size), shared out over micro-batches
and devices; so neither workers, nor devices, nor a restart change what step s sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lm.base.checks import Check
from lm.base.errors import UserError
from lm.data.download import Downloads

IGNORE = -100  # a target with this value does not count in the loss; torch's default ignore_index


@dataclass
class DataConfig:
    batch_size: int = 16  # sequences per optimizer step, over all devices and micro-batches
    micro_batch_size: Any = None  # sequences per forward pass; auto: as many as fit the device; null: the whole batch
    num_workers: int = 0  # loader processes; tokens are read from a memory map, so 0 is usually enough
    root: str = "data"  # directory of downloads and caches
    offline: bool = False  # never download; name the missing file and where to put it instead
    mirror: str | None = None  # server to ask before the corpora's own addresses; it has the files under /<host>/<path>
    respect_documents: bool = False  # keep attention inside a document: it does not look back past an end-of-text token

    def __post_init__(self) -> None:
        check = Check("data", self)
        check.at_least("batch_size", 1)
        if type(self.micro_batch_size) is int:  # checked here: Hydra's merging fails on a field of type int | str
            check.at_least("micro_batch_size", 1)
        else:
            choice = self.micro_batch_size in ("auto", None)
            check.that(choice, "micro_batch_size", "be a whole number of at least 1, auto, or null (the whole batch)")
        check.at_least("num_workers", 0)
        check.done()

    def downloads(self) -> Downloads:
        return Downloads(Path(self.root).expanduser(), self.offline, self.mirror)

    def micro(self, devices: int = 1) -> int:
        """Return the sequences of one forward pass on one device.

        `auto` counts as the whole batch until `lm.experiment.capacity` has resolved it.
        """
        if isinstance(self.micro_batch_size, int):
            return self.micro_batch_size
        return max(1, self.batch_size // devices)

    def accumulate(self, devices: int = 1) -> int:
        """Micro-batches per optimizer step on each device. Raises UserError when the batch does not divide."""
        at_once = self.micro(devices) * devices
        if self.batch_size % at_once:
            raise UserError(
                f"data.batch_size={self.batch_size} must be a multiple of data.micro_batch_size={self.micro(devices)} "
                f"times {devices} device{'s' * (devices > 1)}, e.g. {at_once * -(-self.batch_size // at_once)}"
            )
        return self.batch_size // at_once


class TrainBatches(Dataset[tuple[Tensor, Tensor]]):
    """Micro-batch k of a run, for every k >= 0: x and y (B, T) int64, where y is x one token on.

    Raises UserError when `tokens` (N,) do not hold one batch of windows.
    """

    def __init__(
        self, tokens: np.ndarray, T: int, config: DataConfig, seed: int, rank: int = 0, devices: int = 1
    ) -> None:
        self.tokens, self.T, self.seed = tokens, T, seed
        self.rank, self.devices, self.micro = rank, devices, config.micro(devices)
        # one window less than would fit, so that every offset up to T - 1 leaves as many
        self.windows = max(len(tokens) // T - 1, int(len(tokens) > T))
        if self.windows < config.batch_size:
            raise UserError(
                f"the training text has {self.windows} windows of model.block_size={T} tokens, less than one batch of "
                f"data.batch_size={config.batch_size}: bring more text, or lower one of the two"
            )

    def __getitem__(self, k: int) -> tuple[Tensor, Tensor]:
        first = (k * self.devices + self.rank) * self.micro
        starts = np.array([self.start(i) for i in range(first, first + self.micro)])  # (B,)
        rows = torch.from_numpy(self.tokens[starts[:, None] + np.arange(self.T + 1)].astype(np.int64))  # (B, T + 1)
        return rows[:, :-1], rows[:, 1:]

    def start(self, i: int) -> int:
        """Where sequence i of the run begins in the training text."""
        order, offset = _epoch(
            self.seed, i // self.windows, self.windows, min(self.T, len(self.tokens) - self.windows * self.T)
        )
        return int(order[i % self.windows]) * self.T + offset


@lru_cache(maxsize=2)  # a batch may span two epochs
def _epoch(seed: int, epoch: int, windows: int, offsets: int) -> tuple[np.ndarray, int]:
    """The order of an epoch's windows, and its offset below `offsets`."""
    raw = np.random.Philox(key=[seed, epoch]).random_raw(windows + 1)  # a raw stream, the same in every numpy
    return raw[1:].argsort(kind="stable"), int(raw[0] % offsets)


def dropout_seed(seed: int, micro: int, rank: int = 0) -> int:
    """What the generators of a device begin a micro-batch with: so what is dropped is a pure function too."""
    return int(np.random.SeedSequence([seed, micro, rank]).generate_state(1, np.uint64)[0])


def document_numbers(x: Tensor, end_of_text: int | None) -> Tensor | None:
    """Which document of its window each token of x (B, T) belongs to; None where attention need not respect them.

    The end-of-text token counts to the document that it begins, whose first token is predicted from it alone.
    """
    return None if end_of_text is None else torch.eq(x, end_of_text).cumsum(1)


class ValBatches(Dataset[tuple[Tensor, Tensor]]):
    """The validation text once, in order: every token but the first is a target in exactly one window.

    The last window reaches back for its context; the targets it shares with the one before are IGNORE. `limit` takes
    so many windows instead, spread evenly over the text; which, does not depend on how they are batched. `val_key` is
    the setting that gives more text, if any.
    """

    def __init__(
        self, tokens: np.ndarray, T: int, batch: int, limit: int | None = None, devices: int = 1, val_key: str = ""
    ) -> None:
        if len(tokens) <= T:
            raise UserError(
                f"the validation text has {len(tokens)} tokens, too few for one window of model.block_size={T}: "
                f"{f'validate on more text ({val_key}), or ' if val_key else ''}lower model.block_size"
            )
        windows = -(-(len(tokens) - 1) // T)
        if windows < devices:
            raise UserError(f"the validation text has {windows} windows of {T} tokens, too few for {devices} devices")
        self.chosen = np.linspace(0, windows - 1, min(limit or windows, windows)).round().astype(np.int64)
        self.tokens, self.T = tokens, T
        self.batch = min(batch, -(-len(self.chosen) // devices))
        if len(self) < devices:  # a device without a batch: with 5 windows on 4 devices, 3 batches of 2
            self.batch = len(self.chosen) // devices

    def __len__(self) -> int:
        return -(-len(self.chosen) // self.batch)

    def __getitem__(self, k: int) -> tuple[Tensor, Tensor]:
        wanted = self.chosen[k * self.batch : (k + 1) * self.batch] * self.T  # (B,)
        starts = np.minimum(wanted, len(self.tokens) - 1 - self.T)
        rows = torch.from_numpy(self.tokens[starts[:, None] + np.arange(self.T + 1)].astype(np.int64))  # (B, T + 1)
        x, y = rows[:, :-1], rows[:, 1:].clone()
        y[-1, : wanted[-1] - starts[-1]] = IGNORE
        return x, y
