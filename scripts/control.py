"""Control a run that is training: python scripts/control.py outputs/mine status

status  print the status of the run and its latest metrics
save    save a checkpoint and continue training
pause   pause training until `resume`
resume  resume paused training
stop    save a checkpoint and end; the command that started the run resumes it

Each action takes effect at the end of the current optimizer step. It is sent as a signal (SIGUSR1 for save, SIGUSR2 for
pause and resume, SIGTERM for stop), so run this script on the machine that trains.
"""

import argparse
import json
import sys

try:
    from lm import cli
except ModuleNotFoundError:
    raise SystemExit("error: lm is not installed; run `make install`, then use .venv/bin/python") from None

from lm.base.errors import UserError
from lm.run import lock
from lm.run.control import collect_status, format_status, request


@cli.script
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=cli.path, metavar="RUN", help="a run directory")
    parser.add_argument("action", choices=["status", *lock.SIGNALS])
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    args = parser.parse_args()
    if not args.run.is_dir():
        raise UserError(f"{args.run}: no such run")
    if args.action != "status":
        request(args.run, args.action, sent=lambda pid: print(f"sent {args.action} to process {pid}", file=sys.stderr))
    status = collect_status(args.run)
    print(json.dumps(status) if args.json else format_status(status))


if __name__ == "__main__":
    main()
