"""The command line: one module per command, help generated from its dataclass."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import tyro

from decaylab.commands.advise import Advise
from decaylab.commands.audit import Audit
from decaylab.commands.compare import Compare
from decaylab.commands.data import Data
from decaylab.commands.explore import Explore
from decaylab.commands.figure import Figure
from decaylab.commands.paper import Paper
from decaylab.commands.predict import Predict
from decaylab.commands.probe import Probe
from decaylab.commands.replay import Replay
from decaylab.commands.report import Report
from decaylab.commands.sweep import Sweep
from decaylab.commands.train import Train
from decaylab.commands.validate import Validate
from theory.errors import InputError

Command = (
    Annotated[Predict, tyro.conf.subcommand("predict", prefix_name=False)]
    | Annotated[Explore, tyro.conf.subcommand("explore", prefix_name=False)]
    | Annotated[Advise, tyro.conf.subcommand("advise", prefix_name=False)]
    | Annotated[Data, tyro.conf.subcommand("data", prefix_name=False)]
    | Annotated[Train, tyro.conf.subcommand("train", prefix_name=False)]
    | Annotated[Sweep, tyro.conf.subcommand("sweep", prefix_name=False)]
    | Annotated[Validate, tyro.conf.subcommand("validate", prefix_name=False)]
    | Annotated[Compare, tyro.conf.subcommand("compare", prefix_name=False)]
    | Annotated[Report, tyro.conf.subcommand("report", prefix_name=False)]
    | Annotated[Audit, tyro.conf.subcommand("audit", prefix_name=False)]
    | Annotated[Probe, tyro.conf.subcommand("probe", prefix_name=False)]
    | Annotated[Replay, tyro.conf.subcommand("replay", prefix_name=False)]
    | Annotated[Figure, tyro.conf.subcommand("figure", prefix_name=False)]
    | Annotated[Paper, tyro.conf.subcommand("paper", prefix_name=False)]
)


PROMISE = """What weight decay will do to a training run before it is run (predict, explore), what to set (advise), what
it did (train, sweep, validate, compare, report), what acts on which parameter (audit), what the network is like
(probe), and why a run diverged (replay)."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit: 0 all is well, 1 a bound failed or a run diverged, 2 misuse, 130 interrupted.

    Args:
        arguments: Command line without the program's name; `sys.argv` if omitted.
    """
    command = tyro.cli(Command, prog="decaylab", description=PROMISE, args=arguments)  # pyright: ignore
    try:
        sys.exit(command.run())
    except InputError as error:
        print(f"decaylab: {error}", file=sys.stderr)
        sys.exit(2)
    except SystemExit as stop:
        if str(stop) and not str(stop).isdigit():
            print(f"decaylab: {stop}", file=sys.stderr)
        raise
    except OSError as error:
        print(f"decaylab: {error}", file=sys.stderr)
        sys.exit(1)
