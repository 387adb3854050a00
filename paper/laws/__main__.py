"""Demonstrate the laws: python -m paper.laws [NAME ...] [--again]."""

from __future__ import annotations

import time
from pathlib import Path

import torch
import tyro

from empirics.files import write_atomic
from paper import style
from paper.laws import store
from paper.laws.draw import draw
from paper.laws.registry import DEMONSTRATIONS
from theory.errors import require

PAGES = Path(__file__).parents[2] / "docs" / "laws"
"""Where the drawings go."""


def main(
    names: tyro.conf.Positional[tuple[str, ...]] = (),
    *,
    again: bool = False,
    seed: int = 0,
    results: Path = store.RESULTS,
    pages: Path = PAGES,
) -> None:
    """Simulate what is missing, draw everything, say how far each law is off.

    Args:
        names: Laws; all if none are named.
        again: Simulate even what is there.
        seed: Of the random numbers.
        results: Folder of the tables.
        pages: Folder of the drawings.
    """
    unknown = sorted(set(names) - set(DEMONSTRATIONS))
    require(not unknown, "names", unknown, f"among {', '.join(DEMONSTRATIONS)}")
    torch.set_num_threads(1)
    pages.mkdir(parents=True, exist_ok=True)
    for name in names or DEMONSTRATIONS:
        if again or not (results / f"{name}.csv").exists():
            began = time.process_time()
            shown = DEMONSTRATIONS[name](seed)
            store.write(shown, results)
            store.write_error(store.summary(shown, time.process_time() - began, seed), results)
        write_atomic(pages / f"{name}.svg", (style.to_svg(draw(store.read(name, results))) + "\n").encode())
        table = store.read_errors(results).set_index("law")
        row = table.loc[name]
        print(f"{name:34s} {row['worst']:>9s} of {row['bar']:>6s}  inside: {row['inside']:3s} {row['seconds']:>5s} s")


if __name__ == "__main__":
    tyro.cli(main)
