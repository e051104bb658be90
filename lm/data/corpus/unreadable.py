"""Tell what a file is that is not UTF-8 text, and the command that makes text of it."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from lm.base.commands import python, shell
from lm.data.corpus.encodings import excerpts, readings
from lm.data.corpus.packing import packing, unpacked_name

TOOLS = {".gz": "gzip -dc", ".bz2": "bzip2 -dc", ".xz": "xz -dc", ".zst": "zstd -dc"}
FORMATS = {  # what a file that is not text begins with, and where: its name, and how it is unpacked or converted
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
    """Return what is wrong with a file, of which the byte `at` is not UTF-8 or is zero, and what to do.

    `head` is its beginning, `around` what stands around that byte, from offset `begin` on. `beyond` says that UTF-8
    beyond ASCII came before.
    """
    where, byte = f"{path}/{member}" if member else str(path), around[at - begin]
    for (offset, magic), (name, command) in FORMATS.items():
        if head[offset : offset + len(magic)] == magic:
            return f"{where} is {name}, not text; {_unpacked(path, member, command, name)}"
    if encoding := has_byte_order_mark(head):
        return f"{where} is {encoding}; convert it, and name the new file: {_converted(path, member, encoding)}"
    decoded = around.decode(errors="replace")
    good = sum(len(c.encode()) for c in decoded if c > "\x7f" and c != "\ufffd")  # bytes of UTF-8 beyond ASCII
    mostly = beyond or good > decoded.count("\ufffd")
    if b"\0" in head and not mostly and (encoding := strip_byte_order_mark(head)):
        return (
            f"{where} is {encoding} without a byte-order mark; convert it, and name the new file: "
            f"{_converted(path, member, encoding)}"
        )
    if not byte:
        return f"{where} is binary, not text: a zero byte at offset {at}"
    wrong = f"{where} is not UTF-8: byte 0x{byte:02x} at offset {at}; "
    if mostly:
        near = around[max(0, at - begin - 20) : at - begin + 20].decode(errors="replace")
        return (
            f"{wrong}the rest is UTF-8, so mend that place, near {near!r}; this shows every such line: "
            f"{fed(path, member, shell('grep', '-naxv', '.*'), 'LC_ALL=C.UTF-8 ')}"
        )
    found = readings(around)
    shown = excerpts([text for _, text in found])
    commands = [_converted(path, member, encoding) for encoding, _ in found]
    if not found:
        return (
            f"{wrong}if it is text, find out its encoding, and convert it with iconv: {fed(path, member, 'file -i -')}"
        )
    if len(found) == 1:
        return f"{wrong}it reads {shown[0]!r} as {found[0][0]}; convert it, and name the new file: {commands[0]}"
    lines = [f"  reads {excerpt!r}:\n    {command}" for excerpt, command in zip(shown, commands, strict=True)]
    return "\n".join([f"{wrong}convert it from the encoding in which it reads right, and name the new file:", *lines])


def has_byte_order_mark(head: bytes) -> str:
    """Return the encoding that a byte-order mark at the beginning of `head` names, or an empty text."""
    return next((name for mark, name in MARKS.items() if head.startswith(mark)), "")


def strip_byte_order_mark(head: bytes) -> str:
    """Return which UTF-16 or UTF-32 `head`, which has zero bytes, can be: the one with the most uniform characters."""
    if head.isascii() and head.count(0) < 0.4 * len(head):
        return ""  # ASCII with a zero byte here and there
    found = []
    for name in ("UTF-16LE", "UTF-16BE", "UTF-32LE", "UTF-32BE"):
        width = 4 if "32" in name else 2
        text = head[: len(head) // width * width].decode(name, errors="replace")
        text = text.removesuffix("\ufffd")  # of a character that the end of `head` cuts
        if text and all(
            c in "\t\n\r\f" or (unicodedata.category(c) not in ("Cc", "Cn", "Co") and c != "\ufffd") for c in text
        ):
            found.append((len({ord(c) >> 8 for c in text}), -sum(c < "\x80" for c in text), name))
    return min(found)[2] if found else ""


def _converted(path: Path, member: str | None, encoding: str) -> str:
    """Return the command that converts a file to UTF-8."""
    name = Path(member or unpacked_name(path)).name
    new = free(Path(name).stem + ".utf8" + Path(name).suffix)
    return f"{fed(path, member, shell('iconv', '-f', encoding, '-t', 'UTF-8'))} > {shell(new)}"


def fed(path: Path, member: str | None, command: str, environment: str = "") -> str:
    """Return `command` with the unpacked bytes of a file as its input."""
    packed, file = packing(path), shell(path)
    if packed == ".zip":
        folder = free(path.stem)
        return f"{_unzip(path, folder)} && {environment}{command} < {shell(Path(folder, str(member)))}"
    return f"{TOOLS[packed]} < {file} | {environment}{command}" if packed else f"{environment}{command} < {file}"


def _unpacked(path: Path, member: str | None, command: str, name: str) -> str:
    packed, named = packing(path), Path(f"./{path}") if str(path).startswith("-") else path
    if packed == ".zip":
        return f"unpack it first: {_unzip(path, free(path.stem))}"
    if packed and "tar" not in name:
        return f"unpack it first: {TOOLS[packed]} < {shell(path)} > {shell(free(unpacked_name(path).name))}"
    stem = unpacked_name(path).name.partition(".")[0]
    names = {"file": shell(named), "folder": shell(free(stem)), "text": shell(free(f"{stem}.txt"))}
    names["python"] = shell(python())
    what = "convert it, and name the new file" if "{text}" in command else "unpack it, and name the new folder"
    return f"{what}: {command.format(**names)}"


def _unzip(path: Path, folder: str) -> str:
    return shell(python(), "-m", "zipfile", "-e", f"./{path}" if str(path).startswith("-") else path, folder)


def free(name: str) -> str:
    """Return a name like `name` that nothing in the current directory has, and that no command takes for an option."""
    path = Path(name.lstrip("-") or "new")
    names = [path.name, *(f"{path.stem}_{n}{path.suffix}" for n in range(2, 1000))]
    return next(name for name in names if not Path(name).exists())
