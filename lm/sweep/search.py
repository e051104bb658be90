"""python train.py sweep=search 'optimizer.lr=tag(log,interval(1e-4,1e-1))': Optuna chooses each run by those before it.

(Hydra's own Optuna sweeper keeps no study with an Optuna of these years, and cannot end a trial early.) The study is a
journal in outputs/<name>/, and trial n is the run outputs/<name>/n: so the same command goes on.
"""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from lm.base import commands
from lm.base.errors import UserError
from lm.base.files import write_text
from lm.sweep.config import SweepConfig
from lm.sweep.grid import Grid
from lm.sweep.jobs import Job, best_job

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

JOURNAL = "study.journal"
ENOUGH = 10  # finished trials, to say what mattered


class Search(Grid):
    """Trial after trial, or as many at a time as the launcher runs. With one at a time, a search that was stopped and
    continued makes the trials that it would have made."""

    kind: ClassVar[str] = "search"
    free: ClassVar[str] = ", with another sweep.trials if you like"

    def plan(self) -> list[Job]:
        require_optuna()
        if not self.swept:
            raise UserError("a search needs something to search, e.g. 'optimizer.lr=tag(log,interval(1e-4,1e-2))'")
        self.space = {key: distribution(override) for key, override in self.swept.items()}
        ends = {key: example(space) for key, space in self.space.items()}
        self.validate_batch_is_legal([self.overrides_of(Job(0, ends))])
        return []  # a job is known when its turn comes

    def choices(self) -> dict[str, list[str]]:
        return {key: [override.get_value_string()] for key, override in self.swept.items()}

    def asked(self) -> dict[str, Any]:
        return {"sampler": self.settings.sampler, "metric": self.settings.metric}

    def overrides_of(self, job: Job) -> list[str]:
        return [*super().overrides_of(job), f"sweep.trial={job.number}"]

    @property
    def total(self) -> int:
        return self.settings.trials

    def labels(self, job: Job) -> dict[str, str]:
        return {key: f"{float(v):.4g}" if re.fullmatch(r"[\d.e-]{8,}", v) else v for key, v in job.overrides.items()}

    def explore(self, jobs: list[Job]) -> None:
        from optuna.trial import TrialState

        self.study = study = open_study(self.directory)
        told = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
        for trial in study.get_trials(states=tuple(told)):
            job = Job(trial.number, shown(trial.params), told[trial.state])
            self.measure(job)
            jobs.append(job)
        done = len(jobs)
        if done:
            print(f"{done} of {self.settings.trials} trials are done")
        width = self.width or self.settings.trials
        while not self.given_up(jobs[done:]):
            # what was under way when an earlier command ended comes first, as it was
            under_way = [trial.number for trial in study.get_trials(states=(TrialState.RUNNING,))]
            known = len(study.get_trials(deepcopy=False))
            numbers = under_way or range(known, self.settings.trials)
            batch = [self.begin(number) for number in numbers[:width]]
            if not batch:
                break
            self.launch(batch)
            jobs += batch
            self.write(jobs)

    def begin(self, number: int) -> Job:
        """The trial of this number, perhaps again. What it draws is a function of (seed, number) and the study, so that
        after a restart no draw is repeated."""
        from optuna.trial import Trial

        self.study.sampler = sampler(self.settings.sampler, self.config.seed, number)
        known = {frozen.number: frozen for frozen in self.study.get_trials(deepcopy=False)}
        trial = Trial(self.study, known[number]._trial_id) if number in known else self.study.ask()
        assert trial.number == number  # one process at a time asks: lm/run/lock.py
        return Job(number, {key: str(trial._suggest(key, space)) for key, space in self.space.items()})

    def note(self, job: Job, returned: Any) -> None:
        from optuna.trial import TrialState

        super().note(job, returned)
        if job.status == "finished":
            self.study.tell(job.number, job.best)
        else:
            state = TrialState.PRUNED if job.status == "pruned" else TrialState.FAIL
            self.study.tell(job.number, state=state)

    def conclude(self, jobs: list[Job]) -> None:
        weights = importance(self.study)
        super().conclude(jobs)
        self.write(jobs, importance=weights)
        self.tabulate(jobs)
        if weights:
            print("what mattered: " + ", ".join(f"{key} {weight:.0%}" for key, weight in weights.items()))
        if best := best_job(jobs):
            fixed = [line for key, line in self.fixed.items() if not key.startswith(("name", "sweep", "hydra"))]
            typed = [*fixed, *(f"{key}={value}" for key, value in best.overrides.items())]
            name = commands.override("name", f"{self.config.name}-best")
            print(f"to train the best again:\n  {commands.train([name, *typed])}", flush=True)

    def tabulate(self, jobs: list[Job]) -> None:
        """study.csv: a row for each trial."""
        keys, text = list(self.space), io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["trial", *keys, self.settings.metric, "step", "status"])
        for job in jobs:
            rows.writerow([job.number, *(job.overrides.get(k) for k in keys), job.best, job.step, job.status])
        write_text(self.directory / "study.csv", text.getvalue())


def require_optuna() -> None:
    """Raises UserError where it is not installed; silences it where it is."""
    try:
        import optuna
    except ImportError as error:
        raise UserError(f"sweep=search needs Optuna: {commands.install('.[sweep]')}") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def open_study(directory: Path, pruner: BasePruner | None = None) -> Study:
    from optuna import create_study
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    require_optuna()
    storage = JournalStorage(JournalFileBackend(str(directory / JOURNAL)))
    return create_study(study_name="study", storage=storage, pruner=pruner, load_if_exists=True)


def sampler(name: str, seed: int, number: int) -> BaseSampler:
    from optuna.samplers import RandomSampler, TPESampler

    drawn = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    return RandomSampler(seed=drawn) if name == "random" else TPESampler(seed=drawn)


def pruner(settings: SweepConfig, val_every: int, horizon: int) -> BasePruner:
    """Its steps are optimizer steps."""
    from optuna.pruners import HyperbandPruner, MedianPruner

    first = (settings.warmup + 1) * val_every  # the validation that may be a trial's last
    if settings.pruner == "hyperband":
        return HyperbandPruner(min_resource=first, max_resource=max(first, horizon))
    return MedianPruner(n_startup_trials=settings.startup, n_warmup_steps=first)


def distribution(override: Override) -> BaseDistribution:
    """What a sweep in Hydra's grammar means to Optuna. Raises UserError for what no search can use."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = override.value()
    log = "log" in getattr(value, "tags", ())
    try:
        if isinstance(value, IntervalSweep):
            if isinstance(value.start, int):
                return IntDistribution(value.start, int(value.end or 0), log=log)
            return FloatDistribution(value.start or 0.0, value.end or 0.0, log=log)
        if isinstance(value, RangeSweep):
            values = sorted(value.range())
            if not values:
                raise UserError("it is empty")
            if isinstance(values[0], int):
                return IntDistribution(values[0], int(values[-1]), log=log, step=int(abs(value.step)))
            return FloatDistribution(values[0], values[-1], log=log, step=None if log else abs(value.step))
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    except ValueError as error:
        raise UserError(f"{override.input_line} is no range: {error}") from error


def example(space: BaseDistribution) -> str:
    """A value of it, to compose a job with before there are any."""
    return str(getattr(space, "choices", (getattr(space, "low", None),))[0])


def shown(params: dict[str, Any]) -> dict[str, str]:
    return {key: str(value) for key, value in params.items()}


def importance(study: Study) -> dict[str, float]:
    """Each key's share in what made the finished trials differ; empty where they are too few to tell, or all alike."""
    from optuna.importance import get_param_importances
    from optuna.trial import TrialState

    if len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) < ENOUGH:
        return {}
    try:
        return get_param_importances(study)
    except (ValueError, RuntimeError):
        return {}
