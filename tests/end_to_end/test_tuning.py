"""Searches for settings in a workspace that has been run, and a run with what they found."""

from __future__ import annotations

import io
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import ml_metadata
import pytest
from ml_metadata.proto import metadata_store_pb2
from rich.console import Console

from modules.settings import flatten_settings
from modules.trials import Search
from pipeline.config import PipelineConfig
from pipeline.runs import RunStore
from pipeline.terminal import PROJECT_LOGGER
from pipeline.tuning import tune_locally
from tests.end_to_end.conftest import FirstRuns
from tests.end_to_end.small_pipeline import COMPONENTS, execution_states, make_config, run

pytestmark = pytest.mark.end_to_end

FAMILIES = ("popularity", "two_tower")
TUNERS = {f"Tuner.{family}" for family in FAMILIES}
UP_TO_TRANSFORM = set(COMPONENTS[: COMPONENTS.index("Transform") + 1])
_Event = metadata_store_pb2.Event


@pytest.fixture(scope="module")
def folder(first_runs: FirstRuns) -> Iterator[Path]:
    """The folder of the first runs; what is done to its workspace here is undone afterwards."""
    workspace, copy = first_runs.folder / "workspace", first_runs.folder / "workspace-as-it-was"
    shutil.copytree(workspace, copy)
    yield first_runs.folder
    shutil.rmtree(workspace)
    copy.rename(workspace)


@pytest.fixture(scope="module")
def config(folder: Path) -> PipelineConfig:
    # The model's settings are those of two towers; whichever window of popularity is best, it is chosen.
    return make_config(folder, "tuner.trials=2", "model.settings.max_epochs=1", "tuned.popularity.window_days=1.0")


@pytest.fixture(scope="module")
def output() -> io.StringIO:
    return io.StringIO()


@pytest.fixture(scope="module")
def run_before(config: PipelineConfig) -> str:
    """The latest run before the searches."""
    return RunStore(config.metadata_path).run_ids()[-1]


@pytest.fixture(scope="module")
def searches(config: PipelineConfig, output: io.StringIO, run_before: str) -> list[Search]:
    # As the command has it: by default, Python's loggers let only warnings through.
    logger = logging.getLogger(PROJECT_LOGGER)
    previous = logger.level
    logger.setLevel(logging.INFO)
    try:
        return tune_locally(config, FAMILIES, Console(file=output, width=200))
    finally:
        logger.setLevel(previous)


def _store(config: PipelineConfig) -> ml_metadata.MetadataStore:
    connection = metadata_store_pb2.ConnectionConfig()
    connection.sqlite.filename_uri = config.metadata_path
    connection.sqlite.connection_mode = metadata_store_pb2.SqliteMetadataSourceConfig.READONLY
    return ml_metadata.MetadataStore(connection)


def _artifacts(config: PipelineConfig, node: str, event_type: int, artifact_type: str) -> list:
    """The artifacts of a type that went into, or came out of, the latest execution of a node."""
    store = _store(config)
    context = store.get_context_by_type_and_name("node", f"{config.name}.{node}")
    execution = max(store.get_executions_by_context(context.id), key=lambda execution: execution.id)
    events = store.get_events_by_execution_ids([execution.id])
    artifacts = store.get_artifacts_by_id([event.artifact_id for event in events if event.type == event_type])
    return [artifact for artifact in artifacts if artifact.type == artifact_type]


def test_a_search_finds_the_data_in_the_cache_and_tries_settings(
    config: PipelineConfig, searches: list[Search], output: io.StringIO
):
    popularity, two_tower = searches
    states = execution_states(config)
    assert {node for node, state in states.items() if state == "CACHED"} == UP_TO_TRANSFORM
    assert {node for node, state in states.items() if state == "COMPLETE"} == TUNERS
    assert [len(search.trials) for search in searches] == [2, 2]
    assert popularity.trials[0].settings == {"window_days": 1.0}
    assert "dimension" not in two_tower.trials[0].settings, "the model's own settings are left alone"
    for search in searches:
        assert all(trial.validation_ndcg and trial.validation_ndcg > 0 for trial in search.trials)
        (found,) = _artifacts(config, f"Tuner.{search.family}", _Event.OUTPUT, "HyperParameters")
        assert (Path(found.uri) / "best_hyperparameters.txt").is_file()
        (results,) = _artifacts(config, f"Tuner.{search.family}", _Event.OUTPUT, "TunerResults")
        assert Search.model_validate_json((Path(results.uri) / "trials.json").read_text()) == search
        rows = json.loads((Path(results.uri) / "tuner_results.json").read_text())
        assert [row["score"] for row in rows] == [trial.validation_ndcg for trial in search.ranked()]
    assert "trial 2/2 of popularity: NDCG@10 0." in output.getvalue()


def test_a_search_is_not_the_run_that_status_tells_of(config: PipelineConfig, searches: list[Search], run_before: str):
    store = RunStore(config.metadata_path)
    assert store.report().run_id == run_before
    assert store.run_ids()[-1] != run_before
    search = store.report(store.run_ids()[-1])
    assert search.state == "complete"
    assert set(search.components) == UP_TO_TRANSFORM | TUNERS


def test_the_same_search_is_cached(config: PipelineConfig, searches: list[Search]):
    again = tune_locally(config, FAMILIES, Console(file=io.StringIO()))
    assert again == searches
    assert set(execution_states(config).values()) == {"CACHED"}


def test_a_run_uses_what_the_latest_search_of_its_family_found(
    folder: Path, config: PipelineConfig, searches: list[Search]
):
    best = searches[0].ranked()[0]
    wanted = ("model.family=popularity", "model.settings={}", "model.use_tuned=true")
    tuned = run(make_config(folder, *wanted, "evaluation.gate={rules: [{metric: ndcg@10, minimum: 0.002}]}"))

    assert tuned.nodes("CACHED") >= UP_TO_TRANSFORM
    assert tuned.report.state == "complete"
    training = tuned.report.training
    assert flatten_settings(training["model"]["settings"]) == best.settings
    assert training["settings_from"] == {"window_days": "marquee tune"}
    assert training["validation_ndcg@10"] == pytest.approx(best.validation_ndcg)
    (found,) = _artifacts(tuned.config, "Tuner.popularity", _Event.OUTPUT, "HyperParameters")
    (used,) = _artifacts(tuned.config, "RecommenderTrainer", _Event.INPUT, "HyperParameters")
    assert used.id == found.id
