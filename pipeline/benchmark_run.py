"""A run up to a component, in a process of its own; run as a module, this is that process."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console

from pipeline.config import load_config


def run_until(component: str, name_or_path: str, assignments: Sequence[str]) -> list[str]:
    """Returns the command that runs the pipeline up to a component.

    Args:
      component: its id.
      name_or_path: the configuration, as for `marquee run`.
      assignments: as for `marquee run`.
    """
    return [sys.executable, "-m", __name__, component, name_or_path, *assignments]


def main(arguments: Sequence[str]) -> None:
    """Runs the pipeline up to a component."""
    from pipeline.local import run_locally

    component, name_or_path, *assignments = arguments
    run_locally(load_config(name_or_path, assignments), Console(), until=component)


if __name__ == "__main__":
    main(sys.argv[1:])
