"""Tell files from settings on the command line of a script that accepts both."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from lm.base.errors import UserError
from lm.config.errors import unknown_key
from lm.config.help import CONF
from lm.config.schema import Config


def split_files_and_settings(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the words that name files, and those that are settings as train.py accepts them.

    A word that exists as a path is a file. Otherwise it is a setting if it is key=value with a key of the
    configuration, and a file if it cannot be a setting. Raises UserError, with both readings, if it could be either.
    """
    known = {*(field.name for field in fields(Config)), *(path.name for path in CONF.iterdir() if path.is_dir())}
    files, settings = [], []
    for word in words:
        left, equals, _ = word.partition("=")
        key = left.lstrip("+~")
        if os.path.exists(word) or not equals:  # noqa: PTH110  a word may be too long for a Path
            files.append(word)
        elif re.split(r"[./@]", key)[0] in {*known, "hydra"}:
            settings.append(word)
        elif re.fullmatch(r"[\w.]+", key):
            problem = unknown_key(key, sorted(known))
            raise UserError(f"{word}: there is no such file in {Path.cwd()}, and it is not a setting: {problem}")
        else:
            files.append(word)
    return files, settings
