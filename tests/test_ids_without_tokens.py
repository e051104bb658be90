"""Ids without a token are never drawn: a model may have more ids than its tokenizer, whose ids may have gaps."""

import pytest
import torch
from test_generate import LETTERS, small
from tokenizers import Tokenizer as HFTokenizer
from tokenizers import decoders, models, pre_tokenizers

from lm.data.tokenizer import Bytes, Chars, Subword
from lm.data.tokenizer.plain import byte_letters
from lm.generate import GenerationRequest, Sampling, complete, writing
from lm.model import GPT, GPTConfig

MODEL, CHARS = small(), Chars(LETTERS, [])


def gapped():
    """Return a byte-pair tokenizer whose ids have gaps: every third, and all from 300 to 310."""
    vocab = {c: i + i // 2 + 11 * (i + i // 2 >= 300) for i, c in enumerate(byte_letters())}
    hf = HFTokenizer(models.BPE(vocab=vocab, merges=[]))
    hf.pre_tokenizer, hf.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return Subword(hf)


def indifferent(vocab_size):
    """Return a model that gives every id the same probability."""
    torch.manual_seed(0)
    config = GPTConfig(n_layer=1, n_head=1, n_embd=16, block_size=16, tie_embeddings=False)
    model = GPT(config, vocab_size).eval()
    torch.nn.init.zeros_(model.head.weight)
    return model


@pytest.mark.parametrize("tokenizer", [Bytes(["<|endoftext|>"]), gapped()], ids=["padded", "gaps"])
@pytest.mark.parametrize(
    "sampling", [Sampling(0), Sampling(), Sampling(2.0, top_k=400), Sampling(1.0, None, 0.99, None, 1.5)], ids=str
)
def test_ids_without_a_token_are_never_drawn(tokenizer, sampling):
    model = indifferent(tokenizer.vocab_size + 63)
    known = set(range(256 + 1)) if isinstance(tokenizer, Bytes) else set(tokenizer.hf.get_vocab().values())
    completions = complete(
        model, tokenizer, ["ab", "c"], GenerationRequest(40, sampling, 4, end_of_text=False, alternatives=400)
    )
    assert {i for c in completions for i in c.ids} <= known
    assert all(len(c.text) for c in completions)
    pieces = [piece for c in completions for piece in c.pieces]
    share = pytest.approx(1 / model.vocab_size)  # the model's own distribution, over all of its ids
    assert all(p.prob == share and len(p.top) == min(400, model.vocab_size) for p in pieces)
    assert any(i not in known for p in pieces for i, _ in p.top)


def test_padding_the_vocabulary_does_not_change_the_text():
    assert writing.drawable_tokens(CHARS, CHARS.vocab_size) is None
    mask = writing.drawable_tokens(CHARS, CHARS.vocab_size + 2)
    assert mask.tolist() == [True] * CHARS.vocab_size + [False] * 2
    for request in (GenerationRequest(30), GenerationRequest(30, Sampling(0.7, 5, 0.9, 0.01, 1.2), num_samples=3)):
        padded = small(vocab_size=22)
        with torch.no_grad():
            padded.wte.weight[:20], padded.head.weight[:20] = MODEL.wte.weight, MODEL.head.weight
            padded.blocks.load_state_dict(MODEL.blocks.state_dict())
        assert [c.ids for c in complete(padded, CHARS, ["abc"], request)] == [
            c.ids for c in complete(MODEL, CHARS, ["abc"], request)
        ]
