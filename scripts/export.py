"""Export a trained model: python scripts/export.py outputs/mine --format hf --out my_model

hf           a directory for Hugging Face's AutoModelForCausalLM and AutoTokenizer
inference    a .ckpt file with weights, config and tokenizer only, a third of the size of the training checkpoint;
             the scripts of this project can read it
safetensors  the same content as one .safetensors file, with config and tokenizer in its metadata
activations  what the model computes on the text in --text, as a .safetensors file with TransformerLens's names
"""

import argparse
import json

try:
    from lm import cli
except ModuleNotFoundError:
    raise SystemExit("error: lm is not installed; run `make install`, then use .venv/bin/python") from None

from lm.analysis.activations import export_activations
from lm.base.errors import UserError
from lm.run.export import SUFFIX, export


@cli.script
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "run", type=cli.path, metavar="RUN", help="a run directory (its best checkpoint is used) or a .ckpt file"
    )
    parser.add_argument("--format", choices=[*SUFFIX, "activations"], default="hf", help="see above (default: hf)")
    parser.add_argument(
        "--out", type=cli.path, help="output path (default: in the run directory, named after the format)"
    )
    parser.add_argument("--text", metavar="TEXT", help="the text to read, with --format activations")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    args = parser.parse_args()
    if (args.format == "activations") != (args.text is not None):
        raise UserError("--format activations needs a text to read: --text 'To be'; other formats take none")
    if args.format == "activations":
        result = export_activations(args.run, args.text, args.out)
    else:
        result = export(args.run, args.format, args.out)
    print(json.dumps(result) if args.json else f"{result['out']}: {result['bytes'] / 1e6:,.1f} MB")


if __name__ == "__main__":
    main()
