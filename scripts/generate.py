"""Generate text with a trained model: python scripts/generate.py outputs/mine --prompt "ROMEO:"

The text goes to standard output while it is generated, all other messages to standard error.
--interactive starts a session in which you type prompts. --random uses an untrained model; describe it with the
arguments of train.py instead of naming a run, for example model=tiny corpus=shakespeare.
"""

import argparse

try:
    from lm import cli
except ModuleNotFoundError:
    raise SystemExit("error: lm is not installed; run `make install`, then use .venv/bin/python") from None

from lm.base.hardware import resolve_device_type
from lm.experiment.generation import add_arguments, build_request, generate, start_session


@cli.script
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    args = parser.parse_intermixed_args()
    run = start_session if args.interactive else generate
    run(args, build_request(args), resolve_device_type(args.device, "--device"))


if __name__ == "__main__":
    main()
