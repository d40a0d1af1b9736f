"""A tiny simulation from the world to the page, then once more from the cache."""

from __future__ import annotations

import collections
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from pipeline.cli import app
from pipeline.config import PipelineConfig
from pipeline.run_outputs import outputs_by_node
from pipeline.runs import RunStore
from pipeline.simulation.config import load_simulation, world_config
from pipeline.simulation.fits import DEPLOYMENT_PREFIX, EVALUATOR_PREFIX, TRAINER_PREFIX
from pipeline.simulation.grounding import Grounding
from pipeline.simulation.log import simulate_log
from pipeline.simulation.results import SimulationResults
from pipeline.simulation.scenario import Scenario
from tests.end_to_end.small_pipeline import COMPONENTS, execution_states

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]

KINDS = (TRAINER_PREFIX, DEPLOYMENT_PREFIX, EVALUATOR_PREFIX)
DATA_COMPONENTS = {*COMPONENTS[: COMPONENTS.index("RecommenderTrainer")]}
MODELS = ("popularity", "popularity-ips", "item-knn", "ease")
SMALLER = [
    "simulation.world={users: 120, items: 40, days: 10}",
    "simulation.logging={lists: 1500, refits: 5}",
    "simulation.deployment={visits: 300}",
    "simulation.models={popularity: {title: Popularity, family: popularity}, popularity-ips: {title: Popularity IPS, "
    "family: popularity, propensity_weighting: {clip: 50}, unweighted: popularity}, item-knn: {title: Neighbours, "
    "family: item_knn}, ease: {title: EASE, family: ease}}",
    "evaluation.policy.least_effective_sample_size=20",
]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("simulation")


def assignments(workspace: Path) -> list[str]:
    return [f"workspace={workspace}", *SMALLER]


def config_of_world(workspace: Path) -> PipelineConfig:
    return world_config(load_simulation("quick", assignments(workspace))[1], 1)


def invoke(workspace: Path, *arguments: str) -> Result:
    settings = [part for text in assignments(workspace) for part in ("--set", text)]
    return CliRunner().invoke(app, ["simulate", "--quick", *settings, *arguments])


@pytest.fixture(scope="module")
def first(workspace: Path) -> tuple[Result, dict[str, str]]:
    result = invoke(workspace)
    assert result.exit_code == 0, result.output
    return result, execution_states(config_of_world(workspace))


@pytest.fixture(scope="module")
def results(first: tuple[Result, dict[str, str]], workspace: Path) -> SimulationResults:
    return SimulationResults.model_validate_json((workspace / "simulation.json").read_text(encoding="utf-8"))


def test_the_log_is_ingested_once_and_every_model_is_trained_deployed_and_evaluated(
    first: tuple[Result, dict[str, str]],
):
    _, states = first
    nodes = {f"{kind}.{model}" for kind in KINDS for model in MODELS}
    assert states == dict.fromkeys(DATA_COMPONENTS | nodes, "COMPLETE")
    assert [name for name in states if name.startswith(KINDS)] == [f"{kind}.{m}" for m in MODELS for kind in KINDS]


def test_everything_shown_is_an_impression_and_every_click_an_interaction(results: SimulationResults, workspace: Path):
    (world,) = results.worlds
    simulation, _ = load_simulation("quick", assignments(workspace))
    log = simulate_log(Scenario.of(simulation, Grounding(), 1).world, simulation.logging)
    assert world.clicks == log.clicks.sum()
    shown = sum(world.examples[f"impressions_{split}"] for split in ("train", "eval", "test"))
    assert shown == log.items.size
    taken = {
        (log.users[row], log.items[row, position], row) for row, position in zip(*np.nonzero(log.clicks), strict=True)
    }
    assert sum(world.examples[split] for split in ("train", "eval", "test")) == len(taken)


def test_online_values_are_those_in_the_metadata(results: SimulationResults, workspace: Path):
    config = config_of_world(workspace)
    outputs = outputs_by_node(config.metadata_path, RunStore(config.metadata_path).run_ids()[-1])
    (world,) = results.worlds
    for name in MODELS:
        (artifact,) = outputs[f"{DEPLOYMENT_PREFIX}.{name}"]
        earnings = json.loads((Path(artifact.uri) / "earnings.json").read_text())
        assert world.models[name].online.value == pytest.approx(np.mean(earnings["expected"]))
        error = world.models[name].sampled - world.models[name].online.value
        assert abs(error) < 4 * np.sqrt(world.models[name].online.value / len(earnings["expected"]))
        assert world.models[name].online.value < world.best_value


def test_figures_are_those_of_the_evaluator(results: SimulationResults, workspace: Path):
    config = config_of_world(workspace)
    outputs = outputs_by_node(config.metadata_path, RunStore(config.metadata_path).run_ids()[-1])
    (world,) = results.worlds
    for name in MODELS:
        (evaluation,) = (a for a in outputs[f"{EVALUATOR_PREFIX}.{name}"] if a.type == "ModelEvaluation")
        verdict = json.loads((Path(evaluation.uri) / "verdict.json").read_text())["slices"]["overall"]
        for metric in ("ndcg@10", "policy_value_pbm", "policy_value_dr"):
            told = world.models[name].metrics[metric]
            written = verdict[metric]["value"]
            assert told == (None if written is None else pytest.approx(written, abs=0))
            assert (told is None) == (metric in world.models[name].refusals)
    names = {metric.name for metric in results.metrics}
    assert {"ndcg@10", "recall@10", "mrr@10", "user_ndcg@10"} <= names
    assert {f"policy_value_{name}" for name in ("ips", "clipped_ips", "snips", "dm", "dr", "iips", "pbm")} <= names
    assert not {name for name in names if name.endswith(("weight", "size", "refusal", "count"))}


def test_the_off_policy_estimate_is_near_what_models_earn(results: SimulationResults):
    (world,) = results.worlds
    errors = [
        estimate / model.online.value - 1
        for model in world.models.values()
        if (estimate := model.metrics["policy_value_pbm"]) is not None
    ]
    assert errors
    assert abs(np.mean(errors)) < 0.5


def test_findings_are_told(first: tuple[Result, dict[str, str]], results: SimulationResults):
    told = first[0].stdout.replace("\n", " ")
    for finding in results.findings:
        assert finding.statement in told
    assert "simulation.html" in told


def test_the_second_call_only_renders_and_prints_json_alone(
    first: tuple[Result, dict[str, str]], results: SimulationResults, workspace: Path, tmp_path: Path
):
    again = invoke(workspace, "--json", "--output", str(tmp_path))
    assert again.exit_code == 0, again.output
    states = collections.Counter(execution_states(config_of_world(workspace)).values())
    assert states == {"CACHED": len(DATA_COMPONENTS) + len(KINDS) * len(MODELS)}
    document = json.loads(again.stdout)
    assert document == json.loads((tmp_path / "simulation.json").read_text(encoding="utf-8"))
    assert SimulationResults.model_validate(document).metrics == results.metrics
    assert (tmp_path / "simulation.html").stat().st_size > 1_000_000
