"""Logs: propensities are those of the policy, and clicks those of the position-based model."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pipeline.config_files import ConfigError
from pipeline.simulation.config import LoggingConfig
from pipeline.simulation.log import Log, simulate_log, tables
from pipeline.simulation.logging_policy import LoggingPolicy
from pipeline.simulation.world import World
from tests.simulation.small import LOGGING, WORLD, small_world

LONG = LOGGING.model_copy(update={"lists": 2500})
FINITE = st.floats(-30, 30)


@settings(max_examples=100, deadline=None)
@given(
    popularity=arrays.arrays(np.float64, 12, elements=st.floats(0.01, 1e6)),
    view=arrays.arrays(np.float64, 12, elements=FINITE),
    available=arrays.arrays(np.bool_, 12).filter(lambda available: available.any()),
    exploration=st.floats(0.01, 1),
    temperatures=st.lists(st.floats(0.05, 10), min_size=1, max_size=4),
)
def test_each_position_shows_something_and_nothing_else(popularity, view, available, exploration, temperatures):
    config = LoggingConfig(exploration=exploration, temperatures=tuple(temperatures))
    shown = LoggingPolicy.fit(config, popularity).probabilities(view, available)
    assert shown.shape == (len(temperatures), 12)
    np.testing.assert_allclose(shown.sum(axis=1), 1)
    assert (shown[:, ~available] == 0).all()
    assert (shown[:, available] >= exploration / available.sum() - 1e-12).all()


def test_the_softmax_is_of_popularity_and_taste():
    config = LoggingConfig(exploration=1e-12, popularity_weight=2, taste_weight=3, temperatures=(1.0, 2.0))
    shown = LoggingPolicy.fit(config, np.array([1.0, 2.0])).probabilities(np.array([0.5, 0.0]), np.ones(2, bool))
    odds = np.exp(2 * np.log(2) - 3 * 0.5)
    np.testing.assert_allclose(shown[0, 1] / shown[0, 0], odds)
    np.testing.assert_allclose(shown[1, 1] / shown[1, 0], np.sqrt(odds))


@pytest.fixture(scope="module")
def world() -> World:
    return small_world(1)


@pytest.fixture(scope="module")
def log(world: World) -> Log:
    return simulate_log(world, LONG)


def test_what_is_not_out_or_was_taken_is_not_shown(world: World, log: Log):
    taken: dict[int, set[int]] = {}
    for user, progress, items, clicks in zip(log.users, log.progress, log.items, log.clicks, strict=True):
        assert (world.releases[items] <= progress).all()
        assert not taken.setdefault(int(user), set()) & set(items.tolist())
        taken[int(user)] |= set(items[clicks].tolist())


def test_propensities_are_right(world: World, log: Log):
    """The inverse propensity of what is shown has the number of titles that may be shown as its mean."""
    own = np.einsum("nkk->nk", log.propensities)
    taken = np.zeros((WORLD.users, WORLD.items), bool)
    for row, (user, progress) in enumerate(zip(log.users, log.progress, strict=True)):
        available = (~taken[user] & (world.releases <= progress)).sum()
        own[row] = 1 / own[row] - available
        taken[user, log.items[row, log.clicks[row]]] = True
    z = own.mean(axis=0) / (own.std(axis=0) / np.sqrt(len(log)))
    assert (np.abs(z) < 4).all(), z


def test_click_rates_follow_examination_and_relevance(world: World, log: Log):
    relevance = np.take_along_axis(world.relevance(log.users, log.progress), log.items, axis=1)
    chances = world.examination * relevance
    z = (log.clicks - chances).sum(axis=0) / np.sqrt((chances * (1 - chances)).sum(axis=0))
    assert (np.abs(z) < 4).all(), z
    ratio = log.clicks.sum(axis=0) / relevance.sum(axis=0)
    np.testing.assert_allclose(ratio, world.examination, rtol=0.15)


def test_popularity_feeds_itself():
    """With its clicks the recommender gets surer: the later, the more its lists are of the same few titles."""
    world = small_world(6)
    strong = LONG.model_copy(update={"popularity_weight": 1.6, "taste_weight": 0.0, "exploration": 0.02})
    weak = strong.model_copy(update={"popularity_weight": 0.0})
    shares = []
    for config in (strong, weak):
        shown = np.bincount(simulate_log(world, config).items.ravel(), minlength=WORLD.items)
        shares.append(np.sort(shown)[-3:].sum() / shown.sum())
    assert shares[0] > 2 * shares[1]


def test_users_who_have_taken_everything_are_told_of(world: World):
    with pytest.raises(ConfigError, match=r"logging.lists: received 60000; a user has taken all but \d of 60 titles"):
        simulate_log(world, LOGGING.model_copy(update={"lists": 60_000}))


def test_tables_say_what_the_log_says(world: World, log: Log):
    rows = tables(world, log)["interactions"]
    assert len(rows["click"]) == log.items.size
    positions = len(world.examination)
    for row in (0, 17, log.items.size - 1):
        at, position = divmod(row, positions)
        assert rows["user_id"][row] == world.user_ids[log.users[at]]
        assert rows["item_id"][row] == world.item_ids[log.items[at, position]]
        assert rows["position"][row] == position + 1
        assert rows["timestamp"][row] == log.timestamps[at]
        assert rows["click"][row] == ("1" if log.clicks[at, position] else "")
        written = [float(value) for value in rows["propensity"][row].split("|")]
        np.testing.assert_allclose(written, log.propensities[at, position], rtol=1e-8)
    assert len(set(log.timestamps.tolist())) == len(log)
