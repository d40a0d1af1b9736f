"""Runs that several files of tests look at, each made once, all of them in one workspace."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.end_to_end.small_pipeline import Run, make_config, run


@dataclasses.dataclass(frozen=True)
class FirstRuns:
    """The first two runs of a workspace, of one and the same configuration.

    Attributes:
      folder: what `make_config` takes to run further configurations in the same workspace.
      first: ran everything.
      second: found everything in the cache.
    """

    folder: Path
    first: Run
    second: Run


@pytest.fixture(scope="session")
def first_runs(tmp_path_factory: pytest.TempPathFactory) -> FirstRuns:
    folder = tmp_path_factory.mktemp("small")
    config = make_config(folder)
    return FirstRuns(folder, run(config), run(config))
