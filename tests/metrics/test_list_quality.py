"""Coverage, Gini and the means over lists against NumPy, for one and two models."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from tensorflow_model_analysis.api import types

from modules.metrics import concentration, list_quality
from modules.metrics.bootstrap import effective_number, poisson_weights
from modules.metrics.concentration import measure_concentration
from modules.metrics.list_quality import LIST_METRIC_NAMES, ListQualityMetrics
from modules.metrics.model_outputs import metric_key
from modules.metrics.user_sums import user_group
from tests.metrics.computations import compute, extracts

CATALOGUE = 14
USERS = tuple("abcdef")
MEANS = {
    "novelty@10": "list_novelty",
    "genre_diversity@10": "list_genre_diversity",
    "genre_calibration@10": "genre_divergence",
}
number = st.floats(0, 20, width=32)
outputs = st.fixed_dictionaries(
    {
        "list_rows": st.permutations(range(CATALOGUE)).flatmap(
            lambda rows: st.integers(1, 6).map(lambda size: np.array([*rows[:size], *[-1] * (6 - size)]))
        ),
        "catalogue_size": st.just(CATALOGUE),
        "list_novelty": number,
        "list_popularity": st.floats(0.125, 1, width=32),
        "history_popularity": st.one_of(st.just(math.nan), st.floats(0.125, 1, width=32)),
        "list_genre_diversity": st.one_of(st.just(math.nan), number),
        "genre_divergence": st.one_of(st.just(math.nan), number),
    }
)
lists = st.lists(st.tuples(st.sampled_from(USERS), outputs, outputs), min_size=1, max_size=14)


def _gini(counts: np.ndarray) -> float:
    """Half the mean absolute difference of two different titles, over the mean."""
    size = len(counts)
    differences = np.abs(counts[:, np.newaxis] - counts[np.newaxis]).sum() / (size * (size - 1))
    return float(differences / (2 * counts.mean()))


def _reference(name: str, weighted: list[tuple[str, dict, float]]) -> float:
    """The metric of lists that count so often; NaN where it is undefined."""
    present = [(user, output, weight) for user, output, weight in weighted if weight]
    if name in ("coverage@10", "gini@10"):
        counts = np.zeros(CATALOGUE)
        for _, output, weight in present:
            counts[[row for row in output["list_rows"] if row >= 0]] += weight
        return math.nan if not counts.any() else (counts > 0).mean() if name == "coverage@10" else _gini(counts)
    if name in MEANS:
        values = np.array([(output[MEANS[name]], weight) for _, output, weight in present]).reshape(-1, 2)
        values = values[~np.isnan(values[:, 0])]
        return float(np.average(values[:, 0], weights=values[:, 1])) if len(values) else math.nan
    listed = had = 0.0
    for user in USERS:
        own = [(o, w) for u, o, w in present if u == user and not math.isnan(o["history_popularity"])]
        if own:
            listed += own[0][1] * np.mean([output["list_popularity"] for output, _ in own])
            had += own[0][1] * np.mean([output["history_popularity"] for output, _ in own])
    return listed / had - 1 if had else math.nan


@settings(max_examples=25, deadline=None)
@given(lists, st.integers(1, 4), st.sampled_from([8, 1 << 20]))
def test_estimates_and_replicates_equal_numpy_however_the_lists_are_bundled(cases, bundles, compact_after):
    examples = [extracts({"user_id": user}, {"new": new, "old": old}) for user, new, old in cases]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(list_quality, "_COMPACT_AFTER", compact_after)  # Counts more often than so few lists need.
        result = compute(ListQualityMetrics(), examples, [n % bundles for n in range(len(cases))], ("new", "old"))
    groups = {user: user_group(extracts({"user_id": user}, {}), "user_id") for user in USERS}
    weights = poisson_weights(np.arange(1000))
    chosen = range(0, 1000, 40)
    for name in LIST_METRIC_NAMES:
        for column, model in ((1, "new"), (2, "old")):
            of_model = [(case[0], case[column], 1.0) for case in cases]
            expected, key = _reference(name, of_model), metric_key(name, model)
            assert (key in result) == (not math.isnan(expected))
            if key in result:
                assert float(result[key]) == pytest.approx(expected, rel=1e-6, abs=1e-6)
        new, old = metric_key(name, "new"), metric_key(name, "old")
        difference = result.get(new.make_diff_key())
        assert (difference is not None) == (new in result and old in result)
        if difference is not None:
            assert float(difference) == pytest.approx(float(result[new]) - float(result[old]))
    # Replicates: those that the standard error is made of, recomputed one by one from whole lists.
    counts = np.zeros((CATALOGUE, len(USERS)))
    for user, output, _ in cases:
        counts[[row for row in output["list_rows"] if row >= 0], USERS.index(user)] += 1
    by_user = weights[:, [groups[user] for user in USERS]]
    _, replicates = measure_concentration(sparse.csr_matrix(counts), CATALOGUE, by_user)
    for replicate in chosen:
        weighted = [(user, output, weights[replicate, groups[user]]) for user, output, _ in cases]
        of_lists = [_reference(name, weighted) for name in ("coverage@10", "gini@10")]
        np.testing.assert_allclose(replicates[replicate], of_lists, atol=1e-9)


def test_the_interval_is_the_spread_of_lists_counted_as_often_as_their_users_are_drawn():
    random = np.random.default_rng(4)
    cases = []
    for number in range(14):
        rows = random.permutation(CATALOGUE)[:6]
        numbers = dict(zip([*MEANS.values(), "list_popularity"], random.random(4), strict=True))
        history = math.nan if number % 5 == 0 else random.random()
        output = {"list_rows": rows, "catalogue_size": CATALOGUE, "history_popularity": history, **numbers}
        cases.append((USERS[number % len(USERS)], output))
    cases[3][1]["list_genre_diversity"] = math.nan
    result = compute(
        ListQualityMetrics(), [extracts({"user_id": user}, {"": output}) for user, output in cases], [0] * len(cases)
    )
    assert {key.name for key in result} == set(LIST_METRIC_NAMES)
    groups = {user: user_group(extracts({"user_id": user}, {}), "user_id") for user in USERS}
    weights = poisson_weights(np.arange(1000))
    for key, value in result.items():
        assert isinstance(value, types.ValueWithTDistribution)
        replicates = [_reference(key.name, [(u, o, weights[b, groups[u]]) for u, o in cases]) for b in range(1000)]
        needed = {**MEANS, "popularity_lift@10": "history_popularity"}.get(key.name, "list_novelty")
        sizes = np.array([sum(u == user and not math.isnan(o[needed]) for u, o in cases) for user in USERS])
        effective = effective_number(np.minimum(sizes, 1) if key.name == "popularity_lift@10" else sizes)
        expected = np.nanstd(replicates, ddof=1) * math.sqrt(effective / (effective - 1))
        assert value.sample_standard_deviation == pytest.approx(expected, rel=1e-6)
        assert value.sample_mean == value.unsampled_value


@pytest.mark.parametrize(
    ("counts", "size", "coverage", "gini"),
    [([3, 3, 3, 3], 4, 1.0, 0.0), ([7], 5, 0.2, 1.0), ([1, 3], 2, 1.0, 0.5), ([1, 2, 3], 6, 0.5, 11 / 15)],
)
def test_concentration_of_known_counts(counts, size, coverage, gini):
    column = sparse.csr_matrix(np.array(counts, np.float64)[:, np.newaxis])
    estimate, replicates = measure_concentration(column, size, np.array([[2.0], [0.0]]))
    np.testing.assert_allclose(estimate, [coverage, gini])
    np.testing.assert_allclose(replicates, [[coverage, gini], [math.nan, math.nan]])


def test_replicates_are_the_same_in_chunks(monkeypatch):
    counts = sparse.csr_matrix(np.random.default_rng(1).poisson(0.3, (40, 12)).astype(float))
    weights = poisson_weights(np.arange(12))
    whole = measure_concentration(counts, 60, weights)[1]
    monkeypatch.setattr(concentration, "_CHUNK", 1300)
    np.testing.assert_array_equal(measure_concentration(counts, 60, weights)[1], whole)


def test_what_no_model_says_is_no_metric_and_an_old_baseline_has_none():
    new = {
        "list_rows": np.array([0, 1]),
        "catalogue_size": 4,
        "list_novelty": 2.0,
        "list_popularity": 0.5,
        "history_popularity": 0.25,
    }
    example = extracts({"user_id": "a"}, {"new": new, "old": {"catalogue_size": 4, "rank": 1.0}})
    result = compute(ListQualityMetrics(with_intervals=False), [example], [0], ("new", "old"))
    assert {(key.name, key.model_name, key.is_diff): value for key, value in result.items()} == {
        ("coverage@10", "new", False): 0.5,
        ("gini@10", "new", False): pytest.approx(2 / 3),
        ("novelty@10", "new", False): 2.0,
        ("popularity_lift@10", "new", False): 1.0,
    }


def test_impressions_and_empty_lists_do_not_count():
    full = {"list_rows": np.array([3]), "catalogue_size": 4, "list_novelty": 2.0}
    empty = {"list_rows": np.array([-1]), "catalogue_size": 4, "list_novelty": math.nan}
    shown = extracts({"user_id": "a", "impression": 1}, {"": full})
    assert compute(ListQualityMetrics(), [shown, extracts({"user_id": "a"}, {"": empty})], [0, 1]) == {}
