"""Evaluate a model on a text: python scripts/evaluate.py RUN [FILE]

The text is the run's own validation text, a FILE, or another corpus. The results are nats per token, bits per byte and
per character, and perplexity per word. Bits per byte compare models with different tokenizers on the same text.

python scripts/evaluate.py outputs/mine                            the same loss as val/loss in training
python scripts/evaluate.py outputs/mine --stride 32                give each token nearly all the context possible
python scripts/evaluate.py outputs/mine my.txt --worst 5           also print the passages with the highest loss
python scripts/evaluate.py outputs/mine --corpus text corpus.path=my.jsonl --split train --max-tokens 100000
python scripts/evaluate.py outputs/mine --task ten_actions         test the task of a synthetic corpus
"""

import argparse
import json

try:
    from lm import cli
except ModuleNotFoundError:
    raise SystemExit("error: lm is not installed; run `make install`, then use .venv/bin/python") from None

from lm.base.hardware import ACCELERATORS
from lm.evaluate.tasks import PROCEDURES, TASKS
from lm.evaluate.tasks.cases import SEED
from lm.experiment.evaluation import (
    EvaluationOptions,
    evaluate_task,
    evaluate_text,
    format_task_result,
    format_text_result,
)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("run", metavar="RUN", help="a run directory (its best checkpoint), a .ckpt file, or hf:DIRECTORY")
    add = parser.add_argument_group("text to predict (default: the run's own validation text)").add_argument
    add("words", nargs="*", metavar="FILE", help="a text file (also .gz, .zst, .zip), or - for standard input")
    add("--corpus", metavar="NAME", help="a corpus, named as after corpus=; give its settings as key=value")
    add("--split", choices=("train", "val", "test"), help="split of the corpus (default: val)")
    add("--max-tokens", type=int, metavar="N", help="use only the first N tokens")
    add("--parse-special", action="store_true", help="encode the name of a special token in the text as that token "
        "(default if the run was trained with tokenizer.parse_special=true)")  # fmt: skip
    add = parser.add_argument_group("task of a synthetic corpus, instead of a text").add_argument
    add("--task", choices=TASKS, help="ask the model fresh cases of this task; most tasks are answered greedily")
    add("--procedure", choices=PROCEDURES, default="strict", help="log: ask ten_actions as femtoGPT's log did "
        "(default: strict)")  # fmt: skip
    add("--cases", type=int, default=100, metavar="N", help="cases of each kind; with --procedure log, in total "
        "(default: 100)")  # fmt: skip
    add("--seed", type=int, default=SEED, help=f"seed of the cases (default: {SEED})")
    add = parser.add_argument_group("computation").add_argument
    add("--stride", type=int, metavar="N", help="tokens between windows (default: model.block_size)")
    add("--batch-size", type=int, default=16, metavar="N", help="windows at a time (default: 16)")
    add("--device", default="auto", choices=ACCELERATORS)
    add = parser.add_argument_group("output").add_argument
    add("--positions", action="store_true", help="show the loss by the number of tokens before")
    add("--worst", type=int, default=0, metavar="N", help="show the N passages with the highest loss")
    add("--json", action="store_true", help="print JSON instead of a table")
    return parser.parse_intermixed_args()


@cli.script
def main() -> None:
    args = vars(parse_arguments())
    as_json = args.pop("json")
    options = EvaluationOptions(**args)
    if options.task:
        result = evaluate_task(options)
        table = format_task_result(result)
    else:
        result = evaluate_text(options)
        table = format_text_result(result)
    print(json.dumps(result) if as_json else table)


if __name__ == "__main__":
    main()
