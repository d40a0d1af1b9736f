"""The reward model of logged impressions, against simulated worlds and its own definition in loops."""

import numpy as np
import pytest

from modules.reward_model import fit_reward_model

THETA = np.array([1.0, 0.6, 0.4, 0.25])
TITLES = 30


def simulate(seed, rounds=40_000, theta=THETA, spread=0.15):
    """Impressions of a policy that shows some titles much more often, and mostly at the top."""
    generator = np.random.default_rng(seed)
    attractiveness = np.clip(generator.normal(0.5, spread, TITLES), 0.02, 0.98)
    chances = generator.dirichlet(np.full(TITLES, 2.0), size=len(theta))
    chances = 0.7 * chances + 0.3 / TITLES
    positions = generator.integers(1, len(theta) + 1, rounds)
    items = np.array([generator.choice(TITLES, p=chances[position - 1]) for position in positions])
    clicks = generator.random(rounds) < theta[positions - 1] * attractiveness[items]
    return items + 1, positions, clicks.astype(float), chances[positions - 1, items], attractiveness


def fit(items, positions, rewards, propensities, num_positions=4):
    return fit_reward_model(items, positions, rewards, propensities, TITLES + 3, num_positions)


def test_finds_examination_and_titles_of_a_world_that_shows_some_titles_more():
    *log, attractiveness = simulate(1)
    model = fit(*log)
    np.testing.assert_allclose(model.examination, THETA, atol=0.04)
    errors = model.attractiveness[1 : TITLES + 1] - attractiveness
    assert np.sqrt(np.mean(errors**2)) < 0.04
    assert model.attractiveness.shape == (TITLES + 3,)
    # Ids without a title, and titles that were never shown, have the mean of all.
    np.testing.assert_array_equal(model.attractiveness[[0, -1, -2]], model.attractiveness[0])


def test_equals_its_definition():
    items, positions, rewards, propensities, _ = simulate(2, rounds=800)
    model = fit(items, positions, rewards, propensities)
    rates = []
    for k in range(1, 5):
        at = [(r / p, 1 / p) for q, r, p in zip(positions, rewards, propensities, strict=True) if q == k]
        rates.append(sum(earned for earned, _ in at) / sum(shown for _, shown in at))
    theta = [rate / rates[0] for rate in rates]
    assert model.examination.tolist() == pytest.approx(theta, abs=1e-9)
    shown = {a: [(r, theta[k - 1]) for b, k, r in zip(items, positions, rewards, strict=True) if a == b] for a in items}
    exposure = {a: sum(t for _, t in rows) for a, rows in shown.items()}
    own = {a: sum(r for r, _ in rows) / exposure[a] for a, rows in shown.items()}
    total = sum(exposure.values())
    mean = sum(rewards) / total
    residuals = sum((r - t * own[a]) ** 2 for a, rows in shown.items() for r, t in rows)
    variance = residuals / total * len(items) / (len(items) - len(own))
    scatter = sum(exposure[a] * (own[a] - mean) ** 2 for a in own)
    between = (scatter - variance * (len(own) - 1)) / (total - sum(e * e for e in exposure.values()) / total)
    assert between > 0
    for a in own:
        expected = (own[a] * exposure[a] + variance / between * mean) / (exposure[a] + variance / between)
        assert model.attractiveness[a] == pytest.approx(expected, abs=1e-9)


def test_shrinks_the_more_the_less_is_known():
    items, positions, rewards, propensities, attractiveness = simulate(3, rounds=1500)
    model = fit(items, positions, rewards, propensities)
    estimates = model.attractiveness[1 : TITLES + 1]
    raw = [rewards[items == a].sum() / THETA[positions[items == a] - 1].sum() for a in range(1, TITLES + 1)]
    assert np.mean((estimates - attractiveness) ** 2) < np.mean((np.array(raw) - attractiveness) ** 2)
    alike = simulate(4, rounds=1500, spread=0.0)[:4]
    equal = fit(*alike).attractiveness[1 : TITLES + 1]
    assert np.ptp(equal) < 0.1


def test_odd_logs():
    ones = np.ones(3, np.int64)
    nothing = fit(ones, ones, np.zeros(3), np.ones(3))
    assert nothing.examination.tolist() == [1, 1, 1, 1] and not nothing.attractiveness.any()
    # A position that was never shown has the examination of the last one before it.
    positions = np.array([1, 1, 3, 3])
    gap = fit(np.ones(4, np.int64), positions, np.array([1.0, 1.0, 1.0, 0.0]), np.full(4, 0.5))
    assert gap.examination.tolist() == [1.0, 1.0, 0.5, 0.5]
    # Rewards may be below 0, examinations may not; positions behind the last that matters still teach about titles.
    negative = fit(np.ones(4, np.int64), positions, np.array([1.0, 1.0, -1.0, -1.0]), np.full(4, 0.5), 2)
    assert negative.examination.tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match="needs impressions"):
        fit(ones[:0], ones[:0], np.zeros(0), np.ones(0))
