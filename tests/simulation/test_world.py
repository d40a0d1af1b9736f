"""Worlds: the same arguments make the same world, and time moves what it should."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest

from pipeline.datasets.folder import write_tables
from pipeline.simulation.grounding import Grounding
from pipeline.simulation.log import simulate_log, tables
from pipeline.simulation.scenario import Scenario
from pipeline.simulation.world import World
from tests.simulation.small import DEPLOYMENT, LOGGING, WORLD, small_world


def digest(world: World, directory: Path) -> str:
    simulate_log.cache_clear()
    write_tables(directory, tables(world, simulate_log(world, LOGGING)))
    return hashlib.sha256((directory / "interactions.tsv").read_bytes()).hexdigest()


def test_same_seed_same_bytes(tmp_path: Path):
    first = digest(small_world(3), tmp_path / "a")
    assert digest(small_world(3), tmp_path / "b") == first
    assert digest(small_world(4), tmp_path / "c") != first


def test_relevance_is_what_the_formula_says():
    world = small_world(1)
    users, progress = np.array([5, 7]), np.array([0.25, 0.9])
    found = world.relevance(users, progress)
    for row, (user, time) in enumerate(zip(users, progress, strict=True)):
        angle = WORLD.drift * time
        taste = np.cos(angle) * world.tastes[0][user] + np.sin(angle) * world.tastes[1][user]
        for item in range(WORLD.items):
            logit = WORLD.base_logit + WORLD.taste_scale * float(taste @ world.attributes[item])
            logit += WORLD.quality_scale * world.quality[item] + WORLD.trend_scale * (2 * time - 1) * world.slopes[item]
            assert found[row, item] == pytest.approx(1 / (1 + np.exp(-logit)))


def test_one_strength_leaves_the_rest_of_the_world_alone():
    world = small_world(2)
    other = dataclasses.replace(world, config=WORLD.model_copy(update={"quality_scale": 0.0}))
    np.testing.assert_array_equal(world.attributes, other.attributes)
    np.testing.assert_array_equal(world.campaign, other.campaign)
    users, now = np.arange(WORLD.users), np.ones(WORLD.users)
    assert np.abs(world.relevance(users, now) - other.relevance(users, now)).max() > 0.05


def test_skews_are_those_of_the_grounding():
    config = WORLD.model_copy(update={"users": 4000, "items": 4000})
    world = World(config, Grounding(popularity_skew=1.1, activity_skew=0.3), 1)
    assert np.log(world.campaign).std() == pytest.approx(1.1, rel=0.05)
    assert np.log(world.activity).std() == pytest.approx(0.3, rel=0.05)


def test_genres_come_as_often_as_the_grounding_says():
    config = WORLD.model_copy(update={"items": 4000})
    world = World(config, Grounding(genres=("a", "b", "c", "d"), genre_shares=(0.7, 0.1, 0.1, 0.1)), 1)
    counts = world.genres.sum(axis=0)
    assert counts[0] > 1.5 * counts[1:].max()
    assert ((world.genres.sum(axis=1) >= 1) & (world.genres.sum(axis=1) <= 3)).all()


def test_scenarios_survive_json():
    scenario = Scenario(small_world(5), LOGGING, DEPLOYMENT)
    again = Scenario.from_json(scenario.to_json())
    assert again == scenario
    assert again.to_json() == scenario.to_json()
