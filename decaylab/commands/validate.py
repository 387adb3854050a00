"""decaylab validate: predict, train on real data, measure, compare, report."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from decaylab.output import print_json, print_lines, print_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bridge.check import Check
    from empirics.records import Record


@dataclass(frozen=True)
class Validate:
    """Predict five runs, train them on embedded real data, measure, compare, and write a report: the main job.

    Takes a few minutes on two CPU cores and downloads nothing. Exit code 0 if all bounds hold, 1 if one fails, 2 on
    misuse. If it is stopped or killed, the same command continues it.
    """

    scale: Literal["cpu", "gpu"] = "cpu"
    """cpu: a small GPT-2 and ResNet; gpu: a larger GPT-2 for one card."""
    seed: int = 0
    """Seed of initialisation, data order and label noise of all runs."""
    runs: Path = Path("runs")
    """Folder of run directories; the report goes to its subfolder validate-<scale>-seed<seed>."""
    workers: int | None = None
    """Runs at a time; the number of CPU cores, at most 5, by default (1 on a GPU)."""
    json: bool = False
    """Print JSON instead of the table."""

    def run(self) -> int:
        """Do it.

        Returns:
            Exit code: 0 all bounds hold, 1 one fails or a run did not finish.

        Raises:
            InputError: If an argument is not allowed or a run directory holds something else.
        """
        from bridge.check import checks_table
        from bridge.runs import predict_run
        from bridge.validation import unfinished, validation_checks
        from empirics.experiments import validation
        from empirics.sweep import run_all

        began = time.perf_counter()
        configs = validation(seed=self.seed, scale=self.scale)
        workers = self.workers or (1 if self.scale == "gpu" else min(len(configs), os.cpu_count() or 1))
        if not self.json:
            print_lines(
                [f"Training {len(configs)} runs, {workers} at a time; predictions are written before step 0 of each."]
            )
        done = run_all(list(configs.values()), self.runs, workers=workers, predict=predict_run)
        records = dict(zip(configs, done, strict=True))
        reasons = unfinished(records)
        if reasons:
            print_lines(reasons)
            return 1
        checks = validation_checks(records)
        folder = self.runs / f"validate-{self.scale}-seed{self.seed}"
        files = write_results(folder, records, checks, scale=self.scale, seed=self.seed)
        passed = all(check.passed for check in checks)
        if self.json:
            print_json({"passed": passed, "checks": checks_table(checks), "files": [str(path) for path in files]})
        else:
            table = checks_table(checks).assign(measured=lambda frame: frame["measured"].map("{:.4f}".format))
            print_table(table.drop(columns=["seeds"]), title="Checks (bounds fixed in code before the runs)")
            print_lines(
                [f"{'All bounds hold' if passed else 'A BOUND FAILED'}; {time.perf_counter() - began:.0f} seconds."]
            )
            print_lines((str(path) for path in files), bullet="  ")
        return 0 if passed else 1


def write_results(
    folder: Path, records: Mapping[str, Record], checks: Sequence[Check], *, scale: str, seed: int
) -> list[Path]:
    """Draw the two figures and write report and checks.

    Args:
        folder: Where to.
        records: The finished runs by role.
        checks: Their checks.
        scale: For the title.
        seed: For the title.

    Returns:
        The files, the report first.
    """
    from bridge.check import checks_table
    from bridge.narrative import layer_table, summary, tensor_table
    from bridge.report import FigureItem, Section, TableItem, write_report
    from bridge.run_checks import c2_prediction, calibrated_prediction, recipe_of, why_not_judged
    from empirics.files import write_atomic
    from paper.figures import language_model, residual_network
    from paper.style import save, to_svg
    from theory.serialize import to_json

    folder.mkdir(parents=True, exist_ok=True)
    decayed, invariant = records["lm-decayed"], records["vision-invariant"]
    steps = recipe_of(decayed).steps
    matrices = [group.name for group in recipe_of(decayed).groups if len(group.shape) >= 2]
    text = language_model.draw(
        decayed.metrics(),
        decayed.prediction(),
        calibrated_prediction(decayed).table(),
        groups=matrices,
        calibrated_from=steps // 2,
        judged=[name for name in matrices if why_not_judged(name) is None],
    )
    images = residual_network.draw(
        {role.removeprefix("vision-"): records[role].metrics() for role in records if role.startswith("vision-")},
        {"invariant": invariant.prediction(), "invariant-c2": c2_prediction(invariant).table()},
        scalars(records, seed=seed),
    )
    captions = (
        "Norm and rotation of every matrix of the decayed GPT-2: predicted before step 0 (dashed, with its band), "
        "predicted again "
        f"at step {steps // 2:,} from the norm curve of the second quarter (one scalar per matrix), and measured. 1 "
        "seed.",
        "Left: rotation of every convolution of the scale-invariant ResNet against lr*weight_decay alone. Middle: its "
        "norms against "
        "the prediction from the gradients' size in epochs 5-10. Right: test error and Jacobian norm with and without "
        "decay. 1 seed.",
    )
    save(text, folder / "language_model")
    save(images, folder / "residual_network")
    table = checks_table(checks)
    write_atomic(folder / "checks.json", table.to_json(orient="records", indent=1))
    sections = [
        Section(
            "A small GPT-2, one pass over Python sources",
            (
                "A prediction made before the data cannot know the signal in the gradients. It is judged where the law "
                "is known to hold "
                "(MLP matrices); the other tensors are predicted, shown and explained.",
            ),
            (FigureItem("Predicted and measured, matrix by matrix", captions[0], to_svg(text)),),
            (
                TableItem(
                    "Decayed run, tensor by tensor",
                    "Residual = predicted/measured - 1, from a tenth of the run on.",
                    tensor_table(decayed, start=steps // 10),
                ),
                TableItem(
                    "Undecayed run, tensor by tensor",
                    "Residual = predicted/measured - 1, from a tenth of the run on.",
                    tensor_table(records["lm-undecayed"], start=steps // 10),
                ),
            ),
        ),
        Section(
            "A BatchNorm ResNet on noisy digits",
            (
                "For scale-invariant layers under SGD the rotation at stationary norm follows from lr*weight_decay "
                "alone; the norm needs "
                "the gradients' size, which only the data can tell.",
            ),
            (FigureItem("Rotation, norms, and what decay is good for", captions[1], to_svg(images)),),
            (TableItem("Scale-invariant run, layer by layer", "Epochs 20 to 60.", layer_table(invariant)),),
        ),
    ]
    report = write_report(
        folder / "report.html",
        title=f"decaylab validate: scale {scale}, seed {seed}",
        summary=summary(records, checks),
        checks=table,
        sections=sections,
        recipes={record.name: to_json(recipe_of(record), indent=1) for record in records.values()},
        environment=decayed.description["environment"],
    )
    drawn = [folder / f"{name}.{kind}" for name in ("language_model", "residual_network") for kind in ("pdf", "png")]
    return [report, *drawn, folder / "checks.json"]


def scalars(records: Mapping[str, Record], *, seed: int) -> object:
    """Test error and Jacobian norm of the vision runs, tidy.

    Args:
        records: The runs by role.
        seed: Their seed.

    Returns:
        Columns run, seed, quantity, value.
    """
    import pandas as pd

    from bridge.validation import final

    rows = [
        (role.removeprefix("vision-"), seed, quantity, final(record, quantity))
        for role, record in records.items()
        if role.startswith("vision-")
        for quantity in ("test_error", "jacobian_fro")
    ]
    return pd.DataFrame(rows, columns=["run", "seed", "quantity", "value"])
