"""Options that several commands share."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

DEFAULT_CONFIG = "movielens-100k"

ConfigOption = Annotated[
    str, typer.Option("--config", "-c", help="A YAML file, or the name of a shipped configuration.", metavar="CONFIG")
]
SetOption = Annotated[
    list[str],
    typer.Option("--set", "-s", help="Override a field, e.g. `--set model.family=popularity`. Repeatable."),
]


def fail(message: str) -> typer.Exit:
    """Prints an error for the user; the result is to be raised."""
    print(f"marquee: {message}", file=sys.stderr)
    return typer.Exit(1)
