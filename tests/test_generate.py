import pytest
import torch

from lm.generate import check_sampling, generate, sample
from lm.model import GPT, GPTConfig


@pytest.fixture
def model():
    torch.manual_seed(0)
    return GPT(GPTConfig(n_layer=2, n_head=2, n_embd=32, block_size=8, position="rope"), 20).eval()


def test_greedy_takes_the_likeliest_token_each_time(model):
    ids = generate(model, torch.tensor([[3, 1]]), 4, temperature=0)
    for t in range(2, 6):
        assert ids[0, t] == model(ids[:, :t])[0, -1].argmax()


def test_the_prompt_stays_and_may_exceed_the_context(model):
    prompt = torch.randint(20, (2, 30))
    ids = generate(model, prompt, 5, temperature=0)
    assert ids.shape == (2, 35) and torch.equal(ids[:, :30], prompt)
    assert ids[0, 30] == model(prompt[:1, -8:])[0, -1].argmax()


def test_a_seed_decides(model):
    def texts(seed):
        return generate(model, torch.zeros(1, 1, dtype=torch.long), 20, generator=torch.Generator().manual_seed(seed))

    assert torch.equal(texts(1), texts(1)) and not torch.equal(texts(1), texts(2))


def draws(logits, n=20_000, **settings):
    settings = {"temperature": 1.0, "top_k": None, "top_p": None} | settings
    rows = torch.tensor(logits).expand(n, -1)
    ids = sample(rows, generator=torch.Generator().manual_seed(0), **settings)
    return torch.bincount(ids.flatten(), minlength=len(logits)) / n


LOGITS = [2.0, 1.0, 0.0, -1.0]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_temperature_scales_the_logits(temperature):
    expected = (torch.tensor(LOGITS) / temperature).softmax(0)
    torch.testing.assert_close(draws(LOGITS, temperature=temperature), expected, atol=0.02, rtol=0)


def test_top_k_keeps_k_and_renormalises():
    expected = torch.cat((torch.tensor(LOGITS[:2]).softmax(0), torch.zeros(2)))
    torch.testing.assert_close(draws(LOGITS, top_k=2), expected, atol=0.02, rtol=0)
    assert draws(LOGITS, top_k=99).min() > 0


def test_top_p_keeps_the_fewest_that_hold_p():
    # probabilities 0.644 0.237 0.087 0.032
    assert (draws(LOGITS, top_p=0.6) > 0).tolist() == [True, False, False, False]
    assert (draws(LOGITS, top_p=0.65) > 0).tolist() == [True, True, False, False]
    assert (draws(LOGITS, top_p=0.9) > 0).tolist() == [True, True, True, False]
    assert (draws(LOGITS, top_p=1.0) > 0).all()


def test_top_k_and_top_p_hold_together():
    assert (draws(LOGITS, top_k=3, top_p=0.5) > 0).tolist() == [True, False, False, False]
    assert (draws(LOGITS, top_k=1, top_p=0.99) > 0).tolist() == [True, False, False, False]


@pytest.mark.parametrize(
    "settings", [(0, 1.0, None, None), (1, -0.1, None, None), (1, float("nan"), None, None), (1, 1, 0, None), (1, 1, None, 0.0), (1, 1, None, 1.1)]
)  # fmt: skip
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValueError, match="must be"):
        check_sampling(*settings)
