"""decaylab replay: was precision the cause? The last steps of a run again, in another arithmetic."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro

from decaylab.output import print_json, print_lines


@dataclass(frozen=True)
class Replay:
    """Run the last steps of a run again in another arithmetic, and say whether precision was why it diverged.

    Both its own and the other arithmetic start from its last checkpoint and see the same batches. Nothing is written.
    """

    run_directory: Annotated[Path, tyro.conf.Positional]
    """Run directory, runs/<name>-<hash8>."""
    dtype: str = "float32"
    """The other arithmetic: float32, bf16, float64, or an emulated format, such as emulated:m10e5 (fp16) or
    emulated:m7e8:stochastic."""
    from_step: int | None = None
    """Start from the newest checkpoint at or before this step; at or before the divergence (or the end) by default."""
    to_step: int | None = None
    """Last step; that of the divergence (or the last one recorded) by default."""
    beyond: int = 50
    """Steps after the divergence that the other arithmetic has to survive."""
    device: str | None = None
    """Device, such as cpu or cuda:1; CUDA if there is one by default."""
    json: bool = False
    """Print JSON."""

    def run(self) -> int:
        """Replay and print the verdict.

        Returns:
            Exit code 0.

        Raises:
            InputError: If it is no run directory, its data have changed, or there is no step to replay.
        """
        from empirics.progress import Display
        from empirics.replay import replay

        with Display() as display:
            found = replay(
                self.run_directory,
                dtype=self.dtype,
                from_step=self.from_step,
                to_step=self.to_step,
                beyond=self.beyond,
                device=self.device,
                progress=display.follow(f"{self.run_directory.name} again"),
            )
        if self.json:
            print_json(asdict(found))
        else:
            print_lines([found.sentence])
        return 0
