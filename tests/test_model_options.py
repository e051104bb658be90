"""Each option of the architecture has its documented effect."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from lm.generate import Sampling, decode
from lm.model import GPT, GPTConfig, KVCache, sinusoids
from lm.model.attention import AttentionConfig, attend, make_mask

POSITIONS, NORMS = ("learned", "sinusoidal", "rope", "none"), ("layernorm", "rmsnorm")
MLPS = ("gelu", "gelu_tanh", "relu", "relu2", "swiglu")
IDS = torch.arange(24).view(2, 12) % 11


def build_noisy_model(**fields):
    torch.manual_seed(0)
    model = GPT(GPTConfig(**{"n_layer": 2, "n_head": 4, "n_embd": 32, "block_size": 12} | fields), 11)
    with torch.no_grad():
        for p in model.parameters():  # so that no gain is 1, no bias is 0, and every branch affects the output
            p.add_(0.2 * torch.randn_like(p))
    return model


@pytest.mark.parametrize(("position", "norm", "mlp"), itertools.product(POSITIONS, NORMS, MLPS))
def test_gradients_agree_with_finite_differences(position, norm, mlp):
    """Compare along a random direction in the space of all parameters, in float64."""
    model = build_noisy_model(
        position=position, norm=norm, mlp=mlp, qk_norm=mlp == "relu2", n_kv_head=2, window=5
    ).double()
    loss = F.cross_entropy(model(IDS).flatten(0, 1), IDS.roll(-1, 1).flatten())
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(loss, parameters)
    torch.manual_seed(1)
    direction = [torch.randn_like(p) for p in parameters]
    slope = sum((g * d).sum() for g, d in zip(gradients, direction, strict=True)).item()
    losses, step = [], 1e-7  # so small that no relu changes the sign of its input
    with torch.no_grad():
        for sign in (1, -1):
            for p, d in zip(parameters, direction, strict=True):
                p.add_(sign * step * d)
            losses.append(F.cross_entropy(model(IDS).flatten(0, 1), IDS.roll(-1, 1).flatten()).item())
            for p, d in zip(parameters, direction, strict=True):
                p.sub_(sign * step * d)
    assert slope == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("backend", ["manual", "sdpa"])
@pytest.mark.parametrize("window", [None, 1, 3, 12, 40])
def test_a_query_attends_only_to_its_window_and_not_to_the_future(backend, window):
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 2, 12, 8).unbind(0)
    mask = make_mask(backend, 12, 12, q.device, window, None)
    before = attend(q, k, v, backend, mask=mask)
    for j in range(12):
        moved = v.clone()
        moved[:, :, j] += 1
        changed = (attend(q, k, moved, backend, mask=mask) - before).abs().amax((0, 1, 3)) > 1e-6
        assert changed.tolist() == [j <= i and (window is None or i - j < window) for i in range(12)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_sdpa_equals_manual_under_every_mask(dtype, documents, window, groups):
    torch.manual_seed(0)
    q = torch.randn(2, 4, 12, 8, dtype=dtype)
    k, v = torch.randn(2, 2, 4 // groups, 12, 8, dtype=dtype).unbind(0)
    numbers = torch.arange(24).view(2, 12) // 5 if documents else None
    outputs = [attend(q, k, v, b, mask=make_mask(b, 12, 12, q.device, window, numbers)) for b in ("manual", "sdpa")]
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(*outputs, atol=tolerance, rtol=tolerance)
    repeated = attend(q, *(x.repeat_interleave(groups, 1) for x in (k, v)), "manual",
                  mask=make_mask("manual", 12, 12, q.device, window, numbers))  # fmt: skip
    assert torch.equal(outputs[0], repeated)  # grouped heads are equal to repeated heads


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("queries", [12, 5, 1])
def test_flex_applies_the_same_masks_as_manual(monkeypatch, queries, window, documents):
    """A CPU can only run the forward pass, without compilation."""
    from torch.nn.attention.flex_attention import flex_attention

    monkeypatch.setattr("lm.model.attention._flex", lambda: flex_attention)
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 4, queries, 16), torch.randn(2, 2, 12, 16), torch.randn(2, 2, 12, 16)
    numbers = torch.arange(24).view(2, 12) // 5 if documents else None
    masks = [make_mask(backend, queries, 12, q.device, window, numbers) for backend in ("manual", "flex")]
    outputs = [attend(q, k, v, b, mask=m) for b, m in zip(("manual", "flex"), masks, strict=True)]
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("window", [None, 40])
@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize("groups", [1, 4])
def test_flex_equals_manual_on_a_gpu(window, documents, groups):
    torch.manual_seed(0)
    q = torch.randn(2, 4, 256, 64, device="cuda", requires_grad=True)
    k, v = torch.randn(2, 2, 4 // groups, 256, 64, device="cuda").unbind(0)
    numbers = (torch.arange(512).view(2, 256) // 70).cuda() if documents else None
    results = []
    for backend in ("manual", "flex"):
        y = attend(q, k, v, backend, mask=make_mask(backend, 256, 256, q.device, window, numbers))
        results.append((y, torch.autograd.grad(y.square().sum(), q)[0]))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=1e-2, rtol=1e-2)


def test_flex_is_refused_on_a_device_that_cannot_train_with_it():
    with pytest.raises(ValueError, match=r"needs a CUDA GPU, and this run is on cpu .* and attention without dropout"):
        AttentionConfig("flex").require("cpu", 0.1)
    AttentionConfig("sdpa").require("cpu", 0.1)


CACHED = [
    {"position": position, "window": window, "n_kv_head": groups, "backend": backend}
    for position in POSITIONS for window in (None, 4) for groups in (None, 2) for backend in ("manual", "sdpa")
]  # fmt: skip


@pytest.mark.parametrize("fields", CACHED, ids=str)
def test_logits_with_a_cache_equal_those_of_a_full_forward_pass(fields):
    backend = fields.pop("backend") if "backend" in fields else "auto"
    model = build_noisy_model(**fields).eval()
    for block in model.blocks:
        block.attn.backend = backend
    model.backend = backend
    fields["backend"] = backend
    with torch.no_grad():
        full = model(IDS)
        for parts in ([12], [1] * 12, [5, 1, 1, 5], [7, 5]):
            cache, seen = KVCache(), []
            for piece in IDS.split(parts, dim=1):
                seen.append(model.logits(model.features(piece, cache=cache)))
            torch.testing.assert_close(torch.cat(seen, dim=1), full, atol=1e-4, rtol=0)


@pytest.mark.parametrize("position", POSITIONS)
def test_generation_with_and_without_a_cache_is_the_same_beyond_the_context(position):
    model = build_noisy_model(position=position, n_kv_head=1, window=6).eval()
    expected, start = IDS[:1, :3], 0
    with torch.no_grad():
        for _ in range(25):
            while expected.size(1) - start > 12:  # the context; a quarter of it is dropped at once
                start += 3
            expected = torch.cat((expected, model(expected[:, start:])[:, -1].argmax(-1, keepdim=True)), dim=1)
    generated = decode(model, [IDS[0, :3]], Sampling(temperature=0), torch.zeros(1, 25))
    assert torch.cat([ids for ids, _ in generated]).tolist() == expected[0, 3:].tolist()


def test_without_positions_the_order_of_earlier_tokens_has_no_effect():
    model = build_noisy_model(position="none", n_layer=1).eval()
    shuffled = torch.cat((IDS[:, torch.randperm(11)], IDS[:, -1:]), dim=1)
    torch.testing.assert_close(model(IDS)[:, -1], model(shuffled)[:, -1], atol=1e-5, rtol=1e-5)
    for position in POSITIONS[:3]:
        model = build_noisy_model(position=position, n_layer=1).eval()
        assert not torch.allclose(model(IDS)[:, -1], model(shuffled)[:, -1], atol=1e-3)


def test_sinusoids_match_the_formula_of_the_paper():
    table = sinusoids(50, 16)
    for t, i in itertools.product((0, 1, 7, 49), range(8)):
        angle = t / 10000 ** (2 * i / 16)
        assert table[t, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-4)
        assert table[t, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-4)


@pytest.mark.parametrize("init", ["normal", "unit"])
def test_sinusoids_have_the_scale_of_initial_learned_positions_or_position_scale(init):
    fields = {"position": "sinusoidal", "init": init, "tie_embeddings": False, "n_embd": 256}
    learned_scale = build_new_model(**fields | {"position": "learned"}).wpe.weight.detach().std()
    scale = build_new_model(**fields).sinusoids.square().mean().sqrt()
    assert float(scale) == pytest.approx({"normal": 0.02, "unit": 1.0}[init], rel=0.01)
    assert init == "normal" or float(scale) == pytest.approx(float(learned_scale), rel=0.05)
    assert build_new_model(**fields, position_scale=3.0).sinusoids.abs().max() == pytest.approx(3.0)


@pytest.mark.parametrize("norm", NORMS)
def test_norms_use_norm_eps_and_norm_gain(norm):
    assert {m.eps for m in build_noisy_model(norm=norm, norm_eps=0.5).modules() if hasattr(m, "eps")} == {0.5}
    default_eps = {"layernorm": 1e-5, "rmsnorm": 1e-6}[norm]
    assert {m.eps for m in build_noisy_model(norm=norm).modules() if hasattr(m, "eps")} == {default_eps}
    assert not [n for n, _ in build_noisy_model(norm=norm, norm_gain=False).named_parameters() if "norm" in n]


@pytest.mark.parametrize(
    ("fields", "places"),
    [
        ({"bias": False}, set()),
        ({"bias": True}, {"attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj", "norm_1", "norm_2", "norm"}),
        ({"bias": False, "bias_qkv": True}, {"attn.c_attn"}),
        ({"bias": False, "bias_proj": True}, {"attn.c_proj"}),
        ({"bias": False, "bias_mlp": True}, {"mlp.c_fc", "mlp.c_proj"}),
        ({"bias": False, "bias_norm": True}, {"norm_1", "norm_2", "norm"}),
        ({"bias": False, "bias_head": True}, {"head"}),
    ],
)
def test_biases_are_where_the_config_asks_for_them(fields, places):
    names = [n.removesuffix(".bias") for n, _ in build_noisy_model(**fields).named_parameters() if n.endswith("bias")]
    assert {n.partition(".")[2].partition(".")[2] if n.startswith("blocks") else n for n in names} == places


@pytest.mark.parametrize(
    ("field", "places"),
    [("dropout_embd", {"drop"}), ("dropout_resid", {"blocks.0.drop", "blocks.1.drop"}),
     ("dropout_mlp", {"blocks.0.mlp.drop", "blocks.1.mlp.drop"}), ("dropout_attn", set())],
)  # fmt: skip
def test_dropout_is_where_the_config_asks_for_it_and_off_in_eval(field, places):
    model = build_noisy_model(**{field: 0.5})
    assert {n for n, m in model.named_modules() if isinstance(m, torch.nn.Dropout) and m.p} == places
    assert {b.attn.dropout for b in model.blocks} == {0.5 if field == "dropout_attn" else 0.0}
    torch.manual_seed(1)
    assert not torch.equal(model(IDS), model(IDS))
    assert torch.equal(model.eval()(IDS), model(IDS))


def test_grouped_heads_have_fewer_parameters():
    full, grouped = build_noisy_model(bias=False), build_noisy_model(bias=False, n_kv_head=1)
    assert full.num_params - grouped.num_params == 2 * (
        2 * 3 * 8 * 32
    )  # two layers, k and v, three fewer heads of width 8


def test_a_softcap_limits_the_logits():
    free, capped = build_noisy_model(), build_noisy_model(logit_softcap=0.5)
    assert free(IDS).abs().max() > 0.5 > capped(IDS).abs().max()
    torch.testing.assert_close(capped(IDS), 0.5 * (free(IDS) / 0.5).tanh())


def test_a_padded_vocabulary_has_logits_only_for_real_tokens():
    model = build_noisy_model(vocab_multiple=64)
    assert model.wte.weight.shape == model.head.weight.shape == (64, 32) and model(IDS).shape == (2, 12, 11)
    generated = decode(model.eval(), list(IDS), Sampling(temperature=5.0), torch.rand(2, 50))
    assert torch.stack([ids for ids, _ in generated]).max() < 11


@pytest.mark.parametrize(("mlp", "ratio", "hidden"), [("gelu", 2.0, 64), ("relu", 0.5, 16), ("swiglu", 8.0, 192)])
def test_mlp_ratio_sets_the_width_of_the_mlp(mlp, ratio, hidden):
    assert build_noisy_model(mlp=mlp, mlp_ratio=ratio).blocks[0].mlp.c_proj.in_features == hidden


def build_new_model(**fields):
    torch.manual_seed(0)
    return GPT(GPTConfig(**{"n_layer": 2, "n_head": 4, "n_embd": 64, "block_size": 12} | fields), 500)


def test_with_zero_projections_each_block_is_the_identity():
    model = build_new_model(init="zero_proj").eval()
    x = torch.randn(1, 12, 64)
    for block in model.blocks:
        assert torch.equal(block(x, None), x)


def test_he_uniform_is_bounded_by_the_fan_in():
    model = build_new_model(init="he_uniform", tie_embeddings=False)
    for name, a in (
        ("wte", 1 / 8),
        ("wpe", 1 / 8),
        ("head", (2 / 64) ** 0.5),
        ("blocks.0.mlp.c_proj", (2 / 256) ** 0.5),
    ):
        weight = model.get_submodule(name).weight
        assert 0.95 * a < weight.abs().max() <= a and weight.std().item() == pytest.approx(a / 3**0.5, rel=0.05)


@pytest.mark.parametrize("every", [1, 2])
def test_recomputation_saves_memory_and_does_not_change_gradients(every):
    saved, gradients = [], []
    for n in (0, every):
        model = build_new_model(recompute_every=n, dropout=0.1)
        size = 0

        def pack(tensor):
            nonlocal size
            size += tensor.numel()
            return tensor

        torch.manual_seed(1)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = model(IDS).square().mean()
        loss.backward()
        saved.append(size)
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert torch.equal(*gradients) and saved[1] < (0.75 if every == 2 else 0.5) * saved[0]


def test_compilation_keeps_the_names_of_weights():
    model = build_noisy_model()
    names = list(model.state_dict())
    expected = model(IDS)
    model.compile(backend="eager")
    torch.testing.assert_close(model(IDS), expected)
    assert list(model.state_dict()) == names


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n_kv_head": 3}, r"model.n_kv_head=3 must divide model.n_head=4: be in \[1, 2, 4\]"),
        ({"mlp": "gelu_tan"}, "did you mean 'gelu_tanh'"),
        ({"position": "sinus"}, "one of learned, sinusoidal, rope, none; did you mean 'sinusoidal'"),
        ({"window": 0}, "model.window=0 must be at least 1"),
        ({"logit_softcap": 0.0}, "model.logit_softcap=0.0 must be above 0"),
        ({"dropout_mlp": 1.0}, "model.dropout_mlp=1.0 must be at least 0 and below 1"),
        ({"position": "sinusoidal", "n_embd": 33, "n_head": 3}, "must be even with position=sinusoidal"),
        ({"norm_gain": False, "bias_norm": True}, "model.bias_norm=True must be false or null without"),
    ],
)
def test_invalid_combinations_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        GPTConfig(**{"n_head": 4, "n_embd": 32} | fields)


def test_with_norm_stream_the_branches_add_to_the_normalized_stream():
    model = build_noisy_model(norm_stream=True, init="femtogpt", n_layer=1).eval()
    block, ids = model.blocks[0], IDS[:1, :5]
    for norm in (block.norm_1, block.norm_2):
        torch.nn.init.normal_(norm.weight)
    with torch.no_grad():
        x = model.wte(ids) + (0 if model.wpe is None else model.wpe.weight[:5])
        rope = (model.cos[:5], model.sin[:5]) if model.config.position == "rope" else None
        n = block.norm_1(x)
        y = n + block.attn(n, rope)
        m = block.norm_2(y)
        torch.testing.assert_close(model.features(ids), model.norm(m + block.mlp(m)))


def test_femtogpt_initialization_draws_all_weights_and_gains_alike():
    model = build_new_model(init="femtogpt", tie_embeddings=False)
    for name, p in model.named_parameters():
        assert p.abs().max() == 0 if name.endswith("bias") else abs(float(p.detach().std()) - 0.02) < 0.006, name
