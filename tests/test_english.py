"""The text of the project is plain US English: how docstrings begin, and words that have a plainer one."""

import ast
import re
import subprocess

import pytest
from helpers import ROOT

LISTED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, encoding="utf-8").stdout.split()
TEXTS = [name for name in LISTED if re.search(r"\.(py|md|yaml|toml|js|css)$", name) and name != "tests/test_english.py"]
SOURCES = [name for name in TEXTS if name.endswith(".py")]

BRITISH = (
    r"(behaviour|neighbour|favour|honour|colour)\w*|"
    r"(initial|normal|optim|minim|maxim|recogn|summar|organ)is(e|es|ed|ing|ation|ations)|spelt|learnt|misspelt|spoilt|grey"
)
MANNERED = r"anew|goes on from|go on from|made-up language|so many tokens|lies in|but for the|takes? for alike|at hand"
KEYS = r"normalised(?= ?[:=])"  # keys of configs, which stay as they are
WORDS = re.compile(rf"(?<![\w.`'\"])(?!{KEYS})({BRITISH}|{MANNERED})(?![\w`])", re.IGNORECASE)


@pytest.mark.parametrize("name", SOURCES)
def test_docstrings_begin_with_a_verb_or_a_noun(name):
    for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
            text = ast.get_docstring(node) or ""
            assert not re.match(r"(What|Whether|Where|Who|Of|In what)\b", text), f"{name}: {text.splitlines()[0]}"


@pytest.mark.parametrize("name", TEXTS)
def test_words_are_plain_and_american(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    found = [f"{name}:{i}: {m[0]}" for i, line in enumerate(text.splitlines(), 1) for m in WORDS.finditer(line)]
    assert not found
