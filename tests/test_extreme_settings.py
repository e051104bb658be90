"""Any finite sampling setting gives valid text, or a one-line error that names the setting."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_generate import LETTERS, small, talk

from lm.data.tokenizer import Chars
from lm.evaluate.tasks.scoring import FemtoGPTSampling
from lm.generate import GenerationRequest, Sampling, complete, decode, decoding, writing
from lm.generate.sampling import BLOCK, Uniforms, uniforms
from lm.model import GPT

MODEL, CHARS = small(), Chars(LETTERS, [])


def sizes(low, high):
    """Return a strategy for numbers of any magnitude between 10**low and 10**high."""
    return st.floats(low, high).map(lambda x: 10.0**x) | st.sampled_from([10.0**low, 10.0**high])


NUMBERS = st.none() | st.floats(allow_nan=True, allow_infinity=True)
SETTINGS = {
    "temperature": st.just(0.0) | st.just(0.8) | sizes(-320, 308),
    "top_k": st.none() | st.integers(1, 10**30) | st.integers(1, 5),
    "top_p": st.none() | sizes(-320, 0) | st.floats(0, 1, exclude_min=True),
    "min_p": st.none() | sizes(-320, 0) | st.floats(0, 1),
    "repetition_penalty": st.just(1.0) | sizes(-300, 300) | st.floats(0.5, 2),
}
LOGIT = st.floats(-20, 20, width=32) | st.floats(width=32, allow_nan=False) | st.just(-math.inf)
UNIFORM = st.floats(0, 1, exclude_max=True) | st.just(1 - 2**-53)


@pytest.mark.slow
@settings(max_examples=400)
@given(
    values=st.fixed_dictionaries(SETTINGS),
    logits=st.lists(LOGIT, min_size=1, max_size=8),
    u=UNIFORM,
    data=st.data(),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
)
def test_the_chosen_token_has_a_probability_above_zero(values, logits, u, data, dtype):
    row = torch.tensor([logits], dtype=torch.float32).to(dtype)
    seen = torch.tensor([data.draw(st.lists(st.booleans(), min_size=len(logits), max_size=len(logits)))])
    sampling, u = Sampling(**values), torch.tensor([u], dtype=torch.float64)
    if (row == -torch.inf).all():
        with pytest.raises(ValueError, match="the model gives no token a probability"):
            sampling.choose(row, u, seen)
        return
    token = int(sampling.choose(row, u, seen))
    assert 0 <= token < len(logits) and row[0, token] > -torch.inf
    filtered = sampling.filter_logits(row, seen)
    assert not filtered.isnan().any()
    assert filtered.softmax(-1)[0, token] > 0
    if sampling.temperature == 0:
        assert filtered[0, token] == filtered.max()
    if values["repetition_penalty"] == 1.0:
        exact = [min(x, 3e38 + 1e37 * (x == math.inf)) for x in row[0].tolist()]
        assert max(exact) - exact[token] <= 800 * sampling.temperature  # below e^-800 of the highest probability
    if sampling.top_k == 1 and values["top_p"] is None:
        assert filtered[0, token] == filtered.max()


@pytest.mark.slow
@settings(max_examples=100)
@given(logits=st.lists(st.integers(-20, 20).map(float), min_size=2, max_size=8, unique=True), u=UNIFORM)
def test_a_temperature_or_filter_that_leaves_one_token_is_greedy(logits, u):
    row, u = torch.tensor([logits]), torch.tensor([u], dtype=torch.float64)
    best = int(row.argmax())
    for values in ({"temperature": 1e-320}, {"temperature": 5e-324}, {"top_k": 1}, {"top_p": 1e-320}, {"min_p": 1.0}):
        assert int(Sampling(**values).choose(row, u)) == best, values


def test_a_huge_temperature_gives_all_tokens_the_same_probability():
    rows = torch.tensor([[5.0, -3e38, 3e38, -torch.inf]]).expand(3000, -1)
    u = torch.from_numpy(np.random.default_rng(0).random(3000))
    drawn = torch.bincount(Sampling(1e308).choose(rows, u), minlength=4) / 3000
    torch.testing.assert_close(drawn, torch.tensor([1 / 3, 1 / 3, 1 / 3, 0]), atol=0.04, rtol=0)


def test_huge_logits_keep_their_order():
    u = torch.tensor([0.5], dtype=torch.float64)
    for logits, best in (([3e38, 2e38, -3e38], 0), ([-3e38, -2e38], 1), ([torch.inf, 0.0], 0), ([1e20, 1.1e20], 1)):
        for temperature in (0.0, 1e-320, 0.5, 1.0):
            assert int(Sampling(temperature).choose(torch.tensor([logits]), u)) == best
    # the penalty makes 3e38 the smaller one
    seen = torch.tensor([[True, False]])
    assert int(Sampling(0.5, repetition_penalty=2.0).choose(torch.tensor([[3e38, 2e38]]), u, seen)) == 1


@pytest.mark.parametrize("bad", [math.nan, -math.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0, 1e300])
def test_logits_without_a_probability_are_refused(bad, temperature):
    rows = torch.tensor([[1.0, 2.0], [bad, bad]])
    with pytest.raises(ValueError, match="^the model gives no token a probability: its logits are [^\n]*$"):
        Sampling(temperature).choose(rows, torch.tensor([0.5, 0.5]))


REQUESTS = {
    "max_new_tokens": st.integers(1, 6) | st.integers(-(10**30), 0),
    "num_samples": st.integers(1, 3) | st.integers(10**9, 10**30) | st.integers(-5, 0),
    "seed": st.integers(0, 2**63 - 1) | st.integers(-(2**70), 2**70),
    "alternatives": st.integers(0, 3) | st.integers(-3, 10**30),
    "stop": st.sampled_from([(), ("ab",), ("",)]),
}
MODELS = {dtype: small().to(dtype) for dtype in (torch.float32, torch.bfloat16, torch.float16)}


@pytest.mark.slow
@settings(max_examples=250)
@given(
    values=st.fixed_dictionaries({key: wild | NUMBERS if key != "top_k" else wild for key, wild in SETTINGS.items()}),
    fields=st.fixed_dictionaries(REQUESTS),
    dtype=st.sampled_from(list(MODELS)),
)
def test_any_settings_give_text_or_are_refused_by_name(values, fields, dtype):
    values = {key: value for key, value in values.items() if value is not None or key in ("top_k", "top_p", "min_p")}
    try:
        request = GenerationRequest(sampling=Sampling(**values), **fields)
        completions = complete(MODELS[dtype], CHARS, ["abc", "d"], request)
    except ValueError as error:
        assert "\n" not in str(error)
        assert str(error).split("=")[0].split(" ")[0] in {*values, *fields}
        return
    assert len(completions) == 2 * request.num_samples
    for c in completions:
        assert 0 < len(c.ids) <= request.max_new_tokens and all(0 <= i < len(LETTERS) for i in c.ids)
        assert c.text == CHARS.decode(c.ids) or c.ended == "stop"
        assert all(0 <= piece.prob <= 1 for piece in c.pieces)


def test_settings_typed_in_a_session_are_checked_too():
    lines = [
        "/set temperature 1e-320", "abc", "/set temperature 1e308", "abc", "/set top_k " + "9" * 30, "abc",
        "/set top_p 1e-320", "/set min_p 1e-320", "abc", "/set repetition_penalty 1e-300", "abc",
        "/set repetition_penalty 1e300", "abc", "/set seed 9223372036854775807", "abc", "/again",
        "/set max_new_tokens " + "9" * 5000, "/set temperature 1e999", "/set temperature nan", "/set top_p 0",
        "/set max_new_tokens 0", "/set seed -1", "/probs " + "9" * 40, "/probs -1", "/set stop ''",
    ]  # fmt: skip
    output, session = talk(MODEL, *lines)
    refused = [line for line in output.split("\n") if " must " in line]
    keys = ["seed", "max_new_tokens", "temperature", "temperature", "top_p", "max_new_tokens", "seed", "alternatives",
            "stop"]  # fmt: skip
    assert [line.split("=")[0].split(" ")[0] for line in refused] == keys
    assert session.request.seed == 2**63 - 1 and session.request.alternatives == int("9" * 40)


def test_femtogpt_sampling_chooses_existing_tokens():
    row = torch.tensor([[0.0, 5.0, 1.0, -torch.inf]])
    for u in (0.0, 0.5, 1 - 2**-53):
        assert int(FemtoGPTSampling(0.5).choose(row, torch.tensor([u], dtype=torch.float64))) in (0, 1, 2)


# ---- length and number


def test_the_random_numbers_do_not_depend_on_the_length():
    expected = np.random.Generator(np.random.Philox(key=[7, 3])).random(2 * BLOCK + 5)
    assert uniforms(7, [3], 5)[0].tolist() == expected[:5].tolist()
    stream = Uniforms(7, [0, 3], 10**30)
    places = [(0, 0), (0, 0), (1, 1)] + [(i, i) for i in range(2, len(expected))]  # a longer prompt begins later
    drawn = [stream.at(place)[1].item() for place in places]
    assert drawn == [expected[0], *expected]


@pytest.mark.slow
def test_an_unlimited_length_reserves_no_memory(monkeypatch):
    texts = []
    monkeypatch.setattr(decoding, "RESERVED", 64)
    for n in (BLOCK + 14, 10**12, 10**30):
        request, emitted = GenerationRequest(n, Sampling(), num_samples=2, seed=4), []

        def on_text(row, text, emitted=emitted):
            emitted.append((row, text))
            if len(emitted) == 2 * (BLOCK + 14):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            complete(MODEL, CHARS, ["abc"], request, on_text)
        texts.append(emitted)
    assert texts[0] == texts[1] == texts[2]
    assert len(texts[0]) == 2 * (BLOCK + 14)


def same(completions, expected):
    """Tell whether completions are the same, up to the rounding of probabilities in batches of another size."""
    for a, b in zip(completions, expected, strict=True):
        assert (a.prompt, a.sample, a.text, a.ended, a.ids) == (b.prompt, b.sample, b.text, b.ended, b.ids)
        assert [p.prob for p in a.pieces] == pytest.approx([p.prob for p in b.pieces], rel=1e-4)
    return True


def test_several_batches_give_the_same_completions_as_one(monkeypatch):
    prompts, request = ["abc", "k", "defghijklm"], GenerationRequest(12, Sampling(0.9), num_samples=3, alternatives=2)
    emitted = []
    together = complete(MODEL, CHARS, prompts, request)
    monkeypatch.setattr(writing, "BATCH", 2)
    assert same(complete(MODEL, CHARS, prompts, request, lambda row, text: emitted.append((row, text))), together)
    for i, completion in enumerate(together):
        assert "".join(text for row, text in emitted if row == i) == completion.text
    numbers = [5, 3, 1, 2, 0, 4, 7, 6, 8]
    monkeypatch.setattr(writing, "BATCH", 4)
    some = complete(MODEL, CHARS, prompts, request, numbers=numbers)
    monkeypatch.setattr(writing, "BATCH", 100)
    assert same(some, complete(MODEL, CHARS, prompts, request, numbers=numbers))


def test_many_prompts_are_completed_in_batches(monkeypatch):
    widest, features = [], GPT.features
    monkeypatch.setattr(
        GPT, "features", lambda self, ids, *a, **k: widest.append(len(ids)) or features(self, ids, *a, **k)
    )
    completions = complete(MODEL, CHARS, [LETTERS[i % 20] for i in range(1000)], GenerationRequest(2))
    assert len(completions) == 1000 and max(widest) == writing.BATCH
    with pytest.raises(
        ValueError, match="^num_samples=1000000 with 3 prompts gives 3,000,000 texts; at most 1,000,000 are"
    ):
        complete(MODEL, CHARS, ["a", "b", "c"], GenerationRequest(num_samples=10**6))


# ---- Apple GPUs have no float64


def test_on_an_apple_gpu_tokens_are_drawn_on_the_cpu():
    for name, expected in (("mps", "cpu"), ("cuda:1", "cuda:1"), ("cpu", "cpu")):
        assert decoding.drawing_device(torch.device(name)) == torch.device(expected)


@pytest.mark.parametrize("base", [Sampling, FemtoGPTSampling])
def test_all_float64_computation_happens_on_the_drawing_device(monkeypatch, base):
    seen_on = []

    class Spy(base):
        def choose(self, logits, u, seen=None):
            seen_on.extend((logits.device.type, u.device.type, seen.device.type))
            return torch.zeros(len(logits), dtype=torch.long)

    monkeypatch.setattr(decoding, "drawing_device", lambda device: torch.device("meta"))
    mask = torch.ones(20, dtype=torch.bool)
    prompts = [torch.tensor([1, 2]), torch.tensor([3])]
    steps = list(decode(MODEL, prompts, Spy(0.5, repetition_penalty=2.0), Uniforms(0, [0, 1], 3), drawable=mask))
    assert set(seen_on) == {"meta"} and all(ids.device.type == logits.device.type == "cpu" for ids, logits in steps)
