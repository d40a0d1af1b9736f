"""What benchmarks share that run in a process of their own, on the artifacts of a finished run."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from pipeline.config import PipelineConfig, load_config


def run_as_process(description: str | None, measure: Callable[[PipelineConfig], str]) -> None:
    """Reads a configuration from the command line, measures, and writes the figures.

    Args:
      description: what is measured, for `--help`.
      measure: returns the figures in JSON.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("config", help="the configuration, as for `marquee run`")
    parser.add_argument("output", type=Path, help="JSON file to write")
    parser.add_argument("overrides", nargs="*", help="assignments, as for `marquee run --set`")
    chosen = parser.parse_args()
    chosen.output.write_text(measure(load_config(chosen.config, chosen.overrides)), encoding="utf-8")
