import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from empirics.data import ImageData, Text, TextData
from empirics.evaluate import evaluate
from empirics.models import GPT2Config, ResNetConfig


@pytest.fixture(scope="module")
def text():
    tokens = np.random.default_rng(0).integers(50, size=9 * 40).astype(np.uint16)
    return Text(TextData(source="bin:unused", vocab_size=50, block_size=8, val_windows=7), tokens, tokens[:90])


@pytest.fixture(scope="module")
def images():
    return ImageData(train=64, label_noise=0.5).open()


def frozen(model):
    """Everything that an evaluation must leave alone."""
    modes = [module.training for module in model.modules()]
    grads = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    return modes, [t.clone() for t in model.state_dict().values()], grads, torch.get_rng_state()


def same(a, b):
    tensors = zip(a[1] + [g for g in a[2] if g is not None], b[1] + [g for g in b[2] if g is not None], strict=True)
    return a[0] == b[0] and all(torch.equal(x, y) for x, y in tensors) and torch.equal(a[3], b[3])


def test_val_loss_is_the_mean_over_all_tokens_whatever_the_batches(text):
    model = GPT2Config(vocab_size=50, block_size=8, n_layer=1, n_head=1, n_embd=8, dropout=0.5).build(seed=0)
    inputs, targets = (torch.cat(parts) for parts in zip(*text.validation(100), strict=True))
    assert len(inputs) == 7
    silent = copy.deepcopy(model).eval()
    expected = F.cross_entropy(silent(inputs).flatten(0, 1), targets.flatten()).item()
    for batch_size in (2, 5, 100):
        assert evaluate(model, text, batch_size=batch_size)["val_loss"] == pytest.approx(expected, rel=1e-6)


def test_test_error_is_that_of_the_model_with_exact_statistics(images):
    model = ResNetConfig(width=4).build(seed=0)
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if "running" in name:
                buffer.fill_(100.0)  # stale statistics that must not matter
    found = evaluate(model, images)
    exact = copy.deepcopy(model).train()
    for module in exact.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        train_logits = exact(images.train_images)  # one batch of everything, statistics kept
        logits = exact.eval()(images.test_images)
    wrong = (logits.argmax(1) != images.test_labels).double().mean().item()
    assert found["test_error"] == pytest.approx(wrong, abs=2.1 / len(images.test_labels))
    assert found["test_loss"] == pytest.approx(F.cross_entropy(logits, images.test_labels).item(), rel=0.02)
    noisy = (train_logits.argmax(1) != images.train_labels).double().mean().item()
    assert found["train_error"] == pytest.approx(noisy)


@pytest.mark.parametrize("kind", ["text", "images"])
def test_an_evaluation_leaves_modes_buffers_gradients_and_generators_alone(kind, request):
    data = request.getfixturevalue(kind)
    if kind == "text":
        model = GPT2Config(vocab_size=50, block_size=8, n_layer=1, n_head=1, n_embd=8, dropout=0.5).build(seed=0)
    else:
        model = ResNetConfig(width=2).build(seed=0)
        model.bn.eval()  # a mode of its own
    model.loss(*data.batch(0, 4)).backward()
    before = frozen(model)
    evaluate(model, data)
    assert same(frozen(model), before)
