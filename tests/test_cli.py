"""Behavior that all scripts share: error messages, closed pipes, encodings, path arguments."""

import os
import subprocess
import sys

import pytest
from helpers import ROOT

from lm import cli

SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_uses_the_shared_decorator(script):
    text = script.read_text(encoding="utf-8")
    assert "\n@cli.script\ndef main(" in text and text.endswith('if __name__ == "__main__":\n    main()\n')
    assert "sys.path" not in text


@pytest.mark.parametrize("script", [ROOT / "train.py", *SCRIPTS], ids=lambda path: path.stem)
def test_a_script_without_the_package_prints_one_line(script, tmp_path):
    """Python's -S removes site-packages from the path, so neither `lm` nor its requirements can be imported."""
    done = subprocess.run([sys.executable, "-I", "-S", str(script)], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: lm is not installed; run `make install`, then use .venv/bin/python\n"


def test_errors_that_users_can_fix_are_one_line_and_others_have_a_traceback():
    process = run("(_ for _ in ()).throw(cli.UserError('choose another name='))")
    assert process.communicate()[1] == b"error: choose another name=\n" and process.returncode == 1
    process = run("open('/nowhere/at/all')")
    assert process.communicate()[1].startswith(b"error: [Errno 2]") and process.returncode == 1
    process = run("(_ for _ in ()).throw(ValueError('operands could not be broadcast'))")
    assert b"Traceback" in process.communicate()[1] and process.returncode == 1


def test_lm_traceback_shows_the_traceback():
    process = run("(_ for _ in ()).throw(cli.UserError('no'))", env=os.environ | {"LM_TRACEBACK": "1"})
    assert b"Traceback" in process.communicate()[1] and process.returncode == 1


CODE = "import sys; sys.path.insert(0, {root!r}); from lm import cli; cli.script(lambda: {body})()"


def run(body, **kwargs):
    code = CODE.format(root=str(ROOT), body=body)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kwargs)


def test_a_script_ends_silently_when_its_output_pipe_is_closed():
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
def test_every_path_argument_of_a_script_expands_the_home_directory(script):
    """In `--out=~/x` the script gets the `~`, because a shell expands it only at the start of a word."""
    assert "type=Path" not in script.read_text(encoding="utf-8")


def test_path_expands_the_home_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cli.path("~/a b") == tmp_path / "a b" and cli.path("a/~b") == cli.path("./a/~b")


@pytest.mark.slow
def test_a_file_is_written_to_the_home_directory(monkeypatch, tmp_path):
    env = os.environ | {"HOME": str(tmp_path)}
    command = [sys.executable, str(ROOT / "scripts/schedules.py"), "schedule=linear", "--out=~/x.png"]
    pytest.importorskip("matplotlib")
    subprocess.run(command, cwd=tmp_path, env=env, check=True, stdout=subprocess.PIPE)
    assert [path.name for path in tmp_path.iterdir() if path.name[0] != "."] == ["x.png"]
