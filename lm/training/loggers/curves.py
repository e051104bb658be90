"""Loggers for metrics.csv and TensorBoard that keep one continuous curve when a run is resumed."""

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


# Charts of several metrics in TensorBoard's tab "Custom Scalars".
CHARTS = {
    "training": {
        "train and validation, nats per token": ["Multiline", ["train/loss", "val/loss"]],
        "bits per byte": ["Multiline", ["val/bpb"]],
        "learning rate": ["Multiline", ["^lr$"]],
        "gradient norm": ["Multiline", ["train/grad_norm"]],
        "tasks, share that is correct": ["Multiline", ["task/rate", "task/least"]],
    },
}


NOT_HYPERPARAMETERS = ("name", "hydra", "sweep", "data.root", "logger")  # overrides of these are not shown


class CSVCurve(Logger):
    """Write metrics.csv, one row per step, immediately. Lightning's CSVLogger deletes the history on a resume."""

    name = version = ""

    def __init__(self, directory: Path, step: int) -> None:
        super().__init__()
        self.path = directory / "metrics.csv"
        self.row: dict[str, float] = {}
        self.start = self.end = 0  # byte offsets of the newest row and of its end
        self.resume_step = step

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if not self.end:
            self._drop_later_rows()
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
        self.end = self.start + len(line.getvalue())  # updated last, so that a row cut by a full disk is overwritten

    def _drop_later_rows(self) -> None:
        """Drop the rows after the step that the run resumes from, and a last row that is incomplete after a kill."""
        header = ",".join(("step", *METRICS)) + "\n"
        lines = self.path.read_text().splitlines(keepends=True)[1:] if self.path.exists() and self.resume_step else []
        kept = [line for line in lines if line.endswith("\n") and int(line.split(",")[0]) <= self.resume_step]
        write_text(self.path, header + "".join(kept))

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """Do nothing: config.yaml holds them."""


class TensorBoard(TensorBoardLogger):
    """Write TensorBoard events into the run directory itself, so that TensorBoard shows the run by its name."""

    def __init__(self, directory: Path, step: int) -> None:
        # purge_step hides points that an earlier process wrote after the checkpoint that the run resumes from
        purge: dict[str, Any] = {"purge_step": step and step + 1}
        super().__init__(directory.parent, name=directory.name, version="", default_hp_metric=False, **purge)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *_: Any, **__: Any) -> None:
        """Fill the HParams tab with the overrides of the command line (params["overrides"]) and the learning rate.

        All other settings have default values and would only hide these. The tab's val/loss is the latest of the curve,
        so in the end the final one. Lightning's method would add a point at step 0.
        """
        overrides, flat = params.pop("overrides", []), flatten(params)
        given = dict(override.lstrip("+~").partition("=")[::2] for override in overrides)
        hyperparameters = {k: flat.get(k, value) for k, value in given.items() if not k.startswith(NOT_HYPERPARAMETERS)}
        hyperparameters |= {"optimizer.lr": flat["chosen.lr"]} if "chosen.lr" in flat else {}
        # protobuf rejects strings that are not text, such as a path with bytes that are not UTF-8
        columns = {
            key: value if isinstance(value, bool | int | float) else escape_surrogates(str(value))
            for key, value in hyperparameters.items()
        }
        for summary in hparams(columns, {"val/loss": 0.0}):
            self.experiment._get_file_writer().add_summary(summary)
        self.experiment.add_custom_scalars(CHARTS)
        self.experiment.add_text("config", f"```yaml\n{escape_surrogates(yaml.safe_dump(params, sort_keys=False))}```")

    def save(self) -> None:
        self.experiment.flush()  # without writing hparams.yaml: config.yaml has the settings


def escape_surrogates(text: str) -> str:
    """Return the text with lone surrogates, which represent bytes that are not UTF-8, as escapes."""
    return text.encode(errors="backslashreplace").decode()
