"""A log with exact propensities tells without bias what another policy would have earned; counting clicks does not."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.simulation.log import Log, simulate_log
from pipeline.simulation.world import World
from tests.simulation.small import LOGGING, WORLD, small_world

WORLDS = 60


def lists_of_a_policy(world: World, log: Log) -> np.ndarray:
    """The titles of the best quality that the user has not taken, as known before each visit."""
    order = np.argsort(-world.quality)
    taken = np.zeros((WORLD.users, WORLD.items), bool)
    lists = np.zeros(log.items.shape, int)
    for row, user in enumerate(log.users):
        out = world.releases[order] <= log.progress[row]
        lists[row] = order[~taken[user, order] & out][: lists.shape[1]]
        taken[user, log.items[row, log.clicks[row]]] = True
    return lists


@pytest.fixture(scope="module")
def errors() -> dict[str, np.ndarray]:
    found: dict[str, list[float]] = {"ips": [], "pbm": [], "counted": []}
    for seed in range(WORLDS):
        world = small_world(seed)
        log = simulate_log(world, LOGGING)
        lists = lists_of_a_policy(world, log)
        relevance = np.take_along_axis(world.relevance(log.users, log.progress), lists, axis=1)
        truth = (world.examination * relevance).sum(axis=1).mean()
        own = np.einsum("nkk->nk", log.propensities)
        agrees = lists == log.items
        found["ips"].append((agrees * log.clicks / own).sum(axis=1).mean() - truth)
        same = log.items[:, :, np.newaxis] == lists[:, np.newaxis, :]
        wanted = (same * world.examination).sum(axis=2)
        looked_at = (log.propensities * world.examination).sum(axis=2)
        found["pbm"].append((log.clicks * wanted / looked_at).sum(axis=1).mean() - truth)
        found["counted"].append((same.any(axis=2) * log.clicks).sum(axis=1).mean() - truth)
    return {name: np.array(values) for name, values in found.items()}


def z_of(errors: np.ndarray) -> float:
    return float(errors.mean() / (errors.std(ddof=1) / np.sqrt(len(errors))))


@pytest.mark.parametrize("estimator", ["ips", "pbm"])
def test_weighted_estimates_are_unbiased(errors: dict[str, np.ndarray], estimator: str):
    assert abs(z_of(errors[estimator])) < 3.5


def test_counting_clicks_is_biased(errors: dict[str, np.ndarray]):
    assert abs(z_of(errors["counted"])) > 8


def test_knowing_positions_makes_estimates_surer(errors: dict[str, np.ndarray]):
    assert errors["pbm"].std() < errors["ips"].std()
