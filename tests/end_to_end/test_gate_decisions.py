"""What is pushed and what is not: a real gain, one that may be noise, and one at the cost of a protected slice."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import ml_metadata
import pytest
from ml_metadata.proto import metadata_store_pb2

from modules.models import registry
from pipeline.metadata import open_metadata
from tests.end_to_end.conftest import FirstRuns
from tests.end_to_end.small_pipeline import Run, make_config, run, served

pytestmark = pytest.mark.end_to_end

GATE = (
    "evaluation.gate={rules: [{metric: ndcg@10, minimum_change: 0.0}], "
    "protected: [{slices: [[occupation]], metric: ndcg@10, least_users: 5}]}"
)
ANYTHING = "evaluation.gate={rules: [{metric: ndcg@10, minimum: 0.0, certain: false}]}"
BLUR = 2.0


@pytest.fixture(scope="module")
def folder(first_runs: FirstRuns) -> Iterator[Path]:
    """The folder of the first runs; what is done to its workspace here is undone afterwards."""
    workspace, copy = first_runs.folder / "workspace", first_runs.folder / "workspace-before-decisions"
    shutil.copytree(workspace, copy)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.FAMILIES, "uneven", "tests.end_to_end.uneven:Uneven")
        yield first_runs.folder
    shutil.rmtree(workspace)
    copy.rename(workspace)


def _run(folder: Path, settings: str, gate: str = GATE) -> Run:
    return run(make_config(folder, "model.family=uneven", f"model.settings={settings}", gate))


@pytest.fixture(scope="module")
def blessed(folder: Path) -> Run:
    """The model to beat: popularity, blurred."""
    return _run(folder, f"{{blur: {BLUR}}}", ANYTHING)


def _latest_blessing(done: Run) -> metadata_store_pb2.Artifact:
    store: ml_metadata.MetadataStore = open_metadata(done.config.metadata_path)
    return max(store.get_artifacts_by_type("ModelBlessing"), key=lambda artifact: artifact.id)


def test_a_gain_within_noise_is_not_pushed(folder: Path, blessed: Run):
    versions = served(blessed.config)
    candidate = _run(folder, f"{{blur: {BLUR}, shift: 0.2}}")
    change = candidate.report.changes["overall"]["ndcg@10"]
    assert change.value > 0 and change.interval is not None and change.interval[0] < 0
    assert candidate.report.blessed is False and candidate.report.pushed is None
    overall, *occupations = candidate.report.gate
    assert (overall.slice, overall.passed) == ("overall", False)
    assert occupations and all(line.passed is not False for line in occupations)
    assert _latest_blessing(candidate).custom_properties["blessed"].int_value == 0
    assert served(candidate.config) == versions


def test_a_gain_at_the_cost_of_a_protected_slice_is_not_pushed(folder: Path, blessed: Run):
    versions = served(blessed.config)
    candidate = _run(folder, "{harmed_occupation: 1}")
    change = candidate.report.changes["overall"]["ndcg@10"]
    assert change.interval is not None and change.interval[0] > 0, "better overall, with certainty"
    passed = {line.slice: line.passed for line in candidate.report.gate}
    assert passed.pop("overall") is True
    assert list(passed.values()).count(False) == 1 and True in passed.values()
    (reason,) = candidate.report.blessing_failures
    assert reason.endswith("the gate asks for no significant harm on a protected slice")
    assert candidate.report.blessed is False and candidate.report.pushed is None
    assert served(candidate.config) == versions


def test_a_real_gain_is_pushed_and_the_table_is_kept_in_metadata(folder: Path, blessed: Run):
    candidate = _run(folder, "{}")
    assert candidate.report.blessed and candidate.report.blessing_failures == []
    assert [candidate.report.pushed and candidate.report.pushed.version] == candidate.new_versions
    blessing = _latest_blessing(candidate)
    assert blessing.custom_properties["blessed"].int_value == 1
    table = json.loads(blessing.custom_properties["gate"].string_value)
    assert table == [line.model_dump() for line in candidate.report.gate]
    assert [line["rule"] for line in table] == [
        "ndcg@10: a change of more than +0 with 95 % confidence",
        *["ndcg@10: no significant harm"] * (len(table) - 1),
    ]
    assert len(table) > 1 and all(line["passed"] is not False for line in table)
    assert table[0]["lower"] > 0 and table[0]["bound"] == "lower" and table[0]["needed"] == 0.0
