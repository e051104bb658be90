"""Common code of all scripts: error messages, exit status, path arguments."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import ParamSpec

from lm.base.errors import UserError
from lm.base.files import expand_path

P = ParamSpec("P")
path = expand_path  # the type of path arguments


def script(main: Callable[P, object]) -> Callable[P, None]:
    """Decorate the main function of a script so that errors the user can fix are shown without a traceback.

    A UserError or OSError becomes one line, `error: ...`, and exit status 1; LM_TRACEBACK=1 shows the traceback too.
    Characters that the console's encoding lacks are printed as escapes. When the reader of a pipe closes it, as in
    `| head`, the script ends silently. Ctrl-C ends the script with status 130.
    """

    @wraps(main)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with suppress(AttributeError):  # stdout may have been replaced by an object without this method
            sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        try:
            main(*args, **kwargs)
            sys.stdout.flush()
        except BrokenPipeError:
            # Otherwise Python would report the closed pipe again when it flushes stdout at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except (UserError, OSError) as error:
            if os.environ.get("LM_TRACEBACK") == "1":
                raise
            sys.exit(f"error: {error}")
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(130)

    return run
