"""Words of a script's command line that may name a file or be a setting."""

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


def files_and_settings(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Tell files from settings as train.py takes them.

    What exists is a file, whatever its name. What does not is a setting when it is key=value with a key of the
    configuration, and a file when it cannot be one. Raises UserError, with both readings, for what might be either.
    """
    known = {*(field.name for field in fields(Config)), *(path.name for path in CONF.iterdir() if path.is_dir())}
    files, settings = [], []
    for word in words:
        typed, equals, _ = word.partition("=")
        key = typed.lstrip("+~")
        if os.path.exists(word) or not equals:  # noqa: PTH110  which may be too long for a Path
            files.append(word)
        elif re.split(r"[./@]", key)[0] in {*known, "hydra"}:
            settings.append(word)
        elif re.fullmatch(r"[\w.]+", key):
            raise UserError(f"{word}: there is no such file (looked in {Path.cwd()}), and it is no setting: "
                             f"{unknown_key(key, sorted(known))}")  # fmt: skip
        else:
            files.append(word)
    return files, settings
