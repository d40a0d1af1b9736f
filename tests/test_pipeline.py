"""The DAG as it is built: its edges, its gates and what it refuses."""

import itertools
import re
from pathlib import Path

import pytest

from pipeline.config import PipelineConfig, load_config
from pipeline.config_files import ConfigError
from pipeline.pipeline import create_pipeline

README = Path(__file__).parent.parent / "README.md"


@pytest.fixture(scope="module")
def edges(tmp_path_factory: pytest.TempPathFactory) -> set[tuple[str, str]]:
    config = load_config("movielens-100k", [f"workspace={tmp_path_factory.mktemp('workspace')}"])
    return {
        (upstream.id, component.id)
        for component in create_pipeline(config).components
        for upstream in component.upstream_nodes
    }


def test_the_readme_draws_the_dag_as_it_is(edges: set[tuple[str, str]]) -> None:
    (diagram,) = re.findall(r"```mermaid\nflowchart TD\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    drawn = {
        edge
        for line in diagram.splitlines()
        for names in [[name.strip() for name in line.split("-->")]]
        for edge in itertools.pairwise(names)
    }
    assert drawn == edges


def test_nothing_that_learns_starts_before_the_gate(edges: set[tuple[str, str]]) -> None:
    downstream: set[str] = set()
    frontier = {"AnomalyGate"}
    while frontier:
        frontier = {after for before, after in edges if before in frontier} - downstream
        downstream |= frontier
    assert downstream == {
        "Transform",
        "RecommenderTrainer",
        "LatestBlessedModel",
        "RecommenderEvaluator",
        "ServerValidator",
        "AtomicPusher",
    }


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.family=oracle"], r"model\.family: received 'oracle'; expected one of \['autoencoder', 'cascade', "),
        (["model.settings.dimention=3"], r"model\.settings\.dimention: no such field; received 3"),
        (["model.settings.dropout=1.5"], r"model\.settings\.dropout: received 1\.5; expected: .*less than 1"),
        (["schema_file=nowhere.pbtxt"], r"schema_file: no such file 'nowhere\.pbtxt'"),
    ],
)
def test_what_cannot_be_built_is_refused_before_anything_runs(overrides: list[str], message: str) -> None:
    config: PipelineConfig = load_config("movielens-100k", overrides)
    with pytest.raises(ConfigError, match=message):
        create_pipeline(config)


def test_a_warm_start_is_said_to_the_trainer_only_where_it_is_asked_for() -> None:
    def said(*overrides: str) -> str:
        pipeline = create_pipeline(load_config("movielens-100k", ["data.directory=data/span-{SPAN}", *overrides]))
        (trainer,) = (component for component in pipeline.components if component.id == "RecommenderTrainer")
        return trainer.exec_properties["custom_config"]

    assert "warm_start" not in said()
    assert '"warm_start": {"learning_rate_factor": 0.25}' in said("model.warm_start.learning_rate_factor=0.25")
