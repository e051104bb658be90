"""How a run was made, and whether this machine would make it again: python scripts/reproduce.py outputs/mine

Prints the command, and compares code, versions, device, text and tokenizer with what run.json recorded. Where all are
the same, the command gives the same weights, bit for bit on a CPU. Status 1 where something differs.
"""

import argparse
import json
import sys
from pathlib import Path

try:
    from lm import cli
except ModuleNotFoundError:
    raise SystemExit("error: lm is not installed; run `make install`, then use .venv/bin/python") from None

from lm.base import commands
from lm.base.console import format_table
from lm.base.errors import UserError
from lm.base.files import sha256
from lm.base.hardware import device_name
from lm.config import load_section, register
from lm.data.token_files import cached_tokenizer
from lm.run.directory import environment, read_config, read_record


@cli.script
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=cli.path, metavar="RUN", help="a run directory")
    parser.add_argument("--name", help="of the run that the command would make (default: the run's, with -again)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    record = read_record(args.run / "run.json")
    if "sessions" not in record:
        raise UserError(f"{args.run} holds no run.json that says how it was made; give a run directory")
    name = args.name or f"{record['name']}-again"
    again = commands.resume(Path("outputs", name), record["overrides"], {})
    rows = compared(args.run, record)
    differing = [what for what, then, now in rows if then != now]
    if args.json:
        print(json.dumps({"command": again, "then_and_now": {what: pair for what, *pair in rows}, "differ": differing}))
    else:
        shown = [(what, "same" if then == now else "DIFFERS", short(then), short(now)) for what, then, now in rows]
        print(f"{again}\n\n{format_table([('', '', 'then', 'now'), *shown])}")
    sys.exit(bool(differing))


def compared(run: Path, record: dict) -> list[tuple[str, object, object]]:
    """What a run depends on: its name, then, and now. Raises UserError."""
    now = environment()
    rows: list[tuple[str, object, object]] = [
        ("commit", record.get("git_commit"), now["git_commit"]),
        ("uncommitted changes", record.get("git_diff"), now["git_diff"]),
    ]
    rows += [(name, record["versions"].get(name), version) for name, version in now["versions"].items()]
    try:
        here = device_name(record["device"])
    except (AssertionError, RuntimeError):  # torch has no such device here
        here = None
    rows.append(("device", record.get("device_name"), here))
    register()
    config = run / "config.yaml"
    downloads = load_section(config, "data").downloads()
    text = load_section(config, "corpus").load(downloads)
    rows.append(("text", record["text"], text.digest))
    if read_config(config)["tokenizer"]["kind"] != "InitFrom":  # else it came with the weights
        made = cached_tokenizer(load_section(config, "tokenizer"), text, downloads)
        rows.append(("tokenizer", record.get("tokenizer"), sha256(made.to_json())))
    return rows


def short(value: object) -> str:
    return "none" if value is None else str(value) if len(str(value)) <= 60 else f"{str(value)[:20]}..."


if __name__ == "__main__":
    main()
