"""Keep the failures of callbacks and loggers that only observe a run from ending it."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from lm.run.directory import Diverged

log = logging.getLogger("lm")
Observer = TypeVar("Observer")


def guard(observer: Observer, name: str, inherited: Sequence[str] = ()) -> Observer:
    """Make a callback or logger report its first exception instead of raising it, and return the observer.

    All public methods that this package defines on its class are wrapped, and the methods of Lightning listed in
    `inherited`. A wrapped method returns None when it fails, and is called again the next time. Diverged is raised as
    before, because it is a failure of the run itself.
    """
    own = {attribute for cls in type(observer).__mro__ if cls.__module__.startswith("lm.") for attribute in vars(cls)}
    reported = False

    def report(error: Exception) -> None:
        nonlocal reported
        if not reported:
            reported = True
            log.warning("warning   %s failed, training continues without it: %s", name, describe(error))

    def guarded(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return method(*args, **kwargs)
            except Diverged:
                raise
            except Exception as error:
                return report(error)

        return call

    for attribute in sorted(own | set(inherited)):
        if not attribute.startswith("_") and callable(method := getattr(observer, attribute)):
            setattr(observer, attribute, guarded(method))
    return observer


def describe(error: Exception) -> str:
    """Format an exception in one line: its type, its message, and the line that raised it."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    where = f" ({Path(frame.tb_frame.f_code.co_filename).name}:{frame.tb_lineno})" if frame else ""
    first = str(error).partition("\n")[0]
    return f"{type(error).__name__}{': ' + first if first else ''}{where}"
