"""An import is exact or refused for any config.json, compared with models that transformers builds."""

import json
import tempfile
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest
import torch
from helpers import close
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lm.data.tokenizer import Chars
from lm.model import GPTConfig, huggingface
from lm.model.huggingface import gpt2, llama
from lm.model.huggingface.settings import FIXED, IGNORED
from lm.model.layers import mlp_width

transformers = pytest.importorskip("transformers")
transformers.utils.logging.disable_progress_bar()

CHARS = Chars("abcdefghijklmnopqrstuvwxyz")
MISSING = "(no such key)"
T, V = 12, 30

# Arguments of the models that transformers builds. Some of them change what the model computes.
BUILT = {
    "gpt2": {
        "vocab_size": [V], "n_positions": [T], "n_embd": [16, 24], "n_layer": [1, 2], "n_head": [2, 4],
        "n_inner": [None, 40, 64], "layer_norm_epsilon": [1e-5, 1e-6, 0.1], "tie_word_embeddings": [True, False],
        "activation_function": ["gelu_new", "gelu", "gelu_pytorch_tanh", "gelu_fast", "gelu_python", "gelu_accurate",
                                "gelu_python_tanh", "gelu_10", "quick_gelu", "relu", "relu2", "silu", "tanh"],
        "scale_attn_weights": [True, True, False], "scale_attn_by_inverse_layer_idx": [False, False, True],
        "reorder_and_upcast_attn": [False, True],
        "attn_pdrop": [0.1, 0.5], "use_cache": [True, False],
    },
    "llama": {
        "vocab_size": [V], "max_position_embeddings": [T], "hidden_size": [16, 32], "intermediate_size": [64, 128, 37, 1],
        "num_hidden_layers": [1, 2], "num_attention_heads": [2, 4], "num_key_value_heads": [None, 1, 2],
        "head_dim": [None, None, 4, 8], "rms_norm_eps": [1e-6, 1e-5, 0.1], "tie_word_embeddings": [True, False],
        "hidden_act": ["silu", "swish", "silu", "gelu"], "attention_bias": [False, True], "mlp_bias": [False, True],
        "rope_parameters": [
            None, {"rope_theta": 50.0, "rope_type": "default"}, {"rope_theta": 500000, "rope_type": "default"},
            {"rope_theta": 50.0, "rope_type": "linear", "factor": 2.0},
            {"rope_theta": 50.0, "rope_type": "dynamic", "factor": 2.0},
            {"rope_theta": 50.0, "rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 6},
            {"rope_theta": 50.0, "rope_type": "llama3", "factor": 2.0, "original_max_position_embeddings": 6,
             "low_freq_factor": 1.0, "high_freq_factor": 4.0},
        ],
        "attention_dropout": [0.0, 0.5], "pretraining_tp": [1, 2, None],
    },
}  # fmt: skip

# Edits of a config.json. Each key has values that are harmless, and values that are not.
NUMBERS = [None, MISSING, 0, -1, 1, 2, 30, 10**400, 1.5, "2", True, []]
SWITCHES = [None, MISSING, True, False, 0, "true"]
FACTORS = [None, MISSING, 0, -1.0, 1e-5, 2, 1e400, 10**400, "1e-5", True]
ROPES = [
    None, MISSING, {}, [], "linear", {"type": "default"}, {"rope_type": "default", "type": "default"}, {"type": "linear", "factor": 2.0},
    {"rope_type": "default", "rope_theta": 50.0}, {"rope_type": "linear", "factor": 1.0}, {"rope_theta": 77.0},
    {"rope_type": "default", "type": "linear", "factor": 2.0}, {"rope_type": "default", "factor": 4.0}, {"rope_theta": None},
    {"rope_type": "default", "partial_rotary_factor": 0.5}, {"rope_type": "default", "partial_rotary_factor": 1.0},
    {"rope_type": None}, {"rope_type": "yarn", "factor": 2.0}, {"full_attention": {"rope_type": "default", "rope_theta": 50.0}},
]  # fmt: skip
EDITED = {
    "both": {
        "is_causal": [None, True, False], "novelty": [None, False, 3], "is_encoder_decoder": SWITCHES, "is_decoder": SWITCHES,
        "quantization_config": [None, {"quant_method": "fp8"}], "sliding_window": [None, 3, T], "layer_types": [None, ["sliding_attention"]],
        "attention_chunk_size": [None, 4], "per_layer_config": [None, {}], "pruned_heads": [{}, {"0": [1]}],
        "auto_map": [None, {"AutoModelForCausalLM": "modeling.Mine"}], "torch_dtype": [None, "float16", "float32"],
        "dtype": [MISSING, "bfloat16"], "architectures": [None, ["GPT2Model"]], "id2label": [{"0": "a"}], "bos_token_id": [None, 5],
        "initializer_range": [0.5], "use_cache": [True, False], "temperature": [0.5], "task_specific_params": [{"a": 1}],
        "output_attentions": [False, True], "_name_or_path": ["x"], "transformers_version": ["4.0.0"],
        "tie_word_embeddings": SWITCHES, "vocab_size": [*NUMBERS, V - 1, V + 1], "chunk_size_feed_forward": [0, 3],
    },
    "gpt2": {
        "n_positions": NUMBERS, "n_embd": NUMBERS, "n_layer": NUMBERS, "n_head": NUMBERS, "n_inner": NUMBERS, "n_ctx": [T, 4],
        "hidden_size": [16, 24, 32, None], "num_hidden_layers": [1, 2], "num_attention_heads": [1, 2, 4],
        "max_position_embeddings": [T, 1000], "layer_norm_epsilon": FACTORS, "scale_attn_weights": SWITCHES,
        "scale_attn_by_inverse_layer_idx": SWITCHES, "reorder_and_upcast_attn": [True, False],
        "add_cross_attention": SWITCHES, "activation_function": [None, MISSING, "gelu", "gelu_new", "swish", "nonsense", 3],
        "resid_pdrop": [0.0, 0.9], "summary_type": ["first"], "head_dim": [4],
    },
    "llama": {
        "hidden_size": NUMBERS, "intermediate_size": NUMBERS, "num_hidden_layers": NUMBERS, "num_attention_heads": NUMBERS,
        "num_key_value_heads": NUMBERS, "head_dim": [*NUMBERS, 4, 8], "max_position_embeddings": [*NUMBERS, 2**31 - 1],
        "rms_norm_eps": FACTORS, "rope_theta": [*FACTORS, 50.0], "rope_parameters": ROPES, "rope_scaling": ROPES,
        "partial_rotary_factor": [None, 1.0, 0.5], "attention_bias": SWITCHES, "mlp_bias": SWITCHES, "pretraining_tp": [1, 2, None],
        "hidden_act": [None, MISSING, "silu", "swish", "gelu", 3], "attention_dropout": [0.5, None], "n_positions": [T],
    },
}  # fmt: skip


@cache
def save(kind: str, arguments: str) -> tuple[dict[str, bytes], str]:
    """Return the files of a transformers model with random parameters, or the error if it cannot be built."""
    config = {"gpt2": transformers.GPT2Config, "llama": transformers.LlamaConfig}[kind]
    build = {"gpt2": transformers.GPT2LMHeadModel, "llama": transformers.LlamaForCausalLM}[kind]
    try:
        model = build(config(**json.loads(arguments))).eval()
    except (ValueError, KeyError, TypeError) as error:
        return {}, str(error)
    draw = torch.Generator().manual_seed(1)
    for p in model.parameters():
        p.data = (p.dim() == 1) + 0.3 * torch.randn(p.shape, generator=draw)
    model.tie_weights()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}, ""


@torch.no_grad()
def is_exact_or_refused(kind: str, arguments: dict, edits: dict) -> bool | None:
    """Compare logits with those of transformers. Return False if the import is refused, with a message that names a key.

    Return None if transformers itself cannot compute logits.
    """
    files, why = save(kind, json.dumps(arguments, sort_keys=True))
    if why:
        return None
    config = {key: value for key, value in (json.loads(files["config.json"]) | edits).items() if value != MISSING}
    ids = torch.arange(2 * T).view(2, -1) * 5 % (V - 1)
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            Path(folder, name).write_bytes(content)
        Path(folder, "config.json").write_text(json.dumps(config), encoding="utf-8")
        Path(folder, "tokenizer.json").write_text(CHARS.to_json(), encoding="utf-8")
        try:
            ours = huggingface.load(Path(folder))[0]
        except ValueError as error:
            assert "\n" not in str(error)
            changed = [key for key, value in arguments.items() if value != BUILT[kind][key][0]]
            assert any(key in str(error) for key in [*edits, *changed]), error
            return False
        assert ours.vocab_size == V
        ids = ids[:, : ours.config.block_size]
        try:
            theirs = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
            logits = theirs(ids).logits
        except Exception:  # transformers raises many types
            return None
        assert close(ours(ids), logits), (arguments, edits)
    return True


@st.composite
def models(draw):
    """Draw an architecture, arguments for transformers, and up to three edits of the config.json."""
    kind = draw(st.sampled_from(sorted(BUILT)))
    arguments = {key: values[0] for key, values in BUILT[kind].items()}
    for key in draw(st.lists(st.sampled_from(sorted(BUILT[kind])), max_size=4, unique=True)):
        arguments[key] = draw(st.sampled_from(BUILT[kind][key]))
    edited = EDITED["both"] | EDITED[kind]
    keys = draw(st.lists(st.sampled_from(sorted(edited)), max_size=3, unique=True))
    return kind, arguments, {key: draw(st.sampled_from(edited[key])) for key in keys}


def edited_models(examples: int):
    quick = settings(max_examples=examples, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    return lambda test: quick(given(models())(test))


@pytest.mark.slow
@edited_models(40)
def test_edited_models_are_read_exactly_or_refused_by_name(model):
    is_exact_or_refused(*model)


@pytest.mark.slow
@edited_models(1000)
def test_many_edited_models_are_read_exactly_or_refused_by_name(model):
    is_exact_or_refused(*model)


@pytest.mark.slow
@pytest.mark.parametrize("kind", BUILT)
def test_every_single_edit_is_read_exactly_or_refused_by_name(kind):
    arguments = {key: values[0] for key, values in BUILT[kind].items()}
    for key, values in (EDITED["both"] | EDITED[kind]).items():
        for value in values:
            is_exact_or_refused(kind, arguments, {key: value})


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "module"), [("gpt2", gpt2), ("llama", llama)])
def test_ignored_keys_do_not_change_the_logits(kind, module):
    arguments = {key: values[0] for key, values in BUILT[kind].items()}
    for key in sorted(IGNORED | module.KEYS.ignored):
        if key != "model_type":
            for value in (None, True, 3, "eager", {"0": "a"}):
                assert is_exact_or_refused(kind, arguments, {key: value}) is not False, key


# Edits that must be accepted: other spellings of supported settings, and keys without an effect.
READABLE = {
    "gpt2": [
        {}, {"n_embd": MISSING, "hidden_size": 16}, {"n_layer": MISSING, "num_hidden_layers": 1}, {"hidden_size": 16},
        {"n_head": MISSING, "num_attention_heads": 2}, {"n_positions": MISSING, "max_position_embeddings": T}, {"n_ctx": T},
        {"activation_function": MISSING}, {"activation_function": "gelu"}, {"activation_function": "gelu_pytorch_tanh"},
        {"activation_function": "gelu_fast"}, {"activation_function": "relu"}, {"activation_function": "relu2"},
        {"layer_norm_epsilon": MISSING}, {"layer_norm_epsilon": 0.25}, {"tie_word_embeddings": MISSING}, {"n_inner": MISSING},
        {"scale_attn_weights": MISSING, "scale_attn_by_inverse_layer_idx": MISSING, "reorder_and_upcast_attn": MISSING},
        {"reorder_and_upcast_attn": True}, {"resid_pdrop": 0.9}, {"dtype": MISSING, "torch_dtype": "bfloat16"},
        {"task_specific_params": {"text-generation": {"max_length": 50}}}, {"quantization_config": None, "sliding_window": None},
    ],
    "llama": [
        {}, {"num_key_value_heads": MISSING}, {"num_key_value_heads": 2}, {"head_dim": MISSING}, {"head_dim": 8},
        {"rope_parameters": MISSING}, {"rope_parameters": MISSING, "rope_theta": 77}, {"rope_parameters": {"rope_theta": 77.0}},
        {"rope_parameters": MISSING, "rope_scaling": {"type": "default"}, "rope_theta": 77.0}, {"rope_parameters": None},
        {"rope_parameters": MISSING, "rope_scaling": {"rope_type": "default", "rope_theta": 77.0}}, {"rope_scaling": None},
        {"rope_parameters": MISSING, "rope_scaling": None, "rope_theta": 1e6}, {"rms_norm_eps": MISSING}, {"rms_norm_eps": 0.25},
        {"hidden_act": MISSING}, {"hidden_act": "swish"}, {"attention_bias": MISSING, "mlp_bias": MISSING},
        {"attention_dropout": 0.5}, {"pretraining_tp": 2}, {"pretraining_tp": None}, {"partial_rotary_factor": 1.0},
    ],
}  # fmt: skip


@pytest.mark.slow_after(15)
@pytest.mark.parametrize(("kind", "edits"), [(kind, edits) for kind in READABLE for edits in READABLE[kind]], ids=str)
def test_other_spellings_and_harmless_keys_are_read(kind, edits):
    arguments = {key: values[0] for key, values in BUILT[kind].items()}
    assert is_exact_or_refused(kind, arguments, edits)


@pytest.mark.parametrize("hidden", [1, 37, 63, 65])
def test_an_mlp_of_any_width_is_read(hidden):
    arguments = {key: values[0] for key, values in BUILT["llama"].items()}
    assert is_exact_or_refused("llama", arguments | {"intermediate_size": hidden, "mlp_bias": True}, {})


@pytest.mark.parametrize("n_embd", [16, 52, 100, 768, 1000, 4094])  # some of these need a correction of the last bit
def test_mlp_ratio_for_gives_exactly_the_width(n_embd):
    for hidden in range(64, 64 * 300, 64):
        ours = GPTConfig(n_embd=n_embd, n_head=2, mlp="swiglu", mlp_ratio=llama.mlp_ratio_for(hidden, n_embd))
        assert mlp_width(ours) == hidden


@pytest.mark.parametrize(("kind", "module"), [("gpt2", gpt2), ("llama", llama)])
def test_every_key_of_the_installed_transformers_is_known(kind, module):
    config = {"gpt2": transformers.GPT2Config, "llama": transformers.LlamaConfig}[kind]
    known = set(module.KEYS.read) | set(module.KEYS.fixed) | module.KEYS.ignored | set(FIXED) | IGNORED
    rope = {"rope_parameters", "rope_scaling"} if kind == "llama" else set()
    assert {field.name for field in fields(config)} <= known | rope
    assert set(config.attribute_map) == set(module.KEYS.aliases)
    assert set(transformers.GenerationConfig._get_default_generation_params()) <= IGNORED
    for key, default in module.KEYS.read.items():  # rope_theta is a field of rope_parameters
        assert default == {field.name: field.default for field in fields(config)}.get(key, 10000.0), key
