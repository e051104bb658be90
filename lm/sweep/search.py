"""A search: Optuna chooses the values of each run by the results of the runs before it.

    python train.py sweep=search 'optimizer.lr=tag(log,interval(1e-4,1e-1))'

Hydra's own Optuna sweeper cannot store a study with current versions of Optuna, and cannot end a trial early. Here the
study is a journal in outputs/<name>/, and trial n is the run outputs/<name>/n, so the same command resumes the search.
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
MIN_TRIALS_FOR_IMPORTANCE = 10  # finished trials


class Search(Grid):
    """Run trials one after the other, or as many at a time as the launcher runs.

    One at a time, a search that was stopped and resumed makes the same trials as an uninterrupted one.
    """

    kind: ClassVar[str] = "search"
    allowed_change: ClassVar[str] = " (sweep.trials may change)"

    def plan(self) -> list[Job]:
        require_optuna()
        if not self.swept:
            raise UserError(
                "a search needs a range or a list of values, e.g. 'optimizer.lr=tag(log,interval(1e-4,1e-2))'"
            )
        self.space = {key: distribution(override) for key, override in self.swept.items()}
        examples = {key: example_value(space) for key, space in self.space.items()}
        self.validate_batch_is_legal([self.overrides_of(Job(0, examples))])
        return []  # Optuna chooses each job when it is started

    def choices(self) -> dict[str, list[str]]:
        return {key: [override.get_value_string()] for key, override in self.swept.items()}

    def fixed_settings(self) -> dict[str, Any]:
        return {"sampler": self.settings.sampler, "metric": self.settings.metric}

    def overrides_of(self, job: Job) -> list[str]:
        return [*super().overrides_of(job), f"sweep.trial={job.number}"]

    @property
    def job_count(self) -> int:
        return self.settings.trials

    def labels(self, job: Job) -> dict[str, str]:
        return {key: f"{float(v):.4g}" if re.fullmatch(r"[\d.e-]{8,}", v) else v for key, v in job.overrides.items()}

    def run_jobs(self, jobs: list[Job]) -> None:
        from optuna.trial import TrialState

        self.study = study = open_study(self.directory)
        statuses = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
        for trial in study.get_trials(states=tuple(statuses)):
            params = {key: str(value) for key, value in trial.params.items()}
            job = Job(trial.number, params, statuses[trial.state])
            self.read_best(job)
            jobs.append(job)
        done = len(jobs)
        if done:
            print(f"{done} of {self.settings.trials} trials are done")
        batch_size = self.parallel_jobs or self.settings.trials
        while not self.should_end(jobs[done:]):
            # first the trials that were running when an earlier command was stopped, with the same values
            interrupted = [trial.number for trial in study.get_trials(states=(TrialState.RUNNING,))]
            known = len(study.get_trials(deepcopy=False))
            numbers = interrupted or range(known, self.settings.trials)
            batch = [self.start_trial(number) for number in numbers[:batch_size]]
            if not batch:
                break
            self.launch(batch)
            jobs += batch
            self.write_summary(jobs)

    def start_trial(self, number: int) -> Job:
        """Start the trial of this number, or start it again if it was interrupted.

        Its random values are a function of (seed, number) and the study, so a restarted search repeats no values.
        """
        from optuna.trial import Trial

        self.study.sampler = build_sampler(self.settings.sampler, self.config.seed, number)
        known = {frozen.number: frozen for frozen in self.study.get_trials(deepcopy=False)}
        trial = Trial(self.study, known[number]._trial_id) if number in known else self.study.ask()
        assert trial.number == number  # only one process asks at a time: lm/run/lock.py
        return Job(number, {key: str(trial._suggest(key, space)) for key, space in self.space.items()})

    def record_result(self, job: Job, returned: Any) -> None:
        from optuna.trial import TrialState

        super().record_result(job, returned)
        if job.status == "finished":
            self.study.tell(job.number, job.best)
        else:
            state = TrialState.PRUNED if job.status == "pruned" else TrialState.FAIL
            self.study.tell(job.number, state=state)

    def print_results(self, jobs: list[Job]) -> None:
        weights = importance(self.study)
        super().print_results(jobs)
        self.write_summary(jobs, importance=weights)
        self.write_csv(jobs)
        if weights:
            print("importance: " + ", ".join(f"{key} {weight:.0%}" for key, weight in weights.items()))
        if best := best_job(jobs):
            fixed = [line for key, line in self.fixed.items() if not key.startswith(("name", "sweep", "hydra"))]
            overrides = [*fixed, *(f"{key}={value}" for key, value in best.overrides.items())]
            name = commands.override("name", f"{self.config.name}-best")
            print(f"to train the best run again:\n  {commands.train([name, *overrides])}", flush=True)

    def write_csv(self, jobs: list[Job]) -> None:
        """Write study.csv, with a row for each trial."""
        keys, text = list(self.space), io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["trial", *keys, self.settings.metric, "step", "status"])
        for job in jobs:
            rows.writerow([job.number, *(job.overrides.get(k) for k in keys), job.best, job.step, job.status])
        write_text(self.directory / "study.csv", text.getvalue())


def require_optuna() -> None:
    """Import Optuna and silence its log. Raises UserError if it is not installed."""
    try:
        import optuna
    except ImportError as error:
        raise UserError(f"sweep=search needs Optuna: {commands.install('.[sweep]')}") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def open_study(directory: Path, pruner: BasePruner | None = None) -> Study:
    """Open the study of a search, or create it."""
    from optuna import create_study
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    require_optuna()
    storage = JournalStorage(JournalFileBackend(str(directory / JOURNAL)))
    return create_study(study_name="study", storage=storage, pruner=pruner, load_if_exists=True)


def build_sampler(name: str, seed: int, number: int) -> BaseSampler:
    """Build the sampler of trial `number`. Its random numbers depend on (seed, number) only."""
    from optuna.samplers import RandomSampler, TPESampler

    trial_seed = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    return RandomSampler(seed=trial_seed) if name == "random" else TPESampler(seed=trial_seed)


def build_pruner(settings: SweepConfig, val_every: int, horizon: int) -> BasePruner:
    """Build the pruner of a search. It counts optimizer steps."""
    from optuna.pruners import HyperbandPruner, MedianPruner

    first = (settings.warmup + 1) * val_every  # step of the first validation after which a trial may be ended
    if settings.pruner == "hyperband":
        return HyperbandPruner(min_resource=first, max_resource=max(first, horizon))
    return MedianPruner(n_startup_trials=settings.startup, n_warmup_steps=first)


def distribution(override: Override) -> BaseDistribution:
    """Convert a sweep in Hydra's grammar to a distribution of Optuna. Raises UserError if Optuna cannot use it."""
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
        raise UserError(f"{override.input_line} is not a valid range: {error}") from error


def example_value(space: BaseDistribution) -> str:
    """Return one value of a distribution, to validate the config of a job before the search starts."""
    return str(getattr(space, "choices", (getattr(space, "low", None),))[0])


def importance(study: Study) -> dict[str, float]:
    """Return the share of each key in the differences between finished trials.

    It is empty if there are too few trials or if all are equal.
    """
    from optuna.importance import get_param_importances
    from optuna.trial import TrialState

    if len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) < MIN_TRIALS_FOR_IMPORTANCE:
        return {}
    try:
        return get_param_importances(study)
    except (ValueError, RuntimeError):
        return {}
