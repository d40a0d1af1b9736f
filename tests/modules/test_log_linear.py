"""The conditional logit fit: against a general optimiser, and what it must not mind."""

import numpy as np
import pytest
from scipy.optimize import minimize

from modules.models.log_linear import fit_log_linear

TRUE_WEIGHTS = np.array([1.0, -0.5, 0.3])
FIRST = np.zeros(2000, np.int64)


@pytest.fixture(scope="module")
def choices():
    """Choices drawn from the model, the chosen candidate first."""
    generator = np.random.default_rng(3)
    features = generator.normal(size=(2000, 12, 3))
    chosen = (features @ TRUE_WEIGHTS + generator.gumbel(size=(2000, 12))).argmax(axis=1)
    return np.stack(
        [
            np.concatenate([rows[[place]], np.delete(rows, place, axis=0)])
            for rows, place in zip(features, chosen, strict=True)
        ]
    )


def test_is_the_maximum_of_the_likelihood(choices):
    start = np.array([0.2, 0.2, 0.2])

    def loss(weights):
        logits = choices @ weights
        return -(logits[:, 0] - np.log(np.exp(logits).sum(axis=1))).mean() + 0.05 * np.square(weights - start).sum()

    expected = minimize(loss, start, method="BFGS", options={"gtol": 1e-8}).x
    np.testing.assert_allclose(fit_log_linear(choices, FIRST, start, 0.1), expected, atol=1e-4)
    np.testing.assert_allclose(fit_log_linear(choices, FIRST, np.zeros(3), 1e-6), TRUE_WEIGHTS, atol=0.12)


def test_candidates_that_are_absent_do_not_count(choices):
    padded = np.concatenate([choices, np.full((2000, 4, 3), np.nan)], axis=1)
    np.testing.assert_allclose(
        fit_log_linear(padded, FIRST, np.zeros(3), 0.01), fit_log_linear(choices, FIRST, np.zeros(3), 0.01), atol=1e-5
    )


def test_a_feature_that_says_nothing_keeps_its_weight(choices):
    constant = np.concatenate([choices, np.ones((2000, 12, 1))], axis=2)
    weights = fit_log_linear(constant, FIRST, np.array([0.0, 0.0, 0.0, 0.7]), 0.01)
    assert weights[3] == pytest.approx(0.7, abs=1e-6)


def test_perfect_separation_stays_finite():
    features = np.zeros((50, 5, 1))
    features[:, 0] = 1000.0
    assert np.isfinite(fit_log_linear(features, FIRST[:50], np.zeros(1), 1e-3)).all()


def test_what_is_chosen_may_stand_anywhere_and_a_part_of_the_logits_be_given(choices):
    events, places = np.arange(2000), np.arange(2000) % 12
    moved = choices.copy()
    moved[events, places], moved[:, 0] = choices[:, 0], choices[events, places]
    expected = fit_log_linear(choices, FIRST, np.zeros(3), 0.0)
    np.testing.assert_allclose(fit_log_linear(moved, places, np.zeros(3), 0.0), expected, atol=1e-4)
    given = choices[..., 2] * expected[2]
    rest = fit_log_linear(choices[..., :2], FIRST, np.zeros(2), 0.0, given)
    np.testing.assert_allclose(rest, expected[:2], atol=1e-4)
