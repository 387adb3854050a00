"""Small runs with what a step can have besides model, data and optimizer."""

import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from empirics import checkpoint
from empirics.batchnorm import recomputed
from empirics.config import TrainConfig
from empirics.continued import Double
from empirics.data import ImageData, TextData
from empirics.evaluate import mean, nll
from empirics.extras import Extras, optimizer_of, tf32
from empirics.interrupt import Interrupted
from empirics.models import GPT2Config, PreActResNetConfig, ResNetConfig, VGGConfig
from empirics.plan import Probes
from empirics.relations import Matched, matrices
from empirics.replay import replay
from empirics.train import stepper, train
from theory.errors import InputError
from theory.optimizers import SGD, Adam, AdamW, Decay, Hyperball, Lion, Muon, NormalizedMomentum, Signum
from theory.schedules import Constant, Cosine, Linear


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bin")
    rng = np.random.default_rng(0)
    for name, count in (("train", 4000), ("val", 300)):
        rng.integers(20, size=count).astype(np.uint16).tofile(folder / f"{name}.bin")
    return TrainConfig(
        name="lm",
        model=GPT2Config(vocab_size=20, block_size=8, n_layer=1, n_head=1, n_embd=8),
        data=TextData(source=f"bin:{folder}", vocab_size=20, block_size=8, val_windows=8),
        optimizer=AdamW(lr=0.01, weight_decay=0.1),
        schedule=Cosine(warmup=3, final=0.1),
        steps=12,
        batch_size=8,
        grad_clip=0.5,
        rotation_every=1,
        flush_every=4,
        checkpoint_every=5,
        probes=Probes.none(),
    )


@pytest.fixture
def images():
    return TrainConfig(
        name="digits",
        model=ResNetConfig(width=2, blocks=(1,), bn_eps=1e-30, scale_invariant=True),
        data=ImageData(train=64, label_noise=0.0),
        optimizer=SGD(lr=0.2, weight_decay=0.05),
        steps=12,
        batch_size=16,
        decay="all",
        rotation_every=1,
        checkpoint_every=0,
        probes=Probes.none(),
    )


def weights(record):
    return load_file(checkpoint.checkpoints(record.path / "checkpoints")[-1] / "model.safetensors")


def in_memory(config, steps, *, double=False, runs="."):
    """Losses and the model after some steps."""
    data = config.data.open()
    data = Double(data) if double else data
    model = config.model.build(config.seed).to(torch.float64 if double else torch.float32)
    optimizer = optimizer_of(config, model)
    extras = Extras(config, model, optimizer, data, runs)
    step_of = stepper(config, data, model, optimizer, extras=extras)
    torch.manual_seed(config.seed)
    return [step_of(step)[0].item() for step in range(steps)], model, optimizer


# ---- accumulation, precision


def test_accumulated_micro_batches_are_the_large_batch_in_float64(text):
    whole, model, _ = in_memory(text, 6, double=True)
    parts, other, _ = in_memory(replace(text, accumulate=4), 6, double=True)
    assert parts == pytest.approx(whole, rel=1e-12)  # rounding of a mean of four; required is 1e-6
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-9)


def test_accumulation_in_float32_to_its_rounding(text):
    assert in_memory(replace(text, accumulate=2), 6)[0] == pytest.approx(in_memory(text, 6)[0], rel=1e-6)


def test_fp16_scales_the_loss_and_the_weights_see_unscaled_gradients(text):
    config = replace(text, precision="fp16", grad_clip=0.0)
    plain, reference, _ = in_memory(replace(config, precision="float32"), 8)
    found, model, _ = in_memory(config, 8)
    assert found != plain
    assert found == pytest.approx(plain, rel=5e-3)  # ten bits of mantissa, 8 steps
    apart = max((a - b).abs().max().item() for a, b in zip(model.parameters(), reference.parameters(), strict=True))
    assert apart < 0.01 * 8  # Adam's step is at most about lr: the gradients were not 65536 times too large


def test_fp16_goes_on_after_an_overflow_and_halves_the_scale(text, tmp_path, monkeypatch):
    scaler = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda device: scaler(device, init_scale=2.0**40))
    record = train(replace(text, precision="fp16", steps=30), tmp_path)
    assert record.status == "finished"
    norms = record.series("grad_norm_total")
    left_out = int((norms == 0).sum())
    assert left_out > 0
    assert norms.iloc[-1] > 0
    state = torch.load(checkpoint.checkpoints(record.path / "checkpoints")[-1] / "state.pt", weights_only=True)
    assert state["extra"]["scaler"]["scale"] == 2.0 ** (40 - left_out)
    assert len(record.pivot("norm")) == 30


@pytest.mark.parametrize("precision", ["bf16-weights", "bf16-weights:stochastic"])
def test_pure_bf16_weights_stay_in_the_format(text, tmp_path, precision):
    record = train(replace(text, precision=precision), tmp_path)
    saved = weights(record)
    assert all(torch.equal(w, w.bfloat16().float()) for w in saved.values())
    assert record.config.arithmetic().low


def test_nearest_rounding_stalls_where_stochastic_rounding_moves(text):
    """Updates of 1e-4 are below half of bf16's spacing at the gains' 1.0, 2^-9; about 5 of 24 gains move."""
    tiny = replace(text, optimizer=AdamW(lr=1e-4, weight_decay=0.0), schedule=Constant(), grad_clip=0.0)
    gains = {}
    for precision in ("bf16-weights", "bf16-weights:stochastic"):
        _, model, _ = in_memory(replace(tiny, precision=precision, seed=1), 12)
        gains[precision] = torch.cat([p.detach().flatten() for p in model.parameters() if p.dim() == 1])
    assert (gains["bf16-weights"] == 1).all()
    assert (gains["bf16-weights:stochastic"] != 1).any()


def test_tf32_is_set_in_the_run_and_put_back():
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    for allowed in (True, False):
        with tf32(allowed):
            assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == (allowed, allowed)
    with tf32(None):
        assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before


# ---- averages, first weights, fixed norms


def test_averages_are_evaluated_with_recomputed_statistics_and_change_nothing(images, tmp_path):
    config = replace(
        images, averages=("ema:2", "swa:6"), eval_every=4, steps=8, model=ResNetConfig(width=2, blocks=(1,))
    )
    record, plain = train(config, tmp_path), train(replace(config, averages=()), tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(weights(record).values(), weights(plain).values(), strict=True))
    table = record.pivot("test_loss_average")
    assert table["ema:2"].notna().tolist() == [True, True]
    assert table["swa:6"].notna().tolist() == [False, True]
    units = record.metrics().drop_duplicates("quantity").set_index("quantity")["unit"]
    assert (units["test_loss_average"], units["test_error_average"]) == ("nats", "1")

    last = checkpoint.checkpoints(record.path / "checkpoints")[-1] / "state.pt"
    means = torch.load(last, weights_only=True)["extra"]["averages"]["means"]["swa:6"]
    model, data = config.model.build(0), config.data.open()
    model.load_state_dict(weights(record), strict=False)
    with torch.no_grad():
        for p, value in zip(model.parameters(), means, strict=True):
            p.copy_(value)
        expected = mean(recomputed(model, data.train_images), data.validation(256), nll)
        stale = mean(model.eval(), data.validation(256), nll)
    assert table["swa:6"].iloc[-1] == pytest.approx(expected, rel=1e-5)
    assert abs(stale - expected) > 1e-3  # the running statistics would have been noticed


def test_a_run_may_begin_from_another_ones_checkpoint(text, tmp_path):
    first = train(replace(text, keep_every=5), tmp_path)
    tuned = replace(text, name="tuned", optimizer=SGD(lr=1e-6), schedule=Constant(), steps=2, seed=3)
    for origin, step in ((first.name, 12), (f"{first.name}@5", 5), (str(first.path), 12)):
        record = train(replace(tuned, init_from=origin), tmp_path)
        expected = load_file(first.path / "checkpoints" / f"step-{step:08d}" / "model.safetensors")
        assert all(torch.allclose(w, expected[name], atol=1e-5) for name, w in weights(record).items())
    with pytest.raises(InputError, match=r"init_from = .*@7' is not allowed: .* after steps 5, 10, 12"):
        train(replace(tuned, init_from=f"{first.name}@7"), tmp_path)
    with pytest.raises(InputError, match=r"init_from = 'nowhere' is no run directory"):
        train(replace(tuned, init_from="nowhere"), tmp_path)
    small = replace(tuned.model, n_embd=4)
    with pytest.raises(InputError, match="does not fit the model"):
        train(replace(tuned, init_from=first.name, model=small), tmp_path)


@pytest.mark.parametrize("norm", [1.0, "initial"])
def test_every_matrix_keeps_its_norm_and_gains_do_not(text, tmp_path, norm):
    record = train(replace(text, fixed_norm=norm), tmp_path)
    table, before = record.pivot("norm"), record.pivot("norm0").loc[0]
    model = text.model.build(0)
    for view in matrices(model):
        wanted = 1.0 if norm == 1.0 else before[view.name]
        assert table[view.name].to_numpy() == pytest.approx(wanted, rel=1e-6)
    assert abs(table["transformer.ln_f.weight"].iloc[-1] - before["transformer.ln_f.weight"]) > 1e-4
    assert record.prediction() is None


# ---- rates from another run


@pytest.mark.parametrize("kind", ["text", "images"])
def test_matched_tensor_by_tensor_the_effective_rates_are_the_other_runs(kind, request, tmp_path):
    config = request.getfixturevalue(kind)
    reference = train(config, tmp_path)
    plain = replace(config.optimizer, weight_decay=0.0)
    own = replace(config, name="matched", optimizer=plain, match=reference.name, fixed_norm="initial")
    found = train(own, tmp_path).pivot("effective_lr")
    expected = reference.pivot("effective_lr")
    for name in expected.columns:
        ratio = (found[name] / expected[name]).to_numpy()
        if "ln_" in name:
            continue  # gains keep the plain rate
        elif "c_attn" not in name:
            assert ratio == pytest.approx(1, rel=1e-5), name
    scaled = train(replace(own, match_factor=0.25), tmp_path).pivot("effective_lr")
    name = expected.columns[0]
    assert (scaled[name] / expected[name]).to_numpy() == pytest.approx(0.25, rel=1e-5)


def test_queries_keys_and_values_have_rates_of_their_own(text, tmp_path):
    """One step of plain SGD-like updates: each third moves by its own rate times the same direction."""
    sgd = replace(text, optimizer=SGD(lr=0.1, weight_decay=0.5), schedule=Constant(), grad_clip=0.0)
    reference = train(sgd, tmp_path)
    own = replace(sgd, optimizer=SGD(lr=0.1), match=reference.name)
    data, model = own.data.open(), own.model.build(1)  # other weights, so that the three rates differ
    with torch.no_grad():
        model.transformer.h[0].attn.c_attn.weight[:8].mul_(3)
    optimizer = optimizer_of(own, model)
    followed = Matched(reference, own, model, optimizer)
    model.loss(*data.batch(0, 8)).backward()
    followed.set(0)
    effective = reference.pivot("effective_lr").loc[0]
    expected = [
        view.view() - effective[view.name] * view.view().norm() ** 2 * view.of(view.parameter.grad)
        for view in matrices(model)
    ]
    optimizer.step()
    rates = []
    for view, wanted in zip(matrices(model), expected, strict=True):
        assert torch.allclose(view.view(), wanted, rtol=1e-5, atol=1e-8), view.name
        rates.append(effective[view.name] * wanted.norm().item() ** 2)
    assert max(rates[2:5]) > 4 * min(rates[2:5])


def test_matched_by_one_number_and_by_means(text, tmp_path):
    reference = train(text, tmp_path)
    base = replace(text, optimizer=replace(text.optimizer, weight_decay=0.0), match=reference.name)
    with_one = train(replace(base, name="global", match_by="global"), tmp_path)
    names = [view.name for view in matrices(text.model.build(0))]
    ratio = (with_one.pivot("effective_lr") / reference.pivot("effective_lr"))[names]
    assert np.exp(np.log(ratio).mean(axis=1)).to_numpy() == pytest.approx(1, rel=1e-5)
    assert ratio.iloc[-1].std() > 1e-4
    by_mean = train(replace(base, name="mean", match_by="mean", fixed_norm="initial"), tmp_path).pivot("effective_lr")
    name = "transformer.wte.weight"
    mean_rate = reference.pivot("effective_lr")[name].mean()
    assert by_mean[name].to_numpy() == pytest.approx(mean_rate, rel=1e-5)


def test_the_twin_of_a_scale_invariant_network_is_the_run(images, tmp_path):
    """In float64, where rounding leaves room: losses agree, weights are larger by the predicted ratio."""
    config = replace(images, optimizer=SGD(lr=0.2, momentum=0.5, weight_decay=0.2), schedule=Cosine(final=0.1))
    reference = train(config, tmp_path)
    own = replace(config, name="twin", twin=reference.name)
    losses, decayed, _ = in_memory(config, 12, double=True)
    again, twin, optimizer = in_memory(own, 12, double=True, runs=tmp_path)
    naive, _, _ = in_memory(replace(config, optimizer=replace(config.optimizer, weight_decay=0.0)), 12, double=True)
    assert again == pytest.approx(losses, rel=1e-10)
    assert naive != pytest.approx(losses, rel=1e-3)
    assert all(group["weight_decay"] == 0 for group in optimizer.param_groups)
    for a, b in zip(decayed.parameters(), twin.parameters(), strict=True):
        if a.requires_grad:
            assert torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0).item() == pytest.approx(1)
            assert b.norm() > 1.2 * a.norm()
    assert train(own, tmp_path).status == "finished"


def test_the_twin_of_a_scale_invariant_gpt2_under_adamw(text, tmp_path):
    model = replace(text.model, scale_invariant=True)
    config = replace(text, model=model, optimizer=AdamW(lr=0.02, weight_decay=2.0), grad_clip=0.0)
    reference = train(config, tmp_path)
    losses, _, _ = in_memory(config, 12, double=True)
    again, _, optimizer = in_memory(replace(config, twin=reference.name), 12, double=True, runs=tmp_path)
    assert again == pytest.approx(losses, rel=1e-9)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 2.0}  # embeddings decay as before


def test_a_twin_of_what_it_is_not_is_refused(text, images, tmp_path):
    reference = train(text, tmp_path)
    with pytest.raises(InputError, match="no decayed matrix of the model is scale-invariant"):
        train(replace(text, twin=reference.name), tmp_path)
    with pytest.raises(InputError, match=r"optimizer = .* that of the run whose twin this is"):
        train(replace(text, twin=reference.name, optimizer=AdamW(lr=0.5)), tmp_path)
    with pytest.raises(InputError, match="twin = 'nowhere' is no run directory"):
        train(replace(text, twin="nowhere"), tmp_path)
    with pytest.raises(InputError, match=r"it has no effective_lr of 'conv\.weight'"):
        train(replace(images, match=reference.name), tmp_path)
    assert train(replace(text, twin=reference.name, twin_of="matrices"), tmp_path).status == "finished"


# ---- resume


RESUMED = {
    "sgd": {"optimizer": SGD(0.1, momentum=0.9, weight_decay=0.1)},
    "adam": {"optimizer": Adam(0.01, weight_decay=0.1)},
    "corrected": {"optimizer": AdamW(0.01, weight_decay=0.1, decay=Decay.CORRECTED)},
    "cautious": {"optimizer": AdamW(0.01, weight_decay=0.1, decay=Decay.CAUTIOUS)},
    "scheduled": {
        "optimizer": Lion(0.01, weight_decay=0.1, decay=Decay.SCHEDULED),
        "weight_decay_schedule": Linear(),
    },
    "signum": {"optimizer": Signum(0.01)},
    "normalised": {"optimizer": NormalizedMomentum(0.1)},
    "hyperball": {"optimizer": Hyperball(0.02)},
    "muon": {"optimizer": Muon(0.02), "others": AdamW(0.01)},
    "bf16": {"precision": "bf16"},
    "fp16": {"precision": "fp16"},
    "bf16 weights": {"precision": "bf16-weights"},
    "stochastic weights": {"precision": "bf16-weights:stochastic"},
    "emulated": {"precision": "emulated:m7e8:stochastic", "accumulate": 2},
    "averages": {"averages": ("ema:3", "swa:4"), "eval_every": 6},
    "fixed norm": {"fixed_norm": "initial", "accumulate": 2},
    "dropout": {"accumulate": 4, "model": GPT2Config(20, 8, 1, 1, 8, dropout=0.2)},
}


@pytest.mark.parametrize("case", RESUMED)
def test_stopped_and_resumed_it_is_bitwise_the_run_that_was_not(case, text, tmp_path):
    config = replace(text, name="resumed", **RESUMED[case])
    whole = train(config, tmp_path / "whole")
    stop = lambda done, *_: os.kill(os.getpid(), signal.SIGTERM) if done == 4 else None
    with pytest.raises(Interrupted):
        train(config, tmp_path / "stopped", progress=stop)
    again = train(config, tmp_path / "stopped")
    assert (again.path / "metrics.jsonl").read_bytes() == (whole.path / "metrics.jsonl").read_bytes()
    for name in ("model.safetensors", "state.pt"):
        files = [path / "checkpoints" / "step-00000012" / name for path in (whole.path, again.path)]
        if name.endswith("pt"):
            first, second = (torch.load(file, weights_only=True) for file in files)
            assert first["extra"].keys() == second["extra"].keys()
            assert same(first["optimizer"], second["optimizer"])
            assert same(first["extra"], second["extra"])
        else:
            assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("relation", ["match", "twin"])
def test_a_run_that_follows_another_resumes_too(relation, text, tmp_path):
    reference = train(text, tmp_path)
    config = replace(text, name=relation, twin_of="matrices", **{relation: str(reference.path)})
    whole = train(config, tmp_path / "whole")
    stop = lambda done, *_: os.kill(os.getpid(), signal.SIGTERM) if done == 4 else None
    with pytest.raises(Interrupted):
        train(config, tmp_path / "stopped", progress=stop)
    again = train(config, tmp_path / "stopped")
    assert (again.path / "metrics.jsonl").read_bytes() == (whole.path / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("case", ["stochastic weights", "fp16", "fixed norm", "muon"])
def test_a_replay_sees_the_same_steps(case, text, tmp_path):
    """Its control is the run itself, from a checkpoint in the middle, to the bit."""
    record = train(replace(text, keep_every=5, **RESUMED[case]), tmp_path)
    found = replay(record, from_step=7)
    assert found.steps == tuple(range(5, 12))
    assert found.control == found.original
    assert (found.replayed == found.original) is (record.config.precision == "auto")


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@pytest.mark.parametrize(
    ("model", "optimizer"),
    [
        (VGGConfig(width=2, blocks=(1, 1)), SGD(0.1, weight_decay=0.01)),
        (PreActResNetConfig(width=2, blocks=(1, 1)), Lion(1e-3, weight_decay=0.1)),
        (ResNetConfig(width=2, blocks=(1,)), NormalizedMomentum(0.1)),
    ],
)
def test_every_model_of_images_trains(model, optimizer, images, tmp_path):
    record = train(replace(images, model=model, optimizer=optimizer, steps=4), tmp_path)
    assert record.status == "finished"
    assert 0 < record.series("test_loss").iloc[-1] < 10
