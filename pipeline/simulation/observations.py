"""What one world brought to light, gathered from its log, ML Metadata and the folders of the artifacts."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from modules.artifact_files import TRAINING_REPORT, VERDICT_FILE
from modules.metrics.off_policy_refusal import explain_refusal
from pipeline.config import PipelineConfig
from pipeline.run_outputs import Artifacts, example_counts, outputs_by_node, uri_of
from pipeline.runs import RunStore
from pipeline.simulation.deployment import EARNINGS_FILE, best_lists, draw_visits, earn
from pipeline.simulation.fits import Fit
from pipeline.simulation.log import simulate_log
from pipeline.simulation.rank_correlation import spearman
from pipeline.simulation.results import TitleResult
from pipeline.simulation.scenario import Scenario
from pipeline.simulation.world import Floats, Ints
from pipeline.verdict import read_verdict

_LAST_SHARE = 0.1
_DIAGNOSTIC_PREFIXES = ("policy_", "off_policy_")
OFF_POLICY_PREFIX = "policy_value_"
_COUNTS = ("example_count", "user_count", "weighted_example_count")


@dataclasses.dataclass(frozen=True)
class ModelObservation:
    """One model in one world.

    Attributes:
      users: `[visits]`, who came.
      expected: `[visits]`, expected clicks on the list shown.
      sampled: `[visits]`, clicks drawn.
      metrics: what the Evaluator said of it on the log; NaN where a figure is refused or undefined.
      refusals: why off-policy estimates are refused, by metric.
      fit_seconds: seconds of fitting.
    """

    users: Ints
    expected: Floats
    sampled: Ints
    metrics: Mapping[str, float]
    refusals: Mapping[str, str]
    fit_seconds: float


@dataclasses.dataclass(frozen=True)
class WorldObservation:
    """One world.

    Attributes:
      seed: of the world.
      run_id: run in ML Metadata.
      models: by name.
      facts: fields of `WorldResult` that are of the log and the world alone.
    """

    seed: int
    run_id: str
    models: Mapping[str, ModelObservation]
    facts: Mapping[str, Any]


def observe(scenario: Scenario, config: PipelineConfig, fits: list[Fit]) -> WorldObservation:
    """Reads the latest run of a world.

    Args:
      scenario: the world.
      config: the pipeline's configuration, in the world's workspace.
      fits: the models.
    """
    run_id = RunStore(config.metadata_path).run_ids()[-1]
    outputs = outputs_by_node(config.metadata_path, run_id)
    examples = example_counts(artifact for artifacts in outputs.values() for artifact in artifacts)
    return WorldObservation(
        seed=scenario.world.seed,
        run_id=run_id,
        models={fit.name: _observe_model(fit, outputs) for fit in fits},
        facts={**describe_log(scenario), "examples": examples},
    )


def describe_log(scenario: Scenario) -> dict[str, Any]:
    """Returns the fields of `WorldResult` that a world and its log decide alone."""
    world = scenario.world
    log = simulate_log(world, scenario.logging)
    everybody = np.arange(world.config.users)
    relevance = world.relevance(everybody, np.ones(world.config.users)).mean(axis=0)
    clicks = np.bincount(log.items[log.clicks], minlength=world.config.items).astype(float)
    shown = np.bincount(log.items.ravel(), minlength=world.config.items)
    visits = draw_visits(world, scenario.deployment)
    best = earn(world, visits, best_lists(world, log, visits))
    return {
        "lists": len(log),
        "clicks": int(log.clicks.sum()),
        "examination": world.config.examination,
        "click_rates": tuple(log.clicks.mean(axis=0).tolist()),
        "popularity_correlation": float(spearman(clicks[np.newaxis], relevance[np.newaxis])[0]),
        "logging_value": float(log.clicks[log.progress >= 1 - _LAST_SHARE].sum(axis=1).mean()),
        "best_value": float(best.expected.mean()),
        "titles": tuple(
            TitleResult(relevance=value, shown=count)
            for value, count in zip(relevance.tolist(), shown.tolist(), strict=True)
        ),
    }


def _observe_model(fit: Fit, outputs: Mapping[str, Artifacts]) -> ModelObservation:
    earnings = _read(uri_of(outputs[fit.deployment_id], "OnlineEarnings"), EARNINGS_FILE)
    report = _read(uri_of(outputs[fit.trainer_id], "ModelRun"), TRAINING_REPORT)
    verdict = read_verdict(Path(uri_of(outputs[fit.evaluator_id], "ModelEvaluation")) / VERDICT_FILE)
    figures = {name: _number(estimate.value) for name, estimate in verdict.overall.items()}
    return ModelObservation(
        users=np.array(earnings["users"]),
        expected=np.array(earnings["expected"]),
        sampled=np.array(earnings["sampled"]),
        metrics={name: value for name, value in figures.items() if _is_judged(name)},
        refusals=_explain_refusals(figures),
        fit_seconds=report["fit_seconds"],
    )


def _explain_refusals(figures: Mapping[str, float]) -> dict[str, str]:
    refused = [name for name in figures if name.startswith(OFF_POLICY_PREFIX) and math.isnan(figures[name])]
    reasons = {name: explain_refusal(figures, name.removeprefix(OFF_POLICY_PREFIX)) for name in refused}
    return {name: reason or "it is not defined here" for name, reason in reasons.items()}


def _is_judged(name: str) -> bool:
    """Whether a figure of the verdict says how good a model is, and not how much is known."""
    return name.startswith(OFF_POLICY_PREFIX) or not (name.startswith(_DIAGNOSTIC_PREFIXES) or name in _COUNTS)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _read(uri: str, name: str) -> dict[str, Any]:
    return json.loads((Path(uri) / name).read_text(encoding="utf-8"))
