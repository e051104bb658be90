"""Text that is emitted token by token equals the text of all tokens decoded at once, for every kind of tokenizer."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_foreign_tokenizers import KINDS as FOREIGN
from test_foreign_tokenizers import llama_2
from test_ids_without_tokens import gapped
from test_tokenizer import KINDS as OWN
from tokenizers import Regex, decoders, models
from tokenizers import Tokenizer as HFTokenizer

from lm.data.tokenizer import Subword, from_json
from lm.generate import streaming
from lm.generate.streaming import Row
from lm.generate.writing import Completion, GenerationRequest

D = decoders


def with_decoder(decoder, words=()):
    """Return a tokenizer with this decoder and Llama's vocabulary, or these words of which the first is unknown."""
    hf = HFTokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token=words[0])) if words else llama_2()
    hf.decoder = decoder
    return Subword(hf)


BYTES = D.ByteFallback()
PIECES = ["[UNK]", "a", "##a", "##", "▁", "▁▁b", "the</w>", "a</w>", ".", "<0xC3>", "<0xa9>", "<0x20>", "é", " ", "", "\ufffd"]  # fmt: skip
OTHERS = {
    "gaps": gapped(),
    "byte fallback alone": with_decoder(BYTES),
    "byte fallback, two spaces stripped": with_decoder(
        D.Sequence([D.Replace("▁", " "), BYTES, D.Fuse(), D.Strip(" ", 2, 0)])
    ),
    "byte fallback, metaspace": with_decoder(D.Sequence([BYTES, D.Metaspace()])),
    "nested": with_decoder(D.Sequence([D.Sequence([D.Replace("▁", " "), BYTES]), D.Sequence([D.Fuse()])])),
    "replaced in the joined text": with_decoder(D.Sequence([BYTES, D.Fuse(), D.Replace(Regex(" +"), "_")])),
    "lower bytes": with_decoder(D.Sequence([BYTES, D.Fuse(), D.Strip(" ", 1, 0)]), PIECES),
    "word pieces": with_decoder(D.WordPiece(cleanup=True), PIECES),
    "metaspace": with_decoder(D.Metaspace(), PIECES),
    "ends of words": with_decoder(D.BPEDecoder(), PIECES),
    "repeats dropped": with_decoder(D.CTC(pad_token="a"), PIECES),
    "stripped": with_decoder(D.Sequence([D.Fuse(), D.Strip(" ", 3, 0)]), PIECES),
}
TOKENIZERS = OWN | {name: from_json(content) for name, content in FOREIGN.items()} | OTHERS


def ids_of(tokenizer):
    """Return a strategy for ids: random ones, and runs of ids for single bytes, spaces, or unknown text."""
    odd = [i for i in range(tokenizer.vocab_size) if len(tokenizer.decode([i])) == 1] if tokenizer.vocab_size else []
    odd = [i for i in odd if not tokenizer.decode([i]).isalnum()] or [0]
    known = sorted(set(range(tokenizer.vocab_size)) - set(tokenizer.unused_ids))
    one = st.sampled_from(known) | st.sampled_from(odd)
    return st.lists(st.lists(one, max_size=8) | st.builds(lambda i, n: [i] * n, st.sampled_from(odd), st.integers(1, 50)),
                    max_size=12).map(lambda parts: [i for part in parts for i in part])  # fmt: skip


DRAWN = {name: ids_of(tokenizer) for name, tokenizer in TOKENIZERS.items()}


def stream(tokenizer, prompt, ids, **settings):
    """Return the pieces of text that a row emits for these ids, and the completion."""
    completion = Completion("", 0)
    row = Row(
        tokenizer,
        GenerationRequest(**{"max_new_tokens": len(ids), "end_of_text": False} | settings),
        completion,
        prompt,
    )
    pieces = []
    for token in ids:
        if not row.done:
            pieces.append(row.add(token))
    return pieces, completion


def check_streamed_text(name, data):
    tokenizer = TOKENIZERS[name]
    prompt = data.draw(DRAWN[name].filter(bool), "prompt")
    ids = data.draw(DRAWN[name].filter(bool), "ids")
    before = len(tokenizer.decode(prompt))
    whole = tokenizer.decode(prompt + ids)[before:]
    window = data.draw(st.sampled_from([4, 5, 7, 16, 1000]), "window")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming, "WINDOW", window)
        pieces, completion = stream(tokenizer, prompt, ids)
        assert "".join(pieces) == completion.text == whole
        stop = data.draw(st.sampled_from(sorted(set(whole) or {"x"})) | st.just(whole[3:5] or "y"), "stop")
        pieces, completion = stream(tokenizer, prompt, ids, stop=(stop,))
    text = tokenizer.decode(prompt + completion.ids)[before:]
    assert "".join(pieces) == completion.text == text.partition(stop)[0]
    assert completion.ended == ("stop" if stop in text else "length")


@pytest.mark.slow_after(9)
@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=8)
@given(data=st.data())
def test_emitted_text_is_the_text_of_all_tokens_decoded_at_once(name, data):
    check_streamed_text(name, data)


@pytest.mark.slow
@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=200)
@given(data=st.data())
def test_emitted_text_is_the_text_of_all_tokens_decoded_at_once_many_examples(name, data):
    check_streamed_text(name, data)


def test_text_is_emitted_as_soon_as_nothing_can_change_it():
    """Every decoder that works token by token emits all characters at once, except the last."""
    for name, tokenizer in TOKENIZERS.items():
        known = [
            i for i in range(tokenizer.vocab_size) if tokenizer.decode([i]).isalpha() and i not in tokenizer.unused_ids
        ]
        ids = (known * 40)[:60]
        pieces, completion = stream(tokenizer, ids[:1], ids)
        early = "".join(pieces[:-1])
        if name == "replaced in the joined text":
            assert early == ""
        else:
            assert len(early) >= len(completion.text) - len(tokenizer.decode(ids[-2:])) - 1, name


def test_a_byte_that_is_not_utf8_only_affects_its_run_of_bytes():
    tokenizer = from_json(FOREIGN["llama 2"])
    number = tokenizer.hf.get_vocab()
    byte = [number[f"<0x{i:02X}>"] for i in range(256)]
    ids = [*tokenizer.encode("the").tolist(), *(byte[i] for i in "é🙂".encode()), byte[0xFF], number["."], byte[0xC3]]
    pieces, completion = stream(tokenizer, [number["."]], ids)
    assert completion.text == " the" + "\ufffd" * 7 + ".\ufffd"
    assert pieces[-3:] == ["", "\ufffd" * 7 + ".", "\ufffd"]  # the run of bytes is emitted when it has ended


def test_the_window_is_bounded_for_any_repeated_token():
    """Long texts take no longer per token than short ones."""
    for name, tokenizer in TOKENIZERS.items():
        for i in sorted(set(range(tokenizer.vocab_size)) - set(tokenizer.unused_ids))[::11]:
            if not tokenizer.stable_prefix_length([i]) or len(tokenizer.decode([i] * streaming.WINDOW)) < 2:
                continue  # a run of bytes, or almost no text
            row = Row(tokenizer, GenerationRequest(10**9, end_of_text=False), Completion("", 0), [i])
            for _ in range(100):
                row.add(i)
            assert len(row.window) <= 2 * streaming.WINDOW, (name, i)


def test_decoders_that_change_the_joined_text_are_recognized_by_the_file():
    kinds = {name: json.loads(t.to_json())["decoder"] for name, t in TOKENIZERS.items()}
    assert [name for name in kinds if TOKENIZERS[name].stable_prefix_length([1, 1]) == 0] == [
        "replaced in the joined text"
    ]
