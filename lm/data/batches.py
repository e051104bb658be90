"""Batches of tokens as a pure function of (seed, step), so that there is no state to save.

An epoch visits every window of T tokens of the training text once. Each epoch has its own random order and cuts the
text at its own offset, so that no token is always the first of its window. Sequence i of a run belongs to epoch
i // windows. Optimizer step s takes sequences [s * batch_size, (s + 1) * batch_size), distributed over micro-batches
and devices. Therefore the number of loader processes, the number of devices and a restart do not change the sequences
of step s.
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
    """Settings of batches, downloads and caches."""

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
            valid = self.micro_batch_size in ("auto", None)
            check.require(valid, "micro_batch_size", "be a whole number of at least 1, auto, or null (the whole batch)")
        check.at_least("num_workers", 0)
        check.done()

    def downloads(self) -> Downloads:
        """Return the downloader that these settings describe."""
        return Downloads(Path(self.root).expanduser(), self.offline, self.mirror)

    def device_batch_size(self, devices: int = 1) -> int:
        """Return the number of sequences in one forward pass on one device.

        `auto` counts as the whole batch until `lm.experiment.capacity` has resolved it.
        """
        if isinstance(self.micro_batch_size, int):
            return self.micro_batch_size
        return max(1, self.batch_size // devices)

    def accumulation_steps(self, devices: int = 1) -> int:
        """Return the number of micro-batches per optimizer step on each device.

        Raises UserError when the batch size is not divisible by the micro-batch size times the number of devices.
        """
        micro = self.device_batch_size(devices)
        sequences = micro * devices  # of one forward pass on all devices
        if self.batch_size % sequences:
            unit = "device" if devices == 1 else "devices"
            raise UserError(
                f"data.batch_size={self.batch_size} must be a multiple of data.micro_batch_size={micro} "
                f"times {devices} {unit}, e.g. {sequences * -(-self.batch_size // sequences)}"
            )
        return self.batch_size // sequences


class TrainBatches(Dataset[tuple[Tensor, Tensor]]):
    """Micro-batches of the training text: item k is micro-batch k of a run, for every k >= 0.

    An item is a pair x, y of (B, T) int64 tensors, where y is x shifted by one token. Raises UserError when
    `tokens` (N,) are too few for one batch of windows.
    """

    def __init__(
        self, tokens: np.ndarray, T: int, config: DataConfig, seed: int, rank: int = 0, devices: int = 1
    ) -> None:
        self.tokens, self.T, self.seed = tokens, T, seed
        self.rank, self.devices, self.micro = rank, devices, config.device_batch_size(devices)
        # one window fewer than would fit, so that every offset up to T - 1 leaves this many
        self.windows = max(len(tokens) // T - 1, int(len(tokens) > T))
        if self.windows < config.batch_size:
            raise UserError(
                f"the training text has {self.windows} windows of model.block_size={T} tokens, fewer than one batch "
                f"of data.batch_size={config.batch_size}: use more text, or lower one of these two settings"
            )

    def __getitem__(self, k: int) -> tuple[Tensor, Tensor]:
        first = (k * self.devices + self.rank) * self.micro
        starts = np.array([self.start(i) for i in range(first, first + self.micro)])  # (B,)
        rows = torch.from_numpy(self.tokens[starts[:, None] + np.arange(self.T + 1)].astype(np.int64))  # (B, T + 1)
        return rows[:, :-1], rows[:, 1:]

    def start(self, i: int) -> int:
        """Return the position in the training text at which sequence i of the run begins."""
        order, offset = _epoch_order(
            self.seed, i // self.windows, self.windows, min(self.T, len(self.tokens) - self.windows * self.T)
        )
        return int(order[i % self.windows]) * self.T + offset


@lru_cache(maxsize=2)  # a batch may span two epochs
def _epoch_order(seed: int, epoch: int, windows: int, offsets: int) -> tuple[np.ndarray, int]:
    """Return the order of an epoch's windows (windows,) and its offset, which is less than `offsets`."""
    raw = np.random.Philox(key=[seed, epoch]).random_raw(windows + 1)  # the raw stream: the same in every numpy
    return raw[1:].argsort(kind="stable"), int(raw[0] % offsets)


def dropout_seed(seed: int, micro: int, rank: int = 0) -> int:
    """Return the seed of a device's random generators for one micro-batch.

    It makes dropout a pure function of (seed, micro-batch, rank).
    """
    return int(np.random.SeedSequence([seed, micro, rank]).generate_state(1, np.uint64)[0])


def document_numbers(x: Tensor, end_of_text: int | None) -> Tensor | None:
    """Return (B, T): the number, within its window, of the document that each token of x (B, T) belongs to.

    Return None if `end_of_text` is None, which means that attention need not respect documents. An end-of-text token
    belongs to the document that follows it, so the first token of a document is predicted from it alone.
    """
    return None if end_of_text is None else torch.eq(x, end_of_text).cumsum(1)


class ValBatches(Dataset[tuple[Tensor, Tensor]]):
    """Batches of the validation text in order: every token except the first is a target in exactly one window.

    The last window begins earlier so that it has T tokens. Targets that it shares with the window before are IGNORE.
    `limit` selects at most this many windows, spread evenly over the text; the selection does not depend on the batch
    size. `val_key` is the setting that provides more validation text, if there is one.
    """

    def __init__(
        self, tokens: np.ndarray, T: int, batch: int, limit: int | None = None, devices: int = 1, val_key: str = ""
    ) -> None:
        if len(tokens) <= T:
            more_text = f"validate on more text ({val_key}), or " if val_key else ""
            raise UserError(
                f"the validation text has {len(tokens)} tokens, too few for one window of model.block_size={T}: "
                f"{more_text}lower model.block_size"
            )
        windows = -(-(len(tokens) - 1) // T)
        if windows < devices:
            raise UserError(f"the validation text has {windows} windows of {T} tokens, too few for {devices} devices")
        self.chosen = np.linspace(0, windows - 1, min(limit or windows, windows)).round().astype(np.int64)
        self.tokens, self.T = tokens, T
        self.batch = min(batch, -(-len(self.chosen) // devices))
        if len(self) < devices:  # some device has no batch, e.g. 5 windows on 4 devices give 3 batches of 2
            self.batch = len(self.chosen) // devices

    def __len__(self) -> int:
        return -(-len(self.chosen) // self.batch)

    def __getitem__(self, k: int) -> tuple[Tensor, Tensor]:
        ideal = self.chosen[k * self.batch : (k + 1) * self.batch] * self.T  # (B,)
        starts = np.minimum(ideal, len(self.tokens) - 1 - self.T)
        rows = torch.from_numpy(self.tokens[starts[:, None] + np.arange(self.T + 1)].astype(np.int64))  # (B, T + 1)
        x, y = rows[:, :-1], rows[:, 1:].clone()
        y[-1, : ideal[-1] - starts[-1]] = IGNORE
        return x, y
