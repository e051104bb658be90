"""Train, analyze and compare tokenizers.

  python scripts/tokenizer.py train corpus=shakespeare tokenizer=bpe tokenizer.vocab_size=1024 --out my.json
  python scripts/tokenizer.py show outputs/mine --html mine.html         the tokenizer of a run, with the run's text
  python scripts/tokenizer.py show my.json corpus=shakespeare            any tokenizer.json, with any text
  python scripts/tokenizer.py show corpus=words tokenizer=char           the tokenizer that train.py would build
  python scripts/tokenizer.py compare corpus=shakespeare --vocab-sizes 256,512,1024 --tokenizers byte,bpe,gpt2

Settings are those of train.py, such as corpus=, tokenizer= and data.root=.
"""

import argparse
import json
import logging
import sys
from collections.abc import Sequence

try:
    from lm import cli
except ModuleNotFoundError:
    raise SystemExit("error: lm is not installed; run `make install`, then use .venv/bin/python") from None

from lm.analysis.vocabulary.sections import print_sections
from lm.experiment import tokenizers

VERBS = {
    "train": "learn a tokenizer from a corpus, and write it as a tokenizer.json",
    "show": "analyze a tokenizer and a text that it encodes",
    "compare": "compare several tokenizers on one corpus",
}


@cli.script
def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # a terminal without ↵ shows ?
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("lm").setLevel(logging.INFO)
    if args.verb == "train":
        sections, following = tokenizers.train_tokenizer(args.words, args.out)
        print_sections(sections)
        print("next:", *following, sep="\n  ")
        return
    tokenizers.check_outputs(args.html, args.png)
    if args.verb == "show":
        report = tokenizers.analyze_tokenizer(args.words, args.text or [], args.top, draw=args.png is not None)
    else:
        report = tokenizers.compare_tokenizers(args.words, args.vocab_sizes, args.tokenizers, args.text)
    title, sections, as_json = report
    tokenizers.write_report(title, sections, args.html, args.png)
    if args.json:
        print(json.dumps(as_json()))
    else:
        print_sections(sections)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    subparsers = parser.add_subparsers(dest="verb", required=True, metavar="{train,show,compare}")
    for verb, purpose in VERBS.items():
        sub = subparsers.add_parser(verb, help=purpose, description=f"{purpose[0].upper()}{purpose[1:]}.")
        words, meaning = "KEY=VALUE", "settings as for train.py, e.g. corpus=words"
        if verb == "show":
            words, meaning = f"RUN_OR_FILE or {words}", f"a run, checkpoint or tokenizer.json, or {meaning}"
        sub.add_argument("words", nargs="*", metavar=words, help=meaning)
        if verb == "train":
            sub.add_argument("--out", type=cli.path, required=True, help="the tokenizer.json to write")
            continue
        if verb == "show":
            sub.add_argument("--text", action="append", help="a text to split; can be repeated")
            sub.add_argument("--top", type=int, default=30, help="number of most frequent tokens (default: 30)")
        else:
            sub.add_argument("--text", help="the text that all tokenizers split")
            sub.add_argument("--vocab-sizes", metavar="N,N,...", help="vocabulary sizes of bpe, e.g. 256,512,1024")
            sub.add_argument("--tokenizers", metavar="NAME,NAME,...", help="options of tokenizer=, e.g. byte,char,bpe")
        sub.add_argument("--html", type=cli.path, help="also write an HTML page to this file")
        sub.add_argument("--png", type=cli.path, help="also write the chart to this file")
        sub.add_argument("--json", action="store_true", help="print JSON, with all tokens, instead of tables")
    args, more = parser.parse_known_args(argv)
    if flags := [word for word in more if word.startswith("-")]:
        parser.error(f"unrecognized arguments: {' '.join(flags)}")
    args.words += more  # settings can also follow options
    return args


if __name__ == "__main__":
    main()
