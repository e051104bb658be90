import pytest
import torch

from lm.model import GPT, GPTConfig
from lm.optim import AdamW8bitConfig, AdamWConfig, param_groups


def model(**fields):
    torch.manual_seed(0)
    return GPT(GPTConfig(**{"n_layer": 2, "n_head": 2, "n_embd": 64, "block_size": 16} | fields), 128)


@pytest.mark.parametrize("tie", [True, False])
def test_groups_hold_every_parameter_once(tie):
    net = model(tie_embeddings=tie)
    decayed, rest = param_groups(net, 0.1)
    ids = [id(p) for group in (decayed, rest) for p in group["params"]]
    assert len(ids) == len(set(ids)) and set(ids) == {id(p) for p in net.parameters()}
    assert {p.dim() for p in decayed["params"]} == {2} and {p.dim() for p in rest["params"]} == {1}


def test_only_matrices_decay():
    net = model()
    with torch.no_grad():
        for p in net.parameters():
            p.fill_(1.0)
            p.grad = torch.zeros_like(p)
    AdamWConfig(lr=0.1, weight_decay=0.5).build(net).step()
    for p in net.parameters():
        expected = 0.95 if p.dim() == 2 else 1.0  # 1 - lr * decay
        torch.testing.assert_close(p, torch.full_like(p, expected))


@pytest.mark.parametrize("config", [AdamWConfig(lr=0.05, weight_decay=0), AdamW8bitConfig(lr=0.05, weight_decay=0)])
def test_halves_a_quadratic(config):
    torch.manual_seed(0)
    net = torch.nn.Linear(128, 64, bias=False)
    optimizer = config.build(net)
    start = net.weight.square().sum().item()
    for _ in range(20):
        optimizer.zero_grad()
        net.weight.square().sum().backward()
        optimizer.step()
    assert net.weight.square().sum().item() < start / 2


def test_8bit_state_is_8bit_for_large_tensors_and_32_for_small():
    net = model()
    optimizer = AdamW8bitConfig(lr=1e-3).build(net)
    net(torch.randint(128, (1, 16))).sum().backward()
    optimizer.step()
    for p, state in optimizer.state.items():
        assert state["state1"].dtype == (torch.uint8 if p.numel() >= 4096 else torch.float32)


@pytest.mark.parametrize("config", [AdamWConfig(lr=1e-3), AdamW8bitConfig(lr=1e-3)])
def test_saved_and_loaded_it_goes_on_exactly(config, tmp_path):
    def train(net, optimizer, steps):
        for step in steps:
            torch.manual_seed(step)
            optimizer.zero_grad()
            net(torch.randint(128, (2, 16))).square().mean().backward()
            optimizer.step()

    straight = model()
    train(straight, config.build(straight), range(6))
    halted = model()
    optimizer = config.build(halted)
    train(halted, optimizer, range(3))
    torch.save({"net": halted.state_dict(), "opt": optimizer.state_dict()}, tmp_path / "state")
    state = torch.load(tmp_path / "state", weights_only=True)
    resumed = model()
    resumed.load_state_dict(state["net"])
    optimizer = config.build(resumed)
    optimizer.load_state_dict(state["opt"])
    train(resumed, optimizer, range(3, 6))
    for a, b in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"lr": -1.0}, "optimizer.lr=-1.0 must be above 0"), ({"weight_decay": -0.1}, "optimizer.weight_decay=-0.1 must"),
     ({"beta2": 1.0}, "optimizer.beta2=1.0 must be at least 0 and below 1")],
)  # fmt: skip
def test_ranges(fields, message):
    with pytest.raises(ValueError, match=message):
        AdamWConfig(**fields)


def test_without_a_rate_the_width_decides():
    assert AdamWConfig().for_width(384).lr == pytest.approx(1e-3)
    assert AdamWConfig().for_width(768).lr == pytest.approx(5e-4)
    assert AdamWConfig(lr=0.5).for_width(384).lr == 0.5


@pytest.mark.parametrize("fused", [True, False])
def test_fused_is_what_was_asked_for(fused):
    assert AdamWConfig(lr=1e-3).build(model(), fused=fused).defaults["fused"] is fused
