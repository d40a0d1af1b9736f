"""The metrics of the task `rank` against plain Python, for one and two models, with intervals and user sums."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_model_analysis.api import types
from tensorflow_model_analysis.proto import config_pb2

from modules.metrics.bootstrap import poisson_weights
from modules.metrics.feedback import FEEDBACK_METRIC_NAMES, PREDICTION_ERROR_NAMES, FeedbackMetrics
from modules.metrics.model_outputs import metric_key
from modules.metrics.user_sums import UserSums, user_group

DAY = 86_400
TWO_MODELS = config_pb2.EvalConfig(
    model_specs=[config_pb2.ModelSpec(name="new"), config_pb2.ModelSpec(name="old", is_baseline=True)]
)
outputs = st.tuples(
    st.sampled_from([-math.inf, -1.0, 0.0, 0.5, 2.0]), st.sampled_from([0.0, 0.125, 0.5, 0.75, 1.0]), st.integers(1, 5)
)
events = st.tuples(st.integers(0, 3), st.integers(0, 2 * DAY), st.sampled_from([1.0, 3.0, 4.0, 5.0]), outputs, outputs)


def _extracts(user, time, feedback, **by_model) -> dict:
    names = ("target_score", "like_probability", "predicted_feedback")
    predictions = {
        model: {name: np.array([[value]], np.float32) for name, value in zip(names, values, strict=True)}
        for model, values in by_model.items()
    }
    features = {"user_id": np.array([str(user).encode()], object), "timestamp": np.array([time])}
    if feedback is not None:
        features["rating"] = np.array([feedback], np.float32)
    return {"predictions": predictions.get("only", predictions), "features": features}


def _compute(examples, bundles=1, config=None, models=("",), with_intervals=True) -> dict:
    metric = FeedbackMetrics.from_config(
        {"feedback": "rating", "like_threshold": 4.0, "with_intervals": with_intervals}
    )
    (computation,) = metric.computations(eval_config=config, model_names=list(models))
    combiner = computation.combiner
    accumulators = [combiner.create_accumulator() for _ in range(bundles)]
    for number, example in enumerate(examples):
        inputs = list(computation.preprocessors[0].process(example))
        accumulators[number % bundles] = combiner.add_inputs(accumulators[number % bundles], inputs)
    return combiner.extract_output(combiner.merge_accumulators(accumulators))


def _auc(rows) -> float:
    liked, others = ([row[3][0] for row in rows if (row[2] >= 4) is kind] for kind in (True, False))
    wins = [(a > b) + 0.5 * (a == b) for a in liked for b in others]
    return float(np.mean(wins)) if wins else math.nan


def _ndcg(rows) -> float:
    def dcg(discounts):
        return sum(row[2] * discount for row, discount in zip(rows, discounts, strict=True))

    if len(rows) < 2:
        return math.nan
    table = [1 / math.log2(2 + place) if place < 10 else 0.0 for place in range(len(rows))]
    values, gains = [row[3][0] for row in rows], [row[2] for row in rows]

    def mean_discounts(keys):
        places = [sorted(range(len(keys)), key=lambda n: -keys[n]).index(n) for n in range(len(keys))]
        by_place = dict(zip(places, keys, strict=True))
        return [np.mean([table[place] for place in by_place if by_place[place] == key]) for key in keys]

    return dcg(mean_discounts(values)) / dcg(mean_discounts(gains))


def _reference(rows) -> list[float]:
    """The six metrics, in plain Python; a row is `(user, time, feedback, (score, probability, prediction))`."""

    def mean(values):
        values = [value for value in values if not math.isnan(value)]
        return float(np.mean(values)) if values else math.nan

    users = sorted({row[0] for row in rows})
    queries = sorted({(row[0], row[1] // DAY) for row in rows})
    losses: list[float] = []
    gaps: list[list[float]] = [[] for _ in range(10)]
    for _, _, feedback, (_, probability, _) in rows:
        given = min(max(probability if feedback >= 4 else 1 - probability, 1e-7), 1 - 1e-7)
        losses.append(-math.log(given))
        gaps[min(int(10 * probability), 9)].append(probability - (feedback >= 4))
    return [
        _auc(rows),
        mean([_auc([row for row in rows if row[0] == user]) for user in users]),
        mean([_ndcg([row for row in rows if (row[0], row[1] // DAY) == query]) for query in queries]),
        mean(losses),
        sum(abs(np.mean(of_bin)) * len(of_bin) for of_bin in gaps if of_bin) / len(rows),
        math.sqrt(np.mean([(prediction - feedback) ** 2 for _, _, feedback, (_, _, prediction) in rows])),
    ]


@settings(max_examples=60)
@given(st.lists(events, min_size=1, max_size=25), st.integers(1, 4))
def test_two_models_equal_plain_python_however_the_examples_are_bundled(cases, bundles):
    examples = [_extracts(user, time, feedback, new=new, old=old) for user, time, feedback, new, old in cases]
    result = _compute(examples, bundles, TWO_MODELS, ("new", "old"))
    assert repr(result) == repr(_compute(examples[::-1], 1, TWO_MODELS, ("new", "old")))
    users = sorted({case[0] for case in cases})

    def statistics(rows):
        new, old = (np.array(_reference([(*row[:3], row[part]) for row in rows])) for part in (3, 4))
        return np.stack([new, old, new - old])

    estimates = statistics(cases)
    keys = [[metric_key(name, model) for name in FEEDBACK_METRIC_NAMES] for model in ("new", "old")]
    keys.append([key.make_diff_key() for key in keys[0]])
    received = np.array([[float(result[key]) for key in row] for row in keys])
    np.testing.assert_allclose(received, estimates, atol=1e-6)
    for model, row in zip(("new", "old"), estimates, strict=False):
        sums = UserSums.from_bytes("rank", result[metric_key("rank_user_sums", model)])
        assert sums.metric_names == ("rank_user_auc", "rank_ndcg@10", "rank_log_loss")
        assert sums.counts[:, 2].sum() == len(cases) and len(sums.group_ids) == len(users)
        np.testing.assert_allclose(sums.estimates(), row[[1, 2, 3]], atol=1e-6)


def test_intervals_equal_a_recomputation_with_each_replicates_users():
    random = np.random.default_rng(5)
    rows = [
        (str(n % 7), int(n // 2 % 3 * DAY), float(random.integers(1, 6)), tuple(random.uniform(0.05, 0.95, 3)))
        for n in range(30)
    ]
    result = _compute([_extracts(user, time, feedback, only=outputs) for user, time, feedback, outputs in rows])
    groups = [user_group({"features": {"user_id": np.array([row[0]])}}, "user_id") for row in rows]
    weights = poisson_weights(np.array(groups)).astype(int)

    def auc(of_rows):
        """Weighs every row by its own weight; the derivative by a user's weight is what an interval rests on."""
        liked = np.array([row[2] >= 4 for row in rows])
        scores = np.array([row[3][0] for row in rows])
        ordered = (scores[:, None] > scores) + (scores[:, None] == scores) / 2
        return (of_rows * liked) @ ordered @ (of_rows * ~liked) / ((of_rows @ liked) * (of_rows @ ~liked))

    step, influence = 1e-5, np.zeros(7)
    for user in range(7):
        change = step * np.array([row[0] == str(user) for row in rows])
        influence[user] = (auc(1 + change) - auc(1 - change)) / (2 * step)
    replicates = []
    for replicate in weights:
        drawn = [
            (f"{row[0]}#{copy}", *row[1:])
            for row, weight in zip(rows, replicate, strict=True)
            for copy in range(weight)
        ]
        by_user = {row[0]: weight for row, weight in zip(rows, replicate, strict=True)}
        linear = auc(np.ones(30)) + sum((by_user[str(user)] - 1) * influence[user] for user in range(7))
        replicates.append([linear, *(_reference(drawn)[1:] if drawn else [math.nan] * 5)])
    events = np.bincount([int(row[0]) for row in rows])
    both_kinds = np.array([len({row[2] >= 4 for row in rows if row[0] == str(user)}) - 1 for user in range(7)])
    days = [
        [[row[2] for row in rows if (row[0], row[1]) == (str(user), day)] for day in {row[1] for row in rows}]
        for user in range(7)
    ]
    queries = np.array([sum(len(of_day) > 1 for of_day in of_user) for of_user in days])
    sizes = np.stack([events, both_kinds, queries, events, events, events])
    effective = sizes.sum(axis=1) ** 2 / (sizes**2).sum(axis=1)
    errors = np.nanstd(replicates, axis=0, ddof=1) * np.sqrt(effective / (effective - 1))
    received = [result[metric_key(name, "")].sample_standard_deviation for name in FEEDBACK_METRIC_NAMES]
    np.testing.assert_allclose(received, errors, rtol=1e-5)


def test_a_metric_that_one_user_decides_has_no_interval():
    examples = [_extracts(user, 0, 5.0, only=(1.0, 0.5, 3.0)) for user in range(20)]
    examples += [_extracts("both", 0, feedback, only=(feedback, 0.5, 3.0)) for feedback in (1.0, 5.0)]
    result = _compute(examples)
    assert result[metric_key("rank_user_auc", "")] == 1.0
    assert isinstance(result[metric_key("rank_user_auc", "")], float)
    assert isinstance(result[metric_key("rank_log_loss", "")], types.ValueWithTDistribution)


def test_a_model_that_predicts_no_feedback_has_no_prediction_errors():
    examples = [_extracts(n % 3, n, 2 + n % 4, only=(n % 5, math.nan, math.nan)) for n in range(30)]
    result = _compute(examples)
    names = {key.name for key in result}
    assert {"rank_auc", "rank_user_auc", "rank_ndcg@10", "rank_user_sums"} <= names
    assert not any(name.startswith(PREDICTION_ERROR_NAMES) for name in names)
    assert UserSums.from_bytes("rank", result[metric_key("rank_user_sums", "")]).metric_names == (
        "rank_user_auc",
        "rank_ndcg@10",
    )


def test_without_intervals_values_are_plain():
    examples = [_extracts(n % 3, n, 2 + n % 4, only=(n % 5, 0.5, 3.0)) for n in range(30)]
    result = _compute(examples, with_intervals=False)
    assert {key.name for key in result} == set(FEEDBACK_METRIC_NAMES)
    assert all(isinstance(value, float) for value in result.values())


def test_events_without_feedback_do_not_count():
    assert _compute([]) == {} and _compute([_extracts(1, 5, None, only=(1.0, 0.5, 3.0))]) == {}
    result = _compute([_extracts(1, 5, 5.0, only=(1.0, 0.5, 3.0)), _extracts(2, 5, None, only=(1.0, 0.5, 3.0))])
    assert math.isnan(result[metric_key("rank_auc", "")])  # All that count are liked.
    assert result[metric_key("rank_feedback_rmse", "")] == 2.0


def test_a_baseline_may_be_older_than_the_task():
    examples = [_extracts(n % 3, n, 2 + n % 4, new=(n % 5, 0.5, 3.0), old=(0.0, 0.0, 0.0)) for n in range(12)]
    for example in examples:
        example["predictions"]["old"] = {"rank": np.ones((1, 1))}
    result = _compute(examples, 1, TWO_MODELS, ("new", "old"))
    assert {key.model_name for key in result} == {"new"} and not any(key.is_diff for key in result)
    for example in examples:
        example["predictions"]["new"].pop("target_score")
    with pytest.raises(ValueError, match="'new' must return 'target_score'"):
        _compute(examples, 1, TWO_MODELS, ("new", "old"))
