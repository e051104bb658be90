"""Documents, from the corpus to the attention mask."""

import csv
import json
import re

import numpy as np
import pytest
import torch
import yaml
from helpers import NANO, config_of, equal, weights

import train as train_script
from lm.data.corpus import Split, Text
from lm.model import GPT, GPTConfig
from lm.model.attention import attend, make_mask

EOT = 0
IDS = torch.tensor([[5, 6, EOT, 7, 8, 9, EOT, 4]])
NUMBERS = torch.tensor([[0, 0, 1, 1, 1, 1, 2, 2]])


def document_mask(documents):
    return make_mask("sdpa", documents.size(1), documents.size(1), documents.device, None, documents)


def test_the_mask_is_causal_and_limited_to_documents():
    mask = document_mask(NUMBERS)[0, 0]
    for i in range(8):
        for j in range(8):
            assert mask[i, j] == (j <= i and NUMBERS[0, i] == NUMBERS[0, j])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_backends_agree_with_the_mask_and_without(dtype):
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 4, 8, 16, dtype=dtype).unbind(0)
    mask = document_mask(NUMBERS.expand(2, -1))
    close = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    torch.testing.assert_close(attend(q, k, v, "sdpa", mask=mask), attend(q, k, v, "manual", mask=mask), **close)
    one = document_mask(torch.zeros(2, 8))
    for backend in ("sdpa", "manual"):
        torch.testing.assert_close(attend(q, k, v, backend, mask=one), attend(q, k, v, backend), **close)


@pytest.mark.parametrize("backend", ["manual", "sdpa"])
def test_a_document_in_a_window_gives_the_same_logits_as_alone(backend):
    torch.manual_seed(0)
    config = GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=8, position="rope", tie_embeddings=False)
    model = GPT(config, 10, backend).eval()
    with torch.no_grad():
        together = model(IDS, NUMBERS)
        for start, stop in ((0, 2), (2, 6), (6, 8)):
            torch.testing.assert_close(together[:, start:stop], model(IDS[:, start:stop]), rtol=1e-4, atol=1e-6)
        assert not torch.allclose(together[:, 3], model(IDS)[:, 3])  # without the mask it attends to earlier documents


@pytest.fixture
def stories(tmp_path):
    path = tmp_path / "stories.jsonl"
    rng = np.random.default_rng(0)
    with path.open("w") as file:
        for i in range(200):
            file.write(json.dumps({"text": f"{i} " + "".join(rng.choice(list("abc \n"), 30))}) + "\n")
    return path


def run(tmp_path, name, *overrides):
    nano = [o for o in NANO if not o.startswith("corpus")]
    config = config_of(*nano, f"data.root={tmp_path}/data", *overrides)
    train_script.train(config, tmp_path / name)
    return tmp_path / name


@pytest.mark.slow
def test_a_run_can_respect_documents(tmp_path, stories):
    corpus = ["corpus=jsonl", f"corpus.path={stories}"]
    plain = run(tmp_path, "plain", *corpus)
    within = {b: run(tmp_path, b, *corpus, "data.respect_documents=true", f"attention={b}") for b in ("manual", "sdpa")}
    assert not equal(weights(plain), weights(within["sdpa"]))
    for key, value in weights(within["manual"]).items():
        torch.testing.assert_close(value, weights(within["sdpa"])[key], rtol=1e-3, atol=1e-4)
    tokenizer = json.loads((plain / "tokenizer.json").read_text())
    assert [t["content"] for t in tokenizer["added_tokens"]] == ["<|endoftext|>"]


@pytest.mark.slow
def test_respect_documents_changes_nothing_for_a_single_document(tmp_path, caplog):
    words = ["corpus=words", "corpus.lines=300"]
    with caplog.at_level("INFO", "lm"):
        a, b = run(tmp_path, "a", *words), run(tmp_path, "b", *words, "data.respect_documents=true")
    assert equal(weights(a), weights(b))
    assert caplog.text.count("data.respect_documents=true has no effect: the corpus is one document") == 1


def test_each_document_ends_with_an_end_of_text_token(tmp_path, stories):
    config = config_of("corpus=jsonl", f"corpus.path={stories}", "tokenizer=char", f"data.root={tmp_path}/data")
    from lm.data.token_files import cache_tokens, cached_tokenizer

    downloads = config.data.downloads()
    text = config.corpus.load(downloads)
    tokenizer = cached_tokenizer(config.tokenizer, text, downloads)
    tokens = cache_tokens(text, tokenizer, downloads)
    documents = [json.loads(line)["text"] for line in stories.read_text().splitlines()]
    assert tokenizer.decode(tokens.train.tolist()) == "".join(
        d + "<|endoftext|>" for d in documents[: len(text.train.ends)]
    )
    assert (tokens.train == tokenizer.end_of_text).sum() == len(text.train.ends)


@pytest.mark.slow
def test_weights_whose_tokenizer_has_no_end_of_text_token_are_refused(tmp_path, stories):
    start = run(tmp_path, "start", "corpus=words", "corpus.lines=300")
    with pytest.raises(ValueError, match="the tokenizer from init_from has no end-of-text token"):
        run(tmp_path, "next", "corpus=jsonl", f"corpus.path={stories}", f"init_from={start}")
    assert not (tmp_path / "next" / "run.json").exists()


def texts(tmp_path, **sizes):
    for name, lines in sizes.items():
        (tmp_path / "texts").mkdir(exist_ok=True)
        (tmp_path / "texts" / f"{name}.txt").write_text("the cat sat on the mat\n" * lines)
    return ["corpus=text", f"corpus.path={tmp_path}/texts"]


@pytest.mark.slow
def test_the_shares_of_the_splits_are_reported_at_every_start(tmp_path, caplog):
    for args in (["trainer.max_steps=4"], ["trainer.max_steps=8"]):
        caplog.clear()
        with caplog.at_level("INFO", "lm"):
            run(tmp_path, "run", *texts(tmp_path, a=20, b=400), *args)
        (row,) = re.findall(
            "corpus    (.*) tokens to train on, (.*) \\((.*) %\\) to validate, in 2 and 1 documents", caplog.text
        )
        train, val, share = (float(number.replace(",", "")) for number in row)
        assert train + val == 420 * 23 + 3 and abs(100 * val / (train + val) - share) < 0.06 and abs(share - 10) < 0.5


@pytest.mark.slow
def test_a_run_of_a_version_that_kept_documents_whole_resumes_with_that_setting(tmp_path):
    corpus = texts(tmp_path, a=20, b=60)
    whole = run(tmp_path, "run", *corpus, "trainer.max_steps=8", "corpus.whole_documents=true")
    config = yaml.safe_load((whole / "config.yaml").read_text())
    del config["corpus"]["whole_documents"]  # as the older version wrote it
    (whole / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(
        ValueError, match="(?s)trained on a different text than .* older version may need corpus.whole_documents=true"
    ):
        run(tmp_path, "run", *corpus, "trainer.max_steps=12")
    run(tmp_path, "run", *corpus, "trainer.max_steps=12", "corpus.whole_documents=true")
    assert json.loads((whole / "run.json").read_text())["metrics"]["step"] == 12


@pytest.mark.slow_after(1)
@pytest.mark.parametrize(
    ("val", "advice"),
    [
        ([], "validate on more text (corpus.val_fraction)"),
        (["corpus.val_path=VAL"], "validate on more text (corpus.val_path)"),
    ],
)
def test_the_error_for_too_little_validation_text_names_its_setting(tmp_path, caplog, val, advice):
    corpus = texts(tmp_path, a=30)
    (tmp_path / "val.txt").write_text("the cat sat\n")
    val = [setting.replace("VAL", f"{tmp_path}/val.txt") for setting in val]
    with pytest.raises(ValueError) as caught:
        run(tmp_path, "run", *corpus, *val, "model.block_size=100")
    assert str(caught.value).endswith(
        f"too few for one window of model.block_size=100: {advice}, or lower model.block_size"
    )
    with caplog.at_level("INFO", "lm"):
        run(tmp_path, "run", *corpus, *val, "model.block_size=8", "trainer.max_steps=4")
    assert "val/loss is uncertain by about" in caplog.text and f"; {advice} or raise trainer.val_batches" in caplog.text


# ---- val/excess


def test_excess_is_the_loss_above_the_lowest_possible_loss(nano):
    path = nano("corpus.lines=600", "trainer.max_steps=4")
    rows = list(csv.DictReader((path / "metrics.csv").open()))
    floor = json.loads((path / "run.json").read_text())["floor"]
    (row,) = [row for row in rows if row["val/loss"]]
    assert abs(float(row["val/loss"]) - floor - float(row["val/excess"])) < 1e-6
    assert 1.24 < floor < 1.45 < float(row["val/loss"])  # T=16: the unseen beginning of a word costs some 1.45 / 16


def test_the_floor_is_the_loss_of_the_true_distribution(tmp_path):
    """Use a simple distribution: a fair coin. The first character of a window is given."""
    from lm.data.batches import DataConfig
    from lm.data.token_files import Tokens
    from lm.data.tokenizer import Chars
    from lm.training.datamodule import TokenData

    ids = np.random.default_rng(0).integers(0, 2, 1000).astype(np.uint16)
    tokenizer = Chars("ht")
    text = Split.of("".join("ht"[i] for i in ids[:103]))

    def floor(T, law, of=text):
        return TokenData(Tokens(ids, ids[:103]), DataConfig(batch_size=4), T, 1, None).lowest_loss(of, tokenizer, law)

    for T in (8, 9, 16):
        assert abs(floor(T, lambda w: -np.log(2) * len(w)) - np.log(2)) < 1e-12
        assert floor(T, lambda w: None) is None
        first = floor(T, lambda w: -np.log(2) * len(w) if w.startswith("h") else -np.inf)
        assert abs(first - np.log(2)) < 1e-12  # windows with probability 0 do not count
    assert floor(8, lambda w: -np.inf) is None
    other = Split.of("H" + text.read()[1:])  # for example, if the tokenizer has folded case
    assert floor(8, lambda w: -np.log(2) * len(w), other) is None


def test_other_corpora_have_no_excess(tmp_path):
    (tmp_path / "a.txt").write_text("the cat sat on the mat\n" * 60)
    path = run(tmp_path, "run", "corpus=text", f"corpus.path={tmp_path}/a.txt", "trainer.max_steps=4")
    rows = list(csv.DictReader((path / "metrics.csv").open()))
    assert all(row["val/excess"] == "" for row in rows)
    assert Text(Split.of("a"), Split.of("b")).documents is False
