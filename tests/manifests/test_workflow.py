"""The public CI: both TFX lines, the Makefile's verbs, pinned actions, few rights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import environment

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def workflow() -> dict[str, Any]:
    return yaml.safe_load((CHECKOUT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))


def steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def test_every_line_is_checked_on_a_python_that_it_runs_on(workflow: dict[str, Any]):
    job = workflow["jobs"]["check"]
    lines = {line.name: line for line in environment.LINES}
    included = {entry["line"]: entry["python"] for entry in job["strategy"]["matrix"]["include"]}
    assert included.keys() == lines.keys()
    for name, python in included.items():
        version = tuple(map(int, python.split(".")))
        assert lines[name].oldest_python <= version <= lines[name].newest_python
    # The newest line needs glibc 2.39, which is that of this release.
    assert job["runs-on"] == "ubuntu-24.04"
    assert (job["env"]["LINE"], job["env"]["PYTHON"]) == ("${{ matrix.line }}", "python3")


def test_it_uses_verbs_that_the_makefile_has(workflow: dict[str, Any]):
    commands = "\n".join(step.get("run", "") for step in steps(workflow))
    verbs = set(re.findall(r"\bmake ([a-z-]+)", commands))
    assert {"setup", "lint", "check-manifests", "test-fast"} <= verbs
    targets = re.findall(r"^([a-z-]+):", (CHECKOUT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert verbs <= set(targets)
    assert "--file kubeflow/Dockerfile" in commands


def test_actions_are_pinned_to_commits_and_rights_are_few(workflow: dict[str, Any]):
    used = [step["uses"] for step in steps(workflow) if "uses" in step]
    assert used
    assert [action for action in used if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action)] == []
    assert workflow["permissions"] == {"contents": "read"}
    assert not any("permissions" in job for job in workflow["jobs"].values())
    assert all(
        step["with"]["persist-credentials"] is False
        for step in steps(workflow)
        if step.get("uses", "").startswith("actions/checkout@")
    )


def test_no_job_runs_for_ever_or_twice_for_a_pull_request(workflow: dict[str, Any]):
    assert all(job["timeout-minutes"] <= 60 for job in workflow["jobs"].values())
    assert "github.ref" in workflow["concurrency"]["group"]


def test_nothing_that_others_write_reaches_a_shell(workflow: dict[str, Any]):
    assert [step["run"] for step in steps(workflow) if "${{" in step.get("run", "")] == []
