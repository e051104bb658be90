"""Two loggers whose curves stay one clean curve, however often a run is continued."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.tensorboard.summary import hparams

from lm.base.files import write_text
from lm.run.changes import flatten

METRICS = (
    "train/loss", "val/loss", "val/ppl", "val/bpb", "train/grad_norm", "lr",
    "perf/tokens_per_s", "perf/step_ms", "perf/mfu", "perf/memory_gb", "val/excess",
    "train/skipped", "task/rate", "task/least",
)  # fmt: skip


# TensorBoard's tab "Custom Scalars": what belongs together, on one chart.
CHARTS = {
    "training": {
        "train and validation, nats per token": ["Multiline", ["train/loss", "val/loss"]],
        "bits per byte": ["Multiline", ["val/bpb"]],
        "learning rate": ["Multiline", ["^lr$"]],
        "gradient norm": ["Multiline", ["train/grad_norm"]],
        "tasks, share that is right": ["Multiline", ["task/rate", "task/least"]],
    },
}


ASIDE = ("name", "hydra", "sweep", "data.root", "logger")  # of what is typed: no hyper-parameters


class CSVCurve(Logger):
    """metrics.csv: one row per step, written as soon as it is known. (Lightning's deletes the history on a resume.)"""

    name = version = ""

    def __init__(self, directory: Path, step: int) -> None:
        super().__init__()
        self.path = directory / "metrics.csv"
        self.row: dict[str, float] = {}
        self.start = self.end = 0  # bytes before the newest row, and before what follows it
        self.resume_step = step

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if not self.end:
            self._take_back()
            self.end = self.path.stat().st_size
        if self.row.get("step") != step:
            self.row, self.start = {"step": step or 0}, self.end
        self.row |= metrics
        line = io.StringIO()
        csv.DictWriter(line, ("step", *METRICS), lineterminator="\n").writerow(self.row)
        with self.path.open("r+b") as file:
            file.seek(self.start)
            file.write(line.getvalue().encode())
            file.truncate()
        self.end = self.start + len(line.getvalue())  # only now: half a row, on a full disk, is written over

    def _take_back(self) -> None:
        """Drop the rows after the step that the run goes on from, and a last row that was cut by a kill."""
        header = ",".join(("step", *METRICS)) + "\n"
        lines = self.path.read_text().splitlines(keepends=True)[1:] if self.path.exists() and self.resume_step else []
        kept = [line for line in lines if line.endswith("\n") and int(line.split(",")[0]) <= self.resume_step]
        write_text(self.path, header + "".join(kept))

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """config.yaml holds them."""


class TensorBoard(TensorBoardLogger):
    """Events straight in the run directory, so that TensorBoard shows a run by its name."""

    def __init__(self, directory: Path, step: int) -> None:
        # purge_step hides what an earlier process wrote beyond the checkpoint that the run goes on from
        purge: dict[str, Any] = {"purge_step": step and step + 1}
        super().__init__(directory.parent, name=directory.name, version="", default_hp_metric=False, **purge)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *_: Any, **__: Any) -> None:
        """Fill the HParams tab with what was typed (params["overrides"]) and the rate: a hundred columns of defaults
        would hide them. Its val/loss is the curve's latest, so at the end the final one. (Lightning's adds a point at
        step 0.)"""
        overrides, flat = params.pop("overrides", []), flatten(params)
        typed = dict(override.lstrip("+~").partition("=")[::2] for override in overrides)
        wanted = {key: flat.get(key, value) for key, value in typed.items() if not key.startswith(ASIDE)}
        wanted |= {"optimizer.lr": flat["chosen.lr"]} if "chosen.lr" in flat else {}
        # what is not text, such as a path with bytes that are not UTF-8, protobuf would refuse
        columns = {k: v if isinstance(v, bool | int | float) else printable(str(v)) for k, v in wanted.items()}
        for summary in hparams(columns, {"val/loss": 0.0}):
            self.experiment._get_file_writer().add_summary(summary)
        self.experiment.add_custom_scalars(CHARTS)
        self.experiment.add_text("config", f"```yaml\n{printable(yaml.safe_dump(params, sort_keys=False))}```")

    def save(self) -> None:
        self.experiment.flush()  # and no hparams.yaml beside config.yaml


def printable(text: str) -> str:
    """Return the text with lone surrogates, which stand for bytes that are not UTF-8, as escapes."""
    return text.encode(errors="backslashreplace").decode()
