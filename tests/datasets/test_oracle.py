"""The best reachable ranking: against the generating process itself, and against everything that knows less."""

from __future__ import annotations

import functools

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from pipeline.datasets.oracle import measure_ranking, measure_resumes, popularity_scorer
from pipeline.datasets.synthetic import EFFECTS, NEVER, START, SyntheticWorld


@functools.cache
def default_world() -> SyntheticWorld:
    return SyntheticWorld()


def naive_ranks(world: SyntheticWorld, first_event: int) -> list[int]:
    """Ranks by plain Python, event by event, from the probabilities of single events."""
    events = world.events
    log = [
        (world.user_ids[user], world.item_ids[item], int(time))
        for user, item, time in zip(events.users, events.items, events.timestamps, strict=True)
    ]
    ranks = []
    for user_id, item_id, time in log[first_event:]:
        history = [(other_item, other_time) for other_user, other_item, other_time in log if other_user == user_id]
        scores = world.event_log_probabilities(user_id, time, history)
        ranks.append(1 + sum(score > scores[item_id] for score in scores.values()))
    return ranks


@given(seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_metrics_agree_with_a_naive_count(seed: int) -> None:
    world = SyntheticWorld(users=6, items=25, interactions=80, seed=seed, days=5)
    quality = measure_ranking(world, world.log_probabilities, first_event=40)
    ranks = naive_ranks(world, 40)
    assert quality.recall == pytest.approx(sum(rank <= 10 for rank in ranks) / 40)
    assert quality.ndcg == pytest.approx(sum(1 / np.log2(1 + rank) for rank in ranks if rank <= 10) / 40)


@given(seed=st.integers(0, 1000), share=st.floats(0.2, 0.8))
@settings(max_examples=10, deadline=None)
def test_new_and_resumed_titles_are_ranked_apart(seed: int, share: float) -> None:
    world = SyntheticWorld(users=5, items=25, interactions=80, seed=seed, days=5, resume_share=share)
    events = world.events
    new, resumed = [], []
    for user, item, time in list(zip(events.users, events.items, events.timestamps, strict=True))[40:]:
        earlier = events.take(np.flatnonzero((events.users == user) & (events.timestamps < time)))
        if item in earlier.items:
            elapsed = {seen: time - earlier.timestamps[earlier.items == seen].max() for seen in earlier.items}
            better = sum(hours < elapsed[item] for hours in elapsed.values())
            resumed.append(1 + better + (sum(hours == elapsed[item] for hours in elapsed.values()) - 1) / 2)
            continue
        history = [
            (world.item_ids[seen], int(when)) for seen, when in zip(earlier.items, earlier.timestamps, strict=True)
        ]
        scores = world.event_log_probabilities(world.user_ids[user], int(time), history)
        new.append(1 + sum(score > scores[world.item_ids[item]] for score in scores.values()))
    for ranks, quality in (
        (new, measure_ranking(world, world.log_probabilities, 40)),
        (resumed, measure_resumes(world, world.resume_log_probabilities, 40)),
    ):
        expected = [sum(1 / np.log2(1 + rank) for rank in ranks if rank <= 10), sum(rank <= 10 for rank in ranks)]
        if ranks:
            np.testing.assert_allclose([quality.ndcg, quality.recall], np.array(expected) / len(ranks))
        else:
            assert np.isnan([quality.ndcg, quality.recall]).all()


def test_resumes_follow_the_probabilities() -> None:
    """Over all single resumes, expected and observed counts by the place in order of time agree."""
    world = SyntheticWorld(users=600, items=60, interactions=9_000, seed=3, days=20, resume_share=0.4)
    expected, variance, observed = np.zeros((3, world.items))
    for user in range(world.users):
        own = world.events.take(np.flatnonzero(world.events.users == user))
        last_taken = np.full(world.items, NEVER)
        for time in np.unique(own.timestamps):
            now = own.items[own.timestamps == time]
            again = now[last_taken[now] != NEVER]
            if len(again) == 1:
                probabilities = np.exp(world.resume_log_probabilities(np.array([time]), last_taken[np.newaxis])[0])
                assert probabilities.sum() == pytest.approx(1) and (probabilities[last_taken == NEVER] == 0).all()
                places = np.argsort(np.argsort(-last_taken, kind="stable"))
                expected[places] += probabilities
                variance[places] += probabilities * (1 - probabilities)
                observed[places[again[0]]] += 1
            last_taken[now] = time
    assert observed.sum() > 1_500 and observed[0] > 2 * observed[2]
    assert (np.abs(observed - expected) <= 4 * np.sqrt(variance) + 1).all()


def test_ties_share_their_mean_rank() -> None:
    world = SyntheticWorld(users=1, items=5, interactions=1, seed=0)
    indifferent = lambda user, timestamps, seen, latest: np.zeros((1, 5))  # noqa: E731
    assert measure_ranking(world, indifferent, 0).ndcg == pytest.approx(1 / np.log2(1 + 3))


def test_probabilities_sum_to_one_over_what_is_not_seen() -> None:
    world = default_world()
    history = [("i0001", START + 100), ("i0002", START + 200), ("i0003", START + 300)]
    values = world.event_log_probabilities("u0001", START + 300, history)
    assert set(values) == set(world.item_ids) - {"i0001", "i0002"}
    assert np.exp(list(values.values())).sum() == pytest.approx(1)


def test_a_sequel_is_boosted_after_the_visit_before_only() -> None:
    world = default_world()
    item = int(np.flatnonzero(world.catalogue.successors >= 0)[0])
    item_id, sequel_id = world.item_ids[item], world.item_ids[world.catalogue.successors[item]]
    other_id = next(other for other in world.item_ids if other not in (item_id, sequel_id))
    now = START + 50_000

    def sequel_after(history: list[tuple[str, int]]) -> float:
        return world.event_log_probabilities("u0001", now, history)[sequel_id]

    boosted = sequel_after([(item_id, now - 60)])
    assert boosted > 2 + sequel_after([])
    assert sequel_after([(item_id, now - 60), (other_id, now - 60)]) == pytest.approx(boosted, abs=0.1)
    assert sequel_after([(item_id, now - 90), (other_id, now - 60)]) < boosted - 2
    assert sequel_after([(item_id, now), (other_id, now - 60)]) < boosted - 2


def test_first_choices_follow_the_probabilities() -> None:
    """Many people of one world at their first instant: expected and observed counts of the likeliest titles agree."""
    world = SyntheticWorld(users=4000, items=10, interactions=4000, seed=1)
    events = world.events
    nothing = np.zeros((1, world.items), dtype=bool)
    expected, observed, variance = np.zeros((3, world.items))
    for user, item, time in zip(events.users, events.items, events.timestamps, strict=True):
        probabilities = np.exp(world.log_probabilities(user, np.array([time]), nothing, nothing)[0])
        expected += probabilities
        variance += probabilities * (1 - probabilities)
        observed[item] += 1
    assert (np.abs(observed - expected) < 4 * np.sqrt(variance)).all()


def test_the_oracle_beats_popularity_and_every_oracle_that_is_blind_to_one_effect() -> None:
    world = default_world()
    first_event = int(0.9 * world.interactions)
    best = measure_ranking(world, world.log_probabilities, first_event)
    simple = measure_ranking(world, popularity_scorer(world.events.first(first_event), world.items), first_event)
    assert best.ndcg > 2 * simple.ndcg
    assert best.recall > simple.recall + 0.1
    for effect in EFFECTS:
        blind = measure_ranking(world, world.without(effect).log_probabilities, first_event)
        assert best.ndcg > blind.ndcg + 0.03, effect
        assert best.recall > blind.recall + 0.03, effect


def test_without_effects_popularity_is_nearly_the_best() -> None:
    world = SyntheticWorld(effects=frozenset())
    first_event = int(0.9 * world.interactions)
    best = measure_ranking(world, world.log_probabilities, first_event)
    simple = measure_ranking(world, popularity_scorer(world.events.first(first_event), world.items), first_event)
    assert simple.ndcg > 0.9 * best.ndcg


def test_an_empty_range_of_events_is_refused() -> None:
    world = SyntheticWorld(users=1, items=5, interactions=3)
    with pytest.raises(ValueError, match=r"\[0, 3\); received 3"):
        measure_ranking(world, world.log_probabilities, first_event=3)
