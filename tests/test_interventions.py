"""Patching, ablation and probes: exact where something exact is known, and chance where nothing can be read."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from test_inside import VOCAB, ids_of, induction_model, models, near

from lm.analysis.ablation import ablate, mean_outputs
from lm.analysis.edits import Edit, edited
from lm.analysis.patching import patch
from lm.analysis.probes import control_labels, probe, split_documents
from lm.analysis.sparse import SparseAutoencoder, measure_quality, stream_before, train_autoencoder
from lm.analysis.trace import record
from lm.base.errors import UserError
from lm.model import GPT, GPTConfig


def put(value):
    return lambda x: value


@given(models())
@settings(max_examples=25)
@torch.no_grad()
def test_an_edit_with_the_models_own_values_changes_no_bit(model):
    ids = ids_of(model)
    with record(model) as trace:
        logits = model(ids)
    for site in ("resid_pre", "attn_out", "mlp_out", "z"):
        for i, layer in enumerate(trace.layers):
            with edited(model, [Edit(site, i, put(getattr(layer, site)))]):
                assert torch.equal(model(ids), logits), site
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@given(models())
@settings(max_examples=25)
@torch.no_grad()
def test_the_whole_stream_of_another_text_gives_its_logits_and_one_position_no_earlier_ones(model):
    ids = ids_of(model)
    other = (ids + 1) % VOCAB
    with record(model) as trace:
        expected = model(other)
    logits, p = model(ids), ids.size(1) // 2
    for i, layer in enumerate(trace.layers):
        with edited(model, [Edit("resid_pre", i, put(layer.resid_pre))]):
            assert torch.equal(model(ids), expected)

        def one(x, v=layer.resid_pre):
            x[:, p] = v[:, p]
            return x

        with edited(model, [Edit("resid_pre", i, one)]):
            assert torch.equal(model(ids)[:, :p], logits[:, :p])


@given(models())
@settings(max_examples=15)
@torch.no_grad()
def test_patches_are_those_of_single_edits(model):
    """Patching copies of the text in one batch gives the same as one text at a time."""
    clean, answer, against = ids_of(model), 3, 5
    corrupted = clean.clone()
    corrupted[0, 1] = (clean[0, 1] + 1) % VOCAB
    found = patch(model, clean, corrupted, answer, against)
    with record(model) as trace:
        logits = model(clean)[0, -1].double()
    assert found.clean == pytest.approx(float(logits[answer] - logits[against]))
    at = model.config.n_layer - 1

    def one(x):
        x[:, 1] = trace.layers[at].mlp_out[:, 1]
        return x

    with edited(model, [Edit("mlp_out", at, one)]):
        logits = model(corrupted)[0, -1].double()
    assert near(found.positions["mlp_out"][at, 1].to(model.wte.weight.dtype),
                (logits[answer] - logits[against]).to(model.wte.weight.dtype))  # fmt: skip
    # In front of layer 0 the texts differ at position 1 alone, so that the whole difference is there.
    assert float(found.positions["resid_pre"][0, 1]) == pytest.approx(found.clean, abs=1e-4)
    assert float(found.positions["resid_pre"][0, 0]) == pytest.approx(found.corrupted, abs=1e-4)
    if abs(found.clean - found.corrupted) > 1e-3:
        scale = found.normalize(found.positions["resid_pre"])
        assert float(scale[0, 1]) == pytest.approx(1.0, abs=0.1)


def test_patching_finds_the_heads_of_the_induction_circuit():
    """The clean text repeats 1 2 3 1: the circuit predicts 2. In the corrupted one 9 follows the first 1."""
    model = induction_model()
    clean, corrupted = torch.tensor([[4, 1, 2, 3, 5, 1]]), torch.tensor([[4, 1, 9, 3, 5, 1]])
    found = patch(model, clean, corrupted, answer=2, against=9)
    assert found.clean > 10 and found.corrupted < -10
    heads = found.normalize(found.heads)
    assert heads[1, 0] == pytest.approx(1.0, abs=0.01)  # the induction head carries the whole answer
    assert heads[1, 1] == pytest.approx(0.0, abs=0.01)
    stream = found.normalize(found.positions["resid_pre"])
    assert stream[0, 2] == pytest.approx(1.0, abs=0.01) and stream[0, 4] == pytest.approx(0.0, abs=0.01)


def test_texts_of_different_lengths_are_refused():
    model = GPT(GPTConfig(n_layer=1, n_head=1, n_embd=8, block_size=8), VOCAB).eval()
    with pytest.raises(UserError, match="4 and 5 tokens"):
        patch(model, torch.ones(1, 4, dtype=torch.long), torch.ones(1, 5, dtype=torch.long), 0, 1)


@given(models())
@settings(max_examples=15)
@torch.no_grad()
def test_without_all_heads_attention_adds_its_bias_alone(model):
    ids = ids_of(model)
    with edited(model, [Edit("z", 0, torch.zeros_like)]), record(model) as trace:
        model(ids)
    bias = model.blocks[0].attn.c_proj.bias
    expected = torch.zeros_like(trace.layers[0].attn_out) + (0 if bias is None else bias)
    assert torch.equal(trace.layers[0].attn_out, expected)


@torch.no_grad()
def test_a_head_that_writes_nothing_can_be_ablated_without_effect():
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=8), VOCAB).eval()
    for p in model.parameters():
        p.normal_(0.0, 0.3)
    model.blocks[1].attn.c_proj.weight[:, 8:] = 0  # head 1
    windows = torch.randint(VOCAB, (20, 9))
    loss, singles, joint = ablate(model, windows)
    expected = F.cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())
    assert loss == pytest.approx(float(expected), rel=1e-6)
    rises = {x.name: x.rise for x in singles}
    assert list(rises) == ["L0.H0", "L0.H1", "L1.H0", "L1.H1", "L0.mlp", "L1.mlp"]
    assert [x.name for x in joint] == ["all heads", "all mlps"]
    assert rises["L1.H1"] == 0.0 and all(rises[name] != 0.0 for name in rises if name != "L1.H1")


@torch.no_grad()
def test_the_rise_and_its_error_are_those_of_a_model_with_the_part_replaced_by_hand():
    torch.manual_seed(1)
    model = GPT(GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=8), VOCAB).eval()
    for p in model.parameters():
        p.normal_(0.0, 0.3)
    windows = torch.randint(VOCAB, (11, 9))
    with record(model) as trace:
        model(windows[:, :-1])
    mean = trace.layers[0].mlp_out.mean((0, 1))
    assert near(mean_outputs(model, windows)[0][1], mean)
    x = trace.layers[0].resid_mid + mean
    losses = F.cross_entropy(model.logits(model.norm(x)).mT, windows[:, 1:], reduction="none").mean(1)
    base = F.cross_entropy(model(windows[:, :-1]).mT, windows[:, 1:], reduction="none").mean(1)
    _, singles, _ = ablate(model, windows, ("mlps",))
    assert singles[0].rise == pytest.approx(float((losses - base).mean()), abs=1e-5)
    assert singles[0].error == pytest.approx(float((losses - base).std() / math.sqrt(11)), abs=1e-5)


def examples(n: int = 1500, width: int = 12):
    torch.manual_seed(0)
    return torch.randn(n, width), torch.randint(40, (n,)), torch.arange(n) // 30  # features, tokens, documents


def test_a_probe_reads_a_linear_property_perfectly():
    features, tokens, documents = examples()
    labels = (features @ torch.randn(12, 3)).argmax(1)
    result = probe("L0", features, labels, tokens, documents)
    assert result.accuracy > 0.97 and result.control < 0.5 and result.selectivity > 0.5
    assert 0.25 < result.majority < 0.55 and result.examples == 300


def test_a_probe_reads_nothing_where_there_is_nothing():
    features, tokens, documents = examples()
    labels = torch.randint(3, (len(features),))
    result = probe("L0", features, labels, tokens, documents)
    chance = 1 / 3
    assert abs(result.accuracy - chance) < 4 * math.sqrt(chance * (1 - chance) / result.examples)


def test_documents_are_not_divided_and_too_few_are_refused():
    _, _, documents = examples()
    parts = split_documents(documents)
    assert (sum(part.int() for part in parts) == 1).all()
    for number in documents.unique():
        assert sum(bool(part[documents == number].any()) for part in parts) == 1
    with pytest.raises(UserError, match="3 texts"):
        split_documents(torch.tensor([0, 1, 2, 2]))


def test_the_control_task_gives_every_token_one_label():
    _, tokens, _ = examples()
    labels = control_labels(torch.randint(3, (len(tokens),)), tokens, 0)
    for token in tokens.unique():
        assert len(labels[tokens == token].unique()) == 1
    assert len(labels.unique()) == 3


# ---- sparse autoencoders


@pytest.mark.slow
def test_an_autoencoder_without_sparsity_recovers_everything(monkeypatch):
    monkeypatch.setattr("lm.analysis.sparse.STEPS", 3000)
    x = torch.randn(2000, 8, generator=torch.Generator().manual_seed(1)) * 5 + 3
    sae = train_autoencoder(x, features=16, active=16)
    error = (sae(x) - x).square().sum() / (x - x.mean(0)).square().sum()
    assert float(error) < 1e-3


def test_an_autoencoder_finds_the_directions_that_vectors_are_made_of():
    """Each vector is one of 24 directions in 16 channels, times a number from 1 to 2."""
    generator = torch.Generator().manual_seed(2)
    directions = torch.nn.functional.normalize(torch.randn(24, 16, generator=generator), dim=1)
    chosen, sizes = torch.randint(24, (4000,), generator=generator), 1 + torch.rand(4000, 1, generator=generator)
    sae = train_autoencoder(sizes * directions[chosen], features=64, active=1)
    cosines = torch.nn.functional.normalize(sae.decoder.weight.T, dim=1) @ directions.T  # (64, 24)
    random = torch.nn.functional.normalize(torch.randn(64, 16, generator=generator), dim=1) @ directions.T
    assert float((cosines.amax(0) > 0.95).double().mean()) > 0.8 > float((random.amax(0) > 0.95).double().mean())


@torch.no_grad()
def test_a_perfect_autoencoder_recovers_the_whole_loss_and_the_mean_nothing():
    model = GPT(GPTConfig(n_layer=2, n_head=2, n_embd=16, block_size=8), VOCAB).eval()
    for p in model.parameters():
        p.normal_(0.0, 0.3)
    windows = torch.randint(VOCAB, (12, 9))
    x = stream_before(model, windows[:, :-1], 1).flatten(0, 1)
    sae = SparseAutoencoder(x, 32, 32)
    for weight in (sae.encoder.weight, sae.decoder.weight):
        weight.zero_()
    sae.encoder.weight[:16], sae.encoder.weight[16:] = torch.eye(16), -torch.eye(16)
    sae.decoder.weight[:, :16], sae.decoder.weight[:, 16:] = torch.eye(16), -torch.eye(16)
    quality = measure_quality(sae, model, windows, 1)
    assert quality.recovered == pytest.approx(1.0, abs=1e-5) and quality.explained == pytest.approx(1.0, abs=1e-5)
    assert quality.active == pytest.approx(16, abs=0.1)  # of each pair of directions, one is active
    sae.threshold.fill_(1e9)
    quality = measure_quality(sae, model, windows, 1)
    assert (quality.active, quality.dead) == (0, 1) and quality.recovered == pytest.approx(0.0, abs=1e-5)
