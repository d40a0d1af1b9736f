"""Simulations' files: those shipped load, and what is wrong with others is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config_files import ConfigError
from pipeline.simulation.config import SIMULATION_DIRECTORY, load_simulation, world_config


@pytest.mark.parametrize("path", sorted(SIMULATION_DIRECTORY.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_simulations_load(path: Path):
    simulation, config = load_simulation(path.stem)
    assert simulation.name == path.stem
    assert config.workspace == f"runs/simulations/{path.stem}"
    assert config.policy is not None
    assert config.policy.positions == len(simulation.world.examination)


def test_overrides_reach_both_configurations():
    simulation, config = load_simulation(
        "quick", ["simulation.logging.lists=500", "workspace=/tmp/w", "data.history_length=9"], [4, 5], "movielens-100k"
    )
    assert simulation.logging.lists == 500
    assert simulation.seeds == (4, 5)
    assert simulation.like == "movielens-100k"
    assert config.data.history_length == 9
    of_world = world_config(config, 5)
    assert (of_world.workspace, of_world.data.directory) == ("/tmp/w/world-5", "/tmp/w/world-5/data")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("simulation.models.ease.family=best", "models.ease.family: received 'best'"),
        ("simulation.models.ease.unweighted=popularity", "models.ease.unweighted: received 'popularity'"),
        ("simulation.world.examination=[1, 0.5]", "one number for each of the 2 positions"),
        ("simulation.seeds=[1, 1]", "seeds must differ"),
        ("simulation.logging.exploration=0", "logging.exploration: received 0"),
        ("simulation.nothing=1", "nothing: no such field"),
        ("data.nothing=1", "data.nothing: no such field"),
    ],
)
def test_mistakes_are_told(override: str, message: str):
    with pytest.raises(ConfigError, match=message.replace("[", r"\[")):
        load_simulation("quick", [override])


def test_unknown_names_list_those_shipped():
    with pytest.raises(ConfigError, match=r"no simulation 'x'.*default, quick"):
        load_simulation("x")
