"""Predictions of runs whose optimizer is more than one, or whose decay is not torch's."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from bridge.runs import audit_run, predict_run
from empirics.config import TrainConfig
from empirics.data import TextData
from empirics.extras import optimizer_of
from empirics.models import GPT2Config
from empirics.train import train
from theory.equivalence.twin import equivalent_schedule
from theory.optimizers import SGD, AdamW, Decay, Muon
from theory.recipe import Recipe
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


def audited(run, root="."):
    torch.set_num_threads(1)
    return audit_run(run, root).set_index("tensor")


def test_an_audit_shows_each_tensor_with_the_optimizer_that_trains_it(config):
    muon = Muon(0.02, weight_decay=0.3)
    table = audited(config(optimizer=muon, others=AdamW(0.01, weight_decay=0.1)))
    hidden = table.loc["transformer.h.0.mlp.c_fc.weight"]
    assert (hidden["lr"], hidden["weight_decay"], hidden["decayed"]) == (0.02, 0.3, "yes")
    embedding, gain = table.loc["transformer.wte.weight"], table.loc["transformer.ln_f.weight"]
    assert (embedding["lr"], embedding["weight_decay"], embedding["decayed"]) == (0.01, 0.1, "yes")
    assert (gain["lr"], gain["decayed"]) == (0.01, "no")
    assert len({hidden["group"], embedding["group"], gain["group"]}) == 3
    assert (table["group"] != "none").all()
    # each by its own law: of AdamW sqrt(size lr/(2 decay)) for small lr * decay, and 20 * 8 = 160 numbers
    assert embedding["equilibrium_norm"] == pytest.approx((160 * 0.01 / (2 * 0.1)) ** 0.5, rel=0.01)
    assert 0 < hidden["equilibrium_angle"] < 0.5


def test_an_audit_names_decay_with_a_schedule_of_its_own(config):
    optimizer = AdamW(0.01, weight_decay=0.1, decay=Decay.SCHEDULED)
    table = audited(config(optimizer=optimizer, weight_decay_schedule=Linear(final=0.5)))
    assert set(table["convention"]) == {"scheduled", "none"}


def test_an_audit_shows_the_rates_that_a_twin_and_a_matched_run_begin_with(config, tmp_path):
    decayed = config(optimizer=SGD(0.1, weight_decay=0.1), rotation_every=1)
    record = train(decayed, tmp_path)
    twin = replace(decayed, name="twin", twin=record.name, twin_of="matrices")
    table = audited(twin, tmp_path)
    lr = equivalent_schedule(Recipe(twin.optimizer, twin.schedule, twin.steps)).lr[0]
    matrix, gain = table.loc["transformer.h.0.mlp.c_fc.weight"], table.loc["transformer.ln_f.weight"]
    assert (matrix["weight_decay"], matrix["decayed"]) == (0.0, "no")
    assert matrix["lr"] == pytest.approx(lr, rel=1e-12)
    assert lr != 0.1
    assert gain["lr"] == 0.1
    matched = audited(replace(decayed, name="matched", match=record.name, match_factor=0.5), tmp_path)
    # the first recorded rate is that after step 0; at the first weights it is within a step's change of lr/2
    assert matched.loc["transformer.h.0.mlp.c_fc.weight"]["lr"] == pytest.approx(0.05, rel=0.05)
    assert len(set(matched["group"])) > len(set(audited(decayed)["group"]))  # each matrix has its own
