"""What all scripts share: how they show errors, and how they end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import ParamSpec

from lm.base.errors import UserError

P = ParamSpec("P")


def script(main: Callable[P, object]) -> Callable[P, None]:
    """Decorate a script's main function so that it ends without a traceback where the user can do something.

    A UserError or OSError becomes one line, `error: ...`, and exit status 1; LM_TRACEBACK=1 shows the traceback.
    Characters that the console's encoding lacks are printed as escapes. When the reader of a pipe goes away, as in
    `| head`, the script ends quietly. Ctrl-C ends it with status 130.
    """

    @wraps(main)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with suppress(AttributeError):  # a stream that is not a file
            sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        try:
            main(*args, **kwargs)
            sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would complain when it exits
        except (UserError, OSError) as error:
            if os.environ.get("LM_TRACEBACK") == "1":
                raise
            sys.exit(f"error: {error}")
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(130)

    return run


def path(typed: str) -> Path:
    """Return a path that is typed as an argument; `~` is the home directory, which no shell expands in `--out=~/x`."""
    return Path(typed).expanduser()
