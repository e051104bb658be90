"""Looking inside a model: every number is checked by an identity, over architectures drawn at random."""

from __future__ import annotations

import copy
import math

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings

from lm.analysis.attribution import attribute
from lm.analysis.heads import KINDS, score_heads
from lm.analysis.lens import logit_lens
from lm.analysis.norms import stream_norms
from lm.analysis.trace import record
from lm.base.errors import UserError
from lm.data.batches import document_numbers
from lm.model import GPT, GPTConfig

VOCAB = 29
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5}


@st.composite
def models(draw, **fixed):
    """Draw a small model of any architecture, with every parameter random, and the settings of its attention."""
    heads = draw(st.sampled_from([1, 2, 4]))
    choice = {
        "n_layer": draw(st.integers(1, 3)),
        "n_head": heads,
        "n_kv_head": draw(st.sampled_from([n for n in (None, 1, 2, 4) if n is None or heads % n == 0])),
        "n_embd": heads * draw(st.sampled_from([2, 4, 6])),
        "block_size": draw(st.integers(6, 16)),
        "bias": draw(st.booleans()),
        "bias_proj": draw(st.sampled_from([None, True, False])),
        "bias_mlp": draw(st.sampled_from([None, True, False])),
        "bias_head": draw(st.booleans()),
        "position": draw(st.sampled_from(["learned", "sinusoidal", "rope", "none"])),
        "window": draw(st.sampled_from([None, 1, 3, 5])),
        "norm": draw(st.sampled_from(["layernorm", "rmsnorm"])),
        "norm_eps": draw(st.sampled_from([None, 1e-3])),
        "norm_gain": draw(st.booleans()),
        "norm_stream": draw(st.booleans()),
        "qk_norm": draw(st.booleans()),
        "mlp": draw(st.sampled_from(["gelu", "gelu_tanh", "relu", "relu2", "swiglu"])),
        "norm_embd": draw(st.booleans()),
        "tie_embeddings": draw(st.booleans()),
        "logit_softcap": draw(st.sampled_from([None, 3.0])),
        "vocab_multiple": draw(st.sampled_from([1, 8])),
        "dropout": draw(st.sampled_from([0.0, 0.5])),
        **fixed,
    }
    torch.manual_seed(draw(st.integers(0, 1000)))
    model = GPT(GPTConfig(**choice), VOCAB, draw(st.sampled_from(["manual", "sdpa", "auto"])))
    for p in model.parameters():
        p.data.normal_(0.0, 0.5)
    return model.to(draw(st.sampled_from([torch.float64, torch.float32]))).eval()


def ids_of(model: GPT, rows: int = 1) -> torch.Tensor:
    return torch.randint(VOCAB, (rows, model.config.block_size), generator=torch.Generator().manual_seed(1))


def near(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Compare relative to the largest number, if that is more than 1."""
    assert a.shape == b.shape
    return float((a - b).abs().max()) <= TOLERANCE[b.dtype] * max(1.0, float(b.abs().max()))


@given(models(), st.booleans())
@settings(max_examples=60)
@torch.no_grad()
def test_the_pattern_times_the_values_is_the_output_of_attention(model, documents):
    ids, end = ids_of(model, rows=2), 3
    numbers = document_numbers(ids, end if documents else None)
    with record(model) as trace:
        model(ids, numbers)
    assert len(trace.layers) == model.config.n_layer
    T, window = ids.size(1), model.config.window or 99
    q, k = torch.arange(T)[:, None], torch.arange(T)
    visible = ((k <= q) & (q - k < window)).expand(2, T, T)
    if documents:
        visible = visible & (numbers[:, :, None] == numbers[:, None])
    for layer in trace.layers:
        pattern = layer.pattern
        assert near(pattern.sum(-1), torch.ones(pattern.shape[:3], dtype=pattern.dtype))
        assert (pattern.masked_select(~visible[:, None]) == 0).all()
        values = layer.v.repeat_interleave(pattern.size(1) // layer.v.size(1), dim=1)
        assert near((pattern @ values).transpose(1, 2), layer.z)


@given(models(norm_stream=False))
@settings(max_examples=60)
@torch.no_grad()
def test_the_residual_stream_is_the_sum_of_its_terms_and_so_is_every_logit(model):
    ids = ids_of(model)
    with record(model) as trace:
        model(ids)
    x = trace.layers[0].resid_pre
    for layer in trace.layers:
        assert torch.equal(layer.resid_pre, x)
        assert near(layer.resid_pre + layer.attn_out, layer.resid_mid)
        assert near(layer.resid_mid + layer.mlp_out, layer.resid_post)
        x = layer.resid_post
    uncapped = model.head(model.norm(x))[0]
    for token, against, position in ((5, None, -1), (0, 7, 2), (VOCAB - 1, 3, 0)):
        found = attribute(trace, token, against, position)
        logit = uncapped[position, token] - (0 if against is None else uncapped[position, against])
        total = torch.tensor(sum(term.value for term in found.terms), dtype=logit.dtype)
        size = max(1.0, max(abs(term.value) for term in found.terms))  # large terms may cancel
        assert near(total / size, logit / size)
        assert near(torch.tensor(found.logit / size, dtype=logit.dtype), logit / size)
        names = [term.name for term in found.terms]
        assert len(set(names)) == len(names) and names[0] == "embed"


@given(models(norm_stream=False, position="learned"))
@settings(max_examples=20)
@torch.no_grad()
def test_a_term_is_what_the_logit_loses_without_it_when_the_norm_keeps_its_scale(model):
    """Remove one head or one embedding from the final stream by hand, and apply the norm with the old scale."""
    ids, token = ids_of(model), 4
    with record(model) as trace:
        model(ids)
    x = trace.layers[-1].resid_post[0, -1].double()
    block, layer = model.blocks[-1], trace.layers[-1]
    D = model.config.n_embd // model.config.n_head
    head = (layer.z[0, -1, 0].double() @ block.attn.c_proj.weight[:, :D].double().mT).double()

    def logit(stream: torch.Tensor) -> torch.Tensor:
        center = stream - stream.mean() if isinstance(model.norm, torch.nn.LayerNorm) else stream
        old = x - x.mean() if isinstance(model.norm, torch.nn.LayerNorm) else x
        gain = 1.0 if model.norm.weight is None else model.norm.weight.double()
        scaled = gain * center / (old.square().mean() + model.norm.eps).sqrt()
        return scaled @ model.head.weight[token].double()

    terms = {term.name: term.value for term in attribute(trace, token).terms}
    expected = float(logit(x) - logit(x - head))
    assert abs(terms[f"L{model.config.n_layer - 1}.H0"] - expected) <= 2e-5 * max(1.0, abs(expected))


def test_attribution_is_refused_with_norm_stream():
    model = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=8, norm_stream=True), VOCAB).eval()
    with record(model) as trace, torch.no_grad():
        model(ids_of(model))
    with pytest.raises(UserError, match="norm_stream"):
        attribute(trace, 1)


@given(models())
@settings(max_examples=40)
@torch.no_grad()
def test_the_lens_of_the_last_layer_is_the_prediction_of_the_model(model):
    ids = ids_of(model)
    with record(model) as trace:
        logits = model(ids)
    readings = logit_lens(trace)
    assert [r.name for r in readings] == ["embed", *(f"L{i}" for i in range(model.config.n_layer))]
    last, probs = readings[-1], logits[0].float().softmax(-1)
    assert torch.equal(last.top, logits[0].argmax(-1)) and (last.rank == 0).all()
    assert near(last.kl, torch.zeros_like(last.kl))
    assert near(last.next_prob[:-1], probs[:-1].gather(1, ids[0, 1:, None])[:, 0])
    assert all((r.kl > -1e-5).all() for r in readings)
    embedded = model.logits(model.norm(trace.layers[0].resid_pre))[0].float()
    assert torch.equal(readings[0].top, embedded.argmax(-1))


def test_recording_changes_nothing():
    """The state, the random stream and the mode stay the same, hooks are removed, and logits are bitwise equal."""
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=8, dropout=0.5), VOCAB).train()
    ids, before = ids_of(model), copy.deepcopy(model.state_dict())
    stream = torch.get_rng_state()
    with record(model) as trace:
        recorded = model(ids)
        assert not model.training
    assert torch.equal(torch.get_rng_state(), stream)
    assert model.training and all(block.attn.training for block in model.blocks)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert torch.equal(recorded, model.eval()(ids))
    assert trace.layers[0].resid_pre.requires_grad  # gradients flow where they are enabled


def test_hooks_are_removed_after_an_error_and_the_trace_holds_the_last_pass():
    model = GPT(GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=8), VOCAB).eval()
    with pytest.raises(AssertionError), record(model):
        model(torch.zeros(1, 9, dtype=torch.long))  # longer than the context
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    with record(model) as trace:
        model(torch.zeros(1, 8, dtype=torch.long))
        model(torch.ones(1, 5, dtype=torch.long))
    assert trace.ids.tolist() == [[1] * 5] and len(trace.layers) == 2


@pytest.mark.slow
def test_models_that_cannot_be_recorded_are_refused():
    from lm.model.kv_cache import KVCache

    model = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=8), VOCAB).eval()
    with record(model), pytest.raises(UserError, match="cache"):
        model.features(ids_of(model), cache=KVCache())
    model.compile()
    with pytest.raises(UserError, match="compiled"), record(model):
        pass


@pytest.mark.parametrize("position", ["learned", "rope"])
def test_a_random_model_scores_within_the_chance_band(position):
    torch.manual_seed(3)
    model = GPT(GPTConfig(n_layer=2, n_head=4, n_embd=64, block_size=64, position=position), 200).eval()
    found = score_heads(model)
    for kind in KINDS:
        assert found.scores[kind].shape == (2, 4)
        assert ((found.scores[kind] - found.chance).abs() < 0.2 * found.chance).all()
    assert abs(found.first_loss - found.second_loss) < 0.05
    again = score_heads(model)
    assert torch.equal(again.scores["induction"], found.scores["induction"])


def induction_model(T: int = 32, V: int = 24) -> GPT:
    """Build a model whose weights are an induction circuit.

    The stream holds one-hot codes: this token, its position, and the token before, which head 0 of layer 0 copies by
    its position. Head 0 of layer 1 looks for positions whose token before is this token, and copies their token into
    the logits.
    """
    C = 2 * (2 * V + T)  # two heads, each as wide as all codes together
    config = GPTConfig(
        n_layer=2, n_head=2, n_embd=C, block_size=T, position="learned", bias=False, tie_embeddings=False,
        norm_gain=False, norm="rmsnorm", norm_eps=1e-12,
    )  # fmt: skip
    model = GPT(config, V).double().eval()
    for p in model.parameters():
        p.data.zero_()
    token, before, place, D = 0, V, 2 * V, C // 2
    out = D  # the logits are read from here
    model.wte.weight.data[:, token : token + V] = torch.eye(V)
    model.wpe.weight.data[:, place : place + T] = torch.eye(T)
    strong = 1e3
    first, second = (block.attn for block in model.blocks)
    q, k, v = (first.c_attn.weight.data[i * C : i * C + D] for i in range(3))  # head 0: (D, C)
    for t in range(1, T):
        q[t - 1, place + t] = strong  # position t asks for position t - 1
    for t in range(T):
        k[t, place + t] = 1.0
    for w in range(V):
        v[w, token + w] = 1.0
        first.c_proj.weight.data[before + w, w] = 1.0
    q, k, v = (second.c_attn.weight.data[i * C : i * C + D] for i in range(3))
    for w in range(V):
        q[w, token + w], k[w, before + w], v[w, token + w] = strong, 1.0, 1.0
        k[w, place] = -1.0  # position 0 has no token before it, so head 0 copied its own token there
        second.c_proj.weight.data[out + w, w] = 1.0
        model.head.weight.data[w, out + w] = 100.0
    return model


@torch.no_grad()
def test_a_hand_built_induction_circuit_scores_near_one_and_copies():
    model = induction_model()
    found = score_heads(model)
    assert found.best("induction")[:2] == (1, 0) and found.best("induction")[2] > 0.99
    assert found.best("previous")[:2] == (0, 0) and found.best("previous")[2] > 0.99
    assert found.scores["duplicate"].max() < 0.1
    assert found.second_loss < 0.01 < math.log(24) < found.first_loss
    half = torch.randperm(24)[:16]
    logits = model(torch.cat((half, half))[None])
    assert logits[0, 16:-1].argmax(-1).tolist() == half[1:].tolist()


def test_the_number_of_repeated_tokens_can_be_chosen():
    model = induction_model()
    assert score_heads(model, half=5).best("induction")[2] > 0.99
    for half in (1, 17):  # the context holds 2 x 16
        with pytest.raises(UserError, match=f"--repeat={half} must be from 2 to 16"):
            score_heads(model, half=half)


def test_scores_need_room_for_a_repetition():
    short = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=3), VOCAB).eval()
    with pytest.raises(UserError, match="too few"):
        score_heads(short)
    narrow = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=32, window=2), VOCAB).eval()
    with pytest.raises(UserError, match="window"):
        score_heads(narrow)


@torch.no_grad()
def test_norms_are_those_of_the_stream():
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=8), VOCAB).eval()
    with record(model) as trace:
        model(ids_of(model))
    rows = stream_norms(trace)
    x = model.wte(ids_of(model)) + model.wpe.weight
    assert rows[0].resid_pre == pytest.approx(float((x.norm(dim=-1) / 4).mean()), rel=1e-5)  # sqrt(16) is 4
    assert rows[1].resid_pre == rows[0].resid_post
    cosine = F.cosine_similarity(trace.layers[1].mlp_out, trace.layers[1].resid_mid, dim=-1).mean()
    assert rows[1].mlp_cosine == pytest.approx(float(cosine), abs=1e-5)
