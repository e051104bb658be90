"""Read prompts from the command line, from files and from standard input."""

from __future__ import annotations

from collections.abc import Sequence

from lm.data import user_text


def read_prompts(
    typed: Sequence[str] | None, files: Sequence[str], per_line: bool = False, document_start: bool = False
) -> list[str]:
    """Return the prompts that are typed after --prompt and read from the files of --prompt-file, in this order.

    "-" stands for standard input. With `per_line`, each line that is not empty is a prompt of its own. Without any
    prompt the result is one new line or, if prompts follow the start of a document, one empty prompt.

    Raises UserError for text that is not UTF-8.
    """
    if typed is None and not files:
        return ["" if document_start else "\n"]

    def read(name: str) -> list[str]:
        text = user_text.read(name)
        return [line for line in user_text.lines(text) if line] if per_line else [text]

    prompts: list[str] = []
    for prompt in typed or []:
        prompts += read(prompt) if prompt == "-" else [user_text.argument("--prompt", prompt)]
    for name in files:
        prompts += read(name)
    return prompts
