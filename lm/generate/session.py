"""A conversation with a model at a terminal: a prompt in, its text out, settings in between."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from lm.base.checks import did_you_mean
from lm.base.errors import UserError
from lm.data.tokenizer import Tokenizer
from lm.generate.sampling import Sampling
from lm.generate.writing import GenerationRequest, complete, find_special_tokens
from lm.model import GPT

HELP = """\
Type a prompt, and the model goes on from it. Ctrl-C stops its text, Ctrl-D ends the session.
A line that ends in \\ goes on in the next; so does all between a line of three quotes and the next such line.
A prompt that begins with / is typed with //.
  /more             go on with the last text
  /again            the last prompt once more, with the next seed
  /set              show the settings
  /set KEY VALUE    change one: {keys}
  /probs [N]        show after each text how likely its tokens were, with the N likeliest (default 5; 0: no more)
  /help             this
  /quit             end
"""
BLOCK = '"""'
QUIT = ("/quit", "/exit")
SWITCHES = ("parse_special", "document_start")  # settings that are on or off


@dataclass
class Session:
    """`read(question)` gives a line as it was typed (EOFError at the end), `say` prints text as it is."""

    model: GPT
    tokenizer: Tokenizer
    wanted: GenerationRequest
    read: Callable[[str], str]
    say: Callable[[str], None]
    show: Callable[[Any], None] = lambda completion: None  # of a completion whose alternatives were asked for
    prompt: str | None = None  # the last
    text: str = ""  # and what came of it

    def run(self) -> None:
        """Until the end of input, or /quit."""
        self.say("Type a prompt; /help tells what else there is.\n")
        while True:
            try:
                typed = self.entry()
            except KeyboardInterrupt:  # a line given up, not the session
                self.say("\n")
                continue
            except EOFError:
                self.say("\n")
                return
            if typed.strip() in QUIT:
                return
            try:
                self.obey(typed)
            except UserError as error:
                self.say(f"{error}\n")

    def entry(self) -> str:
        line = self.read("> ")
        if line.strip() == BLOCK:
            lines = []
            while (line := self.read("… ")).strip() != BLOCK:
                lines.append(line)
            return "\n".join(lines)
        lines = [line]
        while lines[-1].endswith("\\"):
            lines[-1] = lines[-1][:-1]
            lines.append(self.read("… "))
        return "\n".join(lines)

    def obey(self, typed: str) -> None:
        """Raises UserError for what cannot be done, with a line to be shown."""
        if not typed and not self.wanted.document_start:
            return
        if not typed.startswith("/") or typed.startswith("//"):
            self.go_on(typed.removeprefix("/"))
            return
        command, *rest = split(typed)
        if command == "/help":
            self.say(HELP.format(keys=", ".join(settings(self.wanted))))
        elif command == "/set":
            self.set(rest)
        elif command == "/more":
            self.go_on(self.last() + self.text)
        elif command == "/again":
            prompt = self.last()
            self.wanted = replace(self.wanted, seed=self.wanted.seed + 1)
            self.go_on(prompt)
        elif command == "/probs":
            self.wanted = replace(self.wanted, alternatives=whole("/probs", rest[0]) if rest else 5)
        else:
            known = ("/help", "/set", "/more", "/again", "/probs", "/quit")
            raise UserError(
                f"there is no {command}{did_you_mean(command, known)}; a prompt that begins with / is typed with //"
            )

    def last(self) -> str:
        """The last prompt."""
        if self.prompt is None:
            raise UserError("there is no text yet to go on with: type a prompt")
        return self.prompt

    def go_on(self, prompt: str) -> None:
        self.prompt, self.text = prompt, ""
        if not self.wanted.parse_special and (names := find_special_tokens(self.tokenizer, [prompt])):
            self.say(f"[{', '.join(names)} encoded as ordinary text; with /set parse_special on it becomes a token]\n")

        def watch(row: int, text: str) -> None:
            self.text += text
            self.say(text)

        try:
            completions = complete(self.model, self.tokenizer, [prompt], self.wanted, watch)
        except KeyboardInterrupt:
            self.say(" [stopped]\n")
            return
        self.say("\n")
        if self.wanted.alternatives:
            self.show(completions[0])

    def set(self, words: list[str]) -> None:
        now = settings(self.wanted)
        if not words:
            self.say("".join(f"{key:<20}{shown(value)}\n" for key, value in now.items()))
            return
        words = words[0].split("=", 1) + words[1:] if "=" in words[0] else words
        key = words[0].replace("-", "_")
        if key not in now:
            raise UserError(f"there is no setting {words[0]}{did_you_mean(key, list(now))}; there are {', '.join(now)}")
        if len(words) < 2:
            raise UserError(f"/set {key} needs a value; it is {shown(now[key])}")
        self.wanted = changed(self.wanted, key, words[1:])
        self.say(f"{key} {shown(settings(self.wanted)[key])}\n")


def split(typed: str) -> list[str]:
    try:
        return shlex.split(typed)
    except ValueError as error:  # a quote that is not closed
        raise UserError(f"{typed}: {error}") from error


def settings(wanted: GenerationRequest) -> dict[str, Any]:
    sampling = {f.name: getattr(wanted.sampling, f.name) for f in fields(Sampling)}
    others = ("max_new_tokens", "seed", "stop", *SWITCHES)
    return sampling | {key: getattr(wanted, key) for key in others}


def changed(wanted: GenerationRequest, key: str, words: list[str]) -> GenerationRequest:
    """Raises UserError for a value that is none, or out of range."""
    if key == "stop":
        return replace(wanted, stop=() if words == ["off"] else stops(words))
    value: Any
    if key in SWITCHES:
        if words[0] not in ("on", "off"):
            raise UserError(f"{key}={words[0]} must be on or off")
        value = words[0] == "on"
        return replace(wanted, **{key: value})
    if words[0] in ("off", "none", "null"):
        value = 1.0 if key in ("repetition_penalty", "temperature") else None
    elif key in ("top_k", "max_new_tokens", "seed"):
        value = whole(key, words[0])
    else:
        try:
            value = float(words[0])
        except ValueError:
            raise UserError(f"{key}={words[0]} must be a number, or off") from None
    if key in ("max_new_tokens", "seed"):
        if value is None:
            raise UserError(f"{key}={words[0]} must be a whole number")
        return replace(wanted, **{key: value})
    return replace(wanted, sampling=replace(wanted.sampling, **{key: value}))


def stops(typed: Sequence[str]) -> tuple[str, ...]:
    """Stop strings as they are typed: \\n is a new line."""
    return tuple(word.replace("\\n", "\n") for word in typed)


def whole(key: str, word: str) -> int:
    try:
        return int(word)
    except ValueError:
        raise UserError(f"{key}={word} must be a whole number") from None


def shown(value: Any) -> str:
    if isinstance(value, tuple):
        return " ".join(map(repr, value)) or "off"
    if isinstance(value, bool):
        return "on" if value else "off"
    return "off" if value is None else str(value)
