"""Predictions of runs whose optimizer is more than one, or whose decay is not torch's."""

import numpy as np
import pytest
import torch

from bridge.runs import predict_run
from empirics.config import TrainConfig
from empirics.data import TextData
from empirics.extras import optimizer_of
from empirics.models import GPT2Config
from theory.optimizers import AdamW, Decay, Muon
from theory.schedules import Linear


@pytest.fixture
def config(tmp_path):
    for name in ("train", "val"):
        np.arange(600, dtype=np.uint16).__mod__(20).tofile(tmp_path / f"{name}.bin")
    return lambda **fields: TrainConfig(
        name="lm",
        model=GPT2Config(vocab_size=20, block_size=8, n_layer=1, n_head=1, n_embd=8),
        data=TextData(source=f"bin:{tmp_path}", vocab_size=20, block_size=8),
        steps=10,
        batch_size=4,
        accumulate=2,
        **fields,
    )


def predicted(run):
    torch.set_num_threads(1)
    model = run.model.build(0)
    return predict_run(model, optimizer_of(run, model), run)


def test_beside_muon_only_what_muon_trains_is_predicted(config):
    prediction = predicted(config(optimizer=Muon(0.02), others=AdamW(0.01)))
    names = {group.name for group in prediction.recipe.groups}
    assert "transformer.h.0.mlp.c_fc.weight" in names
    assert not any("wte" in name or "ln_" in name for name in names)


def test_a_decay_with_a_schedule_of_its_own_is_in_the_recipe(config):
    shape = Linear(final=0.5)
    optimizer = AdamW(0.01, weight_decay=0.1, decay=Decay.SCHEDULED)
    recipe = predicted(config(optimizer=optimizer, weight_decay_schedule=shape)).recipe
    assert (recipe.weight_decay_schedule, recipe.optimizer) == (shape, optimizer)
    (group,) = [group for group in recipe.groups if group.name == "transformer.wte.weight"]
    assert recipe.shrink(5, group) == pytest.approx(0.01 * 0.1 * 0.75)


def test_cautious_decay_is_known_as_such(config):
    recipe = predicted(config(optimizer=AdamW(0.01, weight_decay=0.1, decay=Decay.CAUTIOUS))).recipe
    (group,) = [group for group in recipe.groups if group.name == "transformer.wte.weight"]
    assert group.decayed
    assert recipe.shrink(0, group) == pytest.approx(0.5 * 0.01 * 0.1)
