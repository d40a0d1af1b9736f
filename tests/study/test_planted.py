"""Planted effects: models that see an effect answer to it, blind ones do not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from modules.features import ColumnTable
from pipeline.config import load_config
from pipeline.config_checks import read_schema
from pipeline.datasets.synthetic import SyntheticWorld
from pipeline.study.config import StudyConfig
from pipeline.study.planted import Recommend, measure_responses
from pipeline.study.planted_summary import describe_planted_effects
from pipeline.study.variants import plan_study

WORLD = SyntheticWorld(users=40, items=60, interactions=800, seed=3, days=60)


@pytest.fixture(scope="module")
def examples() -> list[bytes]:
    """The second half of the log with the history before each event, in order of time."""
    events = WORLD.events
    serialized = []
    for position in range(len(events) // 2, len(events)):
        user, time = events.users[position], events.timestamps[position]
        past = np.flatnonzero((events.users == user) & (events.timestamps < time))
        example = tf.train.Example()
        features = example.features.feature
        features["user_id"].bytes_list.value.append(WORLD.user_ids[user].encode())
        features["timestamp"].int64_list.value.append(int(time))
        items = [WORLD.item_ids[events.items[row]].encode() for row in past]
        features["history_item_ids"].bytes_list.value.extend(items)
        features["seen_item_ids"].bytes_list.value.extend(items)
        features["history_timestamps"].int64_list.value.extend(events.timestamps[past].tolist())
        serialized.append(example.SerializeToString())
    return serialized


def recommender(world: SyntheticWorld, blind_to_history: bool = False) -> Recommend:
    """The best possible ranking of a world."""

    def recommend(serialized: Sequence[bytes]) -> np.ndarray:
        lists = []
        for content in serialized:
            features = tf.train.Example.FromString(content).features.feature
            seen = {value.decode() for value in features["seen_item_ids"].bytes_list.value}
            times = features["history_timestamps"].int64_list.value
            items = [value.decode() for value in features["history_item_ids"].bytes_list.value]
            assert len(items) == len(times)
            history = [] if blind_to_history else list(zip(items, times, strict=True))
            (user,) = features["user_id"].bytes_list.value
            (time,) = features["timestamp"].int64_list.value
            assert all(then < time for then in times)
            scores = world.event_log_probabilities(user.decode(), time, history)
            ranked = sorted((item for item in scores if item not in seen), key=scores.__getitem__, reverse=True)
            lists.append([item.encode() for item in ranked[:10]])
        return np.array(lists)

    return recommend


@pytest.mark.parametrize(
    ("make", "sees_sequence", "sees_hour"),
    [
        (lambda: recommender(WORLD), True, True),
        (lambda: recommender(WORLD.without("sequence")), False, True),
        (lambda: recommender(WORLD.without("hour").without("trend")), True, False),
        (lambda: recommender(WORLD.without("hour").without("trend"), blind_to_history=True), False, False),
    ],
)
def test_who_sees_an_effect_answers_to_it(
    examples: list[bytes], make: Callable[[], Recommend], sees_sequence: bool, sees_hour: bool
):
    responses = measure_responses(WORLD, examples, make())
    assert len(set(responses.users)) == len(responses.users) > 20
    for effect, sees in (("sequence", sees_sequence), ("hour", sees_hour)):
        values = responses.values[effect]
        assert len(values) == len(responses.users)
        if sees:
            assert np.nanmean(values) > 0.2
        else:
            np.testing.assert_array_equal(values[np.isfinite(values)], 0.0)
    assert np.isnan(responses.values["sequence"]).any(), "not every latest visit has a sequel"


def test_estimates_are_means_over_seeds_and_users_who_can_show_the_effect():
    study = StudyConfig.model_validate(
        {
            "name": "planted",
            "title": "Planted",
            "config": "synthetic",
            "seeds": (1, 2),
            "bootstrap": {"replicates": 500},
            "steps": [{"name": "ids", "title": "ids", "groups": ("ids",)}],
            "families": {
                "popularity": {"kind": "simple", "title": "Popularity", "seeds": (1,)},
                "gru": {"kind": "deep", "title": "GRU"},
            },
        }
    )
    config = load_config("synthetic")
    plan = plan_study(study, config, ColumnTable.from_schema(read_schema(config)))
    users = [f"u{number}" for number in range(60)]
    blind: dict[str, Sequence[Any]] = {"users": users, "sequence": [0.0] * 59 + [None], "hour": [0.0] * 60}
    responses = {
        "popularity.ids.1": blind,
        "gru.ids.1": {**blind, "sequence": [1.0] * 59 + [None]},
        "gru.ids.2": {**blind, "sequence": [0.5, 0.0] * 29 + [0.25, None]},
    }
    found = {(planted.effect, planted.model): planted for planted in describe_planted_effects(study, plan, responses)}
    sequence = found["sequence", "gru.ids"]
    assert (sequence.users, sequence.visible, sequence.found) == (59, True, True)
    assert sequence.response.value == pytest.approx((1 + 0.25) / 2)
    assert sequence.response.lower < sequence.response.value < sequence.response.upper
    for key in (("sequence", "popularity.ids"), ("hour", "popularity.ids"), ("hour", "gru.ids")):
        assert (found[key].visible, found[key].found, found[key].response.upper) == (False, False, 0.0)
    assert describe_planted_effects(study, plan, {}) == []
