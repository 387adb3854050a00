"""decaylab probe: what a network is like, at any checkpoint of a run, with error bars and the price."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import tyro

from decaylab.output import print_json, print_lines, print_table
from theory.errors import InputError, require


@dataclass(frozen=True)
class Probe:
    """Measure the network of a run's checkpoint, or of an experiment before its first step.

    Jacobian, Hessian, gradient noise, activations, scale invariance: every value with its standard error and its price.
    """

    target: Annotated[str, tyro.conf.Positional]
    """Run directory, runs/<name>-<hash8>, or the name of an experiment."""
    probes: str = "all"
    """Probes, separated by commas: jacobian (in the parameters), jacobian_inputs, hessian_trace, hessian_top,
    gauss_newton_trace, gauss_newton_top, noise_scale, activations, invariance, joint_invariance; all that apply to the
    network by default. By name only, as they train on in memory for some steps: signal, rotation."""
    steps: int = 100
    """Steps that signal and rotation watch, from the checkpoint on."""
    checkpoint: int | None = None
    """Checkpoint of the run, by its number of steps; the newest by default."""
    batch: int = 32
    """Examples: held-out windows of text, or training images (test images for the Jacobian)."""
    rel_error: float = 0.05
    """Standard error at which estimates of the Hessian stop, relative."""
    max_products: int = 300
    """Hessian products after which they stop, whatever the error."""
    top: int = 1
    """Number of largest eigenvalues."""
    critical: bool = False
    """Let noise_scale measure the critical batch size as well, with 17 Hessian products."""
    seed: int = 0
    """Seed of an experiment, and of random probes."""
    device: str | None = None
    """Device, such as cpu or cuda:1; CUDA if there is one by default."""
    json: bool = False
    """Print JSON."""

    def run(self) -> int:
        """Measure and print.

        Returns:
            Exit code 0.

        Raises:
            InputError: If the target, checkpoint or a probe is not what it should be.
        """
        from empirics.measure import PROBES, Subject, applicable, measure
        from empirics.measure_steps import STEPPED, measure_steps
        from empirics.progress import Display
        from empirics.train import threads

        name, config, training, data = self._target()
        given = [part.strip() for part in self.probes.split(",") if part.strip()]
        stepped = [part for part in given if part in STEPPED]
        still = [part for part in given if part not in STEPPED]
        known = (*PROBES, *STEPPED)
        for part in given if given != ["all"] else ():
            require(part in known, "probes", part, f"some of {', '.join(known)}")
        options = {"max_products": self.max_products, "top": self.top, "critical": self.critical}
        model, bundles, examples = training.model, [], self.batch
        with threads(config.threads), Display() as display:
            if still or not stepped:
                subject = Subject.of(
                    model, data, examples=self.batch, rel_error=self.rel_error, seed=self.seed, **options
                )
                examples, chosen = len(subject.batch[0]), applicable(model) if given == ["all"] else still
                begun = lambda probe: display.update("probes", chosen.index(probe), len(chosen), unit=probe)
                bundles = measure(subject, chosen, progress=begun)
            if stepped:
                bundles += measure_steps(training, stepped, steps=self.steps, progress=display.follow("steps watched"))
        if self.json:
            print_json({"target": name, "examples": examples, "probes": [asdict(x) for x in bundles]})
            return 0
        rows = [
            {
                "probe": bundle.probe if first else "",
                "quantity": reading.quantity,
                "tensor": reading.tensor,
                "value": reading.value,
                "± standard error": float("nan") if reading.stderr is None else reading.stderr,
                "seconds": f"{bundle.seconds:.3g}" if first else "",
                "gradients": f"{bundle.gradients:.3g}" if first else "",
            }
            for bundle in bundles
            for first, reading in zip([True] + [False] * len(bundle.readings), bundle.readings, strict=False)
        ]
        print_table(pd.DataFrame(rows), title=f"{name}: {type(model).__name__}, {examples} examples")
        print_lines(
            [
                "seconds: measured. gradients: the same in gradients of the loss on the same examples; of signal and "
                "rotation in steps of training.",
                "After an eigenvalue stands how far from it there surely is one; '-': exact on these examples.",
            ]
        )
        return 0

    def _target(self) -> tuple[str, Any, Any, Any]:
        """What it is called, its configuration, its training at the checkpoint, and its opened data."""
        import torch

        from empirics import checkpoint
        from empirics.continued import continued
        from empirics.experiments import EXPERIMENTS
        from empirics.records import Record

        device = torch.device(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        record = Record(Path(self.target))
        if record.status == "new" and self.target not in EXPERIMENTS:
            names = ", ".join(EXPERIMENTS)
            raise InputError(f"target = {self.target!r} is not allowed: it must be a run directory, or one of {names}.")
        if record.status == "new":
            if self.checkpoint is not None:
                raise InputError(f"checkpoint = {self.checkpoint} is not allowed: {self.target} is no run directory.")
            config = EXPERIMENTS[self.target](seed=self.seed)
            data = config.data.open()
            return f"{self.target} before step 0", config, continued(config, data, device=device), data
        there = {int(x.name.removeprefix("step-")): x for x in checkpoint.checkpoints(record.path / "checkpoints")}
        chosen = self.checkpoint if self.checkpoint is not None else max(there, default=None)
        if chosen is None or chosen not in there:
            steps = ", ".join(map(str, there)) or "none yet"
            raise InputError(f"checkpoint = {chosen} is not in {record.path}: it has {steps}.")
        config, data = record.config, record.config.data.open()
        if data.hash != record.description["data_hash"]:
            source = config.data.source
            raise InputError(f"{record.path} was trained on other data: source {source!r} has changed since.")
        training = continued(config, data, folder=record.path, begin=chosen, device=device)
        require(training.start == chosen, "checkpoint", chosen, f"a whole one: {there[chosen]} is damaged")
        return f"{record.name} after {chosen} steps", config, training, data
