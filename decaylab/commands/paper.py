"""decaylab paper: build the paper from committed results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from decaylab.output import print_json, print_lines


@dataclass(frozen=True)
class Paper:
    """Build the paper from committed results: every number, claim, figure and reference in it, and the PDF.

    Nothing is trained and nothing is drawn (`decaylab figure` does that). Checks that failed are shown as failed,
    figures without results as not run. Without LaTeX the sources are written and the PDF is left out. Exit code 0, or 2
    if results are missing or LaTeX fails.
    """

    out: Path | None = None
    """Folder to write into; the checkout's paper/ by default."""
    json: bool = False
    """Print JSON."""

    def run(self) -> int:
        """Do it.

        Returns:
            Exit code 0.

        Raises:
            InputError: If results are missing or LaTeX fails.
        """
        from paper.manuscript import build
        from paper.manuscript_results import PAPER

        built = build(self.out or PAPER)
        verdicts = {result.key: result.state for result in built.found}
        if self.json:
            print_json(
                {
                    "files": [str(path) for path in built.files],
                    "changed": [str(path) for path in built.changed],
                    "pdf": None if built.pdf is None else str(built.pdf),
                    "note": built.note,
                    "figures": verdicts,
                }
            )
            return 0
        print_lines(f"{name}: {state}" for name, state in verdicts.items())
        print_lines([f"{len(built.changed)} of {len(built.files)} files changed."])
        print_lines(map(str, built.changed), bullet="  ")
        print_lines([str(built.pdf) if built.pdf else built.note])
        return 0
