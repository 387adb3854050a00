"""Every probe on every network of the zoo: against brute force in float64, with everything left as it was."""

import copy
import math
from importlib.util import find_spec

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from empirics.models import ResNetConfig
from empirics.probes.activations import Activations
from empirics.probes.hessian import CrossEntropy, hessian_top, hessian_trace
from empirics.probes.invariance import invariance
from empirics.probes.jacobian import jacobian_fro
from empirics.probes.noise import noise_scale
from empirics.probes.rotation import Rotation
from empirics.tensors import tensors
from tests.empirics.zoo import LOSS, ZOO, run
from theory.errors import InputError

MISSING = () if find_spec("transformers") else ("Hugging Face's GPT-2", "Hugging Face's ViT")
MEMBERS = [
    pytest.param(name, marks=pytest.mark.skipif(name in MISSING, reason="transformers is not installed"))
    for name in ZOO
]
every = pytest.mark.parametrize("name", MEMBERS)


def cast(batch, dtype=torch.float64):
    if isinstance(batch, torch.Tensor):
        return batch.to(dtype) if batch.is_floating_point() else batch
    return (
        {key: cast(part, dtype) for key, part in batch.items()} if isinstance(batch, dict) else tuple(map(cast, batch))
    )


def trainable(model):
    return [p for p in model.parameters() if p.requires_grad]


def rows(outputs, parameters):
    """Gradients of every output, flat, one a row, by torch.autograd."""

    def row(output):
        grads = torch.autograd.grad(output, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
        return torch.cat([g.flatten() for g in grads])

    return torch.stack([row(output) for output in outputs.flatten()])


class Kept:
    """State, modes, gradients and random numbers of a model, and that they stay."""

    def __init__(self, model, batch):
        LOSS(model.train(), batch).backward()
        self.model, self.batch = model, batch
        self.modes = [module.training for module in model.modules()]
        self.state, self.grads = copy.deepcopy(model.state_dict()), [copy.deepcopy(p.grad) for p in model.parameters()]
        self.inputs, self.rng = copy.deepcopy(batch), torch.get_rng_state()

    def check(self):
        pairs = zip(self.model.state_dict().values(), self.state.values(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
        for p, g in zip(self.model.parameters(), self.grads, strict=True):
            assert (p.grad is None and g is None) or torch.equal(p.grad, g)
        assert [module.training for module in self.model.modules()] == self.modes
        assert torch.equal(torch.get_rng_state(), self.rng)
        flat = [list(b.values()) if isinstance(b, dict) else [b] for b in (self.batch[0], self.inputs[0])]
        assert all(torch.equal(a, b) for a, b in zip(*flat, strict=True))


def kept(name):
    member = ZOO[name]
    model = member()
    return model, Kept(model, member.loss_batch)


@every
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.float64, 1e-10)])
def test_jacobian_equals_float64_brute_force(name, dtype, bound):
    model, state = kept(name)
    inputs = cast(ZOO[name].batch, dtype)
    model = model if dtype == torch.float32 else copy.deepcopy(model).double()
    found = jacobian_fro(model, inputs, method="exact")
    other = copy.deepcopy(model).double().eval()
    outputs = run(other, cast(ZOO[name].batch))
    positions = math.prod(outputs.shape[1:-1])
    jacobian = rows(outputs, trainable(other))
    expected = jacobian.square().sum(1).view(len(outputs), -1).sum(1) / positions
    assert found.norm.samples == pytest.approx(expected.numpy(), rel=bound)
    weights = torch.cat([torch.full((p.numel(),), 1.0, dtype=torch.float64) for p in trainable(other)])
    start = 0
    for p in trainable(other):
        for view in (view for view in tensors(other) if view.parameter is p):
            view.of(weights[start : start + p.numel()].view_as(p)).fill_(view.view().square().sum().item())
        start += p.numel()
    relative = (jacobian.square() * weights).sum().item() / outputs[..., 0].numel()
    assert found.scale_invariant.value == pytest.approx(relative, rel=bound)
    assert ("layers" in found.method) == ZOO[name].layers
    assert bool(found.reason) != ZOO[name].layers
    state.check()


@every
def test_jacobian_by_random_signs_and_in_inputs(name):
    model, state = kept(name)
    inputs = ZOO[name].batch
    exact = jacobian_fro(model, inputs, method="exact")
    found = jacobian_fro(model, inputs, method="random", rel_error=0.1, max_probes=300)
    assert found.norm.projection_stderr <= 0.1 * found.value
    assert abs(found.value - exact.value) <= 4 * found.norm.projection_stderr + 1e-6 * exact.value  # the seed is fixed
    floating = inputs if isinstance(inputs, torch.Tensor) else inputs.get("pixel_values", torch.tensor(0))
    if floating.is_floating_point():
        found = jacobian_fro(model, inputs, wrt="inputs", method="exact")
        other, x = copy.deepcopy(model).double().eval(), cast(floating).requires_grad_()
        outputs = run(other, x if isinstance(inputs, torch.Tensor) else {"pixel_values": x})
        expected = rows(outputs, [x]).square().sum(1).view(len(x), -1).sum(1)
        assert found.norm.samples == pytest.approx(expected.numpy(), rel=1e-5)
    else:
        with pytest.raises(InputError, match="floating-point"):
            jacobian_fro(model, inputs, wrt="inputs")
    state.check()


@every
def test_hessian_equals_float64_brute_force(name):
    model, state = kept(name)
    batch = ZOO[name].loss_batch
    other = copy.deepcopy(model).double().eval()
    parameters = trainable(other)

    def gradient():
        loss = LOSS(other, (cast(batch[0]), batch[1]))
        grads = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        return torch.cat([g.flatten() for g in grads])

    columns = []  # by differences of gradients: torch's own second derivative is under test too
    for entry in (entry for p in parameters for entry in p.detach().view(-1)):
        around = []
        for step in (1e-6, -2e-6):
            entry.add_(step)
            around.append(gradient())
        entry.add_(1e-6)
        columns.append((around[0] - around[1]) / 2e-6)
    hessian = torch.stack(columns)
    assert (hessian - hessian.T).norm() <= 1e-6 * hessian.norm()
    hessian = (hessian + hessian.T) / 2
    values = torch.linalg.eigvalsh(hessian)
    estimate = hessian_trace(model, LOSS, batch, rel_error=0.1, max_products=300)
    assert abs(estimate.value - hessian.trace().item()) < 4 * estimate.stderr + 1e-4 * values.abs().sum().item()
    top = hessian_top(model, LOSS, batch, 1, rel_error=1e-3)
    assert abs(top.values[0] - values[-1].item()) <= top.errors[0] + 1e-4 * values.abs().max().item()  # float32
    state.check()


@every
def test_noise_scale_equals_float64_brute_force(name):
    model, state = kept(name)
    inputs, targets = ZOO[name].loss_batch
    n = len(targets)

    def sample(i):
        part = {key: x[i : i + 1] for key, x in inputs.items()} if isinstance(inputs, dict) else inputs[i : i + 1]
        return part, targets[i : i + 1]

    found = noise_scale(model, LOSS, [sample(i) for i in range(n)])
    other = copy.deepcopy(model).double().eval()
    losses = [LOSS(other, (cast(part), target)) for part, target in map(sample, range(n))]
    gradients = rows(torch.stack(losses), trainable(other))
    covariance = gradients.var(0).sum().item()
    signal = gradients.mean(0).square().sum().item() - covariance / n
    scale = gradients.square().sum().item()
    assert found.trace.value == pytest.approx(covariance, abs=1e-5 * scale)
    assert found.signal.value == pytest.approx(signal, abs=1e-5 * scale)
    state.check()


@every
def test_rotation_equals_float64_by_hand(name):
    model = ZOO[name]()
    optimizer = torch.optim.SGD(trainable(model), lr=0.1, momentum=0.9, weight_decay=0.01)
    rotation = Rotation(model, optimizer, every=1)
    expected = []
    for _ in range(2):
        optimizer.zero_grad()
        LOSS(model.eval(), ZOO[name].loss_batch).backward()
        before = {view.name: view.view().double().clone() for view in tensors(model)}
        grads = {
            view.name: view.of(view.parameter.grad).double().norm().item()
            for view in tensors(model)
            if view.parameter.grad is not None
        }
        optimizer.step()
        after = {view.name: view.view().double() for view in tensors(model)}
        expected.append((before, after, grads))
    measured = [values for _, values in rotation.flush() if "angle" in values]
    rotation.close()
    for values, (before, after, grads) in zip(measured, expected, strict=True):
        assert set(values["angle"]) == set(grads)
        for tensor, grad in grads.items():
            old, new = before[tensor].flatten(), after[tensor].flatten()
            unit = [x / x.norm() for x in (old, new)]
            angle = 2 * math.atan2((unit[0] - unit[1]).norm().item(), (unit[0] + unit[1]).norm().item())
            rounding = 3 * 1e-3 * 1.2e-7**0.5  # decay alone shrinks by 1e-3, whose square, in float32, is taken off
            assert values["angle"][tensor] == pytest.approx(angle, rel=1e-4, abs=rounding)
            assert values["norm"][tensor] == pytest.approx(new.norm().item(), rel=1e-5)
            assert values["grad_norm"][tensor] == pytest.approx(grad, rel=1e-4, abs=1e-9)


@every
def test_invariance_equals_float64_brute_force(name):
    model, state = kept(name)
    batch = ZOO[name].loss_batch
    views = tensors(model)
    defects = invariance(model, LOSS, batch, views)
    other = copy.deepcopy(model).double().eval().requires_grad_(True)
    for module in other.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()
    loss = LOSS(other, (cast(batch[0]), batch[1]))
    named = dict(other.named_parameters())
    grads = torch.autograd.grad(loss, list(named.values()), allow_unused=True, materialize_grads=True)
    gradient = dict(zip(named, grads, strict=True))
    largest = max(g.norm().item() for g in grads)
    assert set(defects) == {view.name for view in views}
    for view in views:
        g, w = view.of(gradient[view.parameter_name]), view.of(named[view.parameter_name].detach())
        if g.norm() > 1e-3 * largest:  # below, float32 gradients are partly rounding
            radial = ((g * w).sum().abs() / (g.norm() * w.norm())).item()
            assert defects[view.name].radial == pytest.approx(radial, abs=1e-3)
    state.check()


def test_scale_invariant_tensors_are_found():
    def invariant(name):
        model = ZOO[name]()
        defects = invariance(model, LOSS, ZOO[name].loss_batch, tensors(model))
        return {tensor for tensor, defect in defects.items() if defect.is_invariant}

    assert {"layer1.conv1.weight", "layer2.conv1.weight"} <= invariant("ResNet-18's blocks")
    assert "transformer.h.0.attn.c_proj.weight" in invariant("our GPT-2, scale-invariant")
    assert "layer.parametrizations.weight.original1" in invariant("weight norm")
    assert not {"features.0.weight", "classifier.3.weight"} & invariant("VGG")


@pytest.mark.parametrize("name", [param for param in MEMBERS if "GPT-2" in param.values[0]])
def test_activations_of_transformers(name):
    model, batch = ZOO[name](), ZOO[name].loss_batch
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    streams, blocks = {}, [n for n, module in model.named_modules() if hasattr(module, "ln_1")]
    for block in blocks:
        module = model.get_submodule(block)
        module.register_forward_hook(
            lambda m, a, out, n=block: streams.update({n: out[0] if isinstance(out, tuple) else out})
        )
    probe = Activations(model, optimizer, every=1)
    LOSS(model, batch).backward()
    optimizer.step()
    ((step, values),) = probe.flush()
    probe.close()
    assert step == 0
    for block in blocks:
        assert values["residual_rms"][block] == pytest.approx(streams[block].square().mean().sqrt().item(), rel=1e-5)
    assert all(0 < value < 2 for value in values["branch_lost"].values())
    assert np.isfinite(list(values["attention_logit_max"].values())).all()


@pytest.mark.parametrize("name", ["VGG", "ResNet-18's blocks", "torch's encoder, time first", "weight norm"])
def test_activations_say_what_they_need(name):
    model = ZOO[name]()
    with pytest.raises(InputError, match="blocks"):
        Activations(model, torch.optim.SGD(trainable(model), lr=0.0))


def test_dropout_is_off():
    name = "VGG"
    model, batch = ZOO[name](), ZOO[name].loss_batch
    assert any(isinstance(module, nn.Dropout) for module in model.modules())
    assert jacobian_fro(model, batch[0]).value == jacobian_fro(model.eval(), batch[0]).value
    first, second = (hessian_trace(model.train(mode), LOSS, batch, max_products=10) for mode in (True, False))
    assert first.value == second.value


IMAGES, LABELS = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(4) % 3
CHANGES = CrossEntropy(lambda model, batch: (model(batch[0].mul_(2)), batch[1]))
PROBES = {
    "hessian_trace": lambda model, loss, batch: hessian_trace(model, loss, batch),
    "hessian_top": lambda model, loss, batch: hessian_top(model, loss, batch),
    "noise_scale": lambda model, loss, batch: noise_scale(model, loss, [batch] * 3),
    "invariance": lambda model, loss, batch: invariance(model, loss, batch, tensors(model)),
    "jacobian_fro": lambda model, loss, batch: jacobian_fro(
        model, batch, predict=lambda m, b: loss.predict(m, b)[0] if isinstance(loss, CrossEntropy) else loss(m, b)
    ),
}


def overwritten(model, batch):
    hidden = torch.exp(model(batch[0]))
    logits = hidden * model(batch[0])
    hidden.add_(1)
    return F.cross_entropy(logits, batch[1])


BAD = {
    "activation changed in place": (overwritten, "in place|logits"),
    "constant": (lambda m, b: F.cross_entropy(m(b[0]).detach(), b[1]), "differentiable|logits"),
    "not a scalar": (lambda m, b: F.cross_entropy(m(b[0]), b[1], reduction="none"), "scalar|logits"),
    "not a tensor": (lambda m, b: 3.0, "scalar|logits"),
    "not finite": (lambda m, b: m(b[0]).sum() * math.nan, "finite|logits"),
    "batch changed in place": (CHANGES, "in place"),
}


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("case", BAD)
def test_bad_losses_are_refused_in_one_sentence(probe, case):
    loss, message = BAD[case]
    model = ResNetConfig(width=2, blocks=(1,), num_classes=3).build(seed=0)
    batch = IMAGES.clone(), LABELS
    state = Kept(model, (batch[0], LABELS))
    with pytest.raises(InputError, match=message) as raised:
        PROBES[probe](model, loss, batch)
    assert "\n" not in str(raised.value)
    state.check()


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("case", ["empty", "meta"])
def test_bad_batches_and_models_are_refused_in_one_sentence(probe, case):
    model = ResNetConfig(width=2, blocks=(1,), num_classes=3).build(seed=0)
    batch = (IMAGES[:0], LABELS[:0]) if case == "empty" else (IMAGES, LABELS)
    model = model.to("meta") if case == "meta" else model
    with pytest.raises(InputError, match="at least one example" if case == "empty" else "meta") as raised:
        PROBES[probe](model, LOSS, batch)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("probe", ["hessian_trace", "hessian_top"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_refused_for_second_order(probe, dtype):
    model = ResNetConfig(width=2, blocks=(1,), num_classes=3).build(seed=0).to(dtype)
    with pytest.raises(InputError, match="float32 or float64"):
        PROBES[probe](model, LOSS, (IMAGES.to(dtype), LABELS))
