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
SMALL = [1, 2, 3, 5, 1 << 18]  # bytes read at a time: characters lie across the borders


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
    """A frame and a skippable one, which end where a block that is read at once does: the next begins with a frame."""
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
def test_every_packing_gives_the_text(tmp_path, monkeypatch, name, block):
    monkeypatch.setattr(packing, "BLOCK", block)
    path = file(tmp_path, name, PACKED[name])
    assert packing.members(path) == [None]
    assert read(path) == TEXT
    assert list(reading.lines(path)) == ["Grüße, 日本 and 😀\r\n", "\n"] * 3


@pytest.mark.parametrize(
    ("data", "told"),
    [(TEXT.encode(), None), (TEXT.encode("utf-16"), "is UTF-16"), (b"caf\xe9 " * 9, "is not UTF-8: byte 0xe9")],
)
def test_a_pipe_is_read_once_and_whole(data, told):
    """As FILE of a script it may be one: scripts/evaluate.py RUN <(command)."""
    out, into = os.pipe()
    os.write(into, data)
    os.close(into)
    try:
        if told is None:
            assert reading.whole(Path(f"/dev/fd/{out}")) == TEXT
        else:
            with pytest.raises(ValueError, match=told):
                reading.whole(Path(f"/dev/fd/{out}"))
    finally:
        os.close(out)


def test_only_a_newline_ends_a_line_and_the_last_needs_none(tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "BLOCK", 3)
    lines = ["\n", "\n", "abcdefgh\x0b\x1c\u2028\r.\n", "\n", "end"]
    assert list(reading.lines(file(tmp_path, "t", "".join(lines).encode()))) == lines


def test_a_zip_is_read_in_order_of_name_and_writes_nothing(tmp_path):
    names = ["b.txt", "../evil.txt", "/abs.txt", "a/b/c.txt", "a/", "C:\\d.txt", "__MACOSX/._b.txt", "a/.DS_Store"]
    path = file(tmp_path, "t.zip", zipped({name: f"{name} é\n".encode() * (name[-1] != "/") for name in names}))
    wanted = ["../evil.txt", "/abs.txt", "C:\\d.txt", "a/b/c.txt", "b.txt"]
    assert packing.members(path) == wanted
    assert [read(path, name) for name in wanted] == [f"{name} é\n" for name in wanted]
    assert list(tmp_path.iterdir()) == [path] and not (tmp_path.parent / "evil.txt").exists()


def test_a_file_of_a_zip_given_twice_is_read_once(tmp_path):
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("a.txt", "old")
        archive.writestr("a.txt", "new")
    assert [read(tmp_path / "t.zip", m) for m in packing.members(tmp_path / "t.zip")] == ["new"]


ONE = zipped({"a.txt": b"plain text " * 9}, zipfile.ZIP_STORED)
DEFLATED = zipped({"a": b"plain text"})
LOCAL, CENTRAL = b"PK\3\4\x14\0", b"PK\1\2\x14\3\x14\0"  # how its two headers begin; flags follow
BAD_ZIPS = {
    b"": " is damaged or no zip archive",
    b"plain text": " is damaged or no zip archive",
    ONE[:-1]: " is damaged or no zip archive",
    ONE.replace(CENTRAL, CENTRAL[:-2] + b"\xff\0"): " is damaged or no zip archive (zip file version 25.5)",
    zipped({}): " holds no file",
    zipped({"a/": b""}): " holds no file",
    ONE.replace(b"plain", b"plane", 1): " is truncated or damaged (Bad CRC-32",
    DEFLATED[:31] + b"\xff" + DEFLATED[32:]: " is truncated or damaged (Error -3",
    ONE.replace(LOCAL + b"\0", LOCAL + b"\1").replace(CENTRAL + b"\0", CENTRAL + b"\1"):
        " cannot be unpacked: File 'a.txt' is encrypted, password required",
    zipped({"a.txt": b""}): "/a.txt is empty",
    zipped({"a.txt": b"ab\xff"}): "/a.txt is not UTF-8: byte 0xff at offset 2",
}  # fmt: skip


@pytest.mark.parametrize(("data", "message"), BAD_ZIPS.items(), ids=BAD_ZIPS.values())
def test_a_bad_zip_is_named(tmp_path, data, message):
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
def test_what_is_truncated_anywhere_is_refused(tmp_path, name):
    data = PACKS[name](TEXT.encode())
    for size in range(len(data)):
        path = file(tmp_path, name, data[:size])
        with pytest.raises(ValueError, match=f"{re.escape(str(path))} (is (truncated or )?damaged|is empty)"):
            [read(path, member) for member in packing.members(path)]


@pytest.mark.parametrize("name", ["t.gz", "t.zst", "t.bz2", "t.xz"])
def test_what_is_damaged_anywhere_is_never_read_wrongly(tmp_path, name):
    data, refused = PACKS[name](TEXT.encode()), 0
    for i in range(len(data)):
        for bit in (1, 0x10, 0x80):
            path = file(tmp_path, name, data[:i] + bytes([data[i] ^ bit]) + data[i + 1 :])
            try:
                assert read(path) == TEXT  # a bit that says nothing, such as the time in a .gz
            except ValueError as error:
                assert str(error).startswith(str(path))
                refused += 1
    assert refused > 2 * len(data)


@pytest.mark.parametrize("block", SMALL)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_byte_that_is_no_utf8_is_named_with_its_place(tmp_path, monkeypatch, block, mark):
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
        with pytest.raises(ValueError, match=f"ends within a character, at offset {len(mark) + 3}: it is cut short"):
            read(path)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("t.txt", b"", "is empty"),
        ("t.gz", gzip.compress(b""), "is empty"),
        ("t.zst", zst(b""), "is empty"),
        ("t.txt", "héllo".encode("utf-16"), "is UTF-16; convert it, and name the new file: iconv -f UTF-16 "),
        ("t.txt", "\ufeffhéllo".encode("utf-16-be"), "is UTF-16; convert it"),
        ("t.txt", "hello".encode("utf-16-le"), "is UTF-16LE without a byte-order mark; convert it"),
        ("t.txt", b"hello\0world", "is binary, not text: a zero byte at offset 5"),
        ("t.gz", b"plain", "is truncated or damaged (Not a gzipped file"),
        ("t.gz", gzip.compress(b"a") + b"more", "is truncated or damaged (Not a gzipped file"),
        ("t.zst", zst(b"a") + b"more", "is truncated or damaged"),
        ("t.bz2", bz2.compress(b"a") + b"more", "is truncated or damaged"),
        ("t.xz", lzma.compress(b"a") + b"more", "is truncated or damaged"),
        ("t.bz2", bz2.compress(b""), "is empty"),
        ("t.xz", lzma.compress(b""), "is empty"),
        ("t.xz", b"plain", "is truncated or damaged"),
    ],
)
def test_an_unusable_file_is_named(tmp_path, name, data, message):
    with pytest.raises(ValueError, match=f"^{re.escape(f'{tmp_path}/{name} {message}')}"):
        read(file(tmp_path, name, data))


@pytest.mark.parametrize("name", ["t.txt", *PACKS])
def test_a_missing_file_is_named(tmp_path, name):
    with pytest.raises(ValueError, match=f"{name} cannot be read: No such file"):
        [read(tmp_path / name, member) for member in packing.members(tmp_path / name)]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("name", ["t.txt", *PACKS])
def test_an_unreadable_file_is_named(tmp_path, name):
    file(tmp_path, name, b"x").chmod(0)
    with pytest.raises(ValueError, match=f"{name} cannot be read: Permission denied"):
        [read(tmp_path / name, member) for member in packing.members(tmp_path / name)]


@pytest.mark.parametrize("name", PACKS)
def test_a_bomb_is_refused_while_it_is_read(tmp_path, monkeypatch, name):
    monkeypatch.setattr(packing, "RATIO", 10)
    monkeypatch.setattr(packing, "GRACE", 1 << 20)
    path = file(tmp_path, name, PACKS[name](bytes([65]) * (150 << 20)))
    tracemalloc.start()
    with pytest.raises(ValueError, match=f"{name} unpacks to more than [0-9,]+ bytes: that is no text"):
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
    file(tmp_path, "t.txt", b"a\xc3\xa9\x80z")  # what no range cuts is refused as ever
    with pytest.raises(ValueError, match="byte 0x80 at offset 3"):
        read(path, start=1)
