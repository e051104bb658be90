"""Tests of scripts/generate.py in this process: reading prompts, special tokens, ids without a token."""

import io
import json
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_generate import GREEDY, talk
from test_ids_without_tokens import indifferent

from lm.data import user_text
from lm.data.tokenizer import Bytes, Chars
from lm.experiment import generation
from lm.generate import GenerationRequest, complete
from lm.run.checkpoint import Checkpoint
from scripts import generate

END, USER = 256, 257
TOKENIZER = Bytes(["<|endoftext|>", "<|user|>"])
ODD = "a\x0cb\u2028c\x85d\x1ce\rf\x0bg"  # one line, which str.splitlines would split into seven


def checkpoint(tokenizer=TOKENIZER, more=0):
    return Checkpoint(Path("mine.ckpt"), indifferent(tokenizer.vocab_size + more), tokenizer, 3, {})


@pytest.fixture
def script(monkeypatch, capsys):
    """Return script(*args, stdin=b""): run it on a model with equal probabilities, return (status, stdout, stderr)."""

    def run(*args, stdin=b"", encoding="ascii", source=None):
        monkeypatch.setattr(generation, "load", lambda path: source or checkpoint())
        monkeypatch.setattr(sys, "argv", ["generate.py", "mine", *map(str, args), "--device", "cpu"])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding=encoding))
        status = 0
        capsys.readouterr()
        try:
            generate.main()
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def used_prompts(script):
    """Return a function that runs the script and returns the prompts that it used."""

    def run(*args, **kwargs):
        status, out, _ = script(*args, "--json", "--max-new-tokens", 1, **kwargs)
        assert status == 0, status
        return [c["prompt"] for c in json.loads(out)["completions"]]

    return run


# ---- reading prompts


@pytest.mark.parametrize("where", ["file", "standard input", "file called -"])
def test_prompts_are_read_as_utf8_whatever_the_locale(used_prompts, tmp_path, where):
    def prompts_of(data, *args):
        if where == "file":
            (tmp_path / "p.txt").write_bytes(data)
            return used_prompts("--prompt-file", tmp_path / "p.txt", *args)
        return used_prompts("--prompt" if where == "standard input" else "--prompt-file", "-", *args, stdin=data)

    for text in ("naïve 漢字 🙂\n", ODD, "two\r\nlines\n"):
        for mark in (b"", b"\xef\xbb\xbf"):
            assert prompts_of(mark + text.encode()) == [text]
            assert prompts_of(mark + text.encode(), "--lines") == [
                line for line in text.replace("\r\n", "\n").split("\n") if line
            ]
    assert prompts_of(f"{ODD}\r\nh\n\n\r\ni".encode(), "--lines") == [ODD, "h", "i"]


@pytest.mark.parametrize("stdin", [False, True])
@pytest.mark.parametrize(
    ("data", "message"),
    [("ba".encode("utf-16"), "is UTF-16; "), ("ba".encode("utf-16-be"), "is UTF-16BE without a byte-order mark"),
     (b"caf\xe9 ba", "is not UTF-8: byte 0xe9 at offset 3"), (b"", "is empty"), (b"a\0b", "is binary, not text")],
    ids=str,
)  # fmt: skip
def test_input_that_is_not_text_is_refused_in_one_line(script, tmp_path, data, message, stdin):
    path = tmp_path / "p.txt"
    path.write_bytes(data)
    status, out, _ = script("--prompt-file", "-" if stdin else path, stdin=data)
    assert status.startswith(f"error: {'standard input' if stdin else path} {message}") and "\n" not in status
    assert (": iconv -f UTF-16" in status) == message.startswith("is UTF-16") and not out
    assert ("iconv -f " in status) == ("UTF" in message)


@settings(max_examples=100)
@given(text=st.text(st.characters(codec="utf-8") | st.sampled_from("\n\r\x0b\x0c\x1c\x85\u2028"), max_size=20))
def test_only_newlines_separate_lines(text):
    lines = user_text.lines(text)
    assert "\n".join(lines) == text.replace("\r\n", "\n") and not any("\n" in line for line in lines)


def test_a_prompt_on_the_command_line_is_utf8_too(used_prompts, script, monkeypatch):
    assert used_prompts("--prompt", "naïve") == ["naïve"]
    typed = b"caf\xe9".decode("utf-8", "surrogateescape")  # as Python decodes the input of a Latin-1 terminal
    for flag in ("--prompt", "--stop"):
        status, out, _ = script(flag, typed)
        assert status == f"error: {flag}={typed!r} is not UTF-8: byte 0xe9" and not out
    monkeypatch.setattr(user_text.os, "fsencode", lambda typed: typed.encode("latin-1"))  # another locale
    assert user_text.argument("--prompt", "naïve".encode().decode("latin-1")) == "naïve"


# ---- special tokens


def first_ids(monkeypatch, script, *args, source=None):
    """Return the ids that the model reads first, standard output, and standard error before the timing."""
    seen = []
    source = source or checkpoint()
    features = source.model.features
    monkeypatch.setattr(source.model, "features", lambda ids, **k: seen.append(ids.tolist()) or features(ids, **k))
    status, out, err = script(*args, "--max-new-tokens", 2, "--temperature", 0, source=source)
    assert status == 0, status
    return seen[0], out, err.rpartition("2 tokens in")[0]


def test_special_tokens_in_a_prompt_are_encoded_on_request(monkeypatch, script):
    plain = list(b"<|user|>hi")
    ids, _, err = first_ids(monkeypatch, script, "--prompt", "<|user|>hi")
    assert ids == [plain]
    assert (
        err == "hint: the prompt contains <|user|>, encoded as ordinary text; "
        "use --parse-special to encode special tokens\n"
    )
    ids, out, err = first_ids(monkeypatch, script, "--prompt", "<|user|>hi", "--parse-special")
    assert ids == [[USER, *b"hi"]] and not err and out.startswith("<|user|>hi")
    ids, _, err = first_ids(monkeypatch, script, "--prompt", "hi", "--parse-special")
    assert ids == [list(b"hi")] and not err


def test_a_prompt_may_follow_the_start_of_a_document(monkeypatch, script):
    flag = "--prompt-from-document-start"
    assert first_ids(monkeypatch, script, flag)[::2] == ([[END]], "")
    ids, out, err = first_ids(monkeypatch, script, flag, "--prompt", "hi")
    assert ids == [[END, *b"hi"]] and out.startswith("hi") and not err
    ids, out, _ = first_ids(monkeypatch, script, flag, "--parse-special", "--prompt", "<|user|>hi")
    assert ids == [[END, USER, *b"hi"]]
    assert first_ids(monkeypatch, script)[0] == [[10]]
    status, out, _ = script(flag, source=checkpoint(Bytes()))
    assert status == "error: the tokenizer has no end-of-text token, so a prompt cannot follow the start of a document"
    assert not out


def test_prompt_settings_apply_to_batches_and_character_tokenizers():
    chars = Chars("ab", ["<|endoftext|>"])
    model = indifferent(3)
    for prompts, request in (
        (["<|endoftext|>", "ab"], GenerationRequest(3, GREEDY, parse_special=True)),
        (["", "ab"], GenerationRequest(3, GREEDY, document_start=True)),
    ):
        assert [c.prompt for c in complete(model, chars, prompts, request)] == prompts
    with pytest.raises(ValueError, match="lacks '<'"):
        complete(model, chars, ["<|endoftext|>"], GenerationRequest(3))


def test_a_session_can_change_both_prompt_settings():
    output, session = talk(
        indifferent(258), "/set", "<|user|>", "/set parse_special on", "<|user|>", "/set document_start on", "", "/more",
        "/set parse_special maybe", "/set document_start off", "", request=GenerationRequest(2, GREEDY), tokenizer=TOKENIZER,
    )  # fmt: skip
    assert "parse_special       off\ndocument_start      off\n" in output
    hint = (
        "[the prompt contains <|user|>, encoded as ordinary text; use /set parse_special on to encode special tokens]"
    )
    assert output.count(f"{hint}\n") == 1
    assert "parse_special on\n" in output and "document_start on\n" in output
    assert "parse_special=maybe must be on or off\n" in output
    assert (
        session.prompt == "\0\0" and not session.request.document_start
    )  # /more continues the text of the empty prompt


# ---- ids without a token


def test_probabilities_of_ids_without_a_token_are_displayed(script):
    source = checkpoint(more=62)
    with torch.no_grad():
        source.model.head.bias = torch.nn.Parameter(torch.zeros(320))
        source.model.head.bias[300] = 5.0
    for flags in ((), ("--json",)):
        status, out, _ = script("--prompt", "hi", "--show-probs", 2, *flags, source=source)
        assert status == 0
        assert ("#300 (no token)" in out) == (not flags)
    pieces = json.loads(out)["completions"][0]["pieces"]
    assert all(piece["id"] < 258 and piece["top"][0][0] == 300 for piece in pieces)
