"""Interactive session: read prompts and commands at a terminal, and write the model's text."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from lm.base.checks import did_you_mean
from lm.base.errors import UserError
from lm.data.tokenizer import Tokenizer
from lm.generate.sampling import Sampling
from lm.generate.writing import Completion, GenerationRequest, complete, find_special_tokens
from lm.model import GPT

HELP = """\
Type a prompt, and the model continues it. Ctrl-C stops the text, Ctrl-D ends the session.
End a line with \\ to continue the prompt on the next line, or enclose several lines in lines of three quotes.
Begin a prompt that starts with / with //.
  /more             continue the last text
  /again            repeat the last prompt with the next seed
  /set              show the settings
  /set KEY VALUE    change a setting: {keys}
  /probs [N]        after each text, show its tokens' probabilities and the N most probable tokens (default 5; 0: off)
  /help             show this help
  /quit             end the session
"""
QUOTES = '"""'  # a line that begins or ends a prompt of several lines
QUIT = ("/quit", "/exit")
COMMANDS = ("/help", "/set", "/more", "/again", "/probs", "/quit")
SWITCHES = ("parse_special", "document_start")  # settings that are on or off


@dataclass
class Session:
    """An interactive session.

    `read(question)` returns a typed line and raises EOFError at the end of input. `write` writes text as it is.
    `show_alternatives` displays a completion for which the probabilities of its tokens were requested.
    """

    model: GPT
    tokenizer: Tokenizer
    request: GenerationRequest
    read: Callable[[str], str]
    write: Callable[[str], None]
    show_alternatives: Callable[[Completion], None] = lambda completion: None
    prompt: str | None = None  # the last prompt
    text: str = ""  # the text generated for it

    def run(self) -> None:
        """Read and execute entries until the end of input or /quit."""
        self.write("Type a prompt, or /help for the commands.\n")
        while True:
            try:
                entry = self.read_entry()
            except KeyboardInterrupt:  # discards the line and keeps the session
                self.write("\n")
                continue
            except EOFError:
                self.write("\n")
                return
            if entry.strip() in QUIT:
                return
            try:
                self.execute(entry)
            except UserError as error:
                self.write(f"{error}\n")

    def read_entry(self) -> str:
        """Return a prompt or command, which may be typed on several lines."""
        line = self.read("> ")
        if line.strip() == QUOTES:
            lines = []
            while (line := self.read("… ")).strip() != QUOTES:
                lines.append(line)
            return "\n".join(lines)
        lines = [line]
        while lines[-1].endswith("\\"):
            lines[-1] = lines[-1][:-1]
            lines.append(self.read("… "))
        return "\n".join(lines)

    def execute(self, entry: str) -> None:
        """Continue a prompt or execute a command. Raises UserError for a command that cannot be executed."""
        if not entry and not self.request.document_start:
            return
        if not entry.startswith("/") or entry.startswith("//"):
            self.continue_text(entry.removeprefix("/"))
            return
        command, *rest = split_words(entry)
        if command == "/help":
            self.write(HELP.format(keys=", ".join(list_settings(self.request))))
        elif command == "/set":
            self.set(rest)
        elif command == "/more":
            self.continue_text(self.last_prompt() + self.text)
        elif command == "/again":
            prompt = self.last_prompt()
            self.request = replace(self.request, seed=self.request.seed + 1)
            self.continue_text(prompt)
        elif command == "/probs":
            self.request = replace(self.request, alternatives=parse_integer("/probs", rest[0]) if rest else 5)
        else:
            raise UserError(
                f"unknown command {command}{did_you_mean(command, COMMANDS)}; begin a prompt that starts with / with //"
            )

    def last_prompt(self) -> str:
        """Return the last prompt. Raises UserError if there is none."""
        if self.prompt is None:
            raise UserError("there is no text to continue yet; type a prompt first")
        return self.prompt

    def continue_text(self, prompt: str) -> None:
        """Generate the continuation of a prompt and write it, until its end or Ctrl-C."""
        self.prompt, self.text = prompt, ""
        if not self.request.parse_special and (names := find_special_tokens(self.tokenizer, [prompt])):
            cure = "use /set parse_special on to encode special tokens"
            self.write(f"[the prompt contains {', '.join(names)}, encoded as ordinary text; {cure}]\n")

        def append(row: int, text: str) -> None:
            self.text += text
            self.write(text)

        try:
            completions = complete(self.model, self.tokenizer, [prompt], self.request, append)
        except KeyboardInterrupt:
            self.write(" [stopped]\n")
            return
        self.write("\n")
        if self.request.alternatives:
            self.show_alternatives(completions[0])

    def set(self, words: list[str]) -> None:
        """Show all settings, or change the one that `words` names, as KEY VALUE or KEY=VALUE."""
        current = list_settings(self.request)
        if not words:
            self.write("".join(f"{key:<20}{format_value(value)}\n" for key, value in current.items()))
            return
        words = words[0].split("=", 1) + words[1:] if "=" in words[0] else words
        key = words[0].replace("-", "_")
        if key not in current:
            guess = did_you_mean(key, list(current))
            raise UserError(f"unknown setting {words[0]}{guess}; the settings are {', '.join(current)}")
        if len(words) < 2:
            raise UserError(f"/set {key} needs a value; the current value is {format_value(current[key])}")
        self.request = change_setting(self.request, key, words[1:])
        self.write(f"{key} {format_value(list_settings(self.request)[key])}\n")


def split_words(entry: str) -> list[str]:
    """Split a command into words as a shell does. Raises UserError for a quote that is not closed."""
    try:
        return shlex.split(entry)
    except ValueError as error:
        raise UserError(f"{entry}: {error}") from error


def list_settings(request: GenerationRequest) -> dict[str, Any]:
    """Return the settings that a session can change, with their values."""
    sampling = {f.name: getattr(request.sampling, f.name) for f in fields(Sampling)}
    others = ("max_new_tokens", "seed", "stop", *SWITCHES)
    return sampling | {key: getattr(request, key) for key in others}


def change_setting(request: GenerationRequest, key: str, words: list[str]) -> GenerationRequest:
    """Return the request with another value of one setting. Raises UserError for an invalid value."""
    if key == "stop":
        return replace(request, stop=() if words == ["off"] else parse_stops(words))
    value: Any
    if key in SWITCHES:
        if words[0] not in ("on", "off"):
            raise UserError(f"{key}={words[0]} must be on or off")
        value = words[0] == "on"
        return replace(request, **{key: value})
    if words[0] in ("off", "none", "null"):
        value = 1.0 if key in ("repetition_penalty", "temperature") else None
    elif key in ("top_k", "max_new_tokens", "seed"):
        value = parse_integer(key, words[0])
    else:
        try:
            value = float(words[0])
        except ValueError:
            raise UserError(f"{key}={words[0]} must be a number, or off") from None
    if key in ("max_new_tokens", "seed"):
        if value is None:
            raise UserError(f"{key}={words[0]} must be a whole number")
        return replace(request, **{key: value})
    return replace(request, sampling=replace(request.sampling, **{key: value}))


def parse_stops(words: Sequence[str]) -> tuple[str, ...]:
    """Return the stop strings that are typed as `words`, in which \\n stands for a new line."""
    return tuple(word.replace("\\n", "\n") for word in words)


def parse_integer(key: str, word: str) -> int:
    """Return the number that a word spells. Raises UserError, naming `key`, if it is not a whole number."""
    try:
        return int(word)
    except ValueError:
        raise UserError(f"{key}={word} must be a whole number") from None


def format_value(value: Any) -> str:
    """Return a setting's value as it is displayed and typed."""
    if isinstance(value, tuple):
        return " ".join(map(repr, value)) or "off"
    if isinstance(value, bool):
        return "on" if value else "off"
    return "off" if value is None else str(value)
