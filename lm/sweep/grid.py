"""A grid: one run for each combination of values. The other sweepers are subclasses of it.

    python train.py -m optimizer.lr=1e-3,3e-3 seed=1,2

outputs/<name>/ contains sweep.yaml (the settings of the sweep), sweep.json (its results), and a run for each job.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections import Counter
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from lm.base import commands
from lm.base.console import format_table
from lm.base.errors import UserError
from lm.base.files import write_text
from lm.run.changes import CHANGEABLE_KEYS
from lm.run.directory import Pruned
from lm.run.lock import acquire
from lm.sweep.config import SweepConfig
from lm.sweep.jobs import Job, best_job, best_validation, combinations, describe_changes, group_by_seed
from lm.sweep.processes import kill_strays, stop_on_signals


class Grid(Sweeper):
    """Run a grid like Hydra's basic sweeper, and also resume it and summarize its results.

    The same command resumes a sweep that was stopped. This is not a subclass of Hydra's BasicSweeper, because Hydra's
    scan for plugins imports that module a second time.
    """

    kind: ClassVar[str] = "grid"
    allowed_change: ClassVar[str] = " (values may be added at the end of its first key)"
    config: DictConfig
    hydra_context: HydraContext
    launcher: Launcher

    def __init__(self, params: dict[str, str] | None) -> None:
        self.params = params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> None:
        """Run the sweep. Raises UserError for invalid settings, and SystemExit if a job failed or was stopped."""
        self.settings: SweepConfig = OmegaConf.to_object(self.config.sweep)  # type: ignore[assignment]
        self.directory = Path(self.config.hydra.sweep.dir)
        if (self.directory / "config.yaml").exists():
            raise UserError(f"{self.directory} is a run, not a sweep: choose another name=")
        lines = [*(f"{key}={value}" for key, value in self.params.items()), *arguments]
        parsed = OverridesParser.create(self.hydra_context.config_loader).parse_overrides(lines)
        overrides = {override.get_key_element(): override for override in parsed}  # the last one for each key
        self.swept = {key: o for key, o in overrides.items() if o.is_sweep_override()}
        for key in self.swept:
            if re.fullmatch(r"name|sweep(\..*)?", key):
                raise UserError(f"{key} takes one value: the jobs of a sweep are the runs 0, 1, ... in outputs/<name>/")
        self.fixed = {key: str(o.input_line) for key, o in overrides.items() if key not in self.swept}
        for name in ("hydra", "hydra_plugins"):
            logging.getLogger(name).setLevel(logging.WARNING)  # the messages of the sweepers replace them
        jobs = self.plan()
        with acquire(self.directory):
            self.check_unchanged(overrides)
            kill_strays(self.directory)
            try:
                self.run_jobs(jobs)
            except (SystemExit, KeyboardInterrupt):
                print(f"the sweep was interrupted; resume it with:\n  {self.same_command()}", flush=True)
                raise
            self.print_results(jobs)
        if any(job.status == "failed" for job in jobs):
            raise SystemExit(1)

    def same_command(self) -> str:
        """Return the command that was typed, with the sweep's name, which by default is the date and time."""
        named = any(re.match(r"\+*name=", word) for word in sys.argv[1:])
        name = [] if named else [commands.override("name", self.config.name)]
        return commands.shell(commands.python(), commands.checkout_path("train.py"), *sys.argv[1:], *name)

    def plan(self) -> list[Job]:
        """Return the jobs that are known from the start. Raises UserError if their configs are not valid."""
        for key, override in self.swept.items():
            if not override.is_discrete_sweep():
                raise UserError(
                    f"{override.input_line} is a range, but a grid takes values: use sweep=search, or give values, "
                    f"e.g. {key}=1e-3,3e-3"
                )
        jobs = [Job(i, overrides) for i, overrides in enumerate(combinations(self.choices()))]
        self.validate_batch_is_legal([self.overrides_of(job) for job in jobs])
        return jobs

    def choices(self) -> dict[str, list[str]]:
        """Return the values of each swept key."""
        return {key: list(override.sweep_string_iterator()) for key, override in self.swept.items()}

    def fixed_settings(self) -> dict[str, Any]:
        """Return the settings of the sweep, besides the swept keys, that must not change; for sweep.yaml."""
        return {}

    def overrides_of(self, job: Job) -> list[str]:
        """Return all overrides of a job, in Hydra's grammar."""
        return list((self.fixed | {key: f"{key}={value}" for key, value in job.overrides.items()}).values())

    def labels(self, job: Job) -> dict[str, str]:
        """Return the values that distinguish a job from the others, for the printed tables."""
        return job.overrides

    def check_unchanged(self, overrides: dict[str, Override]) -> None:
        """Record the sweep in sweep.yaml. Raises UserError if a different sweep was started in the directory."""
        path = self.directory / "sweep.yaml"
        fixed = {key: o.get_value_element_as_str() for key, o in overrides.items() if key not in self.swept}
        new = {
            "kind": self.kind,
            **self.fixed_settings(),
            "swept": {key: list(values) for key, values in self.choices().items()},
            "fixed": {
                key: value
                for key, value in fixed.items()
                if not f"{key}.".startswith((*CHANGEABLE_KEYS, "hydra", "sweep."))
            },
        }
        if path.exists() and any(self.directory.glob("*/checkpoints/*.ckpt")):
            old = yaml.safe_load(path.read_text(encoding="utf-8"))
            if changes := describe_changes(old, new):
                raise UserError(
                    f"{self.directory} contains a different sweep ({'; '.join(changes)}): resume it with its own "
                    f"settings{self.allowed_change}, or choose another name="
                )
        write_text(path, yaml.safe_dump(new, sort_keys=False))

    # ---- running

    @property
    def parallel_jobs(self) -> int | None:
        """Number of jobs that the launcher runs at a time; None if the launcher decides."""
        launcher = self.config.hydra.launcher
        if launcher._target_.endswith("BasicLauncher"):
            return 1
        if "n_jobs" not in launcher:
            return launcher.get("array_parallelism")
        from joblib import effective_n_jobs  # a dependency of the launcher

        return effective_n_jobs(launcher.n_jobs)

    def run_jobs(self, jobs: list[Job]) -> None:
        """Run all jobs. Jobs that have finished before end immediately (train.py)."""
        self.run_in_batches(jobs, jobs)

    @property
    def job_count(self) -> int:
        """Number of jobs of the whole sweep."""
        return len(combinations(self.choices()))

    def run_in_batches(self, new: list[Job], jobs: list[Job]) -> None:
        """Run the jobs `new`, which are some of all `jobs`, and record the results after each batch."""
        one_by_one = self.parallel_jobs == 1 or self.settings.fail_fast
        size = self.parallel_jobs if one_by_one and self.parallel_jobs else len(new)
        for start in range(0, len(new), size):
            if not self.should_end(jobs):
                self.launch(new[start : start + size])
                self.write_summary(jobs)

    def should_end(self, jobs: list[Job]) -> bool:
        return self.settings.fail_fast and any(job.status == "failed" for job in jobs)

    def launch(self, jobs: list[Job]) -> None:
        """Run jobs with consecutive numbers and record their results. Raises SystemExit when one is interrupted."""
        for job in jobs:
            labels = " ".join(f"{key}={value}" for key, value in self.labels(job).items())
            print(f"job {job.number} of {self.job_count}: {labels}", flush=True)
        with nullcontext() if self.parallel_jobs == 1 else stop_on_signals(self.directory):
            returned = self.launcher.launch([self.overrides_of(job) for job in jobs], jobs[0].number)
        for job, job_return in zip(jobs, returned, strict=True):
            self.record_result(job, job_return)

    def record_result(self, job: Job, returned: JobReturn) -> None:
        error = None if returned.status == JobStatus.COMPLETED else returned._return_value
        if error is None:
            job.status = "finished"
        else:
            job.status = "pruned" if isinstance(error, Pruned) else "failed"
        job.error = str(error) if job.status == "failed" else None
        self.read_best(job)

    def read_best(self, job: Job) -> None:
        job.best, job.step = best_validation(self.directory / str(job.number), self.settings.metric)

    # ---- results

    def write_summary(self, jobs: list[Job], **more: Any) -> None:
        best = best_job(jobs)
        head = {"kind": self.kind, "metric": self.settings.metric, "best": best.number if best else None}
        results = {**head, "jobs": [asdict(job) for job in jobs], **more}
        write_text(self.directory / "sweep.json", json.dumps(results, indent=2) + "\n")

    def print_results(self, jobs: list[Job]) -> None:
        """Print a table of the jobs and, if seeds are swept, of the means over them; write both to sweep.json."""
        print(f"\n{self.format_jobs(jobs)}")
        seeds = group_by_seed(jobs) if len(self.choices().get("seed", ())) > 1 else []
        self.write_summary(jobs, seeds=seeds)
        if seeds:
            lowest = min((group["mean"] for group in seeds if group["mean"] is not None), default=None)
            rows = [[*seeds[0]["overrides"], f"mean {self.settings.metric}", "sd", "seeds", ""]]
            for group in seeds:
                is_best = len(seeds) > 1 and lowest is not None and group["mean"] == lowest
                cells = (format_metric(group["mean"]), format_metric(group["sd"]), str(group["n"]))
                rows.append([*group["overrides"].values(), *cells, "best" if is_best else ""])
            print(f"\n{format_table(rows)}")
        print(f"\n{self.format_end(jobs)}", flush=True)

    def format_jobs(self, jobs: list[Job]) -> str:
        rows = [["job", *self.labels(jobs[0]), f"best {self.settings.metric}", "at step", "status", ""]]
        for job in jobs:
            step = "" if job.step is None else str(job.step)
            mark = "best" if job is best_job(jobs) else ""
            rows.append([str(job.number), *self.labels(job).values(), format_metric(job.best), step, job.status, mark])
        return format_table(rows)

    def format_end(self, jobs: list[Job]) -> str:
        counts = [f"{n} {status}" for status, n in Counter(job.status for job in jobs).items()]
        best = best_job(jobs)
        where = f"; best run: {self.directory / str(best.number)}" if best else ""
        return f"{len(jobs)} jobs: {', '.join(counts)}{where}; results: {self.directory / 'sweep.json'}"


def format_metric(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
