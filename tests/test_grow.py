"""Inserting a layer into a trained model."""

import json

import pytest
import torch
from helpers import NANO, config_of, slow_except

import train
from lm.config import load_option
from lm.model import GPT, GPTConfig
from lm.model.growth import insert_layer
from lm.run import checkpoint
from lm.run.grow import grow

SHAPES = [[], ["model.tie_embeddings=true", "model.position=learned", "model.bias=true", "model.mlp=gelu"]]


@pytest.mark.slow_after(1)
@pytest.mark.parametrize("at", slow_except([1], [0, 1, 2]))
@pytest.mark.parametrize("shape", SHAPES, ids=["tiny", "gpt2"])
@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_new_layer_preserves_the_function_and_the_optimizer_state(nano, shape, at, name):
    optimizer = load_option("optimizer", name)
    run = nano(*shape, f"optimizer={name}")
    data = checkpoint.read(run / "checkpoints" / "last.ckpt")
    grown = insert_layer(data, at)
    models = []
    for d in (data, grown):
        model = GPT(GPTConfig(**d["lm"]["model"]), d["lm"]["vocab_size"]).eval()
        model.load_state_dict({k.removeprefix("model."): v for k, v in d["state_dict"].items()})
        models.append(model)
    ids = torch.arange(32).view(2, 16) % 15
    assert torch.equal(models[0](ids), models[1](ids)) and len(models[1].blocks) == 3
    assert models[1].blocks[at].attn.c_attn.weight.std() > 0.01  # not zero, so the new layer can learn

    def moments(d, model):
        """Return the optimizer state by parameter name, with the numbering of an optimizer built for that model."""
        state = d["optimizer_states"][0]["state"]
        groups = optimizer.with_default_lr(32).build(model).param_groups
        names = [name for group in groups for name in group["param_names"]]
        return {name: state[i] for i, name in enumerate(names) if i in state}

    before, after = (moments(d, m) for d, m in zip((data, grown), models, strict=True))
    assert len(after) == len(before) and not [name for name in after if name.startswith(f"blocks.{at}.")]
    for i, block in enumerate(k for k in range(3) if k != at):
        for name in (n for n in before if n.startswith(f"blocks.{i}.")):
            moved = after[name.replace(f"blocks.{i}.", f"blocks.{block}.")]
            key = "momentum" if "momentum" in moved else "exp_avg"
            assert torch.equal(moved[key], before[name][key])
    assert torch.equal(after["wte.weight"]["exp_avg_sq"], before["wte.weight"]["exp_avg_sq"])


def test_a_position_outside_the_model_is_refused(nano):
    data = checkpoint.read(nano("trainer.max_steps=4") / "checkpoints" / "last.ckpt")
    with pytest.raises(ValueError, match=r"at=3 must be from 0 .* to 2"):
        insert_layer(data, 3)


def test_a_grown_run_can_be_trained_further(nano, tmp_path):
    run = nano(name="small")
    result = grow(run, None, None)
    assert (result["n_layer"], result["at"], result["step"]) == (3, 1, 12)
    target = tmp_path / "small-grown"
    config = config_of(*NANO, f"data.root={tmp_path}/data", "model.n_layer=3", "trainer.max_steps=24")
    config.name = "small-grown"
    loss = train.train(config, target)
    rows = (target / "metrics.csv").read_text().splitlines()
    assert [int(row.split(",")[0]) for row in rows[1:]] == list(range(1, 25))
    before = json.loads((run / "run.json").read_text())["metrics"]["val/loss"]
    assert loss < before + 0.05
    record = json.loads((target / "run.json").read_text())
    assert record["status"] == "finished" and record["grown_from"][0]["step"] == 12
    assert checkpoint.load(target).model.config.n_layer == 3
    with pytest.raises(ValueError, match="already exists"):
        grow(run, 1, None)
