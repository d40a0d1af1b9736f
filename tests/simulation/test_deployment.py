"""Models online: lists earn what the world says, for requests that hold what users had clicked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from pipeline.config import load_config
from pipeline.config_checks import read_schema
from pipeline.serving.messages import example_pb2
from pipeline.serving.requests import RequestFormat
from pipeline.simulation.deployment import NOTHING, ask, best_lists, build_requests, draw_visits, earn
from pipeline.simulation.log import simulate_log
from tests.simulation.small import DEPLOYMENT, LOGGING, WORLD, small_world

world = small_world(1)
log = simulate_log(world, LOGGING)
visits = draw_visits(world, DEPLOYMENT)


def test_visits_are_after_the_log():
    assert (world.timestamps(visits.progress) >= log.timestamps.max()).all()
    assert visits.progress.max() <= 1 + DEPLOYMENT.days / WORLD.days


def test_expected_clicks_are_exact_and_samples_agree():
    lists = np.tile(np.arange(3), (len(visits.users), 1))
    earnings = earn(world, visits, lists)
    relevance = world.relevance(visits.users, visits.progress)
    expected = sum(WORLD.examination[k] * relevance[:, k] for k in range(3))
    np.testing.assert_allclose(earnings.expected, expected)
    error = (earnings.sampled - earnings.expected).mean()
    assert abs(error) < 4 * np.sqrt(earnings.expected.mean() / len(visits.users))
    np.testing.assert_array_equal(earnings.sampled, earn(world, visits, lists).sampled)


def test_an_empty_position_earns_nothing():
    lists = np.full((len(visits.users), 3), NOTHING)
    assert earn(world, visits, lists).expected.tolist() == [0.0] * len(visits.users)


def test_nobody_beats_whoever_knows_the_world():
    best = earn(world, visits, best_lists(world, log, visits)).expected.mean()
    order = np.argsort(-world.quality)[:3]
    assert best > earn(world, visits, np.tile(order, (len(visits.users), 1))).expected.mean()


def test_requests_hold_the_clicks():
    request_format = RequestFormat.from_schema(read_schema(load_config("simulated")))
    requests = [
        example_pb2.Example.FromString(request) for request in build_requests(world, log, visits, request_format)
    ]
    for request, user, progress in zip(requests[:40], visits.users, visits.progress, strict=False):
        rows, positions = np.nonzero(log.clicks & (log.users == user)[:, np.newaxis])
        clicked = [world.item_ids[item].encode() for item in log.items[rows, positions]]
        features = request.features.feature
        assert features["user_id"].bytes_list.value == [world.user_ids[user].encode()]
        assert features["timestamp"].int64_list.value == world.timestamps(np.array([progress])).tolist()
        assert set(features["seen_item_ids"].bytes_list.value) == set(clicked)
        assert sorted(features["history_item_ids"].bytes_list.value) == sorted(clicked[-50:])
        assert len(features["history_click"].float_list.value) == len(clicked)


def test_answers_are_read_batch_by_batch():
    def recommend(requests: Sequence[bytes]) -> np.ndarray:
        return np.array([[world.item_ids[4].encode(), b"", b"", world.item_ids[0].encode()]] * len(requests), object)

    assert ask(recommend, [b""] * 1000, world).tolist() == [[4, NOTHING, NOTHING]] * 1000


def test_answers_that_cannot_be_shown_are_refused():
    with pytest.raises(ValueError, match="not in the catalogue"):
        ask(lambda requests: np.array([[b"x", b"y", b"z"]], object), [b""], world)
    with pytest.raises(ValueError, match="expected 3 or more"):
        ask(lambda requests: np.array([[b""]], object), [b""], world)
