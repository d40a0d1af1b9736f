"""The paired bootstrap, Holm's correction and Kendall's tau against slow, independent versions and known truths."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pipeline.study import statistics
from pipeline.study.statistics import (
    Scores,
    bootstrap_means,
    holm,
    kendall_tau,
    percentile_interval,
    two_sided_p,
)


def make_scores(users: int, models: int = 3, seed: int = 0) -> Scores:
    generator = np.random.default_rng(seed)
    counts = np.repeat(generator.integers(0, 9, (1, users)).astype(float), models, axis=0)
    return Scores(tuple(f"m{index}" for index in range(models)), counts * generator.random((models, users)), counts)


def test_resamples_are_means_over_users_drawn_with_replacement():
    scores = make_scores(users=11)
    (fast,) = bootstrap_means([scores], replicates=40, seed=5)
    drawn = np.random.default_rng(5).multinomial(11, np.full(11, 1 / 11), size=40)
    for row, multiplicities in zip(fast, drawn, strict=True):
        users = [user for user, times in enumerate(multiplicities) for _ in range(times)]
        assert len(users) == 11
        for model, value in enumerate(row):
            total = sum(scores.sums[model][user] for user in users)
            assert value == pytest.approx(total / sum(scores.counts[model][user] for user in users))


def test_standard_error_is_that_of_the_cluster_formula():
    scores = make_scores(users=2_000)
    (resamples,) = bootstrap_means([scores], replicates=3_000, seed=1)
    residuals = scores.sums - scores.means[:, None] * scores.counts
    expected = np.sqrt((residuals**2).sum(axis=1)) / scores.counts.sum(axis=1)
    np.testing.assert_allclose(resamples.std(axis=0), expected, rtol=0.06)


def test_all_scores_share_their_resamples(monkeypatch: pytest.MonkeyPatch):
    scores = make_scores(users=50)
    first, second = bootstrap_means([scores, scores], replicates=30, seed=2)
    np.testing.assert_array_equal(first, second)
    # However many resamples are held in memory at once; how a matrix product rounds may depend on its shape.
    monkeypatch.setattr(statistics, "_CHUNK_CELLS", 50 * 7)
    np.testing.assert_allclose(bootstrap_means([scores], replicates=30, seed=2)[0], first, rtol=1e-12)
    with pytest.raises(ValueError, match=r"same users; received \[50, 51\]"):
        bootstrap_means([scores, make_scores(users=51)], replicates=3, seed=2)


def test_scores_refuse_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"\[2 models, users\]; received \(2, 3\) and \(2, 4\)"):
        Scores(("a", "b"), np.ones((2, 3)), np.ones((2, 4)))


def test_seeds_are_averaged_user_by_user():
    scores = make_scores(users=7)
    averaged = scores.averaged({"both": ["m0", "m2"], "one": ["m1"]})
    np.testing.assert_allclose(averaged.sums[0], (scores.sums[0] + scores.sums[2]) / 2)
    assert averaged.means[0] == pytest.approx((scores.means[0] + scores.means[2]) / 2)
    assert averaged.means[1] == pytest.approx(scores.means[1])


def test_intervals_cover_and_tests_err_as_often_as_they_say():
    """300 data sets of dependent events, on which two models are equally good and a third is not."""
    generator = np.random.default_rng(3)
    truth, runs = 0.3, 300
    covered = rejected = found = 0
    for run in range(runs):
        counts = generator.integers(1, 20, 120).astype(float)
        taste = generator.normal(truth, 0.2, 120)  # Shared by a user's events and by all models.
        means = np.stack([taste + generator.normal(shift, 0.08, 120) for shift in (0.0, 0.0, 0.04)])
        scores = Scores(("a", "b", "better"), means * counts, np.repeat(counts[None], 3, axis=0))
        (resamples,) = bootstrap_means([scores], replicates=400, seed=run)
        lower, upper = percentile_interval(resamples[:, 0], 0.05)
        covered += lower <= truth <= upper
        differences = resamples - resamples[:, :1]
        estimates = scores.means - scores.means[0]
        rejected += two_sided_p(estimates[1], differences[:, 1]) < 0.05
        found += two_sided_p(estimates[2], differences[:, 2]) < 0.05
    assert 0.91 <= covered / runs <= 0.98
    assert 0.02 <= rejected / runs <= 0.09
    # Unpaired, a difference of a fifth of the users' spread would mostly go unnoticed.
    assert found / runs > 0.85


def test_p_values_of_no_spread():
    assert two_sided_p(0.0, np.zeros(10)) == 1.0
    assert two_sided_p(0.1, np.full(10, 0.1)) == 0.0


def test_holm_by_hand():
    # Sorted: .01 x 4, .02 x 3, .03 x 2, .04 x 1, none below the one before.
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_kendall_is_scipys():
    generator = np.random.default_rng(4)
    first, second = generator.random((2, 20, 8))
    expected = [stats.kendalltau(a, b).statistic for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(kendall_tau(first, second), expected)
    assert kendall_tau(first, first)[0] == 1.0
    assert kendall_tau(first, -first)[0] == -1.0
