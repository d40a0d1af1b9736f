"""A model whose push has been undone is pushed anew, though the push would be in the cache."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.end_to_end.conftest import FirstRuns
from tests.end_to_end.small_pipeline import COMPONENTS, RESOLVER, run, served, summarise

pytestmark = [pytest.mark.end_to_end, pytest.mark.small_run]


def test_a_version_that_was_removed_is_pushed_again(first_runs: FirstRuns):
    config = first_runs.first.config
    serving = Path(config.serving_directory)
    aside = serving.rename(first_runs.folder / "aside")
    try:
        again = run(config)
        assert again.states["AtomicPusher"] == "COMPLETE"
        assert again.report.pushed is not None
        assert served(config) == again.new_versions == [again.report.pushed.version]
        assert again.report.served_version == again.report.pushed.version
        assert "by an earlier run" not in summarise(again.report)

        settled = run(config)
        assert settled.states == {**dict.fromkeys(COMPONENTS, "CACHED"), RESOLVER: "COMPLETE"}
        assert settled.report.pushed == again.report.pushed
        assert f"{again.report.pushed.version} to" in summarise(settled.report)
        assert "by an earlier run" in summarise(settled.report)
    finally:
        shutil.rmtree(serving)
        aside.rename(serving)
