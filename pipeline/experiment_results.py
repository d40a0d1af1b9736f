"""What the results of experiments have in common, and how they are written."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from pipeline.atomic_files import write_text_atomically


class Result(BaseModel):
    """Base of every part of an experiment's results."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Estimate(Result):
    """A figure with its interval."""

    value: float
    """The estimate."""
    lower: float
    """Lower end of the interval."""
    upper: float
    """Upper end of the interval."""


def write_results(results: Result, page: str, directory: Path, name: str) -> tuple[Path, Path]:
    """Writes results and the page that shows them, each aside and then renamed.

    Args:
      results: goes to `<name>.json`.
      page: goes to `<name>.html`.
      directory: the folder.
      name: of the files.

    Returns:
      The two files.
    """
    files = directory / f"{name}.json", directory / f"{name}.html"
    for path, text in zip(files, (results.model_dump_json(indent=2) + "\n", page), strict=True):
        write_text_atomically(path, text)
    return files
