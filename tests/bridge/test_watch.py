"""The watch in a plain loop: what it predicts, measures, writes, and that training does not notice."""

import copy
import json
import logging
import math

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from bridge.watch import watch
from decaylab.cli import main
from empirics.models import GPT2Config
from empirics.records import Record
from theory.errors import InputError
from theory.optimizers import AdamW
from theory.schedules import Cosine

GPT2 = GPT2Config(vocab_size=50, block_size=8, n_layer=1, n_head=2, n_embd=16, dropout=0.1)


def matrix(size: int = 24) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(size, size, bias=False)


def noise(model: nn.Module, generator: torch.Generator) -> None:
    """Gradients that are noise: the laws' own assumption, so that they are exact up to sampling."""
    for p in model.parameters():
        p.grad = torch.randn(p.shape, generator=generator)


def train(model, optimizer, steps, *, schedule=None, generator=None):
    generator = generator or torch.Generator().manual_seed(1)
    for _ in range(steps):
        noise(model, generator)
        optimizer.step()
        optimizer.zero_grad()
        if schedule is not None:
            schedule.step()


def test_a_prediction_written_before_step_0_is_compared_with_what_happened(tmp_path):
    model = matrix()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, betas=(0.9, 0.95), weight_decay=0.5)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: min(1.0, (t + 1) / 50))
    w = watch(model, optimizer, schedule=scheduler, total_steps=600, root=tmp_path, every=5)
    assert Record(w.path).preregistered  # before any step
    assert not (w.path / "metrics.jsonl").exists()
    with w:
        train(model, optimizer, 600, schedule=scheduler)
    assert w.record.status == "finished"
    comparison = w.comparison()
    assert comparison.preregistered
    # angles of pure noise: 24*24 coordinates, 100 measured steps; AdamW's Gaussian law itself is good to 1 %
    assert abs(comparison.residual("angle", start=100)["weight"]) < 0.03
    assert abs(comparison.residual("norm", start=100)["weight"]) < 0.05
    row = w.table().iloc[0]
    assert (row["tensor"], row["step"], row["lr"], row["weight_decay"], row["note"]) == ("weight", 595, 1e-2, 0.5, "")
    assert row["norm"] == pytest.approx(w.record.series("norm", "weight").iloc[-1])
    assert row["norm_residual"] == pytest.approx(row["norm_predicted"] / row["norm"] - 1)


def test_rates_are_read_at_each_step_and_the_law_is_evaluated_on_them(tmp_path):
    """Two groups on two curves, decay that changes, nothing announced: within sampling of the law, and not ahead."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"a": nn.Linear(24, 24, bias=False), "b": nn.Linear(24, 24, bias=False)})
    groups = [{"params": model["a"].parameters()}, {"params": model["b"].parameters(), "lr": 3e-3}]
    optimizer = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95), weight_decay=0.5)
    generator = torch.Generator().manual_seed(2)
    with watch(model, optimizer, root=tmp_path, every=5) as w:
        for t in range(600):
            optimizer.param_groups[0]["lr"] = 1e-2 * (0.2 if t >= 300 else 1.0)
            optimizer.param_groups[1]["lr"] = 3e-3 * 0.5 * (1 + math.cos(math.pi * t / 800))
            optimizer.param_groups[1]["weight_decay"] = 0.5 if t < 200 else 2.0
            train(model, optimizer, 1, generator=generator)
        seen = w.so_far()
    assert len(seen.predictions) == 2
    assert w.prediction is None
    comparison = w.comparison()
    assert not comparison.preregistered
    for name in ("a.weight", "b.weight"):
        assert abs(comparison.residual("angle", start=50)[name]) < 0.03
        assert comparison.worst("norm", start=50)[name] < 0.05
    assert w.table()["lr"].tolist() == pytest.approx([2e-3, 1.5e-3 * (1 + math.cos(math.pi * 595 / 800))])
    assert w.table()["weight_decay"].tolist() == [0.5, 2.0]


def test_the_command_line_compares_a_watched_run(tmp_path, capsys):
    model = matrix(8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for total in (None, 40):
        with watch(model, optimizer, total_steps=total, root=tmp_path) as w:
            train(model, optimizer, 40)
        with pytest.raises(SystemExit) as stop:
            main(["compare", str(w.path)])
        assert stop.value.code == 0
        assert ("NOT written before" in capsys.readouterr().out) == (total is None)


@pytest.mark.parametrize("kind", ["adamw", "fused", "compiled", "closure"])
def test_training_with_a_watch_is_bitwise_training_without(kind, tmp_path):
    base = GPT2.build(seed=0)
    batch = (torch.randint(50, (4, 8)), torch.randint(50, (4, 8)))
    outcomes = []
    for watched in (False, True):
        torch.manual_seed(7)
        np.random.seed(7)  # noqa: NPY002 - the user's own generator
        model = copy.deepcopy(base)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1, fused=kind == "fused")
        step = torch.compile(optimizer.step, backend="eager") if kind == "compiled" else optimizer.step
        w = watch(model, optimizer, root=tmp_path, every=2, flush_every=3, sinks="csv") if watched else None

        def closure(model=model):
            loss = model.loss(*batch)
            loss.backward()
            return loss

        losses = []
        for _ in range(7):
            optimizer.zero_grad()
            loss = step(closure) if kind == "closure" else closure()
            if kind != "closure":
                step()
            losses.append(loss.detach())
            if w is not None:
                w.log(loss=loss)
        if w is not None:
            w.close()
            assert len(w.record.series("angle", "transformer.wte.weight")) == 4
        rngs = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
        outcomes.append(([*model.state_dict().values(), *losses], *rngs))
    (plain, rng, numpy_rng), (probed, probed_rng, probed_numpy_rng) = outcomes
    assert all(torch.equal(a, b) for a, b in zip(plain, probed, strict=True))
    assert torch.equal(rng, probed_rng)
    assert np.array_equal(numpy_rng, probed_numpy_rng)


def test_with_a_closure_the_gradient_is_that_of_the_step_itself(tmp_path):
    measured = []
    for closed in (False, True):
        model = matrix(6)
        x = torch.randn(16, 6, generator=torch.Generator().manual_seed(3))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with watch(model, optimizer, root=tmp_path, every=1) as w:
            for _ in range(3):

                def closure(model=model, optimizer=optimizer, x=x):
                    optimizer.zero_grad()
                    loss = model(x).square().mean()
                    loss.backward()
                    return loss

                if closed:
                    optimizer.step(closure)
                else:
                    closure()
                    optimizer.step()
        measured.append(w.record.pivot("grad_norm"))
    pd.testing.assert_frame_equal(*measured)
    assert measured[0].index.tolist() == [0, 1, 2]


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_skipped_by_the_gradient_scaler_is_no_step(fused, tmp_path):
    """A run with two overflows measures what the same run without them does, gradients unscaled."""
    runs = []
    for overflows in ((), (0, 4)):
        model = matrix(8)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, fused=fused)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=10**6, backoff_factor=0.5)
        generator = torch.Generator().manual_seed(4)
        with watch(model, optimizer, root=tmp_path, every=1) as w:
            steps = 0
            for call in range(6 + len(overflows)):
                scaler.scale(torch.ones(()))  # sets the scale up
                if call in overflows:
                    model.weight.grad = torch.full((8, 8), math.inf)
                else:
                    optimizer.param_groups[0]["lr"] = 1e-2 / (1 + steps)
                    model.weight.grad = torch.randn(8, 8, generator=generator) * scaler.get_scale()
                    steps += 1
                scaler.step(optimizer)
                scaler.update()
        assert w.step == 6
        runs.append(w)
    plain, scaled = (w.record.metrics().drop(columns="run").set_index(["step", "tensor", "quantity"]) for w in runs)
    pd.testing.assert_frame_equal(plain.sort_index(), scaled.sort_index(), rtol=1e-6)
    for w in runs:
        assert w.so_far().predictions[0].recipe.lr(range(6)).tolist() == pytest.approx(
            [1e-2 / (1 + t) for t in range(6)]
        )


def test_accumulated_gradients_are_one_step_and_their_losses_are_averaged(tmp_path):
    model = matrix(8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    with watch(model, optimizer, root=tmp_path, every=1) as w:
        for t in range(4):
            for micro in range(3):
                (model(torch.randn(5, 8)).square().mean() / 3).backward()
                w.log(step=t, loss=torch.tensor(float(t + micro)))
            optimizer.step()
            optimizer.zero_grad()
    assert w.record.series("angle", "weight").index.tolist() == [0, 1, 2, 3]
    assert w.record.series("loss").tolist() == [1.0, 2.0, 3.0, 4.0]


def test_names_are_the_models_own_inside_wrappers(tmp_path):
    model = matrix(8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    compiled = torch.compile(nn.Sequential(model), backend="eager")
    with watch(compiled, optimizer, root=tmp_path) as w:
        compiled(torch.ones(1, 8)).sum().backward()
        optimizer.step()
    assert w.table()["tensor"].tolist() == ["0.weight"]


def test_parameters_that_join_are_measured_and_those_that_freeze_are_left_out(tmp_path):
    torch.manual_seed(0)
    model = nn.ModuleDict({"old": nn.Linear(8, 8, bias=False), "new": nn.Linear(8, 8, bias=False)})
    optimizer = torch.optim.AdamW(model["old"].parameters(), lr=1e-2)
    with watch(model, optimizer, root=tmp_path, every=2) as w:
        train(model, optimizer, 4)
        optimizer.add_param_group({"params": model["new"].parameters(), "lr": 1e-3})
        train(model, optimizer, 4)
        model["old"].requires_grad_(False)
        for _ in range(4):
            noise(model["new"], torch.Generator().manual_seed(5))
            optimizer.step()
            optimizer.zero_grad()
        table = w.table().set_index("tensor")
    angles = w.record.pivot("angle")
    assert angles["old.weight"].dropna().index.tolist() == [0, 2, 4, 6]
    assert angles["new.weight"].dropna().index.tolist() == [4, 6, 8, 10]
    assert "joined at step 4" in table.loc["new.weight", "note"]
    assert any("old.weight was frozen or left the optimizer at step 8" in note for note in w.notes)
    assert set(w.comparison().table()["tensor"]) == {"old.weight"}


def test_unknown_optimizers_are_measured_not_predicted_and_it_says_so(tmp_path, caplog):
    model = matrix(8)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3, weight_decay=0.1)
    with caplog.at_level(logging.WARNING, "decaylab"), watch(model, optimizer, root=tmp_path, total_steps=20) as w:
        train(model, optimizer, 20)
    assert "no law for RMSprop: measured, not predicted" in caplog.text
    assert len(w.record.series("angle", "weight")) == 2
    assert "no law for RMSprop" in w.table()["note"].iloc[0]
    assert w.audit()["predicted"].tolist() == ["theory has no law for RMSprop"]
    with pytest.raises(InputError, match=r"Nothing can be predicted: theory has no law for RMSprop\."):
        w.comparison()


def test_a_specification_gives_an_unknown_class_its_law(tmp_path):
    class Mine(torch.optim.Optimizer):
        def __init__(self, params, lr):
            super().__init__(params, {"lr": lr})
            self.inner = torch.optim.AdamW(self.param_groups, lr=lr, betas=(0.9, 0.95), weight_decay=0.5)

        def step(self, closure=None):
            self.inner.step()

    model = matrix()
    optimizer = Mine(model.parameters(), 1e-2)
    spec = AdamW(lr=1e-2, betas=(0.9, 0.95), weight_decay=0.5)
    with watch(model, optimizer, spec=spec, total_steps=300, root=tmp_path) as w:
        train(model, optimizer, 300)
    assert abs(w.comparison().residual("angle", start=100)["weight"]) < 0.05  # 20 measured steps


def test_rates_other_than_announced_are_noticed(tmp_path):
    model = matrix(8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    with watch(model, optimizer, schedule=Cosine(), total_steps=40, root=tmp_path) as w:
        train(model, optimizer, 40)  # at a constant rate
        comparison = w.comparison()
    assert not comparison.preregistered
    assert w.comparison(ahead=True).preregistered
    assert any("the learning rate of group 0 was not as announced" in note for note in w.notes)
    assert w.record.preregistered  # the announced one stays; what the laws say on the rates as they were lies beside
    seen = pd.read_parquet(w.path / "prediction_seen.parquet").query("quantity == 'norm'")
    assert seen["value"].iloc[-1] == pytest.approx(w.so_far().table().query("quantity == 'norm'")["value"].iloc[-1])
    assert seen["value"].iloc[-1] != pytest.approx(w.record.prediction().query("quantity == 'norm'")["value"].iloc[-1])


def test_resuming_counts_from_the_checkpoint(tmp_path):
    model = matrix(8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    whole = Cosine(warmup=10).at(np.arange(100), 100)
    with watch(model, optimizer, schedule=Cosine(warmup=10), total_steps=100, start=60, root=tmp_path, every=10) as w:
        for t in range(60, 100):
            optimizer.param_groups[0]["lr"] = 1e-2 * whole[t]
            train(model, optimizer, 1)
    assert w.record.series("norm", "weight").index.tolist() == [60, 70, 80, 90]
    assert w.record.prediction()["step"].agg(["min", "max"]).tolist() == [60, 99]
    assert w.comparison().preregistered
    assert w.record.status == "finished"


def test_cost_is_measured_and_small(tmp_path):
    model = matrix(256)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    with watch(model, optimizer, root=tmp_path) as w:
        train(model, optimizer, 20)
    items = {item.probe: item for item in w.cost().items}
    assert set(items) == {"rotation", "set-up", "rates", "fetch", "write"}
    assert items["rotation"].calls == 4  # before and after two steps
    assert items["rates"].calls == 20
    assert all(0 < item.seconds < w.cost().seconds for item in items.values())


def test_a_loss_that_breaks_is_noted_and_weights_that_break_end_the_watch_not_the_training(tmp_path):
    model = matrix(8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    w = watch(model, optimizer, root=tmp_path, every=1, flush_every=2)
    train(model, optimizer, 2)
    w.log(loss=math.nan)
    train(model, optimizer, 2)
    assert "step 1: loss is nan." in w.notes
    assert w.record.status == "partial"
    with torch.no_grad():
        model.weight[0, 0] = math.inf
    train(model, optimizer, 6)  # goes on
    assert w.record.status == "diverged"
    report = json.loads((w.path / "divergence.json").read_text())
    assert (report["step"], report["trigger"]) == (4, "norm of weight is not finite")
    w.close()
    assert w.record.series("norm", "weight").index.tolist() == [0, 1, 2, 3, 4, 5]
