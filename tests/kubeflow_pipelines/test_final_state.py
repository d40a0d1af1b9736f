"""The report of how a run ended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("kfp")

from pipeline.kubeflow.final_state import ReportFinalState, read_final_state


def _report(workspace: Path, status: object) -> None:
    executor = ReportFinalState.EXECUTOR_SPEC.executor_class()
    executor.Do({}, {}, {"final_status": json.dumps(status), "workspace": str(workspace)})


def test_state_and_error_are_written_under_the_name_of_the_run(tmp_path: Path):
    _report(
        tmp_path, {"state": "FAILED", "pipelineJobResourceName": "projects/a/jobs/run 7", "error": {"message": "no"}}
    )
    (file,) = (tmp_path / "final_states").iterdir()
    assert file.name == "run-7.json"
    written = json.loads(file.read_text())
    assert written.pop("ended").endswith("+00:00")
    assert written == {"run": "projects/a/jobs/run 7", "state": "FAILED", "error": "no"}


def test_a_repeated_report_takes_the_place_of_the_first(tmp_path: Path):
    for state in ("FAILED", "SUCCEEDED"):
        _report(tmp_path, {"state": state})
    (file,) = (tmp_path / "final_states").iterdir()
    assert json.loads(file.read_text())["state"] == "SUCCEEDED"


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "no json"])
def test_what_is_no_status_is_refused(text: str):
    with pytest.raises(ValueError, match=r"final_status: received .*; expected a PipelineTaskFinalStatus"):
        read_final_state(text)
