"""Rank correlations against SciPy's, and their resampling."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pipeline.simulation.rank_correlation import Resamples, by_world, kendall, spearman

VALUES = st.lists(st.integers(-3, 3), min_size=8, max_size=8)


@settings(max_examples=200, deadline=None)
@given(first=VALUES, second=VALUES)
def test_scipy_agrees_with_ties(first: list[int], second: list[int]):
    x, y = np.array([first, second], float)[:, np.newaxis]
    if len(set(first)) < 2 or len(set(second)) < 2:
        assert np.isnan([spearman(x, y)[0], kendall(x, y)[0]]).all()
        return
    assert spearman(x, y)[0] == pytest.approx(stats.spearmanr(first, second).statistic, abs=1e-12)
    assert kendall(x, y)[0] == pytest.approx(stats.kendalltau(first, second).statistic, abs=1e-12)


@settings(max_examples=100, deadline=None)
@given(first=VALUES, second=VALUES, refused=st.sets(st.integers(0, 7), max_size=4))
def test_refused_models_take_no_part(first: list[int], second: list[int], refused: set[int]):
    x, y = np.array([first, second], float)[:, np.newaxis]
    kept = [column for column in range(8) if column not in refused]
    x[0, sorted(refused)] = np.nan
    for correlation in (spearman, kendall):
        alone = correlation(x[:, kept], y[:, kept])
        np.testing.assert_allclose(correlation(x, y), alone, atol=1e-12)


def test_too_few_models_say_nothing():
    x = np.array([[1.0, 2.0, 3.0, np.nan, np.nan], [1.0, 2.0, 3.0, 4.0, np.nan]])
    y = np.tile(np.arange(5.0), (2, 1))
    np.testing.assert_array_equal(by_world(spearman, x, y), [np.nan, 1.0])


def test_intervals_cover_the_truth():
    """Of 200 samples of models whose figures correlate by .6, nearly all intervals hold the correlation of ranks."""
    generator = np.random.default_rng(0)
    truth = 6 / np.pi * np.arcsin(0.6 / 2)  # Spearman's correlation of a normal pair.
    covered = 0
    for seed in range(200):
        online = generator.normal(size=(3, 20))
        said = 0.6 * online + 0.8 * generator.normal(size=(3, 20))
        resampled = Resamples.draw(20, 3, 400, seed).correlations(spearman, said, online)
        low, high = np.nanquantile(resampled, [0.025, 0.975])
        covered += low <= truth <= high
    assert covered >= 180


def test_resamples_are_the_same_models_in_all_worlds():
    resamples = Resamples.draw(6, 4, 50, 1)
    assert (resamples.worlds.sum(axis=1) == 4).all()
    x = np.tile(np.arange(6.0), (4, 1))
    found = resamples.correlations(spearman, x, x)
    degenerate = np.array([len(set(row)) < 2 for row in resamples.models.tolist()])
    np.testing.assert_allclose(found[~degenerate], 1.0)
    np.testing.assert_array_equal(resamples.models, Resamples.draw(6, 4, 50, 1).models)
