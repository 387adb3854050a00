"""Tiny networks with float64 Hessians by brute force."""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from empirics.models import GPT2Config, ResNetConfig
from empirics.probes.hessian import CrossEntropy

LOGITS = CrossEntropy(lambda model, batch: (model(batch[0]), batch[1]))


def plain(model, batch):
    return F.cross_entropy(model(batch[0]).flatten(0, -2), batch[1].flatten())


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gpt2(**options):
    model = GPT2Config(vocab_size=11, block_size=6, n_layer=1, n_head=2, n_embd=4, **options).build(seed=0)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(10)  # out of the region where everything is almost linear
    tokens = torch.randint(11, (3, 7), generator=torch.Generator().manual_seed(0))
    return model, (tokens[:, :-1], tokens[:, 1:])


def resnet():
    model = ResNetConfig(width=2, blocks=(1, 1), num_classes=3).build(seed=0)
    batch = random(5, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1])
    for _ in range(20):
        model(batch[0])
    return model, batch


def mlp(*, hidden=5, outputs=3):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, hidden), nn.Tanh(), nn.Linear(hidden, outputs))
    return model, (random(6, 4), torch.tensor([0, 1, 2, 2, 1, 0]))


def parts(model, batch, statistics="eval"):
    """Hessian and Gauss-Newton matrix in float64, row by row from first derivatives, without the probe's code."""
    model = copy.deepcopy(model).double().eval()
    for module in model.modules():
        if statistics == "train" and isinstance(module, nn.BatchNorm2d):
            module.train()
    batch = tuple(x.double() if x.is_floating_point() else x for x in batch)
    parameters = list(model.parameters())
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        logits = model(batch[0]).flatten(0, -2)
        loss = F.cross_entropy(logits, batch[1].flatten())
        gradient = torch.autograd.grad(loss, parameters, create_graph=True)
    flat = torch.cat([g.flatten() for g in gradient])

    def row(output):
        grads = torch.autograd.grad(output, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
        return torch.cat([g.flatten() for g in grads])

    hessian = torch.stack([row(g) for g in flat])
    jacobian = torch.stack([row(x) for x in logits.flatten()])
    p = logits.detach().softmax(-1)
    outer = torch.block_diag(*(torch.diag(q) - torch.outer(q, q) for q in p)) / len(p)
    return hessian, jacobian.T @ outer @ jacobian


class Centred(nn.Module):
    """Examples act on each other: no norms example by example."""

    def forward(self, x):
        return x - x.mean(0)
