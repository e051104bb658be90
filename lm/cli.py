"""What all scripts share: how they run, and how they end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def run(main: Callable[[], object]) -> None:
    """Run a script's main function so that no print can end it with a traceback.

    Characters that the console's encoding lacks are printed as escapes. When nobody reads on, as in `| head`, the
    script ends quietly.
    """
    with suppress(AttributeError):  # a stream that is no file
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would complain when it exits


def path(typed: str) -> Path:
    """Return a path that is typed as an argument; `~` is the home directory, which no shell expands in `--out=~/x`."""
    return Path(typed).expanduser()
