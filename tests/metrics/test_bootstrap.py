"""The bootstrap's weights, its arithmetic, and whether its intervals cover the truth on dependent events."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from tensorflow_model_analysis.proto import config_pb2

from modules.metrics.bootstrap import (
    REPLICATES,
    USER_GROUPS,
    degrees_of_freedom,
    effective_number,
    poisson_weights,
    standard_errors,
)
from modules.metrics.model_outputs import RANK
from modules.metrics.ranking import RankingMetrics

DATA_SETS = 200
NDCG = "ndcg@10"


def test_weights_are_poisson_and_belong_to_their_group():
    weights = poisson_weights(np.arange(USER_GROUPS))
    assert weights.shape == (REPLICATES, USER_GROUPS)
    assert weights.mean() == pytest.approx(1.0, abs=0.005) and weights.var() == pytest.approx(1.0, abs=0.01)
    observed = np.bincount(weights.astype(int).ravel(), minlength=5)[:5] / weights.size
    np.testing.assert_allclose(observed, stats.poisson.pmf(np.arange(5), 1.0), atol=0.002)
    np.testing.assert_array_equal(poisson_weights(np.array([7, 3])), weights[:, [7, 3]])
    assert abs(np.corrcoef(weights[:, 0], weights[:, 1])[0, 1]) < 0.1


def test_the_spread_of_a_mean_is_the_textbook_one():
    values = np.random.default_rng(0).normal(5.0, 2.0, 400)
    weights = poisson_weights(np.arange(400))
    error = standard_errors((weights @ values / weights.sum(axis=1))[:, np.newaxis], 400.0)[0]
    assert error == pytest.approx(values.std(ddof=1) / math.sqrt(400), rel=0.06)


def test_undefined_replicates_are_left_out():
    replicates = np.array([[1.0, np.nan], [3.0, np.nan], [np.nan, 2.0]])
    errors = standard_errors(replicates, 2.0)
    assert errors[0] == pytest.approx(np.std([1.0, 3.0], ddof=1) * math.sqrt(2)) and math.isnan(errors[1])


@pytest.mark.parametrize(
    ("sizes", "expected"), [([5.0] * 8, 8.0), ([1.0, 0.0], 1.0), ([3.0, 1.0], 1.6), ([0.0], math.nan)]
)
def test_effective_number_of_groups(sizes, expected):
    assert effective_number(np.array(sizes)) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [([5.0] * 8, 7), ([3.0, 3.0, 0.0], 0), ([9.0, 1.0, 1.0], 0), ([2.0, 1.0, 1.0, 1.0], 2), ([4.0] + [1.0] * 8, 2)],
)
def test_degrees_of_freedom(sizes, expected):
    assert degrees_of_freedom(np.array(sizes)) == expected


def _world(random: np.random.Generator, num_users: int) -> tuple[np.ndarray, np.ndarray]:
    """Users of very different activity and taste, as in MovieLens-100K: events by user, ranks under two models."""
    counts = np.maximum(1, np.exp(random.normal(3.3, 1.0, num_users))).astype(int)
    user = np.repeat(np.arange(num_users), counts)
    ease = random.beta(2.0, 15.0, num_users)
    change = np.exp(random.normal(0.0, 0.3, num_users))

    def ranks(probability: np.ndarray) -> np.ndarray:
        hit = random.random(len(user)) < probability[user]
        return np.where(hit, random.integers(1, 11, len(user)), 50.0)

    old = ranks(ease)
    new = np.where(random.random(len(user)) < 0.6, old, ranks(np.clip(ease * change, 0.0, 1.0)))
    return user, np.stack([new, old])


def _ndcg(ranks: np.ndarray) -> np.ndarray:
    return (ranks <= 10) / np.log2(1 + ranks)


@pytest.mark.slow
def test_intervals_of_a_metric_and_of_a_paired_difference_cover_the_truth_and_per_event_intervals_do_not():
    """200 data sets of one population, through the combiner that TFMA calls; the truth from four million users."""
    totals = np.zeros(3)
    for seed in range(200):
        user, ranks = _world(np.random.default_rng([1, seed]), 20_000)
        totals += [*_ndcg(ranks).sum(axis=1), len(user)]
    truth = {"value": totals[0] / totals[2], "change": (totals[0] - totals[1]) / totals[2]}

    covered = dict.fromkeys(("value", "change", "value by event", "change by event"), 0)
    for seed in range(DATA_SETS):
        user, ranks = _world(np.random.default_rng([2, seed]), 166)
        (computation,) = RankingMetrics([10], group_by="user_id").computations(
            model_names=["new", "old"], eval_config=_eval_config()
        )
        combiner, accumulator = computation.combiner, computation.combiner.create_accumulator()
        for owner, (new, old) in zip(user, ranks.T, strict=True):
            extracts = {
                "features": {"user_id": np.array([str(owner)])},
                "predictions": {"new": {RANK: np.array([new])}, "old": {RANK: np.array([old])}},
            }
            for element in computation.preprocessors[0].process(extracts):
                accumulator = combiner.add_input(accumulator, element)
        for key, value in combiner.extract_output(accumulator).items():
            if key.name == NDCG and key.model_name == "new":
                kind = "change" if key.is_diff else "value"
                half = stats.t.ppf(0.975, value.sample_degrees_of_freedom) * value.sample_standard_deviation
                covered[kind] += abs(value.unsampled_value - truth[kind]) <= half
        gains = _ndcg(ranks)
        for kind, events in (("value", gains[0]), ("change", gains[0] - gains[1])):
            half = 1.96 * events.std(ddof=1) / math.sqrt(len(events))
            covered[f"{kind} by event"] += abs(events.mean() - truth[kind]) <= half
    shares = {name: count / DATA_SETS for name, count in covered.items()}
    print(f"95 % intervals cover the truth in {shares}")
    assert 0.92 <= shares["value"] <= 0.98 and 0.92 <= shares["change"] <= 0.98, shares
    assert shares["value by event"] < 0.8 and shares["change by event"] < 0.92, shares


def _eval_config() -> config_pb2.EvalConfig:
    return config_pb2.EvalConfig(
        model_specs=[config_pb2.ModelSpec(name="new"), config_pb2.ModelSpec(name="old", is_baseline=True)]
    )
