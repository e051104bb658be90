"""Population training: several seeds compete, and each round continues from the best.

    python train.py sweep=population

The method is that of femtoGPT's train.py, which ranks by the loss of one training step; here val/loss decides. A child
starts from the weights and the optimizer state of its parent's last checkpoint, by init_from= and init_optimizer=keep.
It does not use trainer.fork=, because a fork keeps the seed of its parent, which would give all children the same
batches, and its number of layers. Each round is a whole schedule, from warm-up to its end.
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
    """Train rounds of runs. The survivors follow from the results of the runs, so the same command resumes it."""

    kind: ClassVar[str] = "population"
    allowed_change: ClassVar[str] = ", with more sweep.rounds if you like"

    def plan(self) -> list[Job]:
        if self.swept:
            raise UserError(
                f"the runs of a population differ only in their seed: give {next(iter(self.swept))} one value"
            )
        first = [self.child(i, None) for i in range(self.settings.population)]
        self.validate_batch_is_legal([self.overrides_of(first[0])])
        return first

    @property
    def job_count(self) -> int:
        return self.settings.population * self.settings.rounds

    def fixed_settings(self) -> dict[str, Any]:
        keys = ("population", "survivors", "steps", "grow", "metric")
        return {key: getattr(self.settings, key) for key in keys}

    def child(self, number: int, parent: Job | None) -> Job:
        """Return the job of this number, which starts from its parent if there is one."""
        overrides = {"seed": str(self.config.seed + number), "trainer.max_steps": str(self.settings.steps)}
        if parent is None:
            return Job(number, overrides)
        origin = self.directory / str(parent.number) / "checkpoints" / "last.ckpt"
        if self.settings.grow:
            origin, layers = self.grow_checkpoint(origin, parent.number)
            overrides["model.n_layer"] = str(layers)
        # quoted, because a name may contain characters of Hydra's grammar
        overrides |= {"init_from": f"'{origin}'", "init_optimizer": "keep"}
        return Job(number, overrides, parent=parent.number)

    def grow_checkpoint(self, origin: Path, number: int) -> tuple[Path, int]:
        """Write a copy of the checkpoint with one more layer in the middle; return its path and number of layers."""
        data = checkpoint.read(origin)
        layers, path = data["lm"]["model"]["n_layer"], self.directory / "grown" / f"{number}.ckpt"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            checkpoint.write(insert_layer(data, layers // 2), path)
        return path, layers + 1

    def run_jobs(self, jobs: list[Job]) -> None:
        parents: list[Job] = []
        for r in range(self.settings.rounds):
            size = self.settings.population
            if r:
                jobs += [self.child(r * size + i, parents[i % len(parents)]) for i in range(size)]
            self.run_in_batches(jobs[-size:], jobs)
            ranked = sorted((job for job in jobs[-size:] if job.status == "finished"), key=self.final_metric)
            parents = ranked[: self.settings.survivors]
            if self.should_end(jobs) or not parents:
                break
            print(f"round {r}: best: {', '.join(f'job {job.number}' for job in parents)}", flush=True)

    def final_metric(self, job: Job) -> float:
        """Return the metric at the end of a job, where its children start."""
        return read_record(self.directory / str(job.number) / "run.json")["metrics"][self.settings.metric]

    def labels(self, job: Job) -> dict[str, str]:
        parent = "" if job.parent is None else str(job.parent)
        return {"round": str(job.number // self.settings.population), "parent": parent, "seed": job.overrides["seed"]}
