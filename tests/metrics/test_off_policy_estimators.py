"""The estimators: against slow loops over a random log, and against the truth of simulated worlds."""

import numpy as np
import pytest

from modules.metrics.off_policy_estimators import (
    ESTIMATORS,
    TERMS,
    Impression,
    PolicyList,
    estimate_policy,
    impression_terms,
)

CLIP = 3.0


def random_log(seed, lists=40, titles=6, slots=4):
    """Lists of titles with random rewards and propensities, and another list for each that a policy would show."""
    generator = np.random.default_rng(seed)
    log = []
    for _ in range(lists):
        shown = generator.permutation(titles)[:slots]
        other = np.where(generator.random(slots) < 0.5, shown, generator.integers(titles, titles + 3, slots))
        estimates = generator.normal(size=slots)
        for position, title in enumerate(shown, 1):
            if position > 1 and generator.random() < 0.2:
                continue  # A list that was shown only in part.
            reward = float(generator.random() < 0.5) * generator.normal()
            propensities = generator.uniform(0.05, 1, slots)
            log.append((title, position, reward, propensities, other, estimates, generator.normal()))
    return log, np.array([1.0, 0.7, 0.5, 0.2])


def slow_estimates(log, theta, positions):
    """All estimators from their definitions, in loops."""
    at = [[row for row in log if row[1] == k] for k in range(1, positions + 1)]
    values = dict.fromkeys(ESTIMATORS, 0.0)
    mean_weight = pbm_mean = 0.0
    weights, pbm_weights = [], []
    for k, rows in enumerate(at, 1):
        for title, _, reward, p, other, estimates, logged in rows:
            weight = (1 / p[k - 1]) if other[k - 1] == title else 0.0
            weights.append(weight)
            mean_weight += weight / len(rows) / positions
            values["ips"] += weight * reward / len(rows)
            values["clipped_ips"] += (weight if weight < CLIP else CLIP) * reward / len(rows)
            values["dm"] += theta[k - 1] * estimates[k - 1] / len(rows)
            expected = theta[k - 1] * logged
            values["dr"] += (theta[k - 1] * estimates[k - 1] + weight * (reward - expected)) / len(rows)
            values["iips"] += weight * reward / len(at[0])
            listed = list(other[:positions])
            exposure = sum(theta[j] * p[j] for j in range(positions))
            ratio = theta[listed.index(title)] / exposure if title in listed else 0.0
            values["pbm"] += ratio * reward / len(at[0])
            pbm_weights.append(theta[k - 1] * ratio / sum(theta[:positions]))
            pbm_mean += pbm_weights[-1] / len(at[0])
    values["snips"] = values["ips"] / mean_weight
    kish = [sum(w) ** 2 / sum(x * x for x in w) for w in (weights, pbm_weights)]
    return values, mean_weight, kish[0], pbm_mean, kish[1]


def to_impression(row, separated=True):
    title, position, reward, propensities, other, estimates, logged = row
    kept = propensities if separated else propensities[position - 1 : position]
    shown = Impression(b"t%d" % title, position, reward, kept, separated)
    listed = np.array([b"t%d" % other_title for other_title in other], object)
    return shown, listed, estimates, logged


def sum_terms(log, theta, positions, separated=True):
    sums = np.zeros((positions, len(TERMS)))
    for row in log:
        shown, listed, estimates, logged = to_impression(row, separated)
        if shown.position <= positions:
            policy = PolicyList(listed, theta, estimates, logged)
            sums[shown.position - 1] += impression_terms(shown, policy, positions, CLIP)
    return sums


@pytest.mark.parametrize("positions", [1, 3, 4])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_estimates_equal_slow_loops(seed, positions):
    log, theta = random_log(seed)
    expected, mean_weight, effective, pbm_mean, pbm_effective = slow_estimates(log, theta, positions)
    received = estimate_policy(sum_terms(log, theta, positions))
    assert dict(zip(ESTIMATORS, received.values.tolist(), strict=True)) == pytest.approx(expected, abs=1e-9)
    assert received.mean_weight == pytest.approx(mean_weight, abs=1e-9)
    assert received.effective_sample_size == pytest.approx(effective, abs=1e-9)
    assert received.pbm_mean_weight == pytest.approx(pbm_mean, abs=1e-9)
    assert received.pbm_effective_sample_size == pytest.approx(pbm_effective, abs=1e-9)


def test_one_propensity_is_enough_for_all_but_pbm():
    log, theta = random_log(4)
    all_of_them = estimate_policy(sum_terms(log, theta, 4)).values
    one = estimate_policy(sum_terms(log, theta, 4, separated=False)).values
    np.testing.assert_array_equal(one[:-1], all_of_them[:-1])
    assert np.isnan(one[-1]) and np.isfinite(all_of_them[-1])


def test_a_policy_without_reward_model_has_the_estimates_that_need_none():
    log, theta = random_log(5)
    values = dict(zip(ESTIMATORS, estimate_policy(sum_terms(log, np.full(4, np.nan), 4)).values, strict=True))
    assert all(np.isnan(values[name]) for name in ("dm", "dr", "pbm"))
    expected = slow_estimates(log, theta, 4)[0]
    for name in ("ips", "clipped_ips", "snips", "iips"):
        assert values[name] == pytest.approx(expected[name], abs=1e-9)


def test_snips_moves_with_the_rewards_and_ips_does_not():
    log, theta = random_log(6, lists=400)
    moved = [(*row[:2], row[2] + 10.0, *row[3:]) for row in log]
    before, after = (estimate_policy(sum_terms(rows, theta, 4)).values for rows in (log, moved))
    snips, ips = ESTIMATORS.index("snips"), ESTIMATORS.index("ips")
    assert after[snips] - before[snips] == pytest.approx(40.0)
    assert abs(after[ips] - before[ips] - 40.0) > 0.1


def plackett_luce_marginals(utilities, slots):
    """Exact probability of each title at each position, by going through all lists: `[titles, slots]`."""
    marginals = np.zeros((len(utilities), slots))

    def extend(chosen, probability):
        if len(chosen) == slots:
            for position, title in enumerate(chosen):
                marginals[title, position] += probability
            return
        left = [title for title in range(len(utilities)) if title not in chosen]
        total = sum(utilities[title] for title in left)
        for title in left:
            extend([*chosen, title], probability * utilities[title] / total)

    extend([], 1.0)
    return marginals


class World:
    """Two contexts, five titles, lists of three by Plackett-Luce; clicks follow the position-based model."""

    theta = np.array([1.0, 0.6, 0.3])
    attraction = np.array([[0.9, 0.5, 0.1, 0.3, 0.6], [0.2, 0.8, 0.4, 0.7, 0.1]])
    utilities = np.array([[2.0, 1.0, 0.7, 1.0, 0.5], [0.5, 1.5, 1.0, 1.0, 1.2]])
    listed = np.array([[4, 0, 1], [3, 1, 4]])

    def __init__(self):
        self.marginals = np.stack([plackett_luce_marginals(row, 3) for row in self.utilities])
        self.value = np.mean([self.theta @ self.attraction[x][self.listed[x]] for x in (0, 1)])

    def sums(self, generator, lists, reward_model):
        """Simulates a log; `reward_model[x, a]` is what the policy's reward model says of an examined title."""
        sums = np.zeros((3, len(TERMS)))
        for x in generator.integers(0, 2, lists):
            keys = np.log(self.utilities[x]) + generator.gumbel(size=5)
            for at, title in enumerate(np.argsort(-keys)[:3]):
                click = float(generator.random() < self.theta[at] * self.attraction[x, title])
                shown = Impression(b"%d" % title, at + 1, click, self.marginals[x, title], True)
                listed = np.array([b"%d" % other for other in self.listed[x]], object)
                estimates, logged = reward_model[x, self.listed[x]], reward_model[x, title]
                policy = PolicyList(listed, self.theta, estimates, logged)
                sums[at] += impression_terms(shown, policy, 3, CLIP)
        return sums


@pytest.fixture(scope="module")
def simulated():
    """Estimates of many small logs, with a right and with a wrong reward model; and of one large log."""
    world, generator = World(), np.random.default_rng(7)
    wrong = np.full((2, 5), 0.4)
    logs = {name: [world.sums(generator, 40, q) for _ in range(250)] for name, q in
            (("right", world.attraction), ("wrong", wrong))}  # fmt: skip
    values = {name: estimate_policy(np.stack(sums)).values for name, sums in logs.items()}
    return world, values, estimate_policy(np.sum(logs["wrong"], axis=0))


def z_score(values, truth):
    return (values.mean() - truth) / (values.std(ddof=1) / np.sqrt(len(values)))


def test_unbiased_estimators_are_right_on_average(simulated):
    world, values, _ = simulated
    for name in ("ips", "dr", "iips", "pbm"):
        assert abs(z_score(values["wrong"][:, ESTIMATORS.index(name)], world.value)) < 4, name
    for name in ("dm", "dr"):
        assert abs(z_score(values["right"][:, ESTIMATORS.index(name)], world.value)) < 4, name


def test_biased_estimators_are_wrong_in_the_way_they_are_said_to_be(simulated):
    world, values, large = simulated
    assert z_score(values["wrong"][:, ESTIMATORS.index("clipped_ips")], world.value) < -4
    assert abs(values["wrong"][:, ESTIMATORS.index("dm")].mean() - world.value) > 0.2
    # Consistent: on all logs together, snips errs no more than ips may.
    error = values["wrong"][:, ESTIMATORS.index("ips")].std() / np.sqrt(len(values["wrong"]))
    assert abs(large.values[ESTIMATORS.index("snips")] - world.value) < 4 * error


def test_a_right_reward_model_and_the_click_model_lower_the_variance(simulated):
    _, values, _ = simulated
    spread = dict(zip(ESTIMATORS, values["right"].std(axis=0), strict=True))
    assert spread["dr"] < spread["ips"] and spread["pbm"] < 0.8 * spread["iips"]


def test_mean_weights_are_one_where_the_log_covers_the_policy(simulated):
    _, _, large = simulated
    assert large.mean_weight == pytest.approx(1.0, abs=0.05)
    assert large.pbm_mean_weight == pytest.approx(1.0, abs=0.03)
    assert large.pbm_effective_sample_size > large.effective_sample_size
