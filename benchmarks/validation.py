"""The main job over several seeds: python -m benchmarks.validation --seeds 3 4 5."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tyro

from benchmarks.common import write
from bridge.runs import predict_run
from bridge.validation import validation_checks
from empirics.experiments import validation
from empirics.sweep import run_all


def main(
    *,
    seeds: tuple[int, ...] = (3, 4, 5),
    runs: Path = Path("runs"),
    workers: int = 2,
    out: Path = Path(__file__).parent / "results",
) -> None:
    """Run what is missing, check every seed, and write all verdicts to validate.json.

    Args:
        seeds: Seeds; the default ones were used for nothing else before.
        runs: Folder of run directories.
        workers: Runs at a time.
        out: Folder for the result.
    """
    roles = {(seed, role): config for seed in seeds for role, config in validation(seed=seed).items()}
    done = run_all(list(roles.values()), runs, workers=workers, predict=predict_run)
    records = dict(zip(roles, done, strict=True))
    checks = {
        seed: validation_checks({role: record for (other, role), record in records.items() if other == seed})
        for seed in seeds
    }
    results = []
    for same in zip(*checks.values(), strict=True):
        values = np.array([check.measured for check in same])
        results.append(
            {
                "law": same[0].law,
                "claim": same[0].claim,
                "bound": f"{same[0].relation} {same[0].bound:g}",
                "measured": values.round(5).tolist(),
                "stderr": [round(check.stderr, 5) for check in same],
                "mean": round(float(values.mean()), 5),
                "standard_error_over_seeds": round(float(values.std(ddof=1) / np.sqrt(len(values))), 5),
                "passed": sum(check.passed for check in same),
                "seeds": len(same),
                "notes": [check.note for check in same],
            }
        )
    write(out, "validate", settings={"seeds": seeds}, results={"checks": results})
    for check in results:
        print(f"{check['passed']}/{check['seeds']}  {check['mean']:.4f}  {check['bound']:>9}  {check['claim']}")


if __name__ == "__main__":
    tyro.cli(main)
