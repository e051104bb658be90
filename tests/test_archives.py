"""Archives, documents and JSON in other formats: the error names the format and contains a command that converts it."""

import gzip
import io
import json
import re
import tarfile
import zipfile
from pathlib import Path

import pytest
from test_unreadable import FRENCH, PACKS, commands, message, output_file, write_in_odd_folder

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
def test_the_command_in_the_error_unpacks_a_tar_archive(here, name, mode):
    path = write_in_odd_folder(name, tar(mode))
    error = message(TextConfig(path=str(path)), here)
    assert f"{path} is a tar archive, not text; unpack it and use the new folder" in error
    folder = output_file(commands(error)[0], here)
    text = TextConfig(path=str(folder), val_path=f"{folder}/*/b.txt").load(Downloads(here / "data"))
    assert text.train.read() == text.val.read() == FRENCH


def zipped(**members: str) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return data.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "error"),
    [
        ("t.7z", b"7z\xbc\xaf\x27\x1c\0\4" + bytes(99), "is a 7z archive, not text; unpack it and use the new folder: 7z x t.7z -ot"),
        ("t.rar", b"Rar!\x1a\x07\0" + bytes(99), "is a rar archive, not text; .* mkdir t && unrar x t.rar t/"),
        ("t.pdf", b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n" + bytes(99), "is a PDF document, not text; .* pdftotext t.pdf t.txt"),
        ("t.docx", zipped(**{"[Content_Types].xml": "<x/>", "word/document.xml": "<x/>"}), "is an office document, not text; convert it and use the new file: pandoc -t plain --wrap=none t.docx -o t.txt"),
        ("t.epub", zipped(mimetype="application/epub+zip", a="<x/>"), "is an e-book, not text; .*: pandoc -t plain --wrap=none t.epub -o t.txt"),
        ("t.odt", zipped(mimetype="application/vnd.oasis.opendocument.text", a="<x/>"), "is an office document, not text; .*: pandoc"),
        ("t.npz", zipped(a="text"), "is a zip archive, not text; unpack it and use the new folder: .*python'? -m zipfile -e t.npz t"),
        ("t.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(99), "is binary, not text: a zero byte at offset 8|is not UTF-8: byte 0x89"),
        ("t.7z.gz", gzip.compress(b"7z\xbc\xaf\x27\x1c\0\4"), "is a 7z archive, not text; unpack it first: gzip -dc < t.7z.gz > t.7z"),
    ],
)  # fmt: skip
def test_the_error_names_other_formats(here, name, data, error):
    Path(name).write_bytes(data)
    assert re.match(f"{re.escape(name)} ({error})", message(TextConfig(path=name), here))


@pytest.mark.parametrize("name", ["t.txt", "-t"])
def test_the_command_unpacks_a_zip_archive_without_its_suffix(here, name):
    path = write_in_odd_folder(name, zipped(**{"a.txt": FRENCH, "sub/b.txt": FRENCH}))
    folder = output_file(commands(message(TextConfig(path=str(path)), here))[0], here)
    assert sorted(p.read_text(encoding="utf-8") for p in folder.rglob("*.txt")) == [FRENCH] * 2


ROWS = [{"text": f"Grüße {i}", "id": i} for i in range(30)]
JSON = {
    "array on one line": (json.dumps(ROWS), "a JSON array"),
    "array with an element per line": ("[\n" + ",\n".join(map(json.dumps, ROWS)) + "\n]\n", "a JSON array"),
    "pretty array": ("\ufeff\n" + json.dumps(ROWS, indent=2, ensure_ascii=False), "a JSON array"),
    "array of texts": (json.dumps([row["text"] for row in ROWS], indent=1), "a JSON array"),
    "pretty objects": ("\n".join(json.dumps(row, indent=2) for row in ROWS), "a JSON object over several lines"),
    "objects that begin on the first line": (
        "\n".join(json.dumps(row, indent=2).replace("{\n", "{") for row in ROWS), "a JSON object over several lines"
    ),
}  # fmt: skip


@pytest.mark.slow_after(6)
@pytest.mark.parametrize("pack", PACKS)
@pytest.mark.parametrize("kind", JSON)
def test_the_command_converts_json_that_is_not_json_lines(here, kind, pack):
    content, description = JSON[kind]
    path = write_in_odd_folder(f"a b.json{pack}", PACKS[pack](content.encode()))
    error = message(JSONLConfig(path=str(path)), here)
    assert error.startswith(f"{path} is {description}; corpus=jsonl reads JSON lines, an object on each line")
    new = output_file(commands(error)[0], here)
    assert [json.loads(line)["text"] for line in new.read_text(encoding="utf-8").splitlines()] == [
        row["text"] for row in ROWS
    ]
    text = JSONLConfig(path=str(new)).load(Downloads(here / "data"))
    assert text.train.read() + text.val.read() == "".join(row["text"] for row in ROWS)


def test_converted_texts_are_in_the_field_that_is_read(here):
    Path("t.json").write_text('["one", "two"]', encoding="utf-8")
    new = output_file(commands(message(JSONLConfig(path="t.json", field='it\'s "new"'), here))[0], here)
    assert [json.loads(line) for line in new.read_text(encoding="utf-8").splitlines()] == [
        {'it\'s "new"': t} for t in ("one", "two")
    ]
