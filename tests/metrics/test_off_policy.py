"""The off-policy metric: equals the estimators on TFMA's extracts, for one and two models, and refuses in words."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from tensorflow_model_analysis.api import types
from tensorflow_model_analysis.metrics import metric_types
from tensorflow_model_analysis.proto import config_pb2

from modules.metrics.bootstrap import effective_number, poisson_weights
from modules.metrics.model_outputs import metric_key
from modules.metrics.off_policy import OffPolicyMetrics
from modules.metrics.off_policy_estimators import ESTIMATORS
from modules.metrics.off_policy_refusal import DIAGNOSTIC_NAMES, POLICY_VALUE_NAMES, Refusal, explain_refusal
from modules.metrics.user_sums import user_group
from tests.metrics.test_off_policy_estimators import CLIP, random_log, slow_estimates

TWO_MODELS = config_pb2.EvalConfig(
    model_specs=[config_pb2.ModelSpec(name="new"), config_pb2.ModelSpec(name="old", is_baseline=True)]
)
COLUMNS = {"propensity": "p", "feedback": "rating", "position": "slot", "separated": True}
SETTINGS = {**COLUMNS, "positions": 4, "clip": CLIP, "least_effective_sample_size": 1.0}


def outputs(row, theta, with_rewards=True):
    _, _, _, _, other, estimates, logged = row
    listed = np.array([[b"t%d" % title for title in other]], object)
    rewards = {
        "examination": theta[np.newaxis],
        "logged_reward_estimate": np.array([[logged]]),
        "top_k_reward_estimates": estimates[np.newaxis],
    }
    return {"top_k_item_ids": listed, **(rewards if with_rewards else {})}


def extracts(row, user, by_model):
    title, position, reward, propensities, *_ = row
    features = {
        "user_id": np.array([str(user).encode()], object),
        "item_id": np.array([b"t%d" % title], object),
        "slot": np.array([position]),
        "p": propensities,
        "impression": np.array([1]),
    }
    if reward:
        features["rating"] = np.array([reward])
    return {"features": features, "predictions": by_model.get("", by_model)}


def compute(examples, config=None, models=("",), bundles=3, **changes):
    """Runs the computation with the examples dealt into bundles, as Beam would do."""
    metric = OffPolicyMetrics.from_config({**SETTINGS, **changes})
    (computation,) = metric.computations(eval_config=config, model_names=list(models))
    combiner = computation.combiner
    accumulators = [combiner.create_accumulator() for _ in range(bundles)]
    for number, example in enumerate(examples):
        inputs = list(computation.preprocessors[0].process(example))
        accumulators[number % bundles] = combiner.add_inputs(accumulators[number % bundles], inputs)
    return combiner.extract_output(combiner.merge_accumulators(accumulators))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 4))
def test_one_model_equals_slow_loops_however_the_examples_are_bundled(seed, bundles):
    log, theta = random_log(seed)
    examples = [extracts(row, n % 5, {"": outputs(row, theta)}) for n, row in enumerate(log)]
    result = compute(examples, bundles=bundles)
    assert {key.name for key in result} == {*POLICY_VALUE_NAMES, *DIAGNOSTIC_NAMES}
    expected, mean_weight, effective, pbm_mean, pbm_effective = slow_estimates(log, theta, 4)
    received = {key.name: float(value) for key, value in result.items()}
    for name, refusal in zip(ESTIMATORS, ["off_policy_refusal"] * 6 + ["off_policy_pbm_refusal"], strict=True):
        value = received[f"policy_value_{name}"]
        assert math.isnan(value) if received[refusal] else value == pytest.approx(expected[name], abs=1e-9)
    assert received["policy_mean_weight"] == pytest.approx(mean_weight, abs=1e-9)
    assert received["policy_effective_sample_size"] == pytest.approx(effective, abs=1e-9)
    assert received["policy_pbm_mean_weight"] == pytest.approx(pbm_mean, abs=1e-9)
    assert received["policy_pbm_effective_sample_size"] == pytest.approx(pbm_effective, abs=1e-9)
    weights = [1 / row[3][row[1] - 1] for row in log if row[4][row[1] - 1] == row[0]]
    assert received["policy_max_weight"] == pytest.approx(max(weights, default=0), abs=1e-9)
    assert received["policy_impressions"] == len(log)


def covered_log(seed, lists=150):
    """A log whose weights are 1 on average: titles drawn evenly out of three, the policy shows the first."""
    generator = np.random.default_rng(seed)
    log = []
    for _ in range(lists):
        shown = generator.permutation(3)
        for position, title in enumerate(shown, 1):
            reward = float(generator.random() < 0.5 / position)
            other = np.array([0, 1, 2, 9])
            log.append((title, position, reward, np.full(4, 1 / 3), other, np.full(4, 0.4), 0.4))
    return log, np.array([1.0, 0.5, 1 / 3, 0.25])


def test_two_models_have_paired_intervals_of_the_bootstrap():
    log, theta = covered_log(1)
    users = [n // 3 % 20 for n in range(len(log))]
    reversed_lists = [(*row[:4], row[4][[2, 1, 0, 3]], *row[5:]) for row in log]
    examples = [
        extracts(new, user, {"new": outputs(new, theta), "old": outputs(old, theta)})
        for new, old, user in zip(log, reversed_lists, users, strict=True)
    ]
    result = compute(examples, TWO_MODELS, ("new", "old"), positions=3)
    groups = np.array([user_group(example, "user_id") for example in examples])
    distinct = np.unique(groups)
    weights = poisson_weights(distinct)
    key, old_key = metric_key("policy_value_snips", "new"), metric_key("policy_value_snips", "old")
    new, old = (slow_estimates(rows, theta, 3)[0]["snips"] for rows in (log, reversed_lists))
    assert float(result[key]) == pytest.approx(new, abs=1e-9)
    assert float(result[old_key]) == pytest.approx(old, abs=1e-9)
    difference = result[key.make_diff_key()]
    assert isinstance(difference, types.ValueWithTDistribution)
    assert float(difference) == pytest.approx(new - old, abs=1e-9)

    def resampled(drawn):
        values = []
        for rows in (log, reversed_lists):
            ips = mean = 0.0
            for k in (1, 2, 3):
                at = [
                    (row, drawn[np.searchsorted(distinct, g)])
                    for row, g in zip(rows, groups, strict=True)
                    if row[1] == k
                ]
                count = sum(times for _, times in at)
                matching = [(row, times / row[3][k - 1]) for row, times in at if row[4][k - 1] == row[0]]
                ips += sum(weight * row[2] for row, weight in matching) / count
                mean += sum(weight for _, weight in matching) / count / 3
            values.append(ips / mean)
        return values[0] - values[1]

    some = np.array([resampled(drawn) for drawn in weights[:60]])
    # The metric's error is that of all replicates; the first sixty tell it to a quarter or so.
    sizes = effective_number(np.bincount(np.searchsorted(distinct, groups)).astype(float))
    expected = some.std(ddof=1) * math.sqrt(sizes / (sizes - 1))
    assert difference.sample_standard_deviation == pytest.approx(expected, rel=0.35)
    assert not any(key.is_diff and key.name in DIAGNOSTIC_NAMES for key in result)


def test_a_baseline_without_reward_model_has_what_needs_none():
    log, theta = covered_log(2)
    examples = [
        extracts(row, n // 3, {"new": outputs(row, theta), "old": outputs(row, theta, with_rewards=False)})
        for n, row in enumerate(log)
    ]
    result = compute(examples, TWO_MODELS, ("new", "old"), positions=3)
    values = {name: float(result[metric_key(f"policy_value_{name}", "old")]) for name in ESTIMATORS}
    assert [name for name, value in values.items() if math.isnan(value)] == ["dm", "dr", "pbm"]
    assert float(result[metric_key("policy_value_ips", "new").make_diff_key()]) == 0.0
    assert math.isnan(float(result[metric_key("policy_value_dr", "new").make_diff_key()]))
    old = {key.name: float(value) for key, value in result.items() if key.model_name == "old" and not key.is_diff}
    assert explain_refusal(old, "ips") is None
    assert explain_refusal(old, "dr") == "the model was exported without a reward model"
    assert str(explain_refusal(old, "pbm")).startswith("it needs the propensities of a title at every position")


def named(result):
    return {key.name: float(value) for key, value in result.items()}


def test_refuses_a_log_that_never_shows_what_the_policy_would():
    log, theta = covered_log(3)
    # At position 1 the policy shows a title that the log never has.
    elsewhere = [(*row[:4], np.array([7, 1, 2, 9]), *row[5:]) for row in log]
    received = named(
        compute([extracts(row, n // 3, {"": outputs(row, theta)}) for n, row in enumerate(elsewhere)], positions=3)
    )
    assert received["off_policy_refusal"] == received["off_policy_pbm_refusal"] == Refusal.NO_SUPPORT
    assert received["policy_mean_weight"] == pytest.approx(2 / 3, abs=0.15)
    assert all(math.isnan(received[name]) for name in POLICY_VALUE_NAMES)
    assert "and certainly not 1" in str(explain_refusal(received)) and "less than" in str(explain_refusal(received))
    assert explain_refusal(received, "pbm") is not None


def test_refuses_too_few_impressions():
    log, theta = covered_log(4)
    examples = [extracts(row, n // 3, {"": outputs(row, theta)}) for n, row in enumerate(log)]
    received = named(compute(examples, positions=3, least_effective_sample_size=1000))
    assert received["off_policy_refusal"] == received["off_policy_pbm_refusal"] == Refusal.TOO_FEW
    assert all(math.isnan(received[name]) for name in POLICY_VALUE_NAMES)
    assert explain_refusal(received) == (
        f"of 450 impressions, those that the model would have shown too count like "
        f"{received['policy_effective_sample_size']:.0f}: "
        "fewer than evaluation.policy.least_effective_sample_size, or those of too few users"
    )
    enough = named(compute(examples, positions=3, least_effective_sample_size=100))
    assert enough["off_policy_refusal"] == Refusal.NONE and explain_refusal(enough) is None
    with pytest.raises(ValueError, match="estimator must be one of"):
        explain_refusal(enough, "magic")


def test_a_log_that_covers_the_policy_is_seldom_refused():
    refused = 0
    for seed in range(60):
        log, theta = covered_log(100 + seed, lists=60)
        examples = [extracts(row, n // 3, {"": outputs(row, theta)}) for n, row in enumerate(log)]
        refused += named(compute(examples, positions=3))["off_policy_refusal"] != Refusal.NONE
    assert refused <= stats.binom.ppf(0.999, 60, 0.02)


def test_lists_of_one_title_need_no_position():
    log, theta = covered_log(5)
    first = [row for row in log if row[1] == 1]
    examples = [extracts((*row[:3], row[3][:1], *row[4:]), n, {"": outputs(row, theta)}) for n, row in enumerate(first)]
    for example in examples:
        del example["features"]["slot"]
    received = named(compute(examples, position=None, separated=False))
    expected = slow_estimates(first, theta, 1)[0]
    assert received["policy_value_dr"] == pytest.approx(expected["dr"], abs=1e-9)
    assert received["policy_value_iips"] == received["policy_value_ips"] == pytest.approx(expected["ips"], abs=1e-9)
    assert math.isnan(received["policy_value_pbm"]) and received["off_policy_pbm_refusal"] == Refusal.NOT_LOGGED


def test_positions_behind_the_list_do_not_count():
    log, theta = covered_log(6)
    examples = [extracts(row, n // 3, {"": outputs(row, theta)}) for n, row in enumerate(log)]
    received = named(compute(examples, positions=2))
    assert received["policy_impressions"] == 300
    assert received["policy_value_ips"] == pytest.approx(slow_estimates(log, theta, 2)[0]["ips"], abs=1e-9)
    # Nor do positions that the log never shows.
    assert named(compute(examples, positions=4))["policy_value_ips"] == pytest.approx(
        slow_estimates(log, theta, 3)[0]["ips"], abs=1e-9
    )


def test_interactions_are_no_impressions():
    log, theta = covered_log(7)
    example = extracts(log[0], 1, {"": outputs(log[0], theta)})
    del example["features"]["impression"]
    assert compute([example]) == {} and compute([]) == {}


def test_says_what_is_missing():
    log, theta = covered_log(8)
    for feature, message in (("item_id", "'item_id' must hold one value"), ("p", "'p' of an impression at position")):
        example = extracts(log[0], 1, {"": outputs(log[0], theta)})
        del example["features"][feature]
        with pytest.raises(ValueError, match=message):
            compute([example])
    with pytest.raises(ValueError, match="'candidate' must return 'top_k_item_ids'"):
        compute([extracts(log[0], 1, {"": {"examination": theta}})])


def test_is_registered_under_a_name_of_its_own():
    assert metric_types.registered_metrics()["OffPolicyMetrics"] is OffPolicyMetrics
