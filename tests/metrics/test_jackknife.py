"""The jackknife against textbook results, and on dependent events."""

import numpy as np
from scipy import stats

from modules.metrics.jackknife import jackknife_standard_errors


def _leave_one_out_means(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return ((sums.sum() - sums) / (counts.sum() - counts))[:, np.newaxis]


def test_equals_the_standard_error_of_a_mean_of_independent_values():
    values = np.random.default_rng(1).normal(size=37)
    errors = jackknife_standard_errors(_leave_one_out_means(values, np.ones(37)))
    np.testing.assert_allclose(errors, [values.std(ddof=1) / np.sqrt(37)], rtol=1e-12)


def test_interval_holds_the_truth_when_events_of_a_user_depend_on_each_other():
    random = np.random.default_rng(2)
    held = held_by_naive = 0
    for _ in range(400):
        counts = random.integers(1, 40, size=50)
        tastes = random.normal(size=50)
        sums = np.array(
            [(taste + random.normal(size=count)).sum() for taste, count in zip(tastes, counts, strict=True)]
        )
        mean = sums.sum() / counts.sum()
        error = jackknife_standard_errors(_leave_one_out_means(sums, counts.astype(float)))[0]
        held += abs(mean) <= stats.t.ppf(0.975, 49) * error
        held_by_naive += abs(mean) <= 1.96 * np.sqrt(2.0 / counts.sum())
    assert 0.90 <= held / 400 <= 0.98
    assert held_by_naive / 400 < 0.70
