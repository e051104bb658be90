"""python train.py -m optimizer.lr=1e-3,3e-3 seed=1,2: a run for every combination; and what all sweepers do alike.

outputs/<name>/ holds sweep.yaml, the sweep as it was asked for, sweep.json, what came of it, and a run for each job.
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
from lm.sweep.jobs import Job, best_job, combinations, describe_changes, group_by_seed, lowest
from lm.sweep.processes import kill_strays, stop_on_signals


class Grid(Sweeper):
    """As Hydra's basic one; but the same command goes on where it stopped, and says what came of it.

    (Not a subclass of Hydra's: its plugins' scan executes that module anew.)
    """

    kind: ClassVar[str] = "grid"
    free: ClassVar[str] = ", with values added at the end of its first key if you like"
    config: DictConfig
    hydra_context: HydraContext
    launcher: Launcher

    def __init__(self, params: dict[str, str] | None) -> None:
        self.params = params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> None:
        """Raises UserError for what cannot be done, and SystemExit when a job failed or was interrupted."""
        self.settings: SweepConfig = OmegaConf.to_object(self.config.sweep)  # type: ignore[assignment]
        self.directory = Path(self.config.hydra.sweep.dir)
        if (self.directory / "config.yaml").exists():
            raise UserError(f"{self.directory} is a run, no sweep: choose another name=")
        lines = [*(f"{key}={value}" for key, value in self.params.items()), *arguments]
        parsed = OverridesParser.create(self.hydra_context.config_loader).parse_overrides(lines)
        typed = {override.get_key_element(): override for override in parsed}  # the last word on each key
        self.swept = {key: o for key, o in typed.items() if o.is_sweep_override()}
        for key in self.swept:
            if re.fullmatch(r"name|sweep(\..*)?", key):
                raise UserError(f"{key} takes one value: a sweep's jobs are the runs 0, 1, ... in outputs/<name>/")
        self.fixed = {key: str(o.input_line) for key, o in typed.items() if key not in self.swept}
        for name in ("hydra", "hydra_plugins"):
            logging.getLogger(name).setLevel(logging.WARNING)  # the launchers say what we say better
        jobs = self.plan()
        with acquire(self.directory):
            self.guard(typed)
            kill_strays(self.directory)
            try:
                self.explore(jobs)
            except (SystemExit, KeyboardInterrupt):
                print(f"the sweep was interrupted; resume it with:\n  {self.same_command()}", flush=True)
                raise
            self.conclude(jobs)
        if any(job.status == "failed" for job in jobs):
            raise SystemExit(1)

    def same_command(self) -> str:
        """Return the command that was typed, with the sweep's name, which by default is the date and time."""
        named = any(re.match(r"\+*name=", word) for word in sys.argv[1:])
        name = [] if named else [commands.override("name", self.config.name)]
        return commands.shell(commands.python(), commands.find_executable("train.py"), *sys.argv[1:], *name)

    def plan(self) -> list[Job]:
        """The jobs that are known from the start, after a look at whether they can be composed."""
        for key, override in self.swept.items():
            if not override.is_discrete_sweep():
                raise UserError(
                    f"{override.input_line} is a range to search in: sweep=search does; "
                    f"a grid takes values, e.g. {key}=1e-3,3e-3"
                )
        jobs = [Job(i, overrides) for i, overrides in enumerate(combinations(self.choices()))]
        self.validate_batch_is_legal([self.overrides_of(job) for job in jobs])
        return jobs

    def choices(self) -> dict[str, list[str]]:
        return {key: list(override.sweep_string_iterator()) for key, override in self.swept.items()}

    def asked(self) -> dict[str, Any]:
        """What of the sweep may not change, beside what is swept; for sweep.yaml."""
        return {}

    def overrides_of(self, job: Job) -> list[str]:
        return list((self.fixed | {key: f"{key}={value}" for key, value in job.overrides.items()}).values())

    def labels(self, job: Job) -> dict[str, str]:
        """What tells a job from the others, for people."""
        return job.overrides

    def guard(self, typed: dict[str, Override]) -> None:
        """Keep what was asked for in sweep.yaml. Raises UserError when other runs than these have begun there."""
        path = self.directory / "sweep.yaml"
        fixed = {key: o.get_value_element_as_str() for key, o in typed.items() if key not in self.swept}
        new = {
            "kind": self.kind,
            **self.asked(),
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
                    f"{self.directory} holds another sweep ({'; '.join(changes)}): type it as it was{self.free}, "
                    "or choose another name="
                )
        write_text(path, yaml.safe_dump(new, sort_keys=False))

    # ---- running

    @property
    def width(self) -> int | None:
        """How many jobs the launcher runs at a time; None: it knows best."""
        launcher = self.config.hydra.launcher
        if launcher._target_.endswith("BasicLauncher"):
            return 1
        if "n_jobs" not in launcher:
            return launcher.get("array_parallelism")
        from joblib import effective_n_jobs  # it comes with the launcher

        return effective_n_jobs(launcher.n_jobs)

    def explore(self, jobs: list[Job]) -> None:
        """Run them all. Those that are finished end at once: their runs say so (train.py)."""
        self.work(jobs, jobs)

    @property
    def total(self) -> int:
        """How many jobs there will be."""
        return len(combinations(self.choices()))

    def work(self, some: list[Job], jobs: list[Job]) -> None:
        one_by_one = self.width == 1 or self.settings.fail_fast
        size = self.width if one_by_one and self.width else len(some)
        for start in range(0, len(some), size):
            if not self.given_up(jobs):
                self.launch(some[start : start + size])
                self.write(jobs)

    def given_up(self, jobs: list[Job]) -> bool:
        return self.settings.fail_fast and any(job.status == "failed" for job in jobs)

    def launch(self, jobs: list[Job]) -> None:
        """Run jobs of consecutive numbers, and note what came of them. Raises SystemExit when one is interrupted."""
        for job in jobs:
            shown = " ".join(f"{key}={value}" for key, value in self.labels(job).items())
            print(f"job {job.number} of {self.total}: {shown}", flush=True)
        with nullcontext() if self.width == 1 else stop_on_signals(self.directory):
            returned = self.launcher.launch([self.overrides_of(job) for job in jobs], jobs[0].number)
        for job, what in zip(jobs, returned, strict=True):
            self.note(job, what)

    def note(self, job: Job, returned: JobReturn) -> None:
        error = None if returned.status == JobStatus.COMPLETED else returned._return_value
        job.status = "finished" if error is None else "pruned" if isinstance(error, Pruned) else "failed"
        job.error = str(error) if job.status == "failed" else None
        self.measure(job)

    def measure(self, job: Job) -> None:
        job.best, job.step = lowest(self.directory / str(job.number), self.settings.metric)

    # ---- what came of it

    def write(self, jobs: list[Job], **more: Any) -> None:
        best = best_job(jobs)
        about = {"kind": self.kind, "metric": self.settings.metric, "best": best.number if best else None}
        found = {**about, "jobs": [asdict(job) for job in jobs], **more}
        write_text(self.directory / "sweep.json", json.dumps(found, indent=2) + "\n")

    def conclude(self, jobs: list[Job]) -> None:
        """Print a table of the jobs, and where seeds are swept, of what they agree on; write both to sweep.json."""
        print(f"\n{self.summary(jobs)}")
        seeds = group_by_seed(jobs) if len(self.choices().get("seed", ())) > 1 else []
        self.write(jobs, seeds=seeds)
        if seeds:
            lowest = min((group["mean"] for group in seeds if group["mean"] is not None), default=None)
            rows = [[*seeds[0]["overrides"], f"mean {self.settings.metric}", "sd", "seeds", ""]]
            for group in seeds:
                mark = "best" * (len(seeds) > 1 and lowest is not None and group["mean"] == lowest)
                figures = (figure(group["mean"]), figure(group["sd"]), str(group["n"]))
                rows.append([*group["overrides"].values(), *figures, mark])
            print(f"\n{format_table(rows)}")
        print(f"\n{self.ending(jobs)}", flush=True)

    def summary(self, jobs: list[Job]) -> str:
        rows = [["job", *self.labels(jobs[0]), f"best {self.settings.metric}", "at step", "status", ""]]
        for job in jobs:
            step = "" if job.step is None else str(job.step)
            mark = "best" * (job is best_job(jobs))
            rows.append([str(job.number), *self.labels(job).values(), figure(job.best), step, job.status, mark])
        return format_table(rows)

    def ending(self, jobs: list[Job]) -> str:
        counts = [f"{n} {status}" for status, n in Counter(job.status for job in jobs).items()]
        best = best_job(jobs)
        lies = f"; the best lies in {self.directory / str(best.number)}" if best else ""
        return f"{len(jobs)} jobs: {', '.join(counts)}{lies}; {self.directory / 'sweep.json'} has the figures"


def figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
