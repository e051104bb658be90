"""How scripts end: quietly when nobody reads on, and with every text on any console."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

from lm import cli

SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_runs_through_the_frame_that_they_share(script):
    assert script.read_text(encoding="utf-8").endswith('if __name__ == "__main__":\n    cli.run(main)\n')


CODE = "import sys; sys.path.insert(0, {root!r}); from lm import cli; cli.run(lambda: {body})"


def run(body, **kwargs):
    code = CODE.format(root=str(ROOT), body=body)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs)


def test_a_script_whose_output_nobody_reads_ends_quietly():
    process = run("[print('a line') for _ in range(100_000)]")
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait() == 0


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_characters_that_a_console_lacks_are_printed_as_escapes(encoding):
    text = "שלום 🎉 é"
    process = run(f"print({text!r})", env=os.environ | {"PYTHONIOENCODING": encoding})
    out, err = process.communicate()
    assert process.returncode == 0 and err == b""
    assert out.decode(encoding).strip() == text.encode(encoding, "backslashreplace").decode(encoding)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_path_that_a_script_takes_may_begin_with_the_home_directory(script):
    """`--out=~/x` reaches the script as it is: a shell expands `~` only where a word begins with it."""
    assert "type=Path" not in script.read_text(encoding="utf-8")


def test_the_home_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cli.path("~/a b") == tmp_path / "a b" and cli.path("a/~b") == cli.path("./a/~b")


@pytest.mark.slow
def test_a_file_is_written_to_the_home_directory(monkeypatch, tmp_path):
    env = os.environ | {"HOME": str(tmp_path)}
    command = [sys.executable, str(ROOT / "scripts/schedules.py"), "schedule=linear", "--out=~/x.png"]
    pytest.importorskip("matplotlib")
    subprocess.run(command, cwd=tmp_path, env=env, check=True, stdout=subprocess.PIPE)
    assert [path.name for path in tmp_path.iterdir() if path.name[0] != "."] == ["x.png"]
