"""python train.py sweep=population: several seeds start, and round by round the best are trained on by several others.

(After femtoGPT's train.py, which ranked by the loss of one training step; here validation decides.) A child begins with
the weights and the optimizer's averages of its parent's last checkpoint: by init_from= and init_optimizer=keep, not by
trainer.fork=, which holds a run to its parent's seed, and so to the same batches for all children, and to its depth.
Each round is a whole schedule, from warm-up to its end.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from lm.base.errors import UserError
from lm.model.growth import insert_layer
from lm.run import checkpoint
from lm.run.directory import read_record
from lm.sweep.grid import Grid
from lm.sweep.jobs import Job


class Population(Grid):
    """Nothing is kept but the runs: who survived follows from their figures, so the same command goes on."""

    kind: ClassVar[str] = "population"
    free: ClassVar[str] = ", with more sweep.rounds if you like"

    def plan(self) -> list[Job]:
        if self.swept:
            raise UserError(
                f"a population is made of seeds, and all else is the same: give {next(iter(self.swept))} one value"
            )
        first = [self.child(i, None) for i in range(self.settings.population)]
        self.validate_batch_is_legal([self.overrides_of(first[0])])
        return first

    @property
    def total(self) -> int:
        return self.settings.population * self.settings.rounds

    def asked(self) -> dict[str, Any]:
        keys = ("population", "survivors", "steps", "grow", "metric")
        return {key: getattr(self.settings, key) for key in keys}

    def child(self, number: int, parent: Job | None) -> Job:
        overrides = {"seed": str(self.config.seed + number), "trainer.max_steps": str(self.settings.steps)}
        if parent is None:
            return Job(number, overrides)
        origin = self.directory / str(parent.number) / "checkpoints" / "last.ckpt"
        if self.settings.grow:
            origin, layers = self.grown(origin, parent.number)
            overrides["model.n_layer"] = str(layers)
        begun = {"init_from": f"'{origin}'", "init_optimizer": "keep"}  # a name may have what Hydra takes for grammar
        return Job(number, overrides | begun, parent=parent.number)

    def grown(self, origin: Path, number: int) -> tuple[Path, int]:
        """A copy of the checkpoint with a layer more, in the middle; and how many it has."""
        data = checkpoint.read(origin)
        layers, path = data["lm"]["model"]["n_layer"], self.directory / "grown" / f"{number}.ckpt"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            checkpoint.write(insert_layer(data, layers // 2), path)
        return path, layers + 1

    def explore(self, jobs: list[Job]) -> None:
        parents: list[Job] = []
        for r in range(self.settings.rounds):
            size = self.settings.population
            if r:
                jobs += [self.child(r * size + i, parents[i % len(parents)]) for i in range(size)]
            self.work(jobs[-size:], jobs)
            ranked = sorted((job for job in jobs[-size:] if job.status == "finished"), key=self.final)
            parents = ranked[: self.settings.survivors]
            if self.given_up(jobs) or not parents:
                break
            print(f"round {r}: {', '.join(f'job {job.number}' for job in parents)} did best", flush=True)

    def final(self, job: Job) -> float:
        """What a job had at its end, where its children begin."""
        return read_record(self.directory / str(job.number) / "run.json")["metrics"][self.settings.metric]

    def labels(self, job: Job) -> dict[str, str]:
        parent = "" if job.parent is None else str(job.parent)
        return {"round": str(job.number // self.settings.population), "parent": parent, "seed": job.overrides["seed"]}
