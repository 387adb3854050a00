"""decaylab explore: what another recipe would do, in the browser."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from decaylab.commands.predict import MODELS, Predict
from decaylab.output import print_json
from theory.recipe import Recipe

SOURCES = {name: f'dl.shapes.gpt2("{name.removeprefix("gpt2-")}")' for name in MODELS if name != "resnet18"} | {
    "resnet18": "dl.shapes.resnet18()"
}
"""Python source of each architecture's groups."""


@dataclass(frozen=True)
class Explore:
    """Explore recipes in the browser: move a slider, and the theory predicts again.

    Listens on this machine only (127.0.0.1) until Ctrl-C, and refuses connections from other pages. Needs the `explore`
    extra.
    """

    port: int = 5006
    """Port; 0 for any free one."""
    show: bool = True
    """Open the browser."""
    json: bool = False
    """Print the address as JSON."""

    def run(self) -> int:
        """Serve until Ctrl-C.

        Returns:
            Exit code 0.

        Raises:
            InputError: If Panel is not installed.
        """
        from bridge.explore_app import Explorer, server

        serving = server(lambda: Explorer(build, MODELS, SOURCES).page(), self.port)
        address = f"http://127.0.0.1:{serving.port}/"
        if self.json:
            print_json({"address": address})
        else:
            print(f"decaylab explore: {address} (Ctrl-C stops it)")
        sys.stdout.flush()
        serving.start()
        if self.show:
            serving.io_loop.add_callback(serving.show, "/")
        try:
            serving.io_loop.start()
        except KeyboardInterrupt:
            pass
        finally:
            serving.stop()
        return 0


def build(values: Mapping[str, Any]) -> Recipe:
    """A recipe from fields of `Predict`.

    Args:
        values: Fields by name.

    Returns:
        The recipe.

    Raises:
        InputError: If they describe none.
    """
    return Predict(**values).to_recipe()
