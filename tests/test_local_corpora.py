import bz2
import gzip
import io
import lzma
import os
import re
import shlex
import shutil
import struct
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pyarrow
import pytest
import zstandard
from helpers import config_of, slow_except
from pyarrow import parquet

from lm.base.commands import install
from lm.data.corpus import CodeConfig, CorpusConfig, HFConfig, JSONLConfig, StdlibConfig, TextConfig
from lm.data.download import Downloads


def documents(config: CorpusConfig, root: Path) -> list[str]:
    text = replace(config, whole_documents=True).load(Downloads(root))
    parts = [""]
    for split in (text.train, text.val):
        for piece, last in split.pieces():
            parts[-1] += piece
            parts += [""] * last
    assert text.documents or len(parts) <= 3
    return parts[:-1]


def error_message(config: CorpusConfig, root: Path) -> str:
    with pytest.raises(ValueError) as caught:
        config.load(Downloads(root))
    assert not [p for p in root.glob("cache/*") if p.suffix != ".lock"]
    return str(caught.value)


def packed(members: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return data.getvalue()


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A folder of files that contain their own names."""
    (tmp_path / "tree/b/folder.txt").mkdir(parents=True)
    names = "a.txt b/b.txt b/c/c.txt b/c/d.md .h.txt .git/g.txt .git/[1].txt b/__pycache__/p.txt b/.x/x.txt"
    for path in [tmp_path / "tree" / name for name in names.split()]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(path.relative_to(tmp_path / "tree")))
    (tmp_path / "tree/z.txt.gz").write_bytes(gzip.compress(b"z.txt.gz"))
    (tmp_path / "tree/b/y.txt.zst").write_bytes(zstandard.compress(b"b/y.txt.zst"))
    monkeypatch.chdir(tmp_path / "tree")
    monkeypatch.setenv("HOME", str(tmp_path / "tree"))
    return tmp_path / "tree"


ALL = "a.txt b/b.txt b/c/c.txt b/y.txt.zst z.txt.gz"


@pytest.mark.parametrize(
    ("path", "keys", "found"),
    [
        ("a.txt", {}, "a.txt"),
        (".h.txt", {}, ".h.txt"),
        (".git/[1].txt", {}, ".git/[1].txt"),
        (".git", {}, ".git/[1].txt .git/g.txt"),
        (["z.txt.gz", "b/c", "a.txt", "b/c/c.txt"], {}, "z.txt.gz b/c/c.txt a.txt"),
        ("*.txt", {}, "a.txt"),
        ("b/*", {}, "b/b.txt b/y.txt.zst"),
        ("**/*.txt", {}, "a.txt b/__pycache__/p.txt b/b.txt b/c/c.txt"),
        (".", {}, ALL),
        ("~", {}, ALL),
        ("~/b", {}, "b/b.txt b/c/c.txt b/y.txt.zst"),
        (".", {"glob": "*.txt"}, "a.txt z.txt.gz"),
        (".", {"glob": "**/*.md"}, "b/c/d.md"),
        (".", {"exclude": ["c.txt", "*.gz"]}, "a.txt b/b.txt b/y.txt.zst"),
        (".", {"exclude": ["b"]}, "a.txt z.txt.gz"),
        (".", {"exclude": ["b/c/*"]}, "a.txt b/b.txt b/y.txt.zst z.txt.gz"),
        ("~", {"exclude": ["**/b/**", "tree"]}, "a.txt z.txt.gz"),
        ("b/*.txt", {"exclude": ["b"]}, "b/b.txt"),
    ],
)
def test_a_path_stands_for_these_files(tree, path, keys, found):
    named = [str(p.relative_to(tree) if p.is_absolute() else p) for p in TextConfig(path=path, **keys).paths()["train"]]
    assert named == found.split()


@pytest.mark.parametrize(
    ("path", "keys", "message"),
    [
        ("a.text", {}, "path=a.text: no such file (looked in {tree}); did you mean './a.txt'?"),
        (["a.txt", "b/bb.txt"], {}, "path=b/bb.txt: no such file (looked in {tree}); did you mean 'b/b.txt'?"),
        ("nowhere/*.txt", {}, "path=nowhere/*.txt: no such file (looked in {tree})"),
        ("a.txt", {"val_path": "b/b.tx"}, "val_path=b/b.tx: no such file (looked in {tree}); did you mean 'b/b.txt'?"),
        (
            "b/c",
            {"glob": "*.js"},
            "path=b/c contains no file that matches corpus.glob='*.js'; it contains: 2 .txt, 1 .md",
        ),
        (
            "empty",
            {},
            "path=empty is a folder without files (hidden files and links to folders are ignored)",
        ),
        ("b", {"exclude": ["*"]}, "exclude=['*'] leaves no file of corpus.path=b"),
    ],
)
def test_the_error_names_a_path_that_stands_for_no_file(tree, path, keys, message):
    (tree / "empty").mkdir()
    (tree / "b/c/e.txt").write_text("e")
    assert error_message(TextConfig(path=path, **keys), tree.parent) == "corpus." + message.format(tree=tree)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_the_error_names_an_unreadable_file(tree):
    (tree / "a.txt").chmod(0)
    assert error_message(TextConfig(path="."), tree.parent) == "a.txt cannot be read: Permission denied"


def test_separate_validation_text_is_used(tree):
    text = TextConfig(path=tree / "b", val_path="a.txt", max_chars=9).load(Downloads(tree.parent))
    assert (text.train.read(), text.val.read()) == ("b/b.txtb/", "a.txt")


def test_empty_files_are_not_documents(tree):
    (tree / "b/0.txt").write_text("")
    (tree / "b/1.txt.gz").write_bytes(gzip.compress(b""))
    with zipfile.ZipFile(tree / "b/2.txt.zip", "w") as archive:
        for name, content in {"y/2": "two", "x/": "", "x/0": "", "x/1": "one"}.items():
            archive.writestr(name, content)
    assert documents(TextConfig(path="."), tree.parent) == ["a.txt", "one", "two", *ALL.split()[1:]]
    assert error_message(TextConfig(path="b/0.txt"), tree.parent / "other") == "b/0.txt is empty"
    assert error_message(TextConfig(path=["b/0.txt", "b/1.txt.gz"]), tree.parent / "other") == "the corpus has no text"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One\n---\nTwo\n\n---\n Three ---\n", ["One\n", "Two\n\n", " Three ---\n"]),
        ("---\n---\nOne\r\n---\r\nTwo\r\n  ---  \nThree\n---", ["One\r\n", "Two\r\n", "Three\n"]),
        ("One\n---\n----\n---\nThree", ["One\n", "----\n", "Three"]),
    ],
)
def test_a_separator_separates_documents(tmp_path, text, expected):
    (tmp_path / "t.txt").write_bytes(text.encode())
    assert documents(TextConfig(path=f"{tmp_path}/t.txt", separator="---"), tmp_path) == expected


def test_tinystories_is_split_into_its_stories(shared, tmp_path):
    path = shared / "tinystories" / "TinyStories-train.first2MiB.txt"
    stories = documents(TextConfig(path=str(path), separator="<|endoftext|>"), tmp_path)
    assert len(stories) == 2317
    assert "<|endoftext|>\n".join(stories).encode() == path.read_bytes()


GOOD = """\ufeff{"text": "One é"}\n\n  \n{"id": NaN, "text": "Two \\u00e9 \\ud83d\\ude00 \u2028"}\r
{"text": ""}\n{"text": "%s"}""" % ("3" * 5_000_000)


@pytest.mark.slow_after(1)
@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_each_line_of_json_is_a_document(tmp_path, suffix):
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}[suffix]
    (tmp_path / f"t.jsonl{suffix}").write_bytes(pack(GOOD.encode()))
    assert documents(JSONLConfig(path=str(tmp_path)), tmp_path) == ["One é", "Two é 😀 \u2028", "3" * 5_000_000]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "cut', " cannot be parsed as JSON: Unterminated string"),
        ('{"text": 1' + "0" * 5000 + "}", " cannot be parsed as JSON: Exceeds the limit"),
        ("[" * 100_000, " cannot be parsed as JSON: maximum recursion depth"),
        ('["text"]', " is not a JSON object"),
        ("NaN", " is not a JSON object"),
        ("{}", " has no corpus.field=text; it has nothing"),
        ('{"id": 1, "txt": "a"}', " has no corpus.field=text; it has id, txt; did you mean 'txt'?"),
        ('{"text": null}', ": corpus.field=text holds null, not text"),
        ('{"text": NaN}', ": corpus.field=text holds NaN, not text"),
        ('{"text": ["a"]}', ': corpus.field=text holds ["a"], not text'),
        (
            '{"text": "a \\ud800"}',
            r": corpus.field=text holds '\ud800', half a character (a lone surrogate), which UTF-8 cannot encode",
        ),
    ],
)
def test_the_error_names_a_bad_line_of_json(tmp_path, line, message):
    (tmp_path / "t.jsonl").write_text('{"text": "a"}\n' * 3 + f'\n{line}\n{{"text": "b"}}\n')
    assert error_message(JSONLConfig(path=f"{tmp_path}/t.jsonl"), tmp_path).startswith(
        f"{tmp_path}/t.jsonl, line 5{message}"
    )
    few = JSONLConfig(path=f"{tmp_path}/t.jsonl", max_chars=2)
    assert documents(few, tmp_path) == ["a", "a"]  # the rest is not read


def test_each_file_of_code_is_a_document(tmp_path):
    for i, name in enumerate(["pkg/__init__.py", "pkg/a.py", "pkg/sub/b.py", "setup.py", "notes.txt"]):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"# {name}\n" * (i > 0))
    assert documents(CodeConfig(path=str(tmp_path)), tmp_path) == ["# pkg/a.py\n", "# pkg/sub/b.py\n", "# setup.py\n"]
    (tmp_path / "pkg/old.py").write_bytes("# naïve\n".encode("latin1"))
    message = error_message(CodeConfig(path=str(tmp_path), val_fraction=0.5), tmp_path / "other")
    assert message.startswith(f"{tmp_path}/pkg/old.py is not UTF-8: byte 0xef at offset 4;")


def test_the_standard_library_is_large_and_without_tests(tmp_path):
    config = StdlibConfig()
    files = config.paths()["train"]
    assert files == StdlibConfig().paths()["train"] and {"argparse.py", "heapq.py"} <= {p.name for p in files}
    names = [f"/{p.relative_to(config.path)}" for p in files]
    assert not any(re.search("/(test|tests|site-packages|__pycache__)/|/test_", name) for name in names)
    text = StdlibConfig(path=str(Path(config.path) / "email")).load(Downloads(tmp_path))  # all of it takes seconds
    assert text.documents and text.train.size > 200_000
    assert sum(p.stat().st_size for p in files) > 8_000_000


def dataset(path: Path, column: list, name: str = "text") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.table({"id": range(len(column)), name: column})
    if path.suffix == ".parquet":
        parquet.write_table(table, path)
    else:
        with pyarrow.ipc.new_stream(str(path), table.schema) as stream:
            for batch in table.to_batches(max_chunksize=2):
                stream.write_batch(batch)


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
@pytest.mark.parametrize(
    ("path", "splits"),
    [
        ("", {"train": "data/train-00-of-01", "val": "data/validation-00-of-01", "test": "data/test-00-of-01"}),
        ("", {"train": "train/0000", "val": "valid/0000", "test": "test/0000"}),
        ("*/*/*.*", {"train": "en/train/0000", "val": "en/dev/0000", "test": "en/test/0000"}),
        ("", {"train": "wikitext-train", "val": "wikitext-validation"}),
        ("", {"train": "testament/train", "val": "testament/val"}),
        ("a-test/*", {"train": "a-test/data-00000-of-00001"}),
        ("wikitext-validation.SUFFIX", {"train": "wikitext-validation", "": "wikitext-train"}),
    ],
)
def test_the_splits_of_a_dataset_follow_from_its_file_names(tmp_path, monkeypatch, path, splits, suffix):
    for split, name in splits.items():
        dataset(tmp_path / "set" / f"{name}.{suffix}", [f"{split} {i} é" for i in range(5)])
    (tmp_path / "set" / "state.json").write_text("{}")
    monkeypatch.setenv("HOME", str(tmp_path))
    text = HFConfig(path=f"~/set/{path}".replace("SUFFIX", suffix)).load(Downloads(tmp_path))
    assert text.documents and text.train.read().startswith("train 0 étrain 1 é")
    assert text.val.read() == ("val 0 éval 1 éval 2 éval 3 éval 4 é" if "val" in splits else "train 4 é")
    assert (text.test is not None) == ("test" in splits)


def test_a_dataset_with_validation_text_elsewhere_keeps_its_test_text(tmp_path):
    for name in ("train", "test", "more"):
        dataset(tmp_path / f"{name}.parquet", [name] * 3)
    text = HFConfig(path=[f"{tmp_path}/t*"], val_path=f"{tmp_path}/more.parquet").load(Downloads(tmp_path))
    assert [split.read() for split in (text.train, text.val, text.test)] == ["train" * 3, "more" * 3, "test" * 3]


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_the_error_names_a_bad_dataset(tmp_path, suffix):
    path, config = tmp_path / f"t.{suffix}", HFConfig(path=f"{tmp_path}/t.{suffix}")
    for column, message in (([1, 2], "holds int, not text"), (["a", None], "holds NoneType, not text")):
        dataset(path, column)
        assert error_message(config, tmp_path) == f"{path}: corpus.field=text {message}"
    dataset(path, ["a"], name="content")
    assert error_message(config, tmp_path) == f"{path} has no column text; it has id, content"
    dataset(path, ["abc", "déf"] * 50)
    data = path.read_bytes()
    corrupted = [b"", b"no dataset", data[:-9], data[: len(data) // 2], data.replace(b"d\xc3\xa9f", b"d\xffef")]
    if suffix == "arrow":  # a text that ends before it begins, which pyarrow alone does not detect
        corrupted.append(data.replace(struct.pack("<3i", 0, 3, 7), struct.pack("<3i", 0, 3, -7)))
    for content in corrupted:
        path.write_bytes(content)
        assert error_message(config, tmp_path).startswith(f"{path} is corrupted or not a .{suffix} file: ")
    shutil.copy(path, tmp_path / "t.json")
    assert error_message(HFConfig(path=f"{tmp_path}/t.json"), tmp_path).endswith(
        "t.json contains no .parquet or .arrow file"
    )


def test_without_pyarrow_the_error_names_the_extra_to_install(tmp_path, monkeypatch):
    dataset(tmp_path / "t.parquet", ["a", "b"])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert (
        error_message(HFConfig(path=f"{tmp_path}/t.parquet"), tmp_path)
        == f"corpus=hf needs pyarrow: {install('.[hf]')}"
    )


def test_validation_files_are_not_trained_on(tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text(name * 20)
    config = TextConfig(path=str(tmp_path), val_path=str(tmp_path / "b.txt"))
    text = config.load(Downloads(tmp_path / "data"))
    assert (text.train.read(), text.val.read()) == ("a" * 20 + "c" * 20, "b" * 20)
    assert config.load(Downloads(tmp_path / "data")).digest == text.digest  # the cache, which exists now, is not read
    with pytest.raises(ValueError, match="includes all files of corpus.path=.*; no file is left to train on"):
        TextConfig(path=str(tmp_path), val_path=str(tmp_path)).load(Downloads(tmp_path / "data"))
    assert TextConfig(path=[str(tmp_path / f"{n}.txt") for n in "ab"]).load(Downloads(tmp_path / "d")).documents


def test_a_dataset_without_a_train_split_is_refused_unless_it_has_only_one_split(tmp_path):
    table = pyarrow.table({"text": ["one", "two"]})
    for name in ("validation", "test"):
        parquet.write_table(table, tmp_path / f"{name}.parquet")
    with pytest.raises(ValueError, match="has a test and a val split, but no train split"):
        HFConfig(path=str(tmp_path)).load(Downloads(tmp_path / "data"))
    text = HFConfig(path=str(tmp_path / "test.parquet")).load(Downloads(tmp_path / "data"))
    assert text.train.read() + text.val.read() == "onetwo"


def test_a_file_named_twice_is_read_once(tmp_path, monkeypatch):
    (tmp_path / "my.txt").write_text("to be or not to be\n" * 20)
    monkeypatch.chdir(tmp_path)
    text = TextConfig(path=["my.txt", "./my.txt", str(tmp_path / "my.txt")]).load(Downloads(tmp_path / "data"))
    assert text.train.size + text.val.size == 380 and not text.documents


@pytest.mark.parametrize("path", [".", "**/*.txt", "*/../**/*.txt"])
def test_the_cache_is_never_read_as_a_corpus(tmp_path, monkeypatch, path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "my.txt").write_text("to be or not to be\n" * 20)
    monkeypatch.chdir(tmp_path)
    for root in ("data", "data", "other", "sub/data", "data"):
        text = TextConfig(path=path).load(Downloads(Path(root)))
        assert text.train.size + text.val.size == 380
    inside = next(Path("data/cache").glob("text-*"))  # unless it is named
    assert TextConfig(path=f"{inside}/*.txt").load(Downloads(Path("data"))).documents


def test_the_same_text_in_two_places_is_prepared_once(tmp_path, monkeypatch):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("to be or not to be\n" * 20)
        TextConfig(path=str(tmp_path / name)).load(Downloads(tmp_path / "data"))
    assert len(list((tmp_path / "data" / "cache").glob("text-*"))) == 1


def test_pipes_and_broken_links_in_a_folder_are_skipped(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "broken.txt").symlink_to(tmp_path / "nowhere")
    (tmp_path / "a.txt").write_text("to be or not to be\n")
    assert [p.name for p in TextConfig(path=str(tmp_path)).paths()["train"]] == ["a.txt"]


STORIES = "Once.<|endoftext|>Twice.\n<|endoftext|>\n\nThrice\n<|endoftext|> \n"


@pytest.mark.parametrize(
    ("text", "separator", "expected"),
    [
        (STORIES, "<|endoftext|>", ["Once.", "Twice.\n", "\nThrice\n"]),
        (STORIES.replace("<|endoftext|>", "</s>"), "</s>", ["Once.", "Twice.\n", "\nThrice\n"]),
        (STORIES.replace("<|endoftext|>", "[SEP]"), "[SEP]", ["Once.", "Twice.\n", "\nThrice\n"]),
        ("<eos>One<eos><eos> <eos>two<eos>", "<eos>", ["One", "two"]),
        ("One<eos>\ntwo<eos>\r\n three<eos>  \n", "<eos>", ["One", "two", " three"]),
        ("One --- two\n---\nthree---\n", "---", ["One --- two\n", "three---\n"]),
        ("a <b\n<\nc> [\n", "<", ["a <b\n", "c> [\n"]),  # not like a special token
    ],
)
def test_a_separator_like_a_special_token_also_separates_inside_a_line(tmp_path, text, separator, expected):
    (tmp_path / "t.txt").write_bytes(text.encode())
    assert documents(TextConfig(path=f"{tmp_path}/t.txt", separator=separator), tmp_path) == expected


@pytest.mark.parametrize(
    ("text", "separator", "problem"),
    [
        ("One\ntwo\n", "<|endoftext|>", "does not occur in {}; without it each file is a document"),
        ("One\ntwo\n", "---", "does not occur in {}; without it each file is a document"),
        ("One --- two ---\nthree---\n", "---", "occurs 3 times in {}, but never on a line of its own: put it on lines"),
    ],
)
def test_a_separator_that_separates_nothing_is_refused(tmp_path, text, separator, problem):
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(text)
    for path, where, times in (("a.txt", "a.txt", 1), ("", "a.txt and 1 other files", 2)):
        message = error_message(TextConfig(path=f"{tmp_path}/{path}", separator=separator), tmp_path / "data")
        expected = problem.format(f"{tmp_path}/{where}").replace("3 times", f"{3 * times} times")
        assert message.startswith(f"corpus.separator={separator} {expected}")


def logged_notes(config: CorpusConfig, root: Path, caplog) -> list[str]:
    caplog.clear()
    with caplog.at_level("INFO", "lm"):
        config.load(Downloads(root))
    return [record.message for record in caplog.records if record.message.startswith("note ")]


@pytest.mark.parametrize("name", ["<|endoftext|>", "<|end_of_text|>", "<|eos|>", "<eos>", "</s>", "[EOS]", "[SEP]"])
def test_a_note_gives_the_setting_for_end_of_text_tokens_in_the_text(tmp_path, caplog, name):
    path = tmp_path / "t.txt"
    path.write_text(f"One.{name}Two.\n{name}\n" * 400)
    for _ in range(2):  # the second time from the cache
        (line,) = logged_notes(TextConfig(path=str(path)), tmp_path, caplog)
        assert line.startswith(f"note      the text contains {name} 800 times; if documents end there, set ")
    arguments = shlex.split(line.partition(", set ")[2])
    corpus = config_of("corpus=text", f"corpus.path={path}", *arguments).corpus
    assert corpus.separator == name and len(documents(corpus, tmp_path)) == 800
    assert logged_notes(corpus, tmp_path, caplog) == []


def test_end_of_text_tokens_are_counted_across_blocks_and_splits(tmp_path, caplog):
    for shift in range(14):  # the block of 1 MiB ends before, within or after one
        (tmp_path / "t.txt").write_text(
            "x" * ((1 << 20) - shift) + "<|endoftext|>" * 2 + "y" * 300_000 + "<|endoftext|>"
        )
        (line,) = logged_notes(TextConfig(path=f"{tmp_path}/t.txt"), tmp_path / "data", caplog)
        assert "<|endoftext|> 3 times" in line


# ---- results do not depend on the cache

CONTENT = {
    "plain": "Grüße aus Köln.\n".encode() * 20,
    "latin1": "Grüße aus Köln.\n".encode("latin1") * 20,
    "json": b'{"text": "one two three four"}\n' * 20,
    "utf-16": ("Grüße\n" * 20).encode("utf-16"),
    "short": b"P",
    "short gz": b"\x1f",
    "almost zip": b"PK" * 30,
}
CONTENT |= {f"{name}.{pack}": {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstandard.compress}[pack](data)
            for name, data in list(CONTENT.items())[:3] for pack in ("gz", "bz2", "xz", "zst")}  # fmt: skip
CONTENT |= {
    f"{name}.zip": packed({f"{name}.txt": data, "b.md": b"other\n" * 9}) for name, data in list(CONTENT.items())[:3]
}
NAMES = ["t.txt", "t.gz", "t.zip", "t.xz", "t.txt.bz2", "t.zst", "t.jsonl", "t", "T.GZ"]


def outcome(config: CorpusConfig, root: Path) -> str:
    try:
        return config.load(Downloads(root)).digest
    except ValueError as error:
        return re.sub(r"t[\w.]*", "", str(error).partition("\n")[0], flags=re.IGNORECASE)


@pytest.mark.slow_after(6)
@pytest.mark.parametrize("content", CONTENT)
@pytest.mark.parametrize("kind", slow_except([TextConfig], [TextConfig, JSONLConfig, CodeConfig]))
def test_the_result_for_a_file_does_not_depend_on_the_cache(tmp_path, monkeypatch, kind, content):
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        Path(name).write_bytes(CONTENT[content])
    configs = [kind(path=name, val_fraction=0.3) for name in NAMES]
    alone = [outcome(config, tmp_path / f"data{i}") for i, config in enumerate(configs)]
    for order, root in ((range(len(NAMES)), "there"), (reversed(range(len(NAMES))), "back")):
        for i in order:
            assert outcome(configs[i], tmp_path / root) == alone[i], NAMES[i]
    if content.partition(".")[2] in ("gz", "bz2", "xz", "zst"):  # packed files are unpacked under any name
        assert len(set(alone)) == 1


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_the_format_of_a_dataset_is_recognized_by_its_bytes(tmp_path, suffix):
    dataset(tmp_path / f"t.{suffix}", ["one", "two", "three"])
    other = {"parquet": "arrow", "arrow": "PARQUET"}[suffix]
    shutil.copy(tmp_path / f"t.{suffix}", tmp_path / f"u.{other}")
    for root in ("a", "b"):
        paths = [f"t.{suffix}", f"u.{other}"][:: 1 if root == "a" else -1]
        for path in paths:
            assert documents(HFConfig(path=f"{tmp_path}/{path}"), tmp_path / root) == ["one", "two", "three"]


def test_a_zip_is_read_like_a_folder_with_its_files(tmp_path):
    with zipfile.ZipFile(tmp_path / "src.zip", "w") as archive:
        for name, content in {
            "p/a.py": b"a = 1\n",
            "p/b.py": b"b = 2\n",
            "p/c.png": b"\x89PNG\0",
            "p/t/d.py": b"d = 4\n",
        }.items():
            archive.writestr(name, content)
    text = CodeConfig(path=str(tmp_path / "src.zip"), exclude=["**/t/*"]).load(Downloads(tmp_path / "data"))
    assert text.train.read() + text.val.read() == "a = 1\nb = 2\n"


def test_validation_rows_of_a_dataset_are_not_trained_on(tmp_path):
    for name, rows in {"a": ["one"], "b": ["two"], "cache-1": ["two"]}.items():
        parquet.write_table(pyarrow.table({"text": rows}), tmp_path / f"{name}.parquet")
    text = HFConfig(path=str(tmp_path), val_path=str(tmp_path / "b.parquet")).load(Downloads(tmp_path / "data"))
    assert (text.train.read(), text.val.read()) == ("one", "two")
