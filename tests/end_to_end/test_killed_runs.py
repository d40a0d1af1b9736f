"""A run that is killed leaves a workspace in which the next run just works."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tensorflow as tf
import yaml

from pipeline.config import PipelineConfig
from pipeline.runs import RunStore
from tests.end_to_end.small_pipeline import COMPONENTS, execution_states, make_config, run, served

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]

PATIENCE_SECONDS = 300


def run_and_kill(config: PipelineConfig, file: Path, sign: str) -> None:
    """Starts `marquee run` and kills it as soon as the workspace holds a file that matches the pattern `sign`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.cli", "run", "--config", str(file)], stdout=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not any(Path(config.workspace).glob(sign)):
            assert process.poll() is None, f"ended before {sign} appeared:\n{process.communicate()[0]}"
            assert time.monotonic() < deadline, f"no {sign} within {PATIENCE_SECONDS} s"
            time.sleep(0.01)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL


def test_a_killed_run_is_taken_up_again(tmp_path: Path):
    config = make_config(tmp_path, "model.family=popularity", "model.settings={}")
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json")), encoding="utf-8")

    # While Transform analyses the data: it has written its first files, not yet its result.
    run_and_kill(config, file, "artifacts/Transform/**/saved_model.pb")
    before = COMPONENTS[: COMPONENTS.index("Transform")]
    assert execution_states(config) == {**dict.fromkeys(before, "COMPLETE"), "Transform": "RUNNING"}
    assert RunStore(config.metadata_path).report().state == "interrupted"

    # While the Trainer exports: the SavedModel lacks its last file.
    run_and_kill(config, file, "artifacts/RecommenderTrainer/model/*/Format-Serving/**/variables*")
    assert execution_states(config) == {
        **dict.fromkeys(before, "CACHED"),
        "Transform": "COMPLETE",
        "RecommenderTrainer": "RUNNING",
    }
    assert served(config) == []

    last = run(config)
    assert last.nodes("CACHED") == {*before, "Transform"}
    assert last.nodes("COMPLETE") == set(COMPONENTS) - last.nodes("CACHED")
    assert last.report.state == "complete"
    assert last.report.pushed is not None
    assert served(config) == [last.report.pushed.version], "neither a second version nor a part of one"
    model = tf.saved_model.load(os.path.join(config.serving_directory, last.report.pushed.version))
    assert "serving_default" in model.signatures
