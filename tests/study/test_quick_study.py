"""The quick study from the synthetic world to the page, then once more from the cache."""

from __future__ import annotations

import collections
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from pipeline.cli import app
from pipeline.config import PipelineConfig
from pipeline.study.config import load_study
from pipeline.study.results import StudyResults
from tests.end_to_end.small_pipeline import COMPONENTS, execution_states

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]

KINDS = ("Trainer", "PlantedEffects", "Evaluator")
DATA_COMPONENTS = {*COMPONENTS[: COMPONENTS.index("RecommenderTrainer")]}


SMALLER = [
    "study.synthetic={users: 320, items: 80, interactions: 11000, seed: 7}",
    "study.families.transformer={kind: deep, title: Transformer, steps: [ids, time], "
    "settings: {batch_size: 128, learning_rate: 0.008, weight_average: 0.9, max_epochs: 20, dimension: 32}}",
]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study")


def config_of(workspace: Path) -> PipelineConfig:
    return load_study("quick", [f"workspace={workspace}", *SMALLER])[1]


def invoke(workspace: Path, *arguments: str) -> Result:
    assignments = [part for text in (f"workspace={workspace}", *SMALLER) for part in ("--set", text)]
    return CliRunner().invoke(app, ["study", "--quick", *assignments, *arguments])


@pytest.fixture(scope="module")
def first(workspace: Path) -> tuple[Result, dict[str, str]]:
    result = invoke(workspace)
    assert result.exit_code == 0, result.output
    return result, execution_states(config_of(workspace))


@pytest.fixture(scope="module")
def results(first: tuple[Result, dict[str, str]], workspace: Path) -> StudyResults:
    document = Path(config_of(workspace).workspace) / "study.json"
    return StudyResults.model_validate_json(document.read_text(encoding="utf-8"))


def test_the_data_are_prepared_once_and_each_variant_is_fitted_once(
    first: tuple[Result, dict[str, str]], results: StudyResults
):
    _, states = first
    expected = {f"{kind}.{variant.id}" for variant in results.variants for kind in KINDS}
    assert states == dict.fromkeys(DATA_COMPONENTS | expected, "COMPLETE")
    assert results.variants[0].id == "popularity.ids.17"
    finished = [name for name in states if name.startswith(KINDS)]
    assert finished == [f"{kind}.{variant.id}" for variant in results.variants for kind in KINDS]


def test_every_variant_is_timed_measured_and_told(first: tuple[Result, dict[str, str]], results: StudyResults):
    result, _ = first
    for position, variant in enumerate(results.variants, start=1):
        assert f"variant {position} of {len(results.variants)}" in result.stdout
        assert variant.fit_seconds > 0
        assert 0 < variant.metrics["next_title"]["ndcg@10"] < 1
        assert variant.final_fit_splits == ("train",)
    assert {claim.statement for claim in results.claims if claim.statement in result.stdout.replace("\n", " ")}
    assert "study.html" in result.stdout


def test_estimates_are_those_of_the_evaluator(results: StudyResults):
    task = next(task for task in results.tasks if task.name == "next_title")
    for variant in results.variants:  # One seed: the model's estimate is the variant's.
        for metric, value in variant.metrics["next_title"].items():
            assert task.scores[variant.model][metric].value == pytest.approx(value)


def test_planted_effects_are_found(results: StudyResults):
    found = {(planted.effect, planted.model): planted for planted in results.planted_effects}
    assert {model for (effect, model), planted in found.items() if effect == "sequence" and planted.found} == {
        "markov.ids",
        "transformer.ids",
        "transformer.time",
    }
    assert {model for (effect, model), planted in found.items() if effect == "hour" and planted.found} == {
        "transformer.time"
    }
    for planted in found.values():
        if not planted.visible:
            assert (planted.response.lower, planted.response.value, planted.response.upper) == (0.0, 0.0, 0.0)


def test_the_second_call_only_renders_and_prints_json_alone(
    first: tuple[Result, dict[str, str]], results: StudyResults, workspace: Path, tmp_path: Path
):
    again = invoke(workspace, "--json", "--output", str(tmp_path))
    assert again.exit_code == 0, again.output
    states = collections.Counter(execution_states(config_of(workspace)).values())
    assert states == {"CACHED": len(DATA_COMPONENTS) + len(KINDS) * len(results.variants)}
    document = json.loads(again.stdout)
    assert document == json.loads((tmp_path / "study.json").read_text(encoding="utf-8"))
    assert StudyResults.model_validate(document).tasks == results.tasks
    assert (tmp_path / "study.html").stat().st_size > 1_000_000
