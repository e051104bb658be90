"""Every model preset: its number of parameters, its first loss, and two training steps."""

import math

import pytest
import torch
import torch.nn.functional as F
from helpers import config_of, slow_except

from lm.config import CONF, load_option
from lm.model import GPT

# (preset, vocabulary): parameters, computed with the code or formulas of FundamentaLLM, feste, the LLM Learning Lab and
# femtoGPT; published sizes of nanoGPT and GPT-2
COUNTS = {
    ("feste/tiny", 512): 169_728, ("feste/small", 1024): 873_600, ("feste/medium", 1536): 4_011_520,
    ("feste/gpt2", 20534): 116_989_440, ("feste/pocket_bard", 8192): 9_048_064, ("feste/cyclops", 8192): 1_152_768,
    ("feste/spider", 8192): 1_152_768, ("feste/wide", 8192): 7_616_000, ("feste/narrow", 8192): 3_418_112,
    ("feste/short_context", 8192): 7_386_624, ("feste/long_context", 8192): 7_616_000,
    ("feste/tinystories", 8192): 9_048_064,
    ("fundamentallm/small", 69): 413_184, ("fundamentallm/default", 69): 19_075_072,
    ("fundamentallm/medium", 69): 19_075_072, ("fundamentallm/large", 69): 85_483_008,
    ("fundamentallm/code", 69): 1_229_824,
    ("lab/nano", 50257): 30_531_584, ("lab/small", 50257): 76_933_120, ("lab/medium", 50257): 163_009_536,
    ("lab/large", 50257): 255_094_784, ("lab/xlarge", 50257): 406_212_608, ("lab/gpt2_124m", 50257): 163_037_184,
    ("femtogpt/64x4", 256): 232_320, ("femtogpt/64x4", 15): 201_231, ("femtogpt/64x6", 256): 331_904,
    ("femtogpt/256x8", 256): 6_443_776, ("femtogpt/80x6", 256): 506_976, ("femtogpt/32x4", 256): 67_136,
    ("femtogpt/128x6", 256): 1_253_376, ("femtogpt/160x8", 566): 2_652_406, ("femtogpt/640x8", 256): 39_702_016,
    ("femtogpt/768x8", 1054): 58_306_078, ("femtogpt/160x6", 256): 1_935_296, ("femtogpt/80x4", 256): 351_776,
    ("femtogpt/80x4", 1054): 480_254, ("femtogpt/192x8", 1054): 3_960_478, ("femtogpt/192x8", 630): 3_797_238,
    ("femtogpt/96x6", 256): 718_912, ("femtogpt/144x6", 256): 1_575_904, ("femtogpt/96x8", 256): 942_016,
    ("femtogpt/144x8", 256): 2_076_448,
    ("nanogpt/baby", 65): 10_745_088, ("nanogpt/cpu", 65): 804_096, ("nanogpt/gpt2", 50257): 124_373_760,
    ("microgpt", 27): 4_192,
    ("small", 65): 10_745_088, ("medium", 69): 19_075_072, ("large", 50257): 124_439_808,
    ("xlarge", 50257): 354_823_168,
    # swiglu of 384, untied
    ("tiny", 2048): 4 * (4 * 128**2 + 3 * 384 * 128 + 2 * 128) + 128 + 2 * 2048 * 128,
}  # fmt: skip
TIED = {
    "lab/nano": 17_665_792, "lab/small": 51_201_536, "lab/medium": 124_412_160, "lab/large": 203_631_616,
    "lab/xlarge": 354_749_440, "lab/gpt2_124m": 124_439_808,
}  # fmt: skip
PRESETS = sorted(
    path.relative_to(CONF / "model").with_suffix("").as_posix() for path in (CONF / "model").rglob("*.yaml")
)


def test_every_preset_has_an_expected_count():
    assert {name for name, _ in COUNTS} == set(PRESETS)


@pytest.mark.slow_after(12)
@pytest.mark.parametrize(("preset", "vocab_size"), COUNTS)
def test_the_number_of_parameters_is_exact(preset, vocab_size):
    with torch.device("meta"):
        assert GPT(load_option("model", preset), vocab_size).num_params == COUNTS[preset, vocab_size]


@pytest.mark.slow_after(2)
@pytest.mark.parametrize("preset", TIED)
def test_the_number_of_parameters_is_exact_with_tied_embeddings(preset):
    with torch.device("meta"):
        assert GPT(load_option("model", preset, tie_embeddings=True), 50257).num_params == TIED[preset]
    with torch.device("meta"):  # feste/tiny, and the shape that has the 163M parameters in feste's documents
        assert GPT(load_option("model", "feste/tiny", tie_embeddings=True), 512).num_params == 136_960
        assert GPT(load_option("model", "feste/gpt2", block_size=1024), 50257).num_params == 163_037_184


def check_first_steps(preset: str, tied: bool, V: int = 2048) -> None:
    """Check that the first loss is within 2 % of ln V, and that it is lower after two steps."""
    torch.manual_seed(0)
    config = load_option("model", preset, tie_embeddings=tied, dropout=0.0, dropout_mlp=0.0)
    model, T = GPT(config, V), min(config.block_size, 128)
    ids = torch.randint(V, (512 // T, T + 1))
    with torch.no_grad():
        loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()).item()
    assert abs(loss / math.log(V) - 1) < 0.02
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    losses = []
    for _ in range(3):
        loss = F.cross_entropy(model(ids[:1, :-1]).flatten(0, 1), ids[:1, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[2] < losses[0]


LARGE = [preset for preset in PRESETS if (model := load_option("model", preset)).n_layer * model.n_embd**2 > 2e6]


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "preset",
    slow_except(["tiny", "nanogpt/cpu", "femtogpt/32x4"], [preset for preset in PRESETS if preset not in LARGE]),
)
def test_presets_start_at_ln_v_and_learn_in_two_steps(preset, tied):
    check_first_steps(preset, tied)


@pytest.mark.parametrize("preset", slow_except(["tiny"], ["tiny", "small", "medium"]))
def test_presets_start_at_ln_v_with_a_small_vocabulary(preset):
    check_first_steps(preset, load_option("model", preset).tie_embeddings, V=65)


@pytest.mark.slow
@pytest.mark.parametrize("preset", LARGE)
def test_large_presets_start_at_ln_v_and_learn_in_two_steps(preset):
    check_first_steps(preset, load_option("model", preset).tie_embeddings)


def test_a_preset_of_a_family_is_selected_by_its_path():
    config = config_of("model=feste/spider", "model.n_layer=3").model
    assert (config.n_head, config.n_layer, config.tie_embeddings) == (8, 3, False)


def test_the_number_of_heads_changes_the_output():
    """In feste n_head has no effect, so its presets cyclops and spider are the same network."""
    outputs = []
    for preset in ("feste/cyclops", "feste/spider"):
        torch.manual_seed(0)
        model = GPT(load_option("model", preset), 512).eval()
        outputs.append(model(torch.arange(64)[None]))
    assert not torch.allclose(*outputs, atol=1e-4)


@pytest.mark.slow
def test_the_table_of_models_adds_up():
    from lm.experiment.model_table import VOCABULARY, model_rows

    rows = {row["model"]: row for row in model_rows([], None)}
    assert set(PRESETS) == {name.partition(",")[0] for name in rows} and set(VOCABULARY) <= {
        *PRESETS,
        *(p.partition("/")[0] for p in PRESETS),
    }
    for name, row in rows.items():
        assert row["parameters"] == row["embedding"] + row["attention"] + row["mlp"] + row["norms"]
        counted = TIED if name.endswith(", tied") else {p: n for (p, V), n in COUNTS.items() if row["vocabulary"] == V}
        assert row["parameters"] == counted.get(name.partition(",")[0], row["parameters"])
    (row,) = model_rows(["tiny", "model.n_layer=3"], 100)
    assert row["shape"] == "3x128, 4 heads" and row["vocabulary"] == 100
    for words, message in ((["fest"], "did you mean 'feste"), (["tiny", "model.n_layr=3"], "did you mean 'n_layer'")):
        with pytest.raises(ValueError, match=message):
            list(model_rows(words, None))
