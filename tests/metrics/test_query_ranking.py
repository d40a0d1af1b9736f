"""MAP and averages per user against plain Python, for one and two models."""

import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_model_analysis.api import types

from modules.metrics.bootstrap import degrees_of_freedom, effective_number, poisson_weights
from modules.metrics.model_outputs import metric_key
from modules.metrics.query_ranking import QueryRankingMetrics, average_precision, query_metric_names
from modules.metrics.user_sums import user_group
from tests.metrics.computations import compute, extracts

CUTOFFS = (1, 3, 10)
USERS = tuple("abcdef")
RANK = st.one_of(st.integers(1, 25).map(float), st.just(math.inf))


def _textbook_average_precision(ranks: list[float], k: int) -> float:
    hits = [rank for rank in ranks if rank <= k]
    return sum(sum(other <= rank for other in hits) / rank for rank in hits) / min(len(ranks), k)


def _mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


def _per_user(events: list[tuple[str, int, float]], name: str) -> dict[str, tuple[float, float]]:
    """Returns by user the sum and the count of what the metric is the mean of."""
    measure, k = name.split("@")[0], int(name.split("@")[1])
    queries: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for user, time, rank in events:
        queries[user][time].append(rank)
    result: dict[str, tuple[float, float]] = {}
    for user, by_time in queries.items():
        precisions = [_textbook_average_precision(ranks, k) for ranks in by_time.values()]
        ranks = [rank for of_query in by_time.values() for rank in of_query]
        hits = [rank if rank <= k else math.inf for rank in ranks]
        result[user] = {
            "map": (sum(precisions), len(precisions)),
            "user_map": (_mean(precisions), 1),
            "user_recall": (_mean(rank < math.inf for rank in hits), 1),
            "user_ndcg": (_mean(1 / math.log2(1 + rank) for rank in hits), 1),
            "user_mrr": (_mean(1 / rank for rank in hits), 1),
        }[measure]
    return result


@st.composite
def logs(draw) -> list[tuple[str, int, float, float]]:
    """Events of a few users; titles of a query have ranks of their own, by either model."""
    events = []
    for user in draw(st.lists(st.sampled_from(USERS), min_size=1, max_size=5, unique=True)):
        for time in draw(st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True)):
            size = draw(st.integers(1, 5))
            new, old = (draw(st.permutations(range(1, 15)))[:size] for _ in range(2))
            lost = draw(st.booleans())
            events += [
                (user, time, math.inf if lost and not n else float(a), float(b))
                for n, (a, b) in enumerate(zip(new, old, strict=True))
            ]
    return events


@settings(max_examples=40, deadline=None)
@given(logs(), st.integers(1, 4))
def test_two_models_and_intervals_equal_plain_python_however_the_events_are_bundled(events, bundles):
    examples = [
        extracts({"user_id": user, "timestamp": time}, {"new": {"rank": new}, "old": {"rank": old}})
        for user, time, new, old in events
    ]
    order = [index % bundles for index in range(len(events))]
    result = compute(QueryRankingMetrics(CUTOFFS), examples, order, ("new", "old"))
    users = sorted({event[0] for event in events})
    groups = np.array([user_group(extracts({"user_id": user}, {}), "user_id") for user in users])
    assert len(set(groups)) == len(users)
    weights = poisson_weights(groups)
    sizes = np.array([sum(event[0] == user for event in events) for user in users])
    for name in query_metric_names(CUTOFFS):
        tables = {}
        for model, column in (("new", 2), ("old", 3)):
            per_user = _per_user([(event[0], event[1], event[column]) for event in events], name)
            tables[model] = np.array([per_user[user] for user in users])
        total = {model: table[:, 0].sum() / table[:, 1].sum() for model, table in tables.items()}
        with np.errstate(invalid="ignore"):
            resampled = {m: (weights @ table[:, 0]) / (weights @ table[:, 1]) for m, table in tables.items()}
        new, old = metric_key(name, "new"), metric_key(name, "old")
        for key, estimate, replicates in (
            (new, total["new"], resampled["new"]),
            (old, total["old"], resampled["old"]),
            (new.make_diff_key(), total["new"] - total["old"], resampled["new"] - resampled["old"]),
        ):
            assert float(result[key]) == pytest.approx(estimate, abs=1e-9)
            effective = effective_number(sizes)
            assert isinstance(result[key], types.ValueWithTDistribution) == bool(degrees_of_freedom(sizes))
            if degrees_of_freedom(sizes):
                error = np.nanstd(replicates, ddof=1) * math.sqrt(effective / (effective - 1))
                assert result[key].sample_standard_deviation == pytest.approx(error, abs=1e-9)


@given(logs())
def test_one_model_without_intervals(events):
    examples = [extracts({"user_id": user, "timestamp": time}, {"": {"rank": rank}}) for user, time, rank, _ in events]
    result = compute(QueryRankingMetrics(CUTOFFS, with_intervals=False), examples, [0] * len(events))
    assert {key.name for key in result} == set(query_metric_names(CUTOFFS))
    for key, value in result.items():
        sums, counts = np.sum(list(_per_user([event[:3] for event in events], key.name).values()), axis=0)
        assert value == pytest.approx(sums / counts, abs=1e-9)


def test_average_precision_of_a_textbook_example():
    # Manning, Raghavan & Schütze's definition: relevant titles at the places 1, 3 and 6, and one never found.
    precision = average_precision(np.zeros(4, np.int64), np.array([6.0, 1.0, math.inf, 3.0]), np.array([1.0, 5.0, 10]))
    np.testing.assert_allclose(precision, [[1, (1 + 2 / 3) / 4, (1 + 2 / 3 + 3 / 6) / 4]])


@given(st.permutations([1, 1, 0, 0, 0]))
def test_tied_titles_share_a_mean_rank_and_precision_never_exceeds_1(kinds):
    # All five tied for the places 1 to 5, two of them relevant: r = 3, and 1.5 relevant ones up to there on average.
    ranks = np.full(sum(kinds), 3.0)
    np.testing.assert_allclose(average_precision(np.zeros(2, np.int64), ranks, np.array([2.0, 5.0])), [[0, 0.5]])
    np.testing.assert_allclose(average_precision(np.zeros(2, np.int64), np.array([1.5, 1.5]), np.array([2.0])), [[1]])


def test_repeats_and_impressions_do_not_count():
    user = {"user_id": "a", "timestamp": 5}
    counted = extracts(user, {"": {"rank": 2.0}})
    repeat = extracts(user, {"": {"rank": math.nan}})
    shown = extracts({**user, "impression": 1}, {"": {"rank": 1.0}})
    assert compute(QueryRankingMetrics(CUTOFFS), [repeat, shown], [0, 0]) == {}
    result = compute(QueryRankingMetrics(CUTOFFS), [counted, repeat, shown], [0, 0, 1])
    assert result[metric_key("map@3", "")] == 0.5 and result[metric_key("user_recall@3", "")] == 1.0
    assert result[metric_key("map@1", "")] == 0.0


def test_a_missing_time_is_named():
    with pytest.raises(ValueError, match="'timestamp' must hold a time"):
        compute(QueryRankingMetrics(), [extracts({"user_id": "a"}, {"": {"rank": 1.0}})], [0])
