import bz2
import gzip
import io
import lzma
import os
import re
import tracemalloc
import zipfile
from pathlib import Path

import pytest
import zstandard

from lm.data.corpus import packing, reading

TEXT = "Grüße, 日本 and 😀\r\n\n" * 3
SMALL = [1, 2, 3, 5, 1 << 18]  # bytes read at a time, so that characters are cut


def zst(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return packed.getvalue()


def read(path: Path, member: str | None = None, **keywords) -> str:
    return "".join(reading.text(path, member, **keywords))


def file(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def frame_of_a_block(data: bytes) -> bytes:
    """Return a frame and a skippable frame that end at a block border, so that the next block begins with a frame."""
    frame = zst(data)
    left = 4096 - len(frame) - 8
    return frame + (0x184D2A50).to_bytes(4, "little") + left.to_bytes(4, "little") + bytes(left)


A, B = TEXT.encode()[:20], TEXT.encode()[20:]  # cut within a character


PACKED = {
    "t.txt": A + B,
    "t": b"\xef\xbb\xbf" + A + B,
    "t.gz": gzip.compress(A + B),
    "members.gz": gzip.compress(A) + gzip.compress(b"") + gzip.compress(B) + bytes(9),
    "t.zst": zst(A + B),
    "frames.zst": zst(A) + zst(b"") + zst(B),
    "block.zst": frame_of_a_block(A) + zst(B),
    "t.bz2": bz2.compress(A + B),
    "streams.bz2": bz2.compress(A) + bz2.compress(b"") + bz2.compress(B),
    "t.xz": lzma.compress(A + B),
    "streams.xz": lzma.compress(A) + lzma.compress(b"") + lzma.compress(B),
    "gz.txt": gzip.compress(A + B),
    "xz.gz": lzma.compress(A + B),
    "bz2": bz2.compress(A + B),
    "T.ZST": zst(A + B),
    "mark.zst": zst(b"\xef") + zst(b"\xbb") + zst(b"\xbf") + zst(A + B),
}


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("block", SMALL)
def test_every_packing_is_unpacked(tmp_path, monkeypatch, name, block):
    monkeypatch.setattr(packing, "BLOCK", block)
    path = file(tmp_path, name, PACKED[name])
    assert packing.members(path) == [None]
    assert read(path) == TEXT
    assert list(reading.lines(path)) == ["Grüße, 日本 and 😀\r\n", "\n"] * 3


@pytest.mark.parametrize(
    ("data", "error"),
    [(TEXT.encode(), None), (TEXT.encode("utf-16"), "is UTF-16"), (b"caf\xe9 " * 9, "is not UTF-8: byte 0xe9")],
)
def test_a_pipe_is_read_completely(data, error):
    """A script may get a pipe as FILE: scripts/evaluate.py RUN <(command)."""
    out, into = os.pipe()
    os.write(into, data)
    os.close(into)
    try:
        if error is None:
            assert reading.read_all(Path(f"/dev/fd/{out}")) == TEXT
        else:
            with pytest.raises(ValueError, match=error):
                reading.read_all(Path(f"/dev/fd/{out}"))
    finally:
        os.close(out)


def test_only_a_newline_ends_a_line_and_the_last_needs_none(tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "BLOCK", 3)
    lines = ["\n", "\n", "abcdefgh\x0b\x1c\u2028\r.\n", "\n", "end"]
    assert list(reading.lines(file(tmp_path, "t", "".join(lines).encode()))) == lines


def test_a_zip_is_read_in_order_of_name_and_writes_nothing(tmp_path):
    names = ["b.txt", "../evil.txt", "/abs.txt", "a/b/c.txt", "a/", "C:\\d.txt", "__MACOSX/._b.txt", "a/.DS_Store"]
    path = file(tmp_path, "t.zip", zipped({name: f"{name} é\n".encode() * (name[-1] != "/") for name in names}))
    expected = ["../evil.txt", "/abs.txt", "C:\\d.txt", "a/b/c.txt", "b.txt"]
    assert packing.members(path) == expected
    assert [read(path, name) for name in expected] == [f"{name} é\n" for name in expected]
    assert list(tmp_path.iterdir()) == [path] and not (tmp_path.parent / "evil.txt").exists()


def test_a_duplicate_member_of_a_zip_is_read_once(tmp_path):
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("a.txt", "old")
        archive.writestr("a.txt", "new")
    assert [read(tmp_path / "t.zip", m) for m in packing.members(tmp_path / "t.zip")] == ["new"]


ONE = zipped({"a.txt": b"plain text " * 9}, zipfile.ZIP_STORED)
DEFLATED = zipped({"a": b"plain text"})
LOCAL, CENTRAL = b"PK\3\4\x14\0", b"PK\1\2\x14\3\x14\0"  # the beginnings of its two headers; flags follow
BAD_ZIPS = {
    b"": " is corrupted or not a zip archive",
    b"plain text": " is corrupted or not a zip archive",
    ONE[:-1]: " is corrupted or not a zip archive",
    ONE.replace(CENTRAL, CENTRAL[:-2] + b"\xff\0"): " is corrupted or not a zip archive (zip file version 25.5)",
    zipped({}): " contains no file",
    zipped({"a/": b""}): " contains no file",
    ONE.replace(b"plain", b"plane", 1): " is truncated or corrupted (Bad CRC-32",
    DEFLATED[:31] + b"\xff" + DEFLATED[32:]: " is truncated or corrupted (Error -3",
    ONE.replace(LOCAL + b"\0", LOCAL + b"\1").replace(CENTRAL + b"\0", CENTRAL + b"\1"):
        " cannot be unpacked: File 'a.txt' is encrypted, password required",
    zipped({"a.txt": b""}): "/a.txt is empty",
    zipped({"a.txt": b"ab\xff"}): "/a.txt is not UTF-8: byte 0xff at offset 2",
}  # fmt: skip


@pytest.mark.parametrize(("data", "message"), BAD_ZIPS.items(), ids=BAD_ZIPS.values())
def test_the_error_names_a_bad_zip(tmp_path, data, message):
    path = file(tmp_path, "t.zip", data)
    with pytest.raises(ValueError) as caught:
        [read(path, member) for member in packing.members(path)]
    assert str(caught.value).startswith(f"{path}{message}")


PACKS = {
    "t.gz": gzip.compress,
    "t.zst": zst,
    "t.bz2": bz2.compress,
    "t.xz": lzma.compress,
    "t.zip": lambda data: zipped({"t": data}),
}


@pytest.mark.parametrize("name", PACKS)
def test_a_file_truncated_anywhere_is_refused(tmp_path, name):
    data = PACKS[name](TEXT.encode())
    for size in range(len(data)):
        path = file(tmp_path, name, data[:size])
        with pytest.raises(ValueError, match=f"{re.escape(str(path))} (is (truncated or )?corrupted|is empty)"):
            [read(path, member) for member in packing.members(path)]


@pytest.mark.parametrize("name", ["t.gz", "t.zst", "t.bz2", "t.xz"])
def test_a_file_corrupted_anywhere_is_never_read_wrongly(tmp_path, name):
    data, refused = PACKS[name](TEXT.encode()), 0
    for i in range(len(data)):
        for bit in (1, 0x10, 0x80):
            path = file(tmp_path, name, data[:i] + bytes([data[i] ^ bit]) + data[i + 1 :])
            try:
                assert read(path) == TEXT  # a bit without effect, such as the time in a .gz
            except ValueError as error:
                assert str(error).startswith(str(path))
                refused += 1
    assert refused > 2 * len(data)


@pytest.mark.parametrize("block", SMALL)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_the_error_gives_the_offset_of_a_byte_that_is_not_utf8(tmp_path, monkeypatch, block, mark):
    monkeypatch.setattr(packing, "BLOCK", block)
    text = "aé日😀z"
    for at in range(len(text) + 1):
        for bad in (b"\xff", b"\x80", b"\xe9.", b"\xc0\xaf", b"\xed\xa0\x80"):
            before = mark + text[:at].encode()
            path = file(tmp_path, "t.txt", before + bad + text[at:].encode() + b"!")
            with pytest.raises(ValueError) as caught:
                read(path)
            message = f"{path} is not UTF-8: byte 0x{bad[0]:02x} at offset {len(before)}; "
            assert str(caught.value).startswith(message) and "iconv" not in str(caught.value)  # the rest is UTF-8
        path = file(tmp_path, "t.txt", before[: len(mark)] + text[:at].encode() + b"\0" + text[at:].encode())
        with pytest.raises(ValueError, match=f"t.txt is binary, not text: a zero byte at offset {len(before)}$"):
            read(path)
    for missing in (1, 2, 3):
        path = file(tmp_path, "t.txt", mark + "aé😀".encode()[:-missing])
        with pytest.raises(ValueError, match=f"ends within a character, at offset {len(mark) + 3}: it is truncated"):
            read(path)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("t.txt", b"", "is empty"),
        ("t.gz", gzip.compress(b""), "is empty"),
        ("t.zst", zst(b""), "is empty"),
        ("t.txt", "héllo".encode("utf-16"), "is UTF-16; convert it and use the new file: iconv -f UTF-16 "),
        ("t.txt", "\ufeffhéllo".encode("utf-16-be"), "is UTF-16; convert it"),
        ("t.txt", "hello".encode("utf-16-le"), "is UTF-16LE without a byte-order mark; convert it"),
        ("t.txt", b"hello\0world", "is binary, not text: a zero byte at offset 5"),
        ("t.gz", b"plain", "is truncated or corrupted (Not a gzipped file"),
        ("t.gz", gzip.compress(b"a") + b"more", "is truncated or corrupted (Not a gzipped file"),
        ("t.zst", zst(b"a") + b"more", "is truncated or corrupted"),
        ("t.bz2", bz2.compress(b"a") + b"more", "is truncated or corrupted"),
        ("t.xz", lzma.compress(b"a") + b"more", "is truncated or corrupted"),
        ("t.bz2", bz2.compress(b""), "is empty"),
        ("t.xz", lzma.compress(b""), "is empty"),
        ("t.xz", b"plain", "is truncated or corrupted"),
    ],
)
def test_the_error_names_an_unusable_file(tmp_path, name, data, message):
    with pytest.raises(ValueError, match=f"^{re.escape(f'{tmp_path}/{name} {message}')}"):
        read(file(tmp_path, name, data))


@pytest.mark.parametrize("name", ["t.txt", *PACKS])
def test_the_error_names_a_missing_file(tmp_path, name):
    with pytest.raises(ValueError, match=f"{name} cannot be read: No such file"):
        [read(tmp_path / name, member) for member in packing.members(tmp_path / name)]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["t.txt", *PACKS])
def test_the_error_names_an_unreadable_file(tmp_path, name):
    file(tmp_path, name, b"x").chmod(0)
    with pytest.raises(ValueError, match=f"{name} cannot be read: Permission denied"):
        [read(tmp_path / name, member) for member in packing.members(tmp_path / name)]


@pytest.mark.slow_after(1)
@pytest.mark.parametrize("name", PACKS)
def test_a_decompression_bomb_is_refused_while_it_is_read(tmp_path, monkeypatch, name):
    monkeypatch.setattr(packing, "RATIO", 10)
    monkeypatch.setattr(packing, "GRACE", 1 << 20)
    path = file(tmp_path, name, PACKS[name](bytes([65]) * (150 << 20)))
    tracemalloc.start()
    with pytest.raises(ValueError, match=f"{name} unpacks to more than [0-9,]+ bytes, which cannot be text"):
        for member in packing.members(path):
            for _ in reading.text(path, member):
                pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50 << 20
    file(tmp_path, name, PACKS[name](TEXT.encode() * 1000))
    assert sum(len(read(path, member)) for member in packing.members(path)) == 1000 * len(TEXT)


@pytest.mark.parametrize("block", SMALL)
def test_a_range_loses_only_the_characters_it_cuts(tmp_path, monkeypatch, block):
    monkeypatch.setattr(packing, "BLOCK", block)
    text = "aé日😀\ufeff\u07ff𐀀z"
    path, size = file(tmp_path, "t.txt", text.encode()), len(text.encode())
    spans = [(len(text[:i].encode()), len(text[: i + 1].encode()), c) for i, c in enumerate(text)]
    for start in range(size):
        for stop in [*range(start + 1, size + 2), None]:
            whole = [c for a, b, c in spans if start <= a and (stop is None or b <= stop)]
            assert read(path, start=start, stop=stop) == "".join(whole), (start, stop)
    file(tmp_path, "t.txt", b"a\xc3\xa9\x80z")  # a wrong byte inside the range is still refused
    with pytest.raises(ValueError, match="byte 0x80 at offset 3"):
        read(path, start=1)
