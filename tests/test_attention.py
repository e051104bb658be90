"""The attention backends against each other and against the definition."""

import math

import pytest
import torch

from lm.model.attention import attend, choose_backend


@pytest.mark.parametrize("shape", [(2, 3, 1, 8), (2, 3, 17, 8), (1, 4, 64, 32)])
def test_manual_equals_sdpa_in_fp32(shape):
    q, k, v = torch.randn(3, *shape).unbind(0)
    torch.testing.assert_close(attend(q, k, v, "manual"), attend(q, k, v, "sdpa"), atol=1e-5, rtol=0)


def test_gradients_of_manual_and_sdpa_are_equal():
    grads = []
    for backend in ("manual", "sdpa"):
        torch.manual_seed(0)
        qkv = torch.randn(3, 2, 2, 9, 8, requires_grad=True)
        attend(*qkv.unbind(0), backend).square().sum().backward()
        grads.append(qkv.grad)
    torch.testing.assert_close(*grads, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backend", ["manual", "sdpa"])
def test_attention_matches_its_definition(backend):
    q, k, v = torch.randn(3, 1, 1, 5, 4).unbind(0)
    y = attend(q, k, v, backend)
    for t in range(5):
        scores = [(q[0, 0, t] @ k[0, 0, s]).item() / math.sqrt(4) for s in range(t + 1)]
        total = sum(map(math.exp, scores))
        expected = sum(math.exp(score) / total * v[0, 0, s] for s, score in enumerate(scores))
        torch.testing.assert_close(y[0, 0, t], expected, atol=1e-5, rtol=1e-5)


def test_dropout_keeps_the_mean_of_the_weights():
    q, k = torch.zeros(2, 1, 1, 64, 8).unbind(0)
    v = torch.ones(1, 1, 64, 8)
    torch.manual_seed(0)
    means = [attend(q, k, v, "manual", dropout=0.5)[0, 0, -1, 0].item() for _ in range(400)]
    assert abs(sum(means) / 400 - 1) < 0.05 and min(means) < 0.9 < 1.1 < max(means)


def test_auto_uses_manual_only_in_bf16_on_a_cpu():
    assert choose_backend("cpu", torch.bfloat16, 256) == "manual"
    assert choose_backend("cpu", torch.bfloat16, 1024) == "sdpa"
    assert choose_backend("cpu", torch.float32, 256) == "sdpa"
    assert choose_backend("cuda", torch.bfloat16, 256) == "sdpa"
