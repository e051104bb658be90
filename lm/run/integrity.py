"""Verify that a checkpoint file is complete and uncorrupted before it is loaded."""

from __future__ import annotations

import zipfile
from pathlib import Path

from lm.base.errors import UserError


def verify(path: Path) -> None:
    """Verify the checksums of a checkpoint file. Raises UserError if it is corrupted.

    torch writes a zip archive with a checksum for each record but does not verify the checksums when it loads one.
    """
    try:
        require_uncompressed(path)
        with zipfile.ZipFile(path) as archive:
            corrupted = archive.testzip()
    except (OSError, zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise UserError(f"{path} is truncated or is not a checkpoint") from error
    if corrupted:
        raise UserError(f"{path} is corrupted: checksum mismatch in {corrupted}")


class CompressedCheckpoint(UserError):
    """The file is a compressed archive, which could expand to more than the memory holds."""


def require_uncompressed(path: Path) -> None:
    """Raises CompressedCheckpoint if an archive expands to more than its file size; torch never compresses."""
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
    if (
        any(r.compress_type != zipfile.ZIP_STORED for r in records)
        or sum(r.file_size for r in records) > path.stat().st_size
    ):
        raise CompressedCheckpoint(f"{path} cannot be loaded: it is compressed, but checkpoints never are")
