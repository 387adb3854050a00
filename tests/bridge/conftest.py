import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from empirics.records import Record, sha256
from theory.prediction import Prediction
from theory.recipe import Recipe


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def write_run(tmp_path: Path) -> Callable[..., Record]:
    """Write a run directory by hand: what was measured is up to the test."""

    def write(
        recipe: Recipe,
        prediction: Prediction | None,
        steps: np.ndarray,
        measured: Mapping[str, np.ndarray],  # quantity -> (steps, groups)
    ) -> Record:
        path = tmp_path / "run-00000000"
        path.mkdir()
        digest = None
        if prediction is not None:
            prediction.table().to_parquet(path / "prediction.parquet", index=False)
            digest = sha256((path / "prediction.parquet").read_bytes())
        (path / "config.json").write_text(json.dumps({"config": {}, "hash": "", "prediction_sha256": digest}))
        (path / "recipe.json").write_text(recipe.to_json())
        names = [group.name for group in recipe.groups]
        with open(path / "metrics.jsonl", "w") as file:
            for row, step in enumerate(steps.tolist()):
                values = {q: dict(zip(names, v[row].tolist(), strict=True)) for q, v in measured.items()}
                file.write(json.dumps({"step": step, "values": values}) + "\n")
        return Record(path)

    return write
