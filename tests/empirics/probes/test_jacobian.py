import copy
import gc
import math
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from empirics.models import GPT2Config, ResNetConfig
from empirics.probes.jacobian import SquaredNorm, jacobian_fro
from empirics.probes.jacobian_conv import Convolution
from empirics.probes.jacobian_graph import Layout, UnsupportedError, batch_axis
from empirics.probes.jacobian_layers import use
from empirics.tensors import tensors
from theory.errors import InputError

IMAGES = torch.randn(7, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def trained_a_little(**options) -> nn.Module:
    """A ResNet in training mode with gradients, and running statistics that are not the initial ones."""
    model = ResNetConfig(width=4, **options).build(seed=0)
    for _ in range(3):
        model(IMAGES)
    model.loss(IMAGES, torch.arange(7)).backward()
    return model


def mlp(outputs: int = 20) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, outputs))


def one_by_one(model, images, statistics="eval"):
    """Squared norms per image (raw, relative, input), float64: a loop over images and outputs with torch.autograd."""
    model = copy.deepcopy(model).double().eval()
    for module in model.modules():
        if statistics == "train" and isinstance(module, nn.BatchNorm2d):
            module.train()
    views = tensors(model)
    parameters = [p for p in model.parameters() if p.requires_grad]
    x = images.double().requires_grad_()
    rows = []
    for logits in model(x):
        row = torch.zeros(3, dtype=torch.float64)
        for logit in logits:
            *by_weight, by_pixel = torch.autograd.grad(logit, [*parameters, x], retain_graph=True)
            gradients = dict(zip(parameters, by_weight, strict=True))
            squares = torch.stack([view.of(gradients[view.parameter]).square().sum() for view in views])
            norms = torch.stack([view.view().square().sum() for view in views])
            row += torch.stack([squares.sum(), (squares * norms).sum(), by_pixel.square().sum()])
        rows.append(row)
    return torch.stack(rows).T.numpy()


@pytest.mark.parametrize("scale_invariant", [False, True])
@pytest.mark.parametrize("statistics", ["eval", "train"])
@pytest.mark.parametrize("batch_size", [3, 50])
def test_equals_a_loop_over_images_and_outputs(scale_invariant, statistics, batch_size):
    model = trained_a_little(scale_invariant=scale_invariant)
    raw, relative, pixels = one_by_one(model, IMAGES, statistics)
    options = {"statistics": statistics, "method": "exact", "batch_size": batch_size}
    by_weight = jacobian_fro(model, IMAGES, **options)
    by_pixel = jacobian_fro(model, IMAGES, wrt="inputs", **options)
    bound = 1e-6 if statistics == "eval" else 1e-4  # float32; batch variances of 7 images cancel most of a gradient
    for found, expected in ((by_weight.norm, raw), (by_weight.scale_invariant, relative), (by_pixel.norm, pixels)):
        assert found.samples == pytest.approx(expected, rel=bound)
        assert found.value == pytest.approx(expected.mean(), rel=bound)
        assert found.stderr == pytest.approx(expected.std(ddof=1) / math.sqrt(7), rel=10 * bound)
        assert found.projection_stderr == 0
    assert sum(by_weight.tensors.values()) == pytest.approx(raw.mean(), rel=bound)
    assert ("layers" in by_weight.method) == (statistics == "eval")
    assert ("couple" in by_weight.reason) == ("couple" in by_pixel.reason) == (statistics == "train")


def test_tokens_are_averaged_and_tensors_told_apart():
    model = GPT2Config(vocab_size=11, block_size=6, n_layer=1, n_head=2, n_embd=4, bias=True).build(seed=0).double()
    tokens = torch.randint(11, (3, 6), generator=torch.Generator().manual_seed(0))
    logits, views = model(tokens), tensors(model)
    expected = dict.fromkeys((view.name for view in views), 0.0)
    for logit in logits.flatten():
        found = torch.autograd.grad(logit, list(model.parameters()), retain_graph=True)
        gradients = dict(zip(model.parameters(), found, strict=True))
        for view in views:
            expected[view.name] += view.of(gradients[view.parameter]).square().sum().item() / 18
    found = jacobian_fro(model, tokens, method="exact")
    assert found.tensors == pytest.approx(expected, rel=1e-10, abs=1e-20)  # K's bias has no effect at all
    assert found.value == pytest.approx(sum(expected.values()), rel=1e-10)
    assert "h.0.attn.c_attn.weight.q" in str(list(found.tensors))
    guessed = jacobian_fro(model, tokens, method="random", rel_error=0.05)
    assert guessed.norm.projection_stderr <= 0.05 * guessed.value
    assert abs(guessed.value - found.value) < 4 * guessed.norm.projection_stderr
    assert jacobian_fro(model, tokens, method="random", rel_error=0.05).norm.samples.tolist() == (
        guessed.norm.samples.tolist()
    )


def test_linear_map_in_closed_form():
    model = nn.Linear(5, 3)  # J_W = x and J_b = 1 for each output, J_x = W
    x = torch.randn(4, 5)
    found, inputs = jacobian_fro(model, x), jacobian_fro(model, x, wrt="inputs")
    weight, bias = model.weight.square().sum().item(), model.bias.square().sum().item()
    mean_square = x.square().sum(1).mean().item()
    assert found.value == pytest.approx(3 * mean_square + 3, rel=1e-5)
    assert found.scale_invariant.value == pytest.approx(3 * mean_square * weight + 3 * bias, rel=1e-5)
    assert found.tensors == pytest.approx({"weight": 3 * mean_square, "bias": 3.0}, rel=1e-5)
    assert inputs.value == pytest.approx(weight, rel=1e-5)
    assert inputs.stderr == pytest.approx(0, abs=1e-6)  # the same for every image
    assert inputs.scale_invariant is None


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    ("size", "kernel", "options"),
    [
        (9, 3, {"padding": 1}),
        (9, 3, {"stride": 2, "padding": (1, 2)}),
        (9, (3, 2), {"dilation": 2, "padding": (2, 0)}),
        (5, 5, {}),
        (4, 1, {"stride": 3}),
    ],
)
def test_both_ways_through_a_convolution(groups, size, kernel, options):
    conv = nn.Conv2d(4, 6, kernel, groups=groups, **options).double()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 4, size, size, generator=generator, dtype=torch.float64)
    outputs = conv(x)
    g = torch.randn(outputs.shape, generator=generator, dtype=torch.float64)
    expected = [torch.autograd.grad(conv(x[i : i + 1]), conv.weight, g[i : i + 1])[0].square().sum() for i in range(3)]
    layout = Layout(0, True)
    with torch.no_grad():
        for by_gram, by_pixel in ((False, False), (True, False), (True, True)):
            way = Convolution(outputs.grad_fn, layout.rows(x, 3), lambda t: layout.rows(t, 3), 1)
            way.by_pixel = by_pixel
            way.gram = way._gram() if by_gram else None
            found = way.squares(layout.rows(g, 3))
            assert found.tolist() == pytest.approx(torch.stack(expected).tolist(), rel=1e-10)


def test_convolution_takes_the_cheaper_way():
    def way(size, cotangents):
        outputs = nn.Conv2d(32, 32, 3, padding=1)(torch.zeros(1, 32, size, size))
        with torch.no_grad():
            return Convolution(outputs.grad_fn, torch.zeros(1, 1, 32, size, size), lambda t: t, cotangents)

    assert way(4, 1).by_gram
    assert not way(64, 10).by_gram


def test_scale_invariant_norm_ignores_the_scale_of_the_weights():
    model = ResNetConfig(width=4, scale_invariant=True, bn_eps=1e-30).build(seed=0)
    before = jacobian_fro(model, IMAGES)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.mul_(4)
                batch_norm = model.get_submodule(name.removesuffix(".weight").replace("conv", "bn"))
                batch_norm.running_var.mul_(16)
    after = jacobian_fro(model, IMAGES)
    assert after.scale_invariant.value == pytest.approx(before.scale_invariant.value, rel=1e-5)
    assert after.value == pytest.approx(before.value / 16, rel=1e-5)


@pytest.mark.parametrize("method", ["exact", "random"])
def test_standard_error_covers_the_population(method):
    model, generator = mlp(), torch.Generator().manual_seed(0)
    population = torch.randn(20_000, 6, generator=generator)
    hidden = torch.tanh(model[0](population)).double()
    back = model[2].weight.double().square() @ (1 - hidden.square()).square().T  # outputs x samples
    truth = (20 * (hidden.square().sum(1) + 1) + back.sum(0) * (population.double().square().sum(1) + 1)).mean().item()
    scores = []
    for seed in range(60):
        found = jacobian_fro(model, torch.randn(40, 6, generator=generator), method=method, max_probes=1, seed=seed)
        scores.append((found.value - truth) / found.stderr)
    # 60 scores: rms 1 +- 0.09, 3 sigma; the mean 0 +- 0.13
    assert 0.73 < math.sqrt(np.mean(np.square(scores))) < 1.27
    assert abs(np.mean(scores)) < 4 / math.sqrt(60)


@pytest.mark.parametrize("rel_error", [0.3, 0.05])
def test_projection_error_covers_these_samples(rel_error):
    model, x = mlp(), torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    exact = jacobian_fro(model, x, method="exact")
    runs = [jacobian_fro(model, x, method="random", rel_error=rel_error, max_probes=1000, seed=s) for s in range(60)]
    for found, truth in (
        ([run.norm for run in runs], exact.value),
        ([run.scale_invariant for run in runs], exact.scale_invariant.value),
    ):
        assert max(each.projection_stderr / each.value for each in found) <= rel_error
        scores = [(each.value - truth) / each.projection_stderr for each in found]
        # rms 1 +- 0.09; an error of 30 degrees of freedom widens it by 1.03, stopping early by up to 20 %
        assert 0.73 < math.sqrt(np.mean(np.square(scores))) < 1.6
        assert abs(np.mean(scores)) < 4 * 1.3 / math.sqrt(60)


def test_method_is_chosen_by_cost():
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    assert "exact" in jacobian_fro(mlp(10), x).method
    assert "random" in jacobian_fro(mlp(200), x, rel_error=0.1).method
    assert "exact" in jacobian_fro(mlp(20), x[:2], rel_error=0.001).method  # signs would need far more than 20
    assert "3 random" in jacobian_fro(mlp(200), x, method="random", rel_error=1e-6, max_probes=3).method


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("wrt", ["parameters", "inputs"])
@pytest.mark.parametrize("statistics", ["eval", "train"])
def test_leaves_everything_alone(training, wrt, statistics):
    model = trained_a_little().train(training)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = [p.grad.clone() for p in model.parameters()]
    rng, images = torch.get_rng_state(), IMAGES.clone()
    for method in ("exact", "random"):
        jacobian_fro(model, IMAGES, wrt=wrt, statistics=statistics, method=method, max_probes=2)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(p.grad, g) and p.requires_grad for p, g in zip(model.parameters(), gradients, strict=True))
    assert all(module.training == training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), rng)
    assert torch.equal(images, IMAGES)
    assert IMAGES.grad is None
    assert not IMAGES.requires_grad


@pytest.mark.slow
def test_memory_is_flat():
    model = ResNetConfig(width=16).build(seed=0)
    images = torch.randn(16, 1, 16, 16)
    process, seen = psutil.Process(), []
    for _ in range(50):
        jacobian_fro(model, images, method="random", max_probes=1)
        gc.collect()
        seen.append(process.memory_info().rss)
    activations = 16 * 16 * 16 * 16 * 4 * 10  # bytes that one graph keeps, about
    assert max(seen[25:]) - max(seen[:25]) < activations


def test_works_under_no_grad_and_inference_mode():
    model = trained_a_little()
    expected = jacobian_fro(model, IMAGES).value
    with torch.no_grad():
        assert jacobian_fro(model, IMAGES).value == expected
    with torch.inference_mode():
        assert jacobian_fro(model, IMAGES).value == expected


def test_one_image_has_no_standard_error_of_the_population():
    found = jacobian_fro(trained_a_little(), IMAGES[:1])
    assert math.isnan(found.stderr)
    assert math.isnan(found.norm.rms_stderr)
    assert found.norm.projection_stderr == 0


def test_root_of_a_mean():
    norm = SquaredNorm(4.0, 0.4, 0.0, np.array([4.0]))
    assert norm.rms == 2
    assert norm.rms_stderr == pytest.approx(0.1)
    assert SquaredNorm(0.0, 0.0, 0.0, np.zeros(1)).rms_stderr == 0


class Model(nn.Module):
    """A function of a linear map."""

    def __init__(self, function):
        super().__init__()
        self.linear, self.function = nn.Linear(3, 3), function

    def forward(self, x):
        return self.function(self.linear(x))


@pytest.mark.parametrize("wrt", ["parameters", "inputs"])
def test_samples_that_act_on_each_other_are_noticed(wrt):
    model, x = Model(lambda y: y + y.mean(0)), torch.randn(4, 3)
    found = jacobian_fro(model, x, wrt=wrt, method="exact")
    assert "samples" in found.reason
    weight = model.linear.weight.detach()
    for i in range(4):
        inputs = x[i] + x.mean(0)
        by_weight = 3 * inputs.square().sum().item() + 3 * 4
        others = torch.full((4,), 0.25)
        others[i] = 1.25
        by_input = others.square().sum().item() * weight.square().sum().item()
        expected = by_weight if wrt == "parameters" else by_input
        assert found.norm.samples[i] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("threshold", "reason"), [(0.0, "depend"), (math.inf, "across samples")])
def test_samples_that_the_model_takes_apart_go_one_by_one(threshold, reason):
    def routed(y):
        return torch.stack([torch.tanh(row) if row[0] > threshold else row for row in y])

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, x = Model(routed), torch.randn(6, 3)
    found = jacobian_fro(model, x, method="exact")
    assert reason in found.reason
    slopes = (
        torch.where(model.linear(x)[:, :1] > threshold, 1 - torch.tanh(model.linear(x)).square(), 1.0).square().sum(1)
    )
    expected = slopes * (x.square().sum(1) + 1)
    assert found.norm.samples == pytest.approx(expected.detach().numpy(), rel=1e-5)


def test_batches_and_outputs_of_any_form():
    linear, x = nn.Linear(3, 2), torch.randn(4, 3)
    expected = jacobian_fro(linear, x).value

    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = linear

        def forward(self, inputs, scale=1.0):
            return {"logits": scale * self.linear(inputs)}

    assert jacobian_fro(Named(), {"inputs": x}).value == pytest.approx(expected, rel=1e-6)
    assert jacobian_fro(Named(), {"inputs": x, "scale": 2.0}).value == pytest.approx(4 * expected, rel=1e-6)
    pair = (x, torch.tensor(2.0))
    assert jacobian_fro(Named(), pair).value == pytest.approx(4 * expected, rel=1e-6)
    assert jacobian_fro(Named(), pair, wrt="inputs").value > 0
    pair = (x, torch.zeros(4, dtype=torch.int64))
    assert jacobian_fro(linear, pair, predict=lambda m, b: m(b[0])).value == pytest.approx(expected, rel=1e-6)


def test_frozen_model_has_inputs_only():
    model, x = nn.Linear(3, 2).requires_grad_(False), torch.randn(4, 3)
    assert jacobian_fro(model, x, wrt="inputs").value == pytest.approx(model.weight.square().sum().item(), rel=1e-5)
    with pytest.raises(InputError, match="trainable"):
        jacobian_fro(model, x)


@pytest.mark.parametrize(
    ("model", "batch", "options", "message"),
    [
        (nn.Linear(2, 2), torch.empty(0, 2), {}, "at least one example"),
        (nn.Linear(2, 2), (), {}, "at least one example"),
        (nn.Linear(2, 2), [3], {}, "sample a row"),
        (nn.Conv2d(1, 2, 3), IMAGES, {}, "logits"),
        (Model(lambda y: y.argmax(1, keepdim=True)), torch.ones(2, 3), {}, "differentiable"),
        (Model(torch.Tensor.detach), torch.ones(2, 3), {}, "differentiable"),
        (Model(lambda y: y / 0), torch.ones(2, 3), {}, "finite"),
        (Model(lambda y: y.sum()), torch.ones(2, 3), {}, "logits"),
        (
            nn.Sequential(nn.Tanh(), nn.Hardtanh(inplace=True), nn.Linear(3, 3, device="meta")),
            torch.ones(2, 3),
            {},
            "meta",
        ),
        (nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 2)), -torch.ones(2, 3), {}, "in place"),
        (nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 2)), -torch.ones(2, 3), {"wrt": "inputs"}, "in place"),
        (nn.Embedding(3, 2), torch.tensor([0, 1]), {"wrt": "inputs"}, "floating-point"),
        (nn.Linear(2, 2), torch.ones(1, 2), {"wrt": "weights"}, "wrt"),
        (nn.Linear(2, 2), torch.ones(1, 2), {"method": "best"}, "method"),
        (nn.Linear(2, 2), torch.ones(1, 2), {"rel_error": 0}, "rel_error"),
        (nn.Linear(2, 2), torch.ones(1, 2), {"max_probes": 0}, "max_probes"),
        (nn.Linear(2, 2), torch.ones(1, 2), {"batch_size": 0}, "batch_size"),
        (nn.Linear(2, 2), torch.ones(1, 2), {"statistics": "all"}, "statistics"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(model, batch, options, message):
    before = batch.clone() if isinstance(batch, torch.Tensor) else batch
    with pytest.raises(InputError, match=message) as raised:
        jacobian_fro(model, batch, **options)
    assert "\n" not in str(raised.value)
    if isinstance(batch, torch.Tensor):
        assert torch.equal(batch, before)


class Overwriting(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x):
        hidden = self.first(x)
        logits = self.second(hidden)
        hidden.add_(1)
        return logits


def test_overwritten_activations_are_refused_in_one_sentence():
    with pytest.raises(InputError, match="in place"):
        jacobian_fro(Overwriting(), torch.ones(2, 3))


def test_fused_norm_of_rms_and_unknown_versions_of_operations():
    x, gain = torch.randn(3, 4, 5), torch.randn(5, requires_grad=True)
    g = torch.randn(3, 4, 5)
    scale = (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt()
    fields = {"name": lambda: "FusedRmsNormBackward0", "_saved_input": x}  # what torch keeps on a GPU
    with torch.no_grad():
        found = use(SimpleNamespace(**fields, _saved_result1=scale), 1, Layout(0, True), 3, (5,), 1).gradients(
            g[:, None]
        )
    for i in range(3):
        (expected,) = torch.autograd.grad(F.rms_norm(x[i], (5,), gain, 1e-6), gain, g[i])
        assert found[i].tolist() == pytest.approx(expected.tolist(), rel=1e-5)
    with pytest.raises(UnsupportedError, match="_saved_result1"):
        use(SimpleNamespace(**fields), 1, Layout(0, True), 3, (5,), 1)


def test_axis_with_the_batch():
    assert batch_axis((6, 4), (6, 4), 3, 2) is None
    assert batch_axis((5, 12), (5, 8), 3, 2) == 1
    assert batch_axis((5, 12), (5, 9), 3, 2) == -1
    assert batch_axis((3, 3), (2, 2), 3, 2) == -1
    assert batch_axis((3, 1, 2), (2, 2), 3, 2) == -1


def test_layouts():
    x = torch.arange(12.0).view(6, 2)
    assert Layout(0, True).rows(x, 3).shape == (3, 2, 2)
    assert Layout(0, True).rows(x, 3)[1].tolist() == x[2:4].tolist()
    assert Layout(0, False).rows(x, 3)[1].tolist() == x[[1, 4]].tolist()
