"""Print the command that reproduces a run and compare its environment: python scripts/reproduce.py outputs/mine

Compares code, versions, device, text and tokenizer with what run.json recorded. If all are the same, the command gives
the same weights (bit for bit on a CPU). The exit status is 1 if anything differs.
"""

import argparse
import json
import sys

try:
    from lm import cli
except ModuleNotFoundError:
    raise SystemExit("error: lm is not installed; run `make install`, then use .venv/bin/python") from None

from lm.experiment.reproduce import compare_facts, format_facts, read_complete_record, reproducing_command


@cli.script
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=cli.path, metavar="RUN", help="a run directory")
    parser.add_argument("--name", help="name of the run that the command creates (default: RUN-again)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    record = read_complete_record(args.run)
    command = reproducing_command(record, args.name)
    facts = compare_facts(args.run, record)
    different = [name for name, then, now in facts if then != now]
    if args.json:
        then_and_now = {name: pair for name, *pair in facts}
        print(json.dumps({"command": command, "then_and_now": then_and_now, "differ": different}))
    else:
        print(f"{command}\n\n{format_facts(facts)}")
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
