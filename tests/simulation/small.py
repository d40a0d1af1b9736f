"""Worlds and results small enough for tests."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pipeline.simulation.analysis import summarise
from pipeline.simulation.config import DeploymentConfig, LoggingConfig, SimulationConfig, WorldConfig
from pipeline.simulation.grounding import Grounding
from pipeline.simulation.observations import ModelObservation, WorldObservation, describe_log
from pipeline.simulation.results import SimulationResults
from pipeline.simulation.scenario import Scenario
from pipeline.simulation.world import World

WORLD = WorldConfig(users=60, items=60, days=10, examination=(1.0, 0.6, 0.3))
LOGGING = LoggingConfig(lists=600, refits=5, temperatures=(0.8, 1.0, 1.2))
DEPLOYMENT = DeploymentConfig(visits=200)


def small_world(seed: int) -> World:
    return World(WORLD, Grounding(), seed)


def simulation_config(**fields: object) -> SimulationConfig:
    models: dict[str, object] = {
        f"m{number}": {"title": f"Model {number}", "family": "popularity"} for number in range(6)
    }
    models["m5"] = {
        "title": "Model 5",
        "family": "popularity",
        "propensity_weighting": {"clip": 10},
        "unweighted": "m4",
    }
    return SimulationConfig(
        name="small",
        title="A small simulation",
        seeds=(1, 2),
        world=WORLD,
        logging=LOGGING,
        deployment=DEPLOYMENT,
        bootstrap={"replicates": 500},
        models=models,
        **fields,
    )


def simulate_results(
    metrics: Mapping[str, Mapping[str, float]], simulation: SimulationConfig | None = None
) -> SimulationResults:
    """Returns results in which model `m<i>` earns about (i + 1) / 10 clicks per list; metrics are by name and model."""
    simulation = simulation or simulation_config()
    observations = []
    for seed in simulation.seeds:
        generator = np.random.default_rng(seed)
        users = generator.integers(60, size=400)
        models = {}
        for number, name in enumerate(simulation.models):
            expected = np.clip((number + 1) / 10 + generator.normal(0, 0.02, 400), 0, 3)
            sampled = generator.poisson(expected)
            figures = {metric: values[name] for metric, values in metrics.items()}
            refusals = {metric: "the log is too short" for metric, value in figures.items() if np.isnan(value)}
            models[name] = ModelObservation(users, expected, sampled, figures, refusals, 0.5)
        facts = describe_log(Scenario.of(simulation, Grounding(), seed))
        run_id = "2024-01-01T00:00:00.000000"
        observations.append(WorldObservation(seed, run_id, models, {**facts, "examples": {"train": 100}}))
    return summarise(simulation, Grounding(), observations)
