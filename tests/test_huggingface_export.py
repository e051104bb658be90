"""An export to transformers is exact or refused, for all settings of GPTConfig. The other formats are lossless."""

import json
import tempfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pytest
import torch
from helpers import close, slow_except
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lm.data.tokenizer import Chars
from lm.model import GPT, GPTConfig, huggingface
from lm.model.huggingface.fields import COMMON
from lm.model.huggingface.gpt2 import RULES as GPT2_RULES
from lm.model.huggingface.llama import RULES as LLAMA_RULES
from lm.run import checkpoint
from lm.run.export import export

transformers = pytest.importorskip("transformers")
transformers.utils.logging.disable_progress_bar()
pytestmark = pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")

CHARS = Chars("abcdefghijklmnopqrstuvwxyz")
ROWS = 29  # vocabulary size of the model; three rows have no character
LLAMA = {"position": "rope", "norm": "rmsnorm", "mlp": "swiglu", "bias": False}
BASES = {"gpt2": {}, "llama": LLAMA}
SMALL = {"n_layer": 1, "n_head": 4, "n_embd": 16, "block_size": 12}

# Values of every field of GPTConfig, the default and others. A test fails if a field is missing here.
DROPOUT = [None, 0.0, 0.5]
BIAS = [None, False, True]
VALUES = {
    "n_layer": [1, 2], "n_head": [1, 2, 4], "n_kv_head": [None, 1, 2, 4], "n_embd": [16, 24], "block_size": [1, 12],
    "dropout": [0.0, 0.5], "dropout_embd": DROPOUT, "dropout_attn": DROPOUT, "dropout_resid": DROPOUT,
    "dropout_mlp": [0.0, 0.5],
    "bias": [False, True], "bias_qkv": BIAS, "bias_proj": BIAS, "bias_mlp": BIAS, "bias_norm": BIAS,
    "bias_head": [False, True],
    "position": ["learned", "sinusoidal", "rope", "none"], "position_scale": [None, 0.5], "rope_theta": [10000.0, 3.0, 50],
    "window": [None, 3, 12, 100],
    "norm": ["layernorm", "rmsnorm"], "norm_eps": [None, 1e-5, 1e-6, 0.1, 1], "norm_gain": [True, False],
    "norm_stream": [False, True], "qk_norm": [False, True],
    "mlp": ["gelu", "gelu_tanh", "relu", "relu2", "swiglu"], "mlp_ratio": [4.0, 1.3, 0.7, 0.01],
    "norm_embd": [False, True], "tie_embeddings": [True, False], "logit_softcap": [None, 2.0],
    "init": ["normal", "zero_proj", "unit", "he_uniform", "femtogpt"], "vocab_multiple": [1, 8, 64],
    "recompute_every": [0, 1],
}  # fmt: skip


def build(**choices) -> GPT:
    """Build a model with random parameters, large enough that each of them affects the logits."""
    model = GPT(GPTConfig(**SMALL | choices), ROWS).eval()
    draw = torch.Generator().manual_seed(1)
    for p in model.parameters():
        p.data = (p.dim() == 1) + 0.3 * torch.randn(p.shape, generator=draw)
    if choices.get("tie_embeddings", True):
        model.head.weight = model.wte.weight
    return model


def format_override(field: str, value: object) -> str:
    """Return an override in the syntax of Hydra: JSON, except that strings have no quotes."""
    return f"model.{field}={value if isinstance(value, str) else json.dumps(value)}"


@torch.no_grad()
def is_exact_or_refused(choices: dict) -> bool:
    """Export a model and check its logits in transformers and after an import. Return False if it is refused.

    The message of a refusal must name one of the changed settings.
    """
    model = build(**choices)
    ids = torch.arange(2 * model.config.block_size).view(2, -1) * 5 % ROWS
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out")
        try:
            huggingface.export(model, CHARS, out)
        except ValueError as error:
            named = [
                format_override(key, value)
                for key, value in choices.items()
                if format_override(key, value) in str(error)
            ]
            assert named, error
            assert not out.exists()
            return False
        theirs = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
        assert close(theirs(ids).logits, model(ids)), choices
        assert close(huggingface.load(out)[0](ids), model(ids)), choices
    return True


def test_every_field_has_values_here_and_every_rule_is_for_a_field():
    names = {field.name for field in fields(GPTConfig)}
    assert set(VALUES) == names
    assert set(COMMON) | set(GPT2_RULES) | set(LLAMA_RULES) <= names
    for field in fields(GPTConfig):
        assert any(value != field.default for value in VALUES[field.name]), field.name


# Architectures that can express a model when this field alone is changed. Written by hand.
EXACT = {
    "n_layer": "both", "n_head": "both", "n_embd": "both", "block_size": "both", "mlp_ratio": "both",
    "dropout": "both", "dropout_embd": "both", "dropout_attn": "both", "dropout_resid": "both", "dropout_mlp": "both",
    "bias": "both", "bias_qkv": "both", "bias_proj": "both", "bias_mlp": "both", "bias_norm": "both",
    "position_scale": "both", "rope_theta": "both", "norm_eps": "both", "tie_embeddings": "both", "init": "both",
    "vocab_multiple": "both", "recompute_every": "both", "n_kv_head": "llama",
}  # fmt: skip
ALONE = [
    (base, field, value)
    for base in BASES
    for field, values in VALUES.items()
    for value in values
    if value != ({f.name: f.default for f in fields(GPTConfig)} | BASES[base])[field]
]


@pytest.mark.slow_after(16)
@pytest.mark.parametrize(("base", "field", "value"), ALONE)
def test_one_changed_field_is_exported_exactly_or_refused_by_name(base, field, value):
    choices = BASES[base] | {field: value}
    if value == "unit":
        choices |= {"tie_embeddings": False}
    exact = is_exact_or_refused(choices)
    if value == 0.01:  # mlp_ratio without a hidden unit, except that Llama rounds up to 64
        assert exact == (base == "llama")
    elif EXACT.get(field) in ("both", base):
        assert exact
    elif field == "window":
        assert exact == (value >= SMALL["block_size"])
    elif field == "n_kv_head":
        assert exact == (value == SMALL["n_head"])
    elif field == "mlp":
        assert exact == (base == "gpt2" and value != "swiglu")
    else:
        assert not exact


@st.composite
def choices(draw, most: int):
    """Draw valid values of up to `most` fields, based on one of the two architectures of transformers."""
    base = draw(st.sampled_from(sorted(BASES)))
    names = draw(st.lists(st.sampled_from(sorted(VALUES)), max_size=most, unique=True))
    values = BASES[base] | {name: draw(st.sampled_from(VALUES[name])) for name in names}
    try:
        GPTConfig(**SMALL | values)
    except ValueError:
        values = {
            name: value for name, value in values.items() if name not in ("init", "norm_gain", "n_head", "n_embd")
        }
        values["n_kv_head"] = None
    return values


def combinations(examples: int, most: int):
    quick = settings(max_examples=examples, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    return lambda test: quick(given(choices(most))(test))


@pytest.mark.slow
@combinations(40, most=6)
def test_several_changed_fields_are_exported_exactly_or_refused_by_name(choices):
    is_exact_or_refused(choices)


@pytest.mark.slow
@combinations(1000, most=12)
def test_many_changed_fields_are_exported_exactly_or_refused_by_name(choices):
    is_exact_or_refused(choices)


def test_a_new_field_is_refused_until_it_has_a_rule():
    @dataclass
    class NewConfig(GPTConfig):
        novelty: bool = False

    assert huggingface.architecture(NewConfig()) == "gpt2"
    with pytest.raises(
        ValueError, match=r"GPT-2 does not support model\.novelty=true; Llama does not support .*model\.novelty=true"
    ):
        huggingface.architecture(NewConfig(novelty=True))


@torch.no_grad()
def round_trip(choices: dict, form: str, folder: Path) -> None:
    model = build(**choices)
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    about = checkpoint.describe(model, CHARS) | {"metrics": {"val/loss": 1.5}}
    checkpoint.write({"state_dict": state, "global_step": 7, "lm": about}, folder / "run.ckpt")
    again = checkpoint.load(export(folder / "run.ckpt", form, None)["out"])
    ids = torch.arange(2 * model.config.block_size).view(2, -1) * 5 % ROWS
    assert torch.equal(again.model(ids), model(ids)) and again.model.vocab_size == ROWS
    assert asdict(again.model.config) == asdict(model.config)
    assert again.tokenizer.to_json() == CHARS.to_json() and again.step == 7


@pytest.mark.parametrize("form", slow_except(["inference"], ["inference", "safetensors"]))
@pytest.mark.parametrize("field", slow_except(["norm", "mlp", "n_kv_head", "bias"], VALUES))
def test_the_other_formats_are_lossless(field, form, tmp_path):
    for value in VALUES[field]:
        choices = {field: value} | ({"tie_embeddings": False} if value == "unit" else {})
        round_trip(choices, form, tmp_path)


def test_an_export_does_not_overwrite_a_directory(tmp_path):
    round_trip({}, "inference", tmp_path)
    export(tmp_path / "run.ckpt", "hf", tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with pytest.raises(ValueError, match="out is not empty; remove it or choose another location with --out"):
        export(tmp_path / "run.ckpt", "hf", tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_the_export_of_an_hf_directory_is_written_into_it(tmp_path):
    huggingface.export(build(), CHARS, tmp_path / "theirs")
    assert export(Path(f"hf:{tmp_path}/theirs"), "inference", None)["out"] == str(tmp_path / "theirs/inference.ckpt")
