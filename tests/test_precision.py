"""Number formats and torch.compile."""

import pytest
import torch
from helpers import config_of, equal, weights

from lm.base.hardware import require_compiler
from lm.run import checkpoint


@pytest.mark.slow
def test_bf16_true_trains_with_weights_and_state_in_bf16(nano):
    run = nano("precision=bf16_true", "trainer.max_steps=12", "optimizer.lr=0.01")
    assert {t.dtype for t in weights(run).values()} == {torch.bfloat16}
    raw = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    state = raw["optimizer_states"][0]["state"]
    assert {s["exp_avg"].dtype for s in state.values()} == {torch.bfloat16}
    assert checkpoint.load(run).model.wte.weight.dtype == torch.float32  # converted to fp32 when it is loaded


@pytest.mark.slow
def test_a_bf16_true_run_resumes_exactly(nano):
    straight = nano("precision=bf16_true", "schedule=constant", name="straight")
    stopped = nano("precision=bf16_true", "schedule=constant", "trainer.max_steps=8", name="stopped")
    nano("precision=bf16_true", "schedule=constant", name="stopped")
    assert equal(weights(straight), weights(stopped))


@pytest.mark.slow
def test_tf32_is_set_for_a_run_and_reset_by_the_next(nano):
    nano("precision=tf32", "trainer.max_steps=1", name="fast")
    assert torch.get_float32_matmul_precision() == "high"
    nano("precision=fp32", "trainer.max_steps=1", name="exact")
    assert torch.get_float32_matmul_precision() == "highest"


def test_compile_without_a_compiler_is_refused(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ValueError, match="trainer.compile=true needs a C\\+\\+ compiler on a CPU; install g\\+\\+"):
        config_of("trainer.compile=true", "device=cpu")


@pytest.mark.slow
def test_a_compiled_run_keeps_its_keys_and_resumes_exactly(nano):
    try:
        require_compiler("cpu")
    except ValueError as error:
        pytest.skip(str(error))
    overrides = ["trainer.compile=true", "schedule=constant", "model.dropout=0.1", "loss.chunk=5", "model.n_layer=1"]
    straight = nano(*overrides, name="straight")
    stopped = nano(*overrides, "trainer.max_steps=8", name="stopped")
    nano(*overrides, name="stopped")
    assert equal(weights(straight), weights(stopped))
    plain = nano("trainer.max_steps=1", "schedule=constant", "model.n_layer=1", name="plain")
    assert weights(straight).keys() == weights(plain).keys()
    once = nano("trainer.compile=true", "trainer.max_steps=1", "schedule=constant", "model.n_layer=1", name="once")
    for key, value in weights(plain).items():
        torch.testing.assert_close(weights(once)[key], value, atol=1e-4, rtol=1e-3)
