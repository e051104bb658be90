"""Take a trained model elsewhere: python scripts/export.py outputs/mine --format hf --out my_model

hf           a directory that Hugging Face's AutoModelForCausalLM and AutoTokenizer open
inference    a .ckpt with weights, config and tokenizer alone: a third of the training checkpoint; our scripts read it
safetensors  the same as one .safetensors file, config and tokenizer in its metadata
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

try:
    from lm import cli
except ModuleNotFoundError:
    raise SystemExit("error: lm is not installed; run `make install`, then use .venv/bin/python") from None

from safetensors.torch import save_file

from lm.base.errors import UserError
from lm.base.files import replacing
from lm.model import huggingface
from lm.run import checkpoint

SUFFIX = {"hf": "", "inference": ".ckpt", "safetensors": ".safetensors"}


@cli.script
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=cli.path, metavar="RUN", help="a run (its best checkpoint) or a .ckpt file")
    parser.add_argument("--format", choices=SUFFIX, default="hf")
    parser.add_argument("--out", type=cli.path, help="where to (default: the format's name in the run directory)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a line")
    args = parser.parse_args()
    found = export(args.run, args.format, args.out)
    print(json.dumps(found) if args.json else f"{found['out']}: {found['bytes'] / 1e6:,.1f} MB")


def export(run: Path, form: str, out: Path | None) -> dict:
    source = checkpoint.load(run)
    place = Path(str(run).removeprefix("hf:")).expanduser()
    out = out or (place if place.is_dir() else place.parent) / f"{form}{SUFFIX[form]}"
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"{out} already holds files; remove it, or name another place with --out")
    model, about = source.model, checkpoint.describe(source.model, source.tokenizer)
    if form == "hf":
        huggingface.export(model, source.tokenizer, out)
    elif form == "inference":
        state = {f"model.{name}": value for name, value in model.state_dict().items()}
        checkpoint.write(
            {"state_dict": state, "global_step": source.step, "lm": about | {"metrics": source.metrics}}, out
        )
    else:
        state = dict(model.state_dict())
        if model.config.tie_embeddings:
            del state["head.weight"]  # is wte.weight
        about |= {"model": asdict(model.config), "step": source.step}
        with replacing(out) as aside:
            save_file(
                state,
                aside,
                {key: value if isinstance(value, str) else json.dumps(value) for key, value in about.items()},
            )
    files = [path for path in out.rglob("*") if path.is_file()] if out.is_dir() else [out]
    return {"out": str(out), "format": form, "bytes": sum(path.stat().st_size for path in files)}


if __name__ == "__main__":
    main()
