"""The chunked loss, compared with torch's cross-entropy and with finite differences."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from helpers import weights

from lm.data.batches import IGNORE
from lm.model import GPT, GPTConfig
from lm.model.loss import CHUNK, LossConfig, head_loss

N, C, V, ROWS = 13, 5, 11, 16  # the head has more rows than the vocabulary


def inputs(dtype=torch.float64):
    torch.manual_seed(0)
    x = torch.randn(N, C, dtype=dtype, requires_grad=True)
    weight = torch.randn(ROWS, C, dtype=dtype, requires_grad=True)
    bias = torch.randn(ROWS, dtype=dtype, requires_grad=True)
    targets = torch.randint(V, (N,))
    targets[3] = targets[12] = IGNORE
    return x, weight, bias, targets


@pytest.mark.parametrize("chunk", [1, 4, 13, 0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_it_equals_torchs_cross_entropy(chunk, smoothing):
    x, weight, bias, targets = inputs()
    config = LossConfig(chunk=chunk, label_smoothing=smoothing)
    objective, nats = head_loss(x, weight, bias, targets, config, V)
    logits = F.linear(x, weight, bias)[:, :V]
    expected = F.cross_entropy(logits, targets, ignore_index=IGNORE, label_smoothing=smoothing)
    torch.testing.assert_close(objective, expected)
    torch.testing.assert_close(nats, F.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="sum"))
    for actual, reference in zip(
        torch.autograd.grad(3 * objective, (x, weight, bias)),
        torch.autograd.grad(3 * expected, (x, weight, bias)),
        strict=True,
    ):
        torch.testing.assert_close(actual, reference)
    assert not nats.requires_grad


@pytest.mark.parametrize("chunk", [4, 0])
def test_z_loss_adds_the_mean_square_of_log_z(chunk):
    x, weight, bias, targets = inputs()
    objective, nats = head_loss(x, weight, bias, targets, LossConfig(chunk=chunk, z_loss=0.5), V)
    real = targets != IGNORE
    log_z = F.linear(x, weight, bias)[:, :V].exp().sum(1).log()[real]
    torch.testing.assert_close(objective, nats / real.sum() + 0.5 * log_z.square().mean())


@pytest.mark.slow_after(2)
@pytest.mark.parametrize(
    ("smoothing", "z", "cap", "biased"), list(itertools.product([0.0, 0.2], [0.0, 0.1], [None, 2.0], [True, False]))
)
def test_gradients_agree_with_finite_differences(smoothing, z, cap, biased):
    x, weight, bias, targets = inputs()
    config = LossConfig(chunk=4, label_smoothing=smoothing, z_loss=z)

    def objective(*tensors):
        return head_loss(tensors[0], tensors[1], tensors[2] if biased else None, targets, config, V, cap)[0]

    assert torch.autograd.gradcheck(objective, (x, weight, bias) if biased else (x, weight))


def test_the_logits_of_a_chunk_are_freed():
    from benchmarks.memory import peak_allocation

    x = torch.randn(4096, 16, requires_grad=True)
    weight = torch.randn(2048, 16, requires_grad=True)
    targets = torch.randint(2048, (4096,))

    def peak(chunk: int) -> int:
        return peak_allocation(
            lambda: head_loss(x, weight, None, targets, LossConfig(chunk=chunk), 2048)[0].backward(), "cpu"
        )

    assert peak(0) > 3 * 4 * 4096 * 2048  # saved, and two more in the backward pass
    assert peak(64) < 4 * 4 * 64 * 2048 + 2_000_000


def test_without_gradients_chunks_do_not_change_the_loss():
    x, weight, bias, targets = inputs()
    with torch.no_grad():
        a = head_loss(x, weight, bias, targets, LossConfig(chunk=4), V)
        b = head_loss(x, weight, bias, targets, LossConfig(chunk=0), V)
    torch.testing.assert_close(a, b)


def test_in_mixed_precision_chunks_change_the_loss_only_by_rounding():
    x, weight, bias, targets = inputs(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        chunked, _ = head_loss(x, weight, bias, targets, LossConfig(chunk=4), V)
        whole, _ = head_loss(x, weight, bias, targets, LossConfig(chunk=0), V)
    assert chunked.dtype == whole.dtype == torch.float32
    torch.testing.assert_close(chunked, whole, atol=1e-5, rtol=1e-5)
    actual = torch.autograd.grad(chunked, (x, weight))
    reference = torch.autograd.grad(whole, (x, weight))
    for a, b in zip(actual, reference, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, atol=0.02 * b.abs().max().item(), rtol=0)


def test_the_default_chunk_has_about_four_million_logits_and_at_least_1024_tokens():
    assert LossConfig().tokens_per_chunk(2048) == CHUNK // 2048 == 2048
    assert LossConfig().tokens_per_chunk(50257) == 1024
    assert LossConfig(chunk=7).tokens_per_chunk(50257) == 7
    assert LossConfig(chunk=0).tokens_per_chunk(50257) is None


def test_the_loss_of_the_model_equals_the_loss_of_its_logits():
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=1, n_head=2, n_embd=16, block_size=8, logit_softcap=5, vocab_multiple=32), 20)
    ids, targets = torch.randint(20, (2, 2, 8)).unbind()
    objective, nats = model(ids, None, targets, LossConfig(chunk=3))
    expected = F.cross_entropy(model(ids).flatten(0, 1), targets.flatten())
    torch.testing.assert_close(objective, expected)
    torch.testing.assert_close(nats, 16 * expected.detach())


def test_train_loss_is_plain_cross_entropy_for_any_objective(nano):
    import csv

    def first(run):
        return float(next(csv.DictReader((run / "metrics.csv").open()))["train/loss"])

    plain, smooth = nano(name="plain"), nano("loss.label_smoothing=0.3", "loss.z_loss=0.01", name="smooth")
    assert first(plain) == first(smooth)  # both from the same initial weights
    assert any((weights(plain)[key] != weights(smooth)[key]).any() for key in weights(plain))


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"label_smoothing": 1.0}, "loss.label_smoothing=1.0 must be at least 0 and below 1"),
     ({"z_loss": -1.0}, "loss.z_loss=-1.0 must be at least 0"), ({"chunk": -1}, "loss.chunk=-1 must be at least 0")],
)  # fmt: skip
def test_values_out_of_range_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        LossConfig(**fields)


@pytest.mark.parametrize("cap", [1.0, 5.0, 15.0])
@pytest.mark.parametrize("grad", [True, False])
def test_a_softcap_in_bf16_gives_the_same_loss_on_all_paths(cap, grad):
    """In training with and without chunks, and in validation, the cap is applied in fp32 to products in bf16."""
    torch.manual_seed(0)
    n, C, V = 64, 32, 300
    x, weight = (0.5 * torch.randn(n, C)).requires_grad_(grad), torch.randn(V, C)
    targets = torch.randint(V, (n,))
    with torch.autocast("cpu", torch.bfloat16):
        logits = F.linear(x, weight).detach()  # in bf16, like the matrix products of training
        nats = [head_loss(x, weight, None, targets, LossConfig(chunk=chunk), V, cap)[1].detach() for chunk in (0, 16)]
        with torch.no_grad():
            nats.append(head_loss(x, weight, None, targets, LossConfig(chunk=16), V, cap)[1])
    exact = F.cross_entropy(cap * torch.tanh(logits.double() / cap), targets, reduction="sum")
    for value in nats:
        assert abs(value.item() / exact.item() - 1) < 2e-6
