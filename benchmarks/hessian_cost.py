"""Hessian trace and largest eigenvalue against PyHessian and curvlinops, on a ResNet-18 and on a small GPT-2."""

from __future__ import annotations

import copy
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.common import SMALL, write
from empirics.batchnorm import recomputed
from empirics.data import ImageData
from empirics.models import ResNetConfig
from empirics.optimizers import build_optimizer
from empirics.probes.hessian import CrossEntropy, hessian_top, hessian_trace
from empirics.train import stepper
from theory.serialize import to_dict

RESNET18 = ResNetConfig(width=64, blocks=(2, 2, 2, 2), in_channels=3)
ERROR = 0.02
TOP_ERROR = 0.01
PEERS = {"pyhessian": "pyhessian", "curvlinops": "curvlinops-for-pytorch"}
LOSS = CrossEntropy(lambda model, batch: (model(batch[0]), batch[1]))


class Flat(nn.Module):
    """Logits of every position as a row of its own: the only shape that the peers' losses take."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (N * positions, classes)."""
        return self.model(x).flatten(0, -2)


@dataclass(frozen=True)
class Case:
    """A network on a batch, and how long to look."""

    model: nn.Module
    batch: tuple[Tensor, Tensor]
    rounds: int
    """How often everything is timed, in turn."""
    seeds: int
    """Repeats of our trace."""
    samples: int
    """Of PyHessian's estimator, to know its variance."""
    settings: dict[str, Any]


def main(*, out: Path) -> None:
    """Measure everything, in CPU seconds of one thread, all methods in turn within a round; ratios of the minima.

    CPU seconds: they hardly change when other work shares the machine, and everything here is one thread's arithmetic.
    PyHessian's trace has a fixed number of samples and no error bar. Its samples are independent, so it needs
    variance/RMSE^2 of them for a given root-mean-square error; the variance is measured over many samples, a sample's
    cost and that of its first gradient are timed, and the rest is multiplied. So is curvlinops' hutchinson_trace, whose
    samples have the same distribution. Our trace takes as many products as its error asks for, which differs by seed:
    the least seconds a product times the mean number. It reports its standard error; the RMSE over seeds is beside it.
    """
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    peers = {name: package for name, package in PEERS.items() if installed(name)}
    for name in PEERS.keys() - peers.keys():
        print(f"hessian_cost: {name} is left out, it is not installed (pip install {PEERS[name]})")
    cases = {"gpt2": gpt2(), "resnet18": resnet18()}
    results = {name: {"trace": trace(case, peers), "top": top(case, peers)} for name, case in cases.items()}
    settings = {
        "relative_error": {"trace": ERROR, "top": TOP_ERROR},
        "peers": {name: version(package) for name, package in peers.items()},
        "not_installed": sorted(PEERS.keys() - peers.keys()),
        "clock": "CPU seconds of one thread",
        **{
            name: case.settings | {"rounds": case.rounds, "seeds": case.seeds, "peer_samples": case.samples}
            for name, case in cases.items()
        },
    }
    write(out, "hessian_cost", settings=settings, results=results)


def installed(name: str) -> bool:
    """Whether a peer can be imported."""
    try:
        import_module(name)
    except ImportError:
        return False
    return True


def gpt2() -> Case:
    """The small GPT-2 after 300 steps on text, 32 windows of 64 tokens."""
    data, model = SMALL.data.open(), SMALL.model.build(seed=0)
    step = stepper(SMALL, data, model, build_optimizer(SMALL.optimizer, model))
    for number in range(300):
        step(number)
    return Case(model, data.batch(1000, 32), 4, 40, 100, {"config": to_dict(SMALL), "steps": 300, "batch": 32})


def resnet18() -> Case:
    """ResNet-18 (11.2 million parameters) after 10 steps on digits scaled up to 3x32x32; statistics of its batch."""
    data, model = ImageData(label_noise=0.0).open(), RESNET18.build(seed=0)
    images = F.interpolate(data.train_images, size=(32, 32), mode="bilinear").repeat(1, 3, 1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for number in range(10):
        rows = slice(32 * number, 32 * number + 32)
        optimizer.zero_grad()
        model.loss(images[rows], data.train_labels[rows]).backward()
        optimizer.step()
    batch = images[-32:], data.train_labels[-32:]
    return Case(recomputed(model, batch[0]), batch, 2, 1, 16, {"config": to_dict(RESNET18), "steps": 10, "batch": 32})


def seconds(work: Callable[[], Any]) -> float:
    """CPU seconds of one call."""
    began = time.process_time()
    work()
    return time.process_time() - began


def pyhessian(case: Case) -> Any:
    """PyHessian's object: one gradient with its graph; given the attention kernel that has second derivatives."""
    flat, data = Flat(copy.deepcopy(case.model)), (case.batch[0], case.batch[1].flatten())
    with sdpa_kernel(SDPBackend.MATH):
        return import_module("pyhessian").hessian(flat, nn.CrossEntropyLoss(), data=data, cuda=False)


def operator(case: Case) -> Any:
    """The Hessian of curvlinops, without its check of determinism (two more products)."""
    flat = Flat(copy.deepcopy(case.model)).eval()
    data = [(case.batch[0], case.batch[1].flatten())]
    parameters = [p for p in flat.parameters() if p.requires_grad]
    build = import_module("curvlinops").HessianLinearOperator
    return build(flat, nn.CrossEntropyLoss(), parameters, data, check_deterministic=False)


def free(theirs: Any) -> None:
    """Break the reference cycle that backward(create_graph=True) leaves, as the graph would stay in memory."""
    theirs.model.zero_grad(set_to_none=True)
    for parameter in theirs.params:
        parameter.grad = None


def trace(case: Case, peers: dict[str, str]) -> dict[str, Any]:
    """Trace to the same error."""
    runs = []
    ours = lambda: runs.append(hessian_trace(case.model, LOSS, case.batch, rel_error=ERROR, seed=len(runs)))
    took: dict[str, list[float]] = {"decaylab": [], "setup": [], "pyhessian": [], "curvlinops": []}
    samples: list[float] = []
    each = max(case.samples // case.rounds, 2)
    for number in range(case.rounds):
        if number < max(case.seeds, 1):
            took["decaylab"].append(seconds(ours))
        if "pyhessian" in peers:
            torch.manual_seed(number)
            opened: list[Any] = []
            took["setup"].append(seconds(lambda found=opened: found.append(pyhessian(case))))
            one = lambda found=opened: samples.extend(found[0].trace(maxIter=each, tol=-math.inf))  # never earlier
            took["pyhessian"].append(seconds(one) / each)
            free(opened[0])
        if "curvlinops" in peers:
            with sdpa_kernel(SDPBackend.MATH):
                theirs = operator(case)
                v = torch.randn(theirs.shape[1])
                took["curvlinops"].append(seconds(lambda a=theirs, v=v: a @ v))
    while len(runs) < case.seeds:
        took["decaylab"].append(seconds(ours))
    values = np.array([run.value for run in runs])
    value, least = float(values.mean()), {name: min(s) for name, s in took.items() if s}
    rates = [spent / run.products for spent, run in zip(took["decaylab"], runs, strict=True)]
    least["decaylab"] = min(rates) * float(np.mean([run.products for run in runs]))  # not that of the luckiest seed
    result: dict[str, Any] = {
        "value": value,
        "method": runs[0].method,
        "relative_standard_error": max(run.stderr for run in runs) / value,
        "relative_spread_over_seeds": float(values.std(ddof=1)) / value if len(values) > 1 else None,
        "products": float(np.mean([run.products for run in runs])),
        "decaylab_s": least["decaylab"],
    }
    if "pyhessian" in peers:
        spread = float(np.std(samples, ddof=1)) / value
        error = result["relative_spread_over_seeds"] or ERROR  # one seed: the error that was asked for
        needed = math.ceil((spread / error) ** 2)
        result |= {"relative_sd_of_a_sample": spread, "mean_of_samples": float(np.mean(samples))}
        result |= {"equal_relative_rmse": error, "samples_needed": needed}
        costs = {"pyhessian": least["setup"] + needed * least["pyhessian"]}
        if "curvlinops" in peers:
            costs["curvlinops"] = needed * least["curvlinops"]
        for name, cost in costs.items():
            result[name] = {"s": cost, "s_a_product": least[name], "over_decaylab": cost / least["decaylab"]}
    return result


def top(case: Case, peers: dict[str, str]) -> dict[str, Any]:
    """Largest eigenvalue, sums over the same number of starts, as starts differ in the products they need.

    PyHessian's power iteration stops when the value moves little, which is no bound: it gets the loosest tolerance that
    turned out right to the wanted error, which a user cannot know, and its default, 1e-3. Ours stops at a bound.
    """
    truth = hessian_top(case.model, LOSS, case.batch, rel_error=1e-4, max_products=60).values[0]
    spent: dict[str, float] = dict.fromkeys(("decaylab", "loosest", "default"), 0.0)
    errors: dict[str, list[float]] = {name: [] for name in spent}
    tolerances: list[float] = []
    products: list[int] = []
    for number in range(case.rounds):

        def ours(seed: int = number) -> float:
            result = hessian_top(case.model, LOSS, case.batch, rel_error=TOP_ERROR, seed=seed)
            products.append(result.products)
            return result.values[0]

        def theirs(tolerance: float, seed: int = number) -> float:
            torch.manual_seed(seed)
            opened = pyhessian(case)
            ((value,), _) = opened.eigenvalues(maxIter=200, tol=tolerance)
            free(opened)
            return value

        def count(name: str, work: Callable[[], float]) -> bool:
            found: list[float] = []
            took = seconds(lambda: found.append(work()))
            error = found[0] / truth - 1
            if name != "loosest" or abs(error) <= TOP_ERROR:
                spent[name] += took
                errors[name].append(error)
            return abs(error) <= TOP_ERROR

        count("decaylab", ours)
        if "pyhessian" in peers:
            count("default", lambda: theirs(1e-3))
            ladder = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 1e-5)
            tolerances.append(next(t for t in ladder if count("loosest", lambda tolerance=t: theirs(tolerance))))
    result: dict[str, Any] = {"value": truth, "products": products, "relative_errors": errors["decaylab"]}
    result["decaylab_s"] = spent["decaylab"]
    for name, chosen in (("loosest", tolerances), ("default", 1e-3)) if tolerances else ():
        over = {"s": spent[name], "over_decaylab": spent[name] / spent["decaylab"]}
        result[f"pyhessian_{name}"] = {"tolerance": chosen, "relative_errors": errors[name]} | over
    return result
