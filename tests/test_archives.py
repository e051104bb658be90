"""Archives, documents and JSON in other shapes: the message names them, and the command in it makes text of them."""

import gzip
import io
import json
import re
import tarfile
import zipfile
from pathlib import Path

import pytest
from test_unreadable import FRENCH, PACKS, commands, made_by, message, placed

from lm.data.corpus import JSONLConfig, TextConfig
from lm.data.download import Downloads


def tar(mode: str) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode) as archive:
        for name in ("a.txt", "b.txt"):
            info = tarfile.TarInfo(f"texts/{name}")
            info.size = len(FRENCH.encode())
            archive.addfile(info, io.BytesIO(FRENCH.encode()))
    return data.getvalue()


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("my texts.tar", "w"),
        ("t.tar.gz", "w:gz"),
        ("t.tgz", "w:gz"),
        ("t.tar.bz2", "w:bz2"),
        ("t.tar.xz", "w:xz"),
        ("t.txt", "w"),
    ],
)
def test_a_tar_archive_is_unpacked_by_the_command(here, name, mode):
    path = placed(name, tar(mode))
    told = message(TextConfig(path=str(path)), here)
    assert f"{path} is a tar archive, not text; unpack it, and name the new folder" in told
    folder = made_by(commands(told)[0], here)
    text = TextConfig(path=str(folder), val_path=f"{folder}/*/b.txt").load(Downloads(here / "data"))
    assert text.train.read() == text.val.read() == FRENCH


def zipped(**members: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return data.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("t.7z", b"7z\xbc\xaf\x27\x1c\0\4" + bytes(99), "is a 7z archive, not text; unpack it, and name the new folder: 7z x t.7z -ot"),
        ("t.rar", b"Rar!\x1a\x07\0" + bytes(99), "is a rar archive, not text; .* mkdir t && unrar x t.rar t/"),
        ("t.pdf", b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n" + bytes(99), "is a PDF document, not text; .* pdftotext t.pdf t.txt"),
        ("t.docx", zipped(**{"[Content_Types].xml": "<x/>", "word/document.xml": "<x/>"}), "is an office document, not text; convert it, .*: pandoc -t plain --wrap=none t.docx -o t.txt"),
        ("t.epub", zipped(mimetype="application/epub+zip", a="<x/>"), "is an e-book, not text; .*: pandoc -t plain --wrap=none t.epub -o t.txt"),
        ("t.odt", zipped(mimetype="application/vnd.oasis.opendocument.text", a="<x/>"), "is an office document, not text; .*: pandoc"),
        ("t.npz", zipped(a="text"), "is a zip archive, not text; unpack it, and name the new folder: .*python'? -m zipfile -e t.npz t"),
        ("t.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(99), "is binary, not text: a zero byte at offset 8|is not UTF-8: byte 0x89"),
        ("t.7z.gz", gzip.compress(b"7z\xbc\xaf\x27\x1c\0\4"), "is a 7z archive, not text; unpack it first: gzip -dc < t.7z.gz > t.7z"),
    ],
)  # fmt: skip
def test_other_formats_are_named(here, name, data, told):
    Path(name).write_bytes(data)
    assert re.match(f"{re.escape(name)} ({told})", message(TextConfig(path=name), here))


@pytest.mark.parametrize("name", ["t.txt", "-t"])
def test_a_zip_archive_of_another_name_is_unpacked_by_the_command(here, name):
    path = placed(name, zipped(**{"a.txt": FRENCH, "sub/b.txt": FRENCH}))
    folder = made_by(commands(message(TextConfig(path=str(path)), here))[0], here)
    assert sorted(p.read_text(encoding="utf-8") for p in folder.rglob("*.txt")) == [FRENCH] * 2


ROWS = [{"text": f"Grüße {i}", "id": i} for i in range(30)]
JSON = {
    "array on one line": (json.dumps(ROWS), "a JSON array"),
    "array, an element a line": ("[\n" + ",\n".join(map(json.dumps, ROWS)) + "\n]\n", "a JSON array"),
    "pretty array": ("\ufeff\n" + json.dumps(ROWS, indent=2, ensure_ascii=False), "a JSON array"),
    "array of texts": (json.dumps([row["text"] for row in ROWS], indent=1), "a JSON array"),
    "pretty objects": ("\n".join(json.dumps(row, indent=2) for row in ROWS), "a JSON object over several lines"),
    "objects begun on the first line": (
        "\n".join(json.dumps(row, indent=2).replace("{\n", "{") for row in ROWS), "a JSON object over several lines"
    ),
}  # fmt: skip


@pytest.mark.parametrize("pack", PACKS)
@pytest.mark.parametrize("kind", JSON)
def test_json_that_is_not_lines_is_converted_by_the_command(here, kind, pack):
    content, what = JSON[kind]
    path = placed(f"a b.json{pack}", PACKS[pack](content.encode()))
    told = message(JSONLConfig(path=str(path)), here)
    assert told.startswith(f"{path} is {what}; corpus=jsonl reads JSON lines, an object on each line")
    new = made_by(commands(told)[0], here)
    assert [json.loads(line)["text"] for line in new.read_text(encoding="utf-8").splitlines()] == [
        row["text"] for row in ROWS
    ]
    text = JSONLConfig(path=str(new)).load(Downloads(here / "data"))
    assert text.train.read() + text.val.read() == "".join(row["text"] for row in ROWS)


def test_the_field_of_converted_texts_is_the_one_that_is_read(here):
    Path("t.json").write_text('["one", "two"]', encoding="utf-8")
    new = made_by(commands(message(JSONLConfig(path="t.json", field='it\'s "new"'), here))[0], here)
    assert [json.loads(line) for line in new.read_text(encoding="utf-8").splitlines()] == [
        {'it\'s "new"': t} for t in ("one", "two")
    ]
