"""Insert a layer into a run's model, so that it computes the same: python scripts/grow.py outputs/mine --at 2

A new run is made of it, to be trained on, with the weights, the optimizer's state, the step and the curve of the old
one, which stays as it is.
"""

import argparse
import json
import shutil
from pathlib import Path

try:
    from lm import cli
except ModuleNotFoundError:
    raise SystemExit("error: lm is not installed; run `make install`, then use .venv/bin/python") from None

import yaml

from lm.base import commands
from lm.base.errors import UserError
from lm.base.files import replacing
from lm.model.growth import insert_layer
from lm.run import checkpoint


@cli.script
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=cli.path, metavar="RUN", help="a run directory; its last checkpoint is taken")
    parser.add_argument("--at", type=int, help="in front of which block, from 0 (default: in the middle)")
    parser.add_argument("--name", help="of the new run (default: RUN-grown)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    args = parser.parse_args()
    found = grow(args.run, args.at, args.name)
    if args.json:
        print(json.dumps(found))
    else:
        print(f"{found['run']}: {found['n_layer']} layers at step {found['step']}; go on with\n  {found['command']}")


def grow(run: Path, at: int | None, name: str | None) -> dict:
    last = run / "checkpoints" / "last.ckpt"
    data = checkpoint.read(last)
    layers = data["lm"]["model"]["n_layer"]
    at = layers // 2 if at is None else at
    data = insert_layer(data, at)
    name = name or f"{run.name}-grown"
    target = run.parent / name
    if target.exists():
        raise UserError(f"{target} is there already; choose another --name")
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    config["name"], config["model"]["n_layer"] = name, layers + 1
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    origin = {"run": str(run), "step": data["global_step"], "at": at}
    record |= {"name": name, "status": "grown", "grown_from": [*record.get("grown_from", []), origin]}
    with replacing(target) as aside:
        (aside / "checkpoints").mkdir(parents=True)
        checkpoint.write(data, aside / "checkpoints" / "last.ckpt")
        (aside / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        (aside / "run.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        for kept in ("tokenizer.json", "metrics.csv", "samples.md"):
            if (run / kept).exists():
                shutil.copyfile(run / kept, aside / kept)
    changes = {"model.n_layer": layers + 1, "trainer.max_steps": 2 * data["global_step"]}
    again = commands.resume(target, record["overrides"], changes)
    return {"run": str(target), "n_layer": layers + 1, "at": at, "step": data["global_step"], "command": again}


if __name__ == "__main__":
    main()
