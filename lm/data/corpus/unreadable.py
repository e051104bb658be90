"""Identify files that are not UTF-8 text, and give the command that converts them."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from lm.base.commands import python, shell
from lm.data.corpus.encodings import excerpts, readings
from lm.data.corpus.packing import packing, unpacked_name

TOOLS = {".gz": "gzip -dc", ".bz2": "bzip2 -dc", ".xz": "xz -dc", ".zst": "zstd -dc"}
FORMATS = {  # (offset, bytes at this offset): name of the format, command that unpacks or converts the file
    (257, b"ustar"): ("a tar archive", "mkdir {folder} && tar -xf {file} -C {folder}"),
    (0, b"7z\xbc\xaf\x27\x1c"): ("a 7z archive", "7z x {file} -o{folder}"),
    (0, b"Rar!\x1a\x07"): ("a rar archive", "mkdir {folder} && unrar x {file} {folder}/"),
    (0, b"%PDF-"): ("a PDF document", "pdftotext {file} {text}"),
    (30, b"[Content_Types].xml"): ("an office document", "pandoc -t plain --wrap=none {file} -o {text}"),
    (30, b"mimetypeapplication/epub+zip"): ("an e-book", "pandoc -t plain --wrap=none {file} -o {text}"),
    (30, b"mimetypeapplication/vnd.oasis"): ("an office document", "pandoc -t plain --wrap=none {file} -o {text}"),
    (0, b"PK\3\4"): ("a zip archive", "{python} -m zipfile -e {file} {folder}"),
}
MARKS = {  # byte-order marks, the longest first
    b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16",
}  # fmt: skip


def explain(path: Path, member: str | None, head: bytes, around: bytes, begin: int, at: int, beyond: bool) -> str:
    """Return the error message for a file whose byte at offset `at` is not UTF-8 or is zero, with what to do.

    `head` is the beginning of the file, and `around` the bytes around offset `at`, beginning at offset `begin`.
    `beyond` tells whether the text before that byte contains UTF-8 beyond ASCII.
    """
    where, byte = f"{path}/{member}" if member else str(path), around[at - begin]
    for (offset, magic), (name, command) in FORMATS.items():
        if head[offset : offset + len(magic)] == magic:
            return f"{where} is {name}, not text; {_unpacking_advice(path, member, command, name)}"
    if encoding := encoding_of_byte_order_mark(head):
        return f"{where} is {encoding}; convert it and use the new file: {_conversion_command(path, member, encoding)}"
    decoded = around.decode(errors="replace")
    good = sum(len(c.encode()) for c in decoded if c > "\x7f" and c != "\ufffd")  # bytes of UTF-8 beyond ASCII
    mostly = beyond or good > decoded.count("\ufffd")
    if b"\0" in head and not mostly and (encoding := guess_utf16_or_utf32(head)):
        return (
            f"{where} is {encoding} without a byte-order mark; convert it and use the new file: "
            f"{_conversion_command(path, member, encoding)}"
        )
    if not byte:
        return f"{where} is binary, not text: a zero byte at offset {at}"
    wrong = f"{where} is not UTF-8: byte 0x{byte:02x} at offset {at}; "
    if mostly:
        near = around[max(0, at - begin - 20) : at - begin + 20].decode(errors="replace")
        return (
            f"{wrong}the rest is UTF-8, so correct the text near {near!r}; this command prints every such line: "
            f"{with_input(path, member, shell('grep', '-naxv', '.*'), 'LC_ALL=C.UTF-8 ')}"
        )
    candidates = readings(around)
    samples = excerpts([text for _, text in candidates])
    commands = [_conversion_command(path, member, encoding) for encoding, _ in candidates]
    if not candidates:
        return (
            f"{wrong}if it is text, find out its encoding and convert it with iconv; this command may tell the "
            f"encoding: {with_input(path, member, 'file -i -')}"
        )
    if len(candidates) == 1:
        encoding = candidates[0][0]
        return f"{wrong}as {encoding} it reads {samples[0]!r}; convert it and use the new file: {commands[0]}"
    lines = [f"  reads {sample!r}:\n    {command}" for sample, command in zip(samples, commands, strict=True)]
    return "\n".join([f"{wrong}convert it with the command whose text is correct, and use the new file:", *lines])


def encoding_of_byte_order_mark(head: bytes) -> str:
    """Return the encoding of the byte-order mark at the beginning of `head`; "" if there is none."""
    return next((name for mark, name in MARKS.items() if head.startswith(mark)), "")


def guess_utf16_or_utf32(head: bytes) -> str:
    """Return the variant of UTF-16 or UTF-32 that `head`, which contains zero bytes, may be in; "" if there is none.

    If several are possible, the one with the most uniform characters is returned.
    """
    if head.isascii() and head.count(0) < 0.4 * len(head):
        return ""  # ASCII with a few zero bytes
    found = []
    for name in ("UTF-16LE", "UTF-16BE", "UTF-32LE", "UTF-32BE"):
        width = 4 if "32" in name else 2
        text = head[: len(head) // width * width].decode(name, errors="replace")
        text = text.removesuffix("\ufffd")  # a character that is cut by the end of `head`
        if text and all(
            c in "\t\n\r\f" or (unicodedata.category(c) not in ("Cc", "Cn", "Co") and c != "\ufffd") for c in text
        ):
            found.append((len({ord(c) >> 8 for c in text}), -sum(c < "\x80" for c in text), name))
    return min(found)[2] if found else ""


def _conversion_command(path: Path, member: str | None, encoding: str) -> str:
    """Return the command that converts a file to UTF-8."""
    name = Path(member or unpacked_name(path)).name
    new = unused_name(Path(name).stem + ".utf8" + Path(name).suffix)
    return f"{with_input(path, member, shell('iconv', '-f', encoding, '-t', 'UTF-8'))} > {shell(new)}"


def with_input(path: Path, member: str | None, command: str, environment: str = "") -> str:
    """Return a shell command that runs `command` with the unpacked bytes of a file as its standard input."""
    packed, file = packing(path), shell(path)
    if packed == ".zip":
        folder = unused_name(path.stem)
        return f"{_unzip_command(path, folder)} && {environment}{command} < {shell(Path(folder, str(member)))}"
    return f"{TOOLS[packed]} < {file} | {environment}{command}" if packed else f"{environment}{command} < {file}"


def _unpacking_advice(path: Path, member: str | None, command: str, name: str) -> str:
    packed, named = packing(path), Path(f"./{path}") if str(path).startswith("-") else path
    if packed == ".zip":
        return f"unpack it first: {_unzip_command(path, unused_name(path.stem))}"
    if packed and "tar" not in name:
        return f"unpack it first: {TOOLS[packed]} < {shell(path)} > {shell(unused_name(unpacked_name(path).name))}"
    stem = unpacked_name(path).name.partition(".")[0]
    names = {"file": shell(named), "folder": shell(unused_name(stem)), "text": shell(unused_name(f"{stem}.txt"))}
    names["python"] = shell(python())
    advice = "convert it and use the new file" if "{text}" in command else "unpack it and use the new folder"
    return f"{advice}: {command.format(**names)}"


def _unzip_command(path: Path, folder: str) -> str:
    return shell(python(), "-m", "zipfile", "-e", f"./{path}" if str(path).startswith("-") else path, folder)


def unused_name(name: str) -> str:
    """Return a name like `name` that does not exist in the current directory and does not begin with a hyphen."""
    path = Path(name.lstrip("-") or "new")
    names = [path.name, *(f"{path.stem}_{n}{path.suffix}" for n in range(2, 1000))]
    return next(name for name in names if not Path(name).exists())
