"""Import large libraries faster."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_garbage_collection(library: str) -> Iterator[None]:
    """Import `library`, if it is not imported yet, without garbage collection, and exempt its objects from it for good.

    Lightning and what it imports create several hundred thousand objects that live as long as the process. To search
    them for garbage during the import and at exit takes a third of the time of a short run.
    """
    if library in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
