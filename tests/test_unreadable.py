"""Files that are not UTF-8 text: the error says what they are and contains a command that converts them."""
# ruff: noqa: RUF001 - texts in many scripts

import bz2
import gzip
import lzma
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from lm.data.corpus import TextConfig
from lm.data.corpus.encodings import ENCODINGS, readings
from lm.data.download import Downloads

FOLDER = "it's my $HOME (old)"
ENGLISH = "He said “don’t” — and that was it… for €5.\nA naïve café in Zürich, à la carte.\n" * 3
PLAIN_ENGLISH = "“Yes,” she said, “it’s late.”\n" * 3
FRENCH = "L'élève a été naïf à l'école; où êtes-vous?\n« Oui », ça va. NOËL À PARIS.\n" * 3
GERMAN = "Für die Mädchen aus Köln gab es große Straßen.\nÄpfel über Öl, ÜBERALL.\n" * 3
JAPANESE = "これは日本語のテキストです。カタカナも漢字もあります。\n吾輩は猫である。\\名前はまだ無い~\n" * 3
RUSSIAN = "Привет, как дела? Это русский текст.\nОн написан давно.\n" * 3
CHINESE = "这是一个中文文本，里面没有空格。\n我们今天去学校学习。\n" * 3
KOREAN = "이것은 한국어 텍스트입니다.\n오늘 학교에 갑니다.\n" * 3
POLISH = "Zażółć gęślą jaźń, proszę państwa.\nBył sobie król i żył długo.\n" * 3
HUNGARIAN = "Árvíztűrő tükörfúrógép, őrült hűség.\n" * 3

TEXTS = [
    ("cp1252", ENGLISH), ("cp1252", PLAIN_ENGLISH), ("latin1", FRENCH), ("cp1252", GERMAN), ("cp1252", "café"),
    ("mac_roman", ENGLISH), ("mac_roman", PLAIN_ENGLISH), ("mac_roman", FRENCH), ("mac_roman", GERMAN),
    ("cp850", GERMAN), ("cp850", FRENCH.replace("«", "<").replace("»", ">")),
    ("cp1251", RUSSIAN), ("koi8_r", RUSSIAN), ("shift_jis", JAPANESE), ("euc_jp", JAPANESE), ("gb18030", CHINESE),
    ("euc_kr", KOREAN), ("cp1250", POLISH),
    ("utf-16", ENGLISH), ("utf-16-le", ENGLISH), ("utf-16-be", ENGLISH), ("utf-16-le", CHINESE), ("utf-16-be", JAPANESE),
    ("utf-16", JAPANESE), ("utf-32", ENGLISH), ("utf-32-le", FRENCH), ("utf-32-be", JAPANESE), ("utf-16-le", "ab\n"),
]  # fmt: skip
PACKS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstandard.compress}


def message(config, root: Path) -> str:
    with pytest.raises(ValueError) as caught:
        config.load(Downloads(root / "data"))
    return str(caught.value)


def commands(text: str) -> list[str]:
    """Return the commands in an error message: its lines with double indentation, or the end of its only line."""
    if "\n" in text:
        return [line.strip() for line in text.splitlines() if line.startswith("    ")]
    tools = r"iconv|mkdir|7z|'[^']*python'|\S*python|gzip|bzip2|xz|zstd|LC_ALL|file|pdftotext|pandoc"
    return [found[1]] if (found := re.search(rf": ((?:{tools})(?=[ =]).*)", text)) else []


def run_command(command: str, folder: Path) -> subprocess.CompletedProcess:
    for tool in ("iconv", "bzip2", "xz", "zstd", "gzip"):
        if re.search(rf"\b{tool} -", command) and not shutil.which(tool):
            pytest.skip(f"{tool} is not installed")
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=env,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=True,
    )


def output_file(command: str, folder: Path) -> Path:
    """Run a command and return the file or folder that it wrote."""
    run_command(command, folder)
    return folder / shlex.split(command)[-1]


def write_in_odd_folder(name: str, content: bytes) -> Path:
    """Write a file in a folder whose name has special characters of the shell, and return its path."""
    Path(FOLDER).mkdir(exist_ok=True)
    Path(FOLDER, name).write_bytes(content)
    return Path(FOLDER, name)


@pytest.mark.parametrize(("codec", "text"), TEXTS)
def test_the_first_command_converts_the_text(here, codec, text):
    path = write_in_odd_folder("-my 'text'.txt", text.encode(codec))
    error = message(TextConfig(path=str(path)), here)
    assert error.startswith(f"{path} is ")
    new = output_file(commands(error)[0], here)
    assert new.read_bytes().decode() == text and path.read_bytes() == text.encode(codec)
    if len(text) > 9:
        assert TextConfig(path=str(new)).load(Downloads(here / "data")).train.read() in text


@pytest.mark.parametrize("codec", ["cp1252", "mac_roman"])
@pytest.mark.parametrize("text", [ENGLISH, PLAIN_ENGLISH])
def test_a_text_with_one_plausible_encoding_gets_one_command(here, codec, text):
    Path("t.txt").write_bytes(text.encode(codec))
    (command,) = commands(message(TextConfig(path="t.txt"), here))
    assert output_file(command, here).read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    ("codec", "text"), [("cp1252", HUNGARIAN.replace("ő", "õ").replace("ű", "û")), ("cp1250", HUNGARIAN)]
)
def test_a_text_with_several_plausible_encodings_is_shown_in_each(here, codec, text):
    Path("t.txt").write_bytes(text.encode(codec))
    error = message(TextConfig(path="t.txt"), here)
    candidates = re.findall(r"  reads '(.*)':\n    (.*)", error)
    assert len(candidates) > 1 and len({reading for reading, _ in candidates}) == len(candidates)
    texts = {reading: output_file(command, here).read_text(encoding="utf-8") for reading, command in candidates}
    assert all(reading.replace(r"\n", "\n") in found for reading, found in texts.items()) and text in texts.values()


@pytest.mark.parametrize("pack", [*PACKS, ".zip"])
@pytest.mark.parametrize("name", ["my text.txt", "data"])
def test_the_command_also_unpacks(here, pack, name):
    path = write_in_odd_folder(name + pack, PACKS.get(pack, bytes)(FRENCH.encode("latin1")))
    if pack == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"a b/{name}", FRENCH.encode("latin1"))
    command = commands(message(TextConfig(path=str(path)), here))[0]
    assert output_file(command, here).read_text(encoding="utf-8") == FRENCH


def test_the_converted_file_never_replaces_an_existing_one(here):
    Path("t.txt").write_bytes(FRENCH.encode("latin1"))
    for name in ("t.utf8.txt", "t.utf8_2.txt"):
        Path(name).write_text("mine", encoding="utf-8")
    new = output_file(commands(message(TextConfig(path="t.txt"), here))[0], here)
    assert new.name == "t.utf8_3.txt" and new.read_text(encoding="utf-8") == FRENCH
    assert Path("t.utf8.txt").read_text(encoding="utf-8") == Path("t.utf8_2.txt").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("bad", [b"\x92", b"\xff", b"\xe9 ", b"\xed\xa0\x80"])
@pytest.mark.parametrize("at", [0, 40, 300_000])
def test_for_utf8_with_one_wrong_byte_no_conversion_is_suggested(here, bad, at):
    text = ("Grüße aus Köln, 日本 und 😀\n" * 20_000).encode()
    at = text.index(b"\n", at) + 1
    Path("t.txt").write_bytes(text[:at] + b"here: " + bad + b"\n" + text[at:])
    error = message(TextConfig(path="t.txt"), here)
    assert f"byte 0x{bad[0]:02x} at offset {at + 6}; the rest is UTF-8" in error and "iconv" not in error
    assert "here: " in run_command(commands(error)[0], here).stdout


@pytest.mark.parametrize("text", [b"plain ASCII " * 9000, "Grüße ".encode() * 9000])
def test_a_wrong_byte_far_from_the_beginning_is_explained_too(here, text):
    Path("t.txt").write_bytes(text * 20 + b"caf\xe9 na\xefve\n")
    error = message(TextConfig(path="t.txt"), here)
    assert f"byte 0xe9 at offset {20 * len(text) + 3}; " in error
    assert ("iconv -f CP1252" in error) == text.isascii()


@settings(max_examples=300)
@given(st.binary(min_size=1, max_size=60))
def test_readings_encode_to_the_same_bytes(data):
    codecs = {name: codec for name, codec, _, common in ENCODINGS if common is None}
    for name, text in readings(data):
        assert name not in codecs or text.encode(codecs[name]) == data


def test_for_bytes_that_are_not_text_no_encoding_is_suggested(here):
    Path("t.txt").write_bytes(bytes(range(128, 256)) * 9)
    error = message(TextConfig(path="t.txt"), here)
    assert "iconv -f" not in error and commands(error) == ["file -i - < t.txt"]
