"""Settings of the sweepers. Hydra imports this module at every tab completion, so it does not import the sweepers."""

from __future__ import annotations

from dataclasses import dataclass

from lm.base.checks import Check

METRICS = ("val/loss", "val/bpb")


@dataclass
class SweepConfig:
    """Settings of the sweepers. A single run does not use them, so config.yaml does not contain them."""

    metric: str = "val/loss"  # metric to compare runs by, at its lowest value over all validations: val/loss | val/bpb
    fail_fast: bool = False  # end the sweep at the first job that fails

    # sweep=search
    trials: int = 20  # sweep=search: number of runs, including those of earlier commands
    sampler: str = "tpe"  # sweep=search: how values are proposed: tpe | random
    pruner: str = "median"  # sweep=search: how unpromising trials are ended early: median | hyperband | none
    warmup: int = 2  # sweep=search: validations before a trial may be ended early
    startup: int = 5  # sweep=search: trials to finish before the first may be ended early
    trial: int | None = None  # sweep=search: number of the trial that a job is; set by the search

    # sweep=population
    population: int = 4  # sweep=population: runs in a round
    survivors: int = 2  # sweep=population: number of best runs that the next round continues from
    rounds: int = 3  # sweep=population: number of rounds
    steps: int = 500  # sweep=population: optimizer steps of each run in a round
    grow: bool = False  # sweep=population: insert a layer into the middle of each survivor between rounds

    def __post_init__(self) -> None:
        check = Check("sweep", self)
        check.one_of("metric", METRICS)
        check.one_of("sampler", ("tpe", "random"))
        check.one_of("pruner", ("median", "hyperband", "none"))
        for key in ("trials", "population", "survivors", "rounds", "steps"):
            check.at_least(key, 1)
        for key in ("warmup", "startup"):
            check.at_least(key, 0)
        check.require(self.survivors <= self.population, "survivors", f"be at most sweep.population={self.population}")
        check.done()
