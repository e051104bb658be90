"""The guided tour: it quotes the code as it is, and its examples run and print the shapes that it shows."""

import ast
import doctest
import re
import textwrap

import pytest
from helpers import ROOT, config_of

import train as train_script

PAGE = (ROOT / "docs" / "tour.md").read_text(encoding="utf-8")
QUOTES = re.findall(r"<!-- (\S+\.py) (\S+) -->\n```python\n(.*?)```", PAGE, re.DOTALL)
SESSION = "\n".join(re.findall(r"```pycon\n(.*?)```", PAGE, re.DOTALL))


def source_of(path: str, name: str) -> str:
    """Return the source of a function or method, e.g. GPT.logits, without the indentation of its body."""
    source = (ROOT / path).read_text(encoding="utf-8")
    node = ast.parse(source)
    for part in name.split("."):
        (node,) = [child for child in node.body if getattr(child, "name", "") == part]
    return textwrap.dedent("".join(source.splitlines(keepends=True)[node.lineno - 1 : node.end_lineno]))


def test_every_stop_has_code_an_example_a_command_and_a_question():
    stops = re.split(r"^## \d+\. ", PAGE, flags=re.MULTILINE)[1:]
    assert len(stops) == 12
    for stop in stops:
        for part in ("\n<!-- lm/", "\n```python\n", "\n```pycon\n", "\n**Try** ", "\n**Question.** ", "*Answer: "):
            assert part in stop, (part, stop[:40])
    assert len(QUOTES) == PAGE.count("```python\n")


@pytest.mark.parametrize(("path", "name", "quote"), QUOTES, ids=[name for _, name, _ in QUOTES])
def test_code_is_quoted_as_it_is(path, name, quote):
    """A quote is the whole function or successive lines of its body."""
    source = source_of(path, name)
    depths = {0, 4, 8}
    assert any(textwrap.indent(quote, " " * depth) in source for depth in depths), f"{path} {name} has changed"


@pytest.mark.slow
def test_the_examples_run_and_print_these_shapes(tmp_path, shared, monkeypatch):
    """Numbers depend on the training, so only lines with a shape or a truth value are compared."""
    monkeypatch.chdir(tmp_path)
    typed = ["corpus=text", f"corpus.path={shared / 'tinyshakespeare.txt'}", "data.root=data", "trainer.max_steps=2",
             "trainer.val_batches=1", "callbacks.sample.enabled=false", "device=cpu", "precision=fp32"]  # fmt: skip
    train_script.train(config_of(*typed), tmp_path / "outputs" / "shakespeare")
    examples = doctest.DocTestParser().get_examples(SESSION)
    wanted = [line for example in examples for line in example.want.splitlines() if is_compared(line)]
    for example in examples:
        example.want = ""
    printed: list[str] = []
    failures: list[object] = []

    class Runner(doctest.DocTestRunner):
        def report_failure(self, out, test, example, got):  # every example that prints something gets here
            printed.extend(line for line in got.splitlines() if is_compared(line))

        def report_unexpected_exception(self, out, test, example, exc_info):
            failures.append((example.source, exc_info[1]))

    Runner().run(doctest.DocTest(examples, {}, "tour", None, None, SESSION), out=lambda text: None)
    assert not failures
    assert printed == wanted and len(wanted) > 10


def is_compared(line: str) -> bool:
    return "torch.Size" in line or line == "True"
