"""decaylab compare: what a run was predicted to do, what it did, and why the two differ where they do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pandas as pd
import tyro

from decaylab.output import print_json, print_lines, print_table
from theory.errors import InputError

if TYPE_CHECKING:
    from empirics.records import Record
    from theory.prediction import Prediction


@dataclass(frozen=True)
class Compare:
    """Compare run directories with the predictions stored in them, tensor by tensor, over the whole run.

    A tensor outside its band comes with the assumption that was most likely violated and the numbers that say so.
    Several runs of one recipe (seeds) are also compared together, with intervals over seeds.
    """

    run_directories: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run directories, runs/<name>-<hash8>."""
    start: int = 0
    """First step that counts."""
    stop: int | None = None
    """Step after the last that counts; the end of the run by default."""
    quantity: tuple[str, ...] = ("norm", "angle")
    """Quantities to show: norm, angle, relative_update."""
    seen: bool = False
    """Compare with the laws on the learning rates as they were, which a watch stores where they left its schedule."""
    reference: tuple[Path, ...] = ()
    """Compare with what these finished runs of the same network say, see `decaylab predict --reference`."""
    weight_dtype: str | None = None
    """Format that the weights were stored in (bfloat16, float16, float32); that of the last checkpoint by default."""
    json: bool = False
    """Print JSON."""

    def run(self) -> int:
        """Compare and print.

        Returns:
            Exit code 0.

        Raises:
            InputError: If a directory is no run directory or holds no prediction.
        """
        from bridge.compare import COMPARED
        from bridge.seeds import by_recipe
        from empirics.records import Record

        if self.seen and self.reference:
            raise InputError("seen and reference are not allowed together: there is one prediction to compare with.")
        if not self.run_directories:
            raise InputError("RUN is missing: give at least one run directory.")
        for name in self.quantity:
            if name not in COMPARED:
                raise InputError(f"quantity = {name!r} is not allowed: it must be one of {', '.join(COMPARED)}.")
        records = [Record(path) for path in self.run_directories]
        results = [self._one(record) for record in records]
        if len(records) > 1:
            if any(record.recipe is None for record in records):
                raise InputError("Only runs with a recipe can be compared with one another: train them with one.")
            sets = by_recipe(records)
            results += [self._together(runs) for runs in sets if len(runs) > 1]
            self._say_apart(sets)
        if self.json:
            print_json(results)
        return 0

    def _one(self, record: Record) -> dict[str, Any]:
        from bridge.compare import compare
        from bridge.reasons import reasons, reasons_table

        _ = record.description  # a sentence if this is no run directory
        comparison = compare(record, self._prediction(record), quantities=self.quantity)
        when = "written before step 0" if comparison.preregistered else "NOT written before step 0, or changed since"
        when = "from reference runs" if self.reference else "on the rates as they were" if self.seen else when
        table = comparison.table(self.start, self.stop)
        found = []
        if record.recipe is not None:
            found = reasons(
                record,
                comparison,
                quantities=self.quantity,
                start=self.start,
                stop=self.stop,
                weight_dtype=self.weight_dtype,
            )
        if not self.json:
            title = f"{record.name} ({record.status}); prediction {when}; residual = predicted/measured - 1"
            print_table(table, title=title, number=".3g")
            if found:
                print_table(_merged(reasons_table(found)), title="Why not in band, or not predicted", number=".2g")
            print_lines(record.notes, bullet="! ")
        return {
            "run": str(record.path),
            "preregistered": comparison.preregistered,
            "notes": record.notes,
            "table": table,
            "reasons": reasons_table(found),
        }

    def _prediction(self, record: Record) -> Prediction | pd.DataFrame | None:
        """What to compare with; None for the prediction in the run directory."""
        if self.reference:
            from bridge.reference import measured, reference
            from theory.predict import predict

            return predict(measured(record).recipe, reference=reference(self.reference))
        if not self.seen:
            return None
        file = record.path / "prediction_seen.parquet"
        if not file.exists():
            raise InputError(f"{record.path} has no {file.name}: its learning rates never left the schedule.")
        return pd.read_parquet(file)

    def _together(self, runs: list[Record]) -> dict[str, Any]:
        from bridge.seeds import across_seeds

        table = across_seeds(runs, quantities=self.quantity).table(self.start, self.stop)
        if not self.json:
            names = ", ".join(record.name for record in runs)
            print_table(table, title=f"{len(runs)} seeds, 95 % intervals of the mean residual: {names}", number=".3g")
        return {"runs": [str(record.path) for record in runs], "seeds": table}

    def _say_apart(self, sets: list[list[Record]]) -> None:
        from bridge.seeds import differences

        if self.json:
            return
        first = sets[0][0]
        print_lines(
            f"{other[0].name} is a run of another recipe than {first.name}: {'; '.join(differences(first, other[0]))}."
            for other in sets[1:]
        )


def _merged(table: pd.DataFrame) -> pd.DataFrame:
    """Rows that say the same of several tensors as one."""
    rows = []
    for _, part in table.groupby("sentence", sort=False):
        row = part.iloc[0].to_dict()
        others = len(part) - 1
        rows.append(row | {"tensor": f"{row['tensor']} and {others} more" if others else row["tensor"]})
    return pd.DataFrame(rows)
