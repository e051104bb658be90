"""How good is a model? python scripts/evaluate.py outputs/mine [FILE]

On the run's own validation text, on a FILE of yours, or on another corpus, in nats per token, bits per byte and per
character, perplexity per word. Bits per byte compare models of any two tokenizers on the same text.

python scripts/evaluate.py outputs/mine                            as val/loss is counted
python scripts/evaluate.py outputs/mine --stride 32                each token with nearly all the context there can be
python scripts/evaluate.py outputs/mine my.txt --worst 5           and what it finds hardest
python scripts/evaluate.py outputs/mine --corpus text corpus.path=my.jsonl --split train --max-tokens 100000
python scripts/evaluate.py outputs/mine --task ten_actions         whether it has learnt a made-up language's task
"""

import argparse
import json
import sys
import time

try:
    from lm import cli
except ModuleNotFoundError:
    raise SystemExit("error: lm is not installed; run `make install`, then use .venv/bin/python") from None

import numpy as np

from lm.base.console import format_table, progress
from lm.base.errors import UserError
from lm.base.hardware import ACCELERATORS, device_type
from lm.config import compose_config, load_section
from lm.config.words import files_and_settings
from lm.data import user_text
from lm.data.corpus import Split
from lm.data.token_files import cache_tokens, encode_split
from lm.evaluate.score import by_position, doubling, score, summary, worst
from lm.evaluate.tasks import PROCEDURES, TASKS, score_task
from lm.evaluate.tasks.cases import SEED
from lm.evaluate.tasks.scoring import passed
from lm.run.checkpoint import Checkpoint, load
from lm.run.directory import find_run, parses_special, read_record

FIGURES = {
    "loss": ("nats per token", ".4f"), "ppl": ("perplexity", ",.3f"), "bits_per_byte": ("bits per byte", ".4f"),
    "bits_per_char": ("bits per character", ".4f"), "word_ppl": ("perplexity per word", ",.2f"),
    "accuracy": ("likeliest token is right", ".2%"), "accuracy_top5": ("right one is in the first five", ".2%"),
    "tokens": ("tokens", ",d"), "bytes": ("bytes", ",d"), "chars": ("characters", ",d"),
    "words": ("words and line ends", ",d"), "unknown": ("unknown tokens", ",d"),
}  # fmt: skip


@cli.script
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "run", metavar="RUN", help="a run directory (its best checkpoint), a .ckpt file or hf:DIRECTORY"
    )
    what = parser.add_argument_group("what it is to predict (default: the run's own validation text)")
    what.add_argument(
        "words", nargs="*", metavar="FILE", help="a text file (.gz, .zst, .zip too), - for standard input"
    )
    what.add_argument("--corpus", metavar="NAME", help="a corpus as corpus= names it, with its settings as key=value")
    what.add_argument("--split", choices=("train", "val", "test"), help="of the corpus (default: val)")
    what.add_argument("--max-tokens", type=int, metavar="N", help="only the first N tokens")
    what.add_argument("--parse-special", action="store_true", help="text that spells a special token gives that token "
                      "(the default where the run was trained with tokenizer.parse_special=true)")  # fmt: skip
    what.add_argument("--task", choices=TASKS, help="instead of a text: a made-up language's task, asked by greedy "
                      "answers to fresh cases")  # fmt: skip
    what.add_argument("--procedure", choices=PROCEDURES, default="strict", help="log: ten_actions as femtoGPT's log "
                      "asked it (default: strict)")  # fmt: skip
    what.add_argument("--cases", type=int, default=100, metavar="N", help="of each kind, by the log's procedure in all "
                      "(default: 100)")  # fmt: skip
    what.add_argument("--seed", type=int, default=SEED, help=f"of the cases (default: {SEED})")
    how = parser.add_argument_group("how")
    how.add_argument("--stride", type=int, metavar="N", help="tokens between windows (default: model.block_size)")
    how.add_argument("--batch-size", type=int, default=16, metavar="N", help="windows at a time (default: 16)")
    how.add_argument("--device", default="auto", choices=ACCELERATORS)
    shows = parser.add_argument_group("what to show")
    shows.add_argument("--positions", action="store_true", help="the loss by how many tokens stood before")
    shows.add_argument("--worst", type=int, default=0, metavar="N", help="the N passages that it predicts worst")
    shows.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_intermixed_args()
    found = ask(args) if args.task else evaluate(args)
    print(json.dumps(found) if args.json else answered(found) if args.task else shown(found))


def ask(args: argparse.Namespace) -> dict:
    if args.words or args.corpus:
        raise UserError(f"--task {args.task} asks about a text of its own: name neither FILE nor --corpus")
    if args.cases < 1:
        raise UserError(f"--cases={args.cases} must be at least 1")
    device = device_type(args.device, "--device")
    checkpoint = load(args.run)
    folder = find_run(checkpoint.path)
    language = load_section(folder / "config.yaml", "corpus") if folder else None
    model = checkpoint.model.to(device)
    started = time.perf_counter()
    found = score_task(model, checkpoint.tokenizer, args.task, language, args.procedure, args.cases, args.seed)
    print(f"{sum(rate.asked for rate in found):,} answers in {time.perf_counter() - started:.1f} s", file=sys.stderr)
    rates = [
        {
            "kind": r.kind,
            "right": r.right,
            "asked": r.asked,
            "rate": r.rate,
            "low": r.interval[0],
            "high": r.interval[1],
        }
        for r in found
    ]
    return {
        "checkpoint": str(checkpoint.path), "step": checkpoint.step, "task": args.task, "procedure": args.procedure,
        "seed": args.seed, "passed": passed(found, args.procedure), "rates": rates,
    }  # fmt: skip


def answered(found: dict) -> str:
    rows = [
        (
            r["kind"],
            f"{r['right']:,}",
            f"{r['asked'] - r['right']:,}",
            f"{r['rate']:.1%}",
            f"{r['low']:.1%}",
            f"{r['high']:.1%}",
        )
        for r in found["rates"]
    ]
    task = TASKS[found["task"]].kind
    head = f"{found['checkpoint']}, step {found['step']}, {found['task']}, {found['procedure']} procedure"
    wanted = "more than 70 %" if found["procedure"] == "log" else "95 % or more"
    verdict = f"{'passed' if found['passed'] else 'not passed'}: {wanted} of every {task} is asked for"
    return "\n\n".join([head, format_table([(task, "right", "wrong", "rate", "95 % from", "to"), *rows]), verdict])


def evaluate(args: argparse.Namespace) -> dict:
    for key, low in (("batch_size", 1), ("max_tokens", 2), ("worst", 0)):
        if (value := getattr(args, key)) is not None and value < low:
            raise UserError(f"--{key.replace('_', '-')}={value} must be at least {low}")
    device = device_type(args.device, "--device")
    checkpoint = load(args.run)
    name, ids, end_of_text = text_of(args, checkpoint)
    model, tokenizer = checkpoint.model.to(device), checkpoint.tokenizer
    n_bytes = int(tokenizer.token_bytes[ids[1:]].sum())
    started = time.perf_counter()
    with progress("evaluating", n_bytes) as advance:
        scores = score(model, ids, args.stride, args.batch_size, end_of_text,
                       lambda tokens: advance(tokens * n_bytes // (len(ids) - 1)))  # fmt: skip
    seconds = time.perf_counter() - started
    speed = (len(ids) - 1) / seconds
    print(f"{len(ids) - 1:,} tokens in {seconds:.1f} s, {speed:,.0f} tokens/s", file=sys.stderr)
    found = {
        "checkpoint": str(checkpoint.path), "step": checkpoint.step, "text": name,
        "block_size": model.config.block_size, "stride": args.stride or model.config.block_size,
    }  # fmt: skip
    found |= summary(scores, ids, tokenizer) | {"seconds": seconds, "tokens_per_s": speed}
    if args.positions:
        nats, tokens = by_position(scores)
        found["positions"] = {"nats": nats.tolist(), "tokens": tokens.tolist()}
    if args.worst:
        found["worst"] = worst(scores, ids, tokenizer, args.worst)
    return found


def text_of(args: argparse.Namespace, checkpoint: Checkpoint) -> tuple[str, np.ndarray, int | None]:
    """The text's name, its ids, and the token that attention must not look behind, if any. Raises UserError."""
    files, overrides = files_and_settings(args.words)
    if overrides and not args.corpus:
        raise UserError(f"{overrides[0]} is a setting of a corpus: name that with --corpus")
    if len(files) + bool(args.corpus) > 1:
        raise UserError(f"name one text: {' or '.join([*files, *([f'--corpus {args.corpus}'] * bool(args.corpus))])}")
    if not files:
        return of_corpus(args, checkpoint, overrides)
    if args.split:
        raise UserError(f"--split {args.split}: {files[0]} is one text, and has no splits")
    special = args.parse_special or parses_special(find_run(checkpoint.path))
    split = Split.of(user_text.read(files[0]))
    return files[0], encode(split, checkpoint, False, args.max_tokens, special), None


def of_corpus(
    args: argparse.Namespace, checkpoint: Checkpoint, overrides: list[str]
) -> tuple[str, np.ndarray, int | None]:
    near = find_run(checkpoint.path)
    if args.corpus:
        config = compose_config([f"corpus={args.corpus}", *overrides], here=False)
        corpus, data = config.corpus, config.data
    elif near:
        corpus, data = (load_section(near / "config.yaml", group) for group in ("corpus", "data"))
    else:
        raise UserError(f"{args.run} lies in no run's directory, so its corpus is not known: name a FILE or --corpus")
    downloads = data.downloads()
    text = corpus.load(downloads)
    if not args.corpus and read_record(near / "run.json").get("text", text.digest) != text.digest:
        print("note: the corpus holds another text now than when the run was trained", file=sys.stderr)
    tokenizer = checkpoint.tokenizer
    if text.documents and tokenizer.end_of_text is None:
        raise UserError("the corpus has documents, and the model's tokenizer no end-of-text token to put between "
                         "them: name one FILE")  # fmt: skip
    name, special = args.split or "val", args.parse_special or parses_special(near)
    if name != "test":
        ids = getattr(cache_tokens(text, tokenizer, downloads, special), name)[: args.max_tokens]
    elif text.test is None:
        raise UserError("--split test: the corpus has train and val only")
    else:
        ids = encode(text.test, checkpoint, text.documents, args.max_tokens, special)
    apart = load_section(near / "config.yaml", "data").respect_documents if near else data.respect_documents
    whose = args.corpus or "its own corpus"
    return f"{name} of {whose}", ids, tokenizer.end_of_text if apart and text.documents else None


def encode(split: Split, checkpoint: Checkpoint, documents: bool, most: int | None, special: bool) -> np.ndarray:
    """The ids of a split, or the first of them."""
    parts, size = [], 0
    for ids, _ in encode_split(split, checkpoint.tokenizer, documents, special=special):
        parts, size = [*parts, ids], size + len(ids)
        if most and size >= most:
            break
    return np.concatenate(parts)[:most]


def shown(found: dict) -> str:
    context = f"windows of {found['block_size']} tokens, one every {found['stride']}"
    cells = [(name, "-" if found[key] is None else format(found[key], form)) for key, (name, form) in FIGURES.items()]
    parts = [f"{found['checkpoint']}, step {found['step']}, on {found['text']} ({context})", format_table(cells)]
    if "positions" in found:
        cells = [
            (f"{first}-{last}" if last > first else f"{first}", f"{nats:.4f}", f"{tokens:,}")
            for first, last, nats, tokens in doubling(*map(np.array, found["positions"].values()))
        ]
        parts.append(format_table([("tokens before", "nats per token", "tokens"), *cells]))
    for passage in found.get("worst", []):
        where = f"{passage['nats']:.3f} nats per token, {passage['tokens']} tokens at character {passage['offset']:,}"
        parts.append(f"{where}\n{json.dumps(passage['text'], ensure_ascii=False)}")
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
