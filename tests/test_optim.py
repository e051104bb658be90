"""Optimizers: parameter groups, steps, state, resuming, and Muon."""

import copy
import csv

import numpy as np
import pytest
import torch
from helpers import NANO, config_of, equal, slow_except, weights

from lm.config import load_option
from lm.model import GPT, GPTConfig
from lm.optim import AdamW8bitConfig, AdamWConfig, LionConfig, MuonConfig, OptimizerConfig, SGDConfig, orthogonalize

NAMES = ["adamw", "adam", "sgd", "rmsprop", "lion", "adamw_8bit", "paged_adamw_8bit", "muon"]


def model(**fields):
    torch.manual_seed(0)
    return GPT(GPTConfig(**{"n_layer": 2, "n_head": 2, "n_embd": 64, "block_size": 16} | fields), 128)


@pytest.mark.slow_after(4)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tie", [True, False])
def test_each_parameter_is_in_one_group_with_its_name(tie, name):
    net = model(tie_embeddings=tie)
    groups = load_option("optimizer", name).with_default_lr(64).build(net).param_groups
    ids = [id(p) for group in groups for p in group["params"]]
    assert len(ids) == len(set(ids)) and set(ids) == {id(p) for p in net.parameters()}
    by_name = dict(net.named_parameters())
    for group in groups:
        assert [id(by_name[n]) for n in group["param_names"]] == [id(p) for p in group["params"]]
        assert {p.dim() for p in group["params"]} == {1 if group["kind"] == "vector" else 2}
        assert group["weight_decay"] == 0 or group["kind"] != "vector"
    kinds = {n: group["kind"] for group in groups for n in group["param_names"]}
    assert kinds["wte.weight"] == kinds["wpe.weight"] == "embedding"
    assert kinds["blocks.1.mlp.c_proj.weight"] == "matrix" and kinds["norm.weight"] == "vector"
    assert kinds.get("head.weight") == (None if tie else "head")


def test_weight_decay_applies_only_to_matrices():
    net = model()
    with torch.no_grad():
        for p in net.parameters():
            p.fill_(1.0)
            p.grad = torch.zeros_like(p)
    AdamWConfig(lr=0.1, weight_decay=0.5).build(net).step()
    for p in net.parameters():
        expected = 0.95 if p.dim() == 2 else 1.0  # 1 - lr * decay
        torch.testing.assert_close(p, torch.full_like(p, expected))


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_halves_a_quadratic(name):
    torch.manual_seed(0)
    net = torch.nn.Linear(128, 64, bias=False)
    config = load_option("optimizer", name, weight_decay=0.0, lr=0.1 if name == "muon" else 0.05)
    optimizer = config.build(net)
    start = net.weight.square().sum().item()
    for _ in range(20):
        optimizer.zero_grad()
        (net.weight.square().sum() / 2).backward()
        optimizer.step()
    assert net.weight.square().sum().item() < start / 2


def test_8bit_state_has_8_bits_for_large_tensors_and_32_for_small_ones():
    net = model()
    optimizer = AdamW8bitConfig(lr=1e-3).build(net)
    net(torch.randint(128, (1, 16))).sum().backward()
    optimizer.step()
    for p, state in optimizer.state.items():
        assert state["state1"].dtype == (torch.uint8 if p.numel() >= 4096 else torch.float32)


@pytest.mark.slow_after(4)
@pytest.mark.parametrize("name", NAMES)
def test_a_loaded_optimizer_continues_exactly(name, tmp_path):
    config = load_option("optimizer", name).with_default_lr(64)

    def train(net, optimizer, steps):
        for step in steps:
            torch.manual_seed(step)
            optimizer.zero_grad()
            net(torch.randint(128, (2, 16))).square().mean().backward()
            optimizer.step()

    straight = model()
    train(straight, config.build(straight), range(6))
    stopped = model()
    optimizer = config.build(stopped)
    train(stopped, optimizer, range(3))
    torch.save({"net": stopped.state_dict(), "opt": optimizer.state_dict()}, tmp_path / "state")
    state = torch.load(tmp_path / "state", weights_only=True)
    resumed = model()
    resumed.load_state_dict(state["net"])
    optimizer = config.build(resumed)
    optimizer.load_state_dict(state["opt"])
    train(resumed, optimizer, range(3, 6))
    for a, b in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", slow_except(["adamw", "muon"], NAMES))
def test_a_resumed_run_has_the_same_weights(nano, name, precision):
    overrides = [f"optimizer={name}", f"precision={precision}", "model.dropout=0.1"]
    straight = nano(*overrides, "schedule=constant", name="straight")
    stopped = nano(*overrides, "schedule=constant", "trainer.max_steps=8", name="stopped")
    nano(*overrides, "schedule=constant", name="stopped")
    assert equal(weights(straight), weights(stopped))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_learns_more_than_character_frequencies(tmp_path, name):
    """The validation loss falls below the unigram entropy, the loss of a model that knows only frequencies."""
    import math
    from collections import Counter

    import train as train_script

    overrides = [
        o for o in NANO if not o.startswith(("optimizer", "trainer", "schedule", "data.", "corpus.lines", "callbacks"))
    ]
    config = config_of(
        *overrides, f"data.root={tmp_path}/data", f"optimizer={name}", "data.batch_size=16", "trainer.max_steps=400",
        "trainer.val_every=400", "callbacks.sample.enabled=false", "schedule.warmup_steps=20",
    )  # fmt: skip
    loss = train_script.train(config, tmp_path / "run")
    text = config.corpus.load(config.data.downloads()).val.read()
    counts = Counter(text)
    plateau = -sum(n / len(text) * math.log(n / len(text)) for n in counts.values())
    assert loss < 0.9 * plateau


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"lr": -1.0}, "optimizer.lr=-1.0 must be above 0"), ({"weight_decay": -0.1}, "optimizer.weight_decay=-0.1 must"),
     ({"beta2": 1.0}, "optimizer.beta2=1.0 must be at least 0 and below 1"),
     ({"head_lr_ratio": -1.0}, "optimizer.head_lr_ratio=-1.0 must be at least 0")],
)  # fmt: skip
def test_values_out_of_range_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        AdamWConfig(**fields)


def test_nesterov_needs_momentum():
    with pytest.raises(ValueError, match="optimizer.nesterov=True must be false without optimizer.momentum"):
        SGDConfig(nesterov=True, momentum=0.0)


def test_the_default_learning_rate_depends_on_the_width():
    assert AdamWConfig().with_default_lr(384).lr == pytest.approx(1e-3)
    assert AdamWConfig().with_default_lr(768).lr == pytest.approx(5e-4)
    assert AdamWConfig(lr=0.5).with_default_lr(384).lr == 0.5
    for name in NAMES:
        config: OptimizerConfig = load_option("optimizer", name)
        assert config.with_default_lr(128).lr == config.default_lr(128) > 0


@pytest.mark.parametrize("fused", [True, False])
def test_fused_is_passed_to_the_optimizer(fused):
    for config in (AdamWConfig(lr=1e-3), MuonConfig(lr=1e-3)):
        assert config.build(model(), fused=fused).defaults["fused"] is fused


def test_a_ratio_scales_the_learning_rate_of_its_group_only(nano):
    base = ["model.tie_embeddings=false", "trainer.max_steps=1", "optimizer.weight_decay=0", "schedule.warmup_steps=0"]
    default = nano(*base, name="default")
    scaled = nano(*base, "optimizer.head_lr_ratio=0", "optimizer.embedding_lr_ratio=2", name="scaled")
    fresh = nano(*base, "optimizer.lr=1e-12", name="fresh")
    a, b, start = weights(default), weights(scaled), weights(fresh)
    torch.testing.assert_close(b["model.head.weight"], start["model.head.weight"])
    moved = a["model.wte.weight"] - start["model.wte.weight"]
    torch.testing.assert_close(b["model.wte.weight"] - start["model.wte.weight"], 2 * moved, rtol=1e-4, atol=1e-6)
    assert torch.equal(a["model.blocks.0.attn.c_attn.weight"], b["model.blocks.0.attn.c_attn.weight"])


def test_a_ratio_without_effect_is_refused():
    with pytest.raises(ValueError, match="optimizer.head_lr_ratio=0.5 has no effect on this model: its head is tied"):
        AdamWConfig(lr=1e-3, head_lr_ratio=0.5).build(model(tie_embeddings=True))
    no_vectors = model(norm_gain=False, bias=False)
    with pytest.raises(ValueError, match="optimizer.vector_lr_ratio=3 has no effect on this model: it has no vectors"):
        AdamWConfig(lr=1e-3, vector_lr_ratio=3.0).build(no_vectors)


def test_lion_follows_the_algorithm_of_the_paper():
    p = torch.nn.Linear(3, 2, bias=False)
    start = p.weight.detach().clone()
    optimizer = LionConfig(lr=0.1, beta1=0.9, beta2=0.99, weight_decay=0.5).build(p)
    m, x = torch.zeros(2, 3), start.clone()
    for seed in range(4):
        torch.manual_seed(seed)
        g = torch.randn(2, 3)
        p.weight.grad = g.clone()
        optimizer.step()
        x = x - 0.1 * ((0.9 * m + 0.1 * g).sign() + 0.5 * x)
        m = 0.99 * m + 0.01 * g
        torch.testing.assert_close(p.weight.detach(), x)


# ---- Muon


@pytest.mark.parametrize("shape", [(4, 32, 32), (1, 48, 16), (2, 16, 48)])
def test_orthogonalize_moves_singular_values_to_one_and_keeps_the_directions(shape):
    k, rows, columns = shape
    least, numbers = min(rows, columns), np.random.default_rng(0)  # random normals of torch depend on the CPU
    u, v = (torch.from_numpy(np.linalg.qr(numbers.normal(size=(k, n, least)))[0]).float() for n in (rows, columns))
    batch = u * torch.linspace(0.1, 3, least) @ v.mT  # (K, rows, columns)
    for a, b, result in zip(u, v, orthogonalize(batch, 5).float(), strict=True):
        values = torch.linalg.svdvals(result)
        assert values.min() > 0.6 and values.max() < 1.4
        along = (a.T @ result @ b).diagonal()  # all ones for the nearest orthogonal matrix
        assert (along > 0.6).all()


def test_muon_treats_queries_keys_values_and_gates_as_separate_matrices():
    net = model(mlp="swiglu")
    groups = MuonConfig(lr=0.02).build(net).param_groups
    pieces = {n: g["pieces"] for g in groups if g["muon"] for n in g["param_names"]}
    assert pieces["blocks.0.attn.c_attn.weight"] == 3 and pieces["blocks.0.mlp.c_fc.weight"] == 2
    assert pieces["blocks.0.attn.c_proj.weight"] == pieces["blocks.0.mlp.c_proj.weight"] == 1
    assert not any(n.startswith(("wte", "wpe", "head")) for n in pieces)


def test_muon_updates_matrices_and_adamw_all_other_parameters():
    net, other = model(tie_embeddings=False), model(tie_embeddings=False)
    muon = MuonConfig(lr=0.02, embedding_lr_ratio=1.5, head_lr_ratio=0.1, vector_lr_ratio=0.1).build(net)
    torch.manual_seed(3)
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        p.grad = torch.randn_like(p)
        q.grad = p.grad.clone()
    before = copy.deepcopy(net.state_dict())
    muon.step()
    step = (before["blocks.0.attn.c_proj.weight"] - net.blocks[0].attn.c_proj.weight.detach()) / 0.02
    values = torch.linalg.svdvals(step)  # the last few singular values of a random square matrix start near zero
    assert values[-4] > 0.5 and values.max() < 1.4
    adamw = torch.optim.AdamW([other.wte.weight], lr=0.03, betas=(0.8, 0.95), eps=1e-10, weight_decay=0.0)
    adamw.step()
    torch.testing.assert_close(net.wte.weight, other.wte.weight)
    assert set(muon.state[net.blocks[0].attn.c_proj.weight]) == {"momentum", "step"}
    assert set(muon.state[net.wte.weight]) == {"step", "exp_avg", "exp_avg_sq"}


def test_muon_skips_parameters_without_a_gradient():
    net = model()
    optimizer = MuonConfig(lr=0.02).build(net)
    before = copy.deepcopy(net.state_dict())
    optimizer.step()
    assert equal(before, net.state_dict())


def test_state_bytes_matches_the_memory_of_the_state():
    for name in NAMES:
        config = load_option("optimizer", name).with_default_lr(64)
        net = model()
        optimizer = config.build(net)
        net(torch.randint(128, (1, 16))).sum().backward()
        optimizer.step()
        for n, p in net.named_parameters():
            held = sum(
                t.numel() * t.itemsize for key, t in optimizer.state[p].items()
                if isinstance(t, torch.Tensor) and key not in ("step", "qmap1", "qmap2")
            )  # fmt: skip
            expected = config.state_bytes(p.numel(), n.startswith("blocks") and p.dim() == 2)
            assert held == pytest.approx(expected, rel=0.01), (name, n)


def test_the_logged_learning_rate_is_that_of_the_matrices(nano):
    run = nano("optimizer=muon", "optimizer.lr=0.02", "schedule=constant", "schedule.warmup_steps=0")
    assert {float(row["lr"]) for row in csv.DictReader((run / "metrics.csv").open()) if row["lr"]} == {0.02}


def test_muon_trains_a_model_whose_mlp_has_width_zero(nano):
    run = nano("optimizer=muon", "model.mlp=gelu", "model.mlp_ratio=0.001", "trainer.max_steps=4")
    assert weights(run)["model.blocks.0.mlp.c_fc.weight"].numel() == 0
