"""The model: causality, positions, attention, MLPs, dropout and initialization."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from helpers import config_of, slow_except

from lm.model import GPT, GPTConfig, rope_tables, rotate

VARIANTS = list(
    itertools.product(("learned", "rope"), ("layernorm", "rmsnorm"), ("gelu", "relu2", "swiglu"), (True, False))
)


def build_model(vocab_size=50, **fields):
    torch.manual_seed(0)
    return GPT(GPTConfig(**{"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 16} | fields), vocab_size)


@pytest.mark.parametrize(("position", "norm", "mlp", "bias"), VARIANTS)
def test_logits_depend_only_on_earlier_tokens(position, norm, mlp, bias):
    model = build_model(position=position, norm=norm, mlp=mlp, bias=bias, qk_norm=bias).eval()
    ids = torch.randint(50, (2, 16))
    changed = ids.clone()
    changed[:, 9] = (changed[:, 9] + 1) % 50
    before, after = model(ids), model(changed)
    assert torch.equal(before[:, :9], after[:, :9])
    assert not torch.allclose(before[:, 9:], after[:, 9:], atol=1e-3)


def test_pocket_bard_has_as_many_parameters_as_in_feste():
    # L (12 d^2 + 13 d) + 2 V d + T d + 2 d: untied, with biases everywhere except in the head
    with torch.device("meta"):
        count = GPT(config_of("experiment=pocket_bard").model, 8192).num_params
    assert count == 9_048_064 == 6 * (12 * 256**2 + 13 * 256) + 2 * 8192 * 256 + 448 * 256 + 2 * 256


def test_flops_per_token_of_gpt2():
    # 6 for each of the 85M weights in matrices of blocks and the 38.6M of the head, 12 L C T for attention
    with torch.device("meta"):
        model = GPT(GPTConfig(), 50257)
    assert model.flops_per_token == 6 * (12 * 12 * 768**2 + 50257 * 768) + 12 * 12 * 768 * 1024


def test_the_number_of_heads_changes_the_output():
    one, four = build_model(n_head=1), build_model(n_head=4)
    four.load_state_dict(one.state_dict())
    ids = torch.randint(50, (1, 16))
    assert not torch.allclose(one(ids), four(ids), atol=1e-4)


def test_tied_embeddings_are_one_matrix():
    tied, untied = build_model(), build_model(tie_embeddings=False)
    assert tied.head.weight is tied.wte.weight
    assert untied.num_params - tied.num_params == 50 * 32


def test_dropout_is_only_active_in_training():
    model = build_model(dropout=0.3)
    ids = torch.randint(50, (1, 16))
    assert not torch.equal(model(ids), model(ids))
    model.eval()
    assert torch.equal(model(ids), model(ids))


def test_rope_scores_depend_only_on_distance():
    cos, sin = rope_tables(32, 8)
    q, k = torch.randn(2, 8).unbind(0)
    rotated_q = rotate(q.expand(1, 1, 32, 8), cos, sin)[0, 0]
    rotated_k = rotate(k.expand(1, 1, 32, 8), cos, sin)[0, 0]
    scores = rotated_q @ rotated_k.T  # (32, 32)
    for distance in (0, 1, 7):
        diagonal = scores.diagonal(-distance)
        torch.testing.assert_close(diagonal, diagonal[0].expand_as(diagonal), atol=1e-4, rtol=0)
    assert abs(scores[7, 0] - scores[0, 0]) > 1e-3
    torch.testing.assert_close(rotated_q.norm(dim=-1), q.norm().expand(32))


@pytest.mark.parametrize("position", ["learned", "rope"])
def test_the_order_of_earlier_tokens_matters(position):
    model = build_model(position=position, n_layer=1).eval()  # without positions, a single layer ignores the order
    ids = torch.tensor([[3, 4, 5, 6, 7]])
    swapped = ids[:, [1, 0, 2, 3, 4]]
    assert (model(ids)[0, -1] - model(swapped)[0, -1]).abs().max() > 1e-5


def test_with_qk_norm_the_scale_of_queries_and_keys_has_no_effect():
    for qk_norm in (True, False):
        model = build_model(qk_norm=qk_norm, bias=False, n_layer=1).eval()
        ids = torch.randint(50, (1, 16))
        before = model(ids)
        with torch.no_grad():
            model.blocks[0].attn.c_attn.weight[:64] *= 50  # q and k, not v
        assert torch.allclose(before, model(ids), atol=1e-4) == qk_norm


@pytest.mark.parametrize(
    ("mlp", "expected"),
    [("gelu", lambda x: 0.5 * x * (1 + torch.erf(x / 2**0.5))), ("relu2", lambda x: torch.where(x > 0, x * x, 0 * x))],
)
def test_mlp_activations_match_their_formulas(mlp, expected):
    block = build_model(mlp=mlp).blocks[0].mlp
    x = torch.randn(5, 32)
    torch.testing.assert_close(block(x), block.c_proj(expected(block.c_fc(x))))


def test_swiglu_is_silu_of_the_gate_times_the_other_half():
    block = build_model(mlp="swiglu").blocks[0].mlp
    x = torch.randn(5, 32)
    gate, up = block.c_fc(x)[:, :128], block.c_fc(x)[:, 128:]
    torch.testing.assert_close(block(x), block.c_proj(gate / (1 + (-gate).exp()) * up))


def test_dropout_applies_to_embeddings_attention_and_both_branches(monkeypatch):
    model = build_model(dropout=0.25)
    rates = []
    monkeypatch.setattr("lm.model.block.attend", lambda q, k, v, backend, dropout, mask: rates.append(dropout) or v)
    drops = [m for m in model.modules() if isinstance(m, torch.nn.Dropout) and m.p]
    calls = []
    for drop in drops:
        drop.register_forward_hook(lambda module, *_: calls.append(module.p))
    model(torch.randint(50, (1, 16)))
    assert rates == [0.25] * 2 and calls == [0.25] * (1 + 2 * 2)
    rates.clear()
    model.eval()(torch.randint(50, (1, 16)))
    assert rates == [0.0] * 2


def test_the_residual_stream_does_not_grow_with_depth():
    ids = torch.randint(50, (4, 16))
    hidden = {}
    for n_layer in (2, 16):
        model = build_model(n_layer=n_layer)
        x = model.wte(ids) + model.wpe.weight
        start = x.std()
        for block in model.blocks:
            x = block(x, None)
        hidden[n_layer] = (x.std() / start).item()
    assert hidden[16] < 1.5 * hidden[2]


@pytest.mark.parametrize("mlp", slow_except(["swiglu"], ["gelu", "relu2", "swiglu"]))
def test_it_can_memorize_one_batch(mlp):
    model = build_model(mlp=mlp, norm="rmsnorm", position="rope", qk_norm=True)
    ids = torch.randint(50, (4, 17))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(150):
        loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n_embd": 30, "n_head": 4}, "model.n_embd=30 must be divisible by model.n_head=4, e.g. 32"),
        ({"n_layer": 0}, "model.n_layer=0 must be at least 1"),
        ({"dropout": 1.0}, "model.dropout=1.0 must be at least 0 and below 1"),
        ({"norm": "rmsnrm"}, "model.norm=rmsnrm must be one of layernorm, rmsnorm; did you mean 'rmsnorm'?"),
        (
            {"n_embd": 6, "n_head": 2, "position": "rope"},
            "model.n_embd=6 must give heads of even width with position=rope",
        ),
    ],
)
def test_invalid_models_are_refused(fields, message):
    with pytest.raises(ValueError, match="^" + message.replace("?", r"\?")):
        GPTConfig(**fields)


@pytest.mark.gpu
def test_bf16_on_a_gpu_is_close_to_fp32_on_the_cpu():
    model = build_model(n_embd=64).eval()
    ids = torch.randint(50, (2, 16))
    expected = model(ids)
    with torch.autocast("cuda", torch.bfloat16):
        actual = model.cuda()(ids.cuda()).float().cpu()
    torch.testing.assert_close(actual, expected, atol=3e-2, rtol=3e-2)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("init", ["normal", "zero_proj", "unit", "he_uniform", "femtogpt"])
def test_an_mlp_of_width_zero_can_be_initialized(init):
    shape = {"n_layer": 1, "n_head": 1, "n_embd": 16, "block_size": 8, "tie_embeddings": False}
    model = GPT(GPTConfig(**shape, mlp="gelu", mlp_ratio=0.01, init=init), 11)
    assert model.blocks[0].mlp.c_fc.weight.shape == (0, 16) and torch.isfinite(model(torch.arange(8)[None])).all()
