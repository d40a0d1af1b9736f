"""Recall, NDCG and MRR against an independent NumPy version, for one and two models."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_model_analysis.api import types
from tensorflow_model_analysis.metrics import metric_types
from tensorflow_model_analysis.proto import config_pb2

from modules.metrics.bootstrap import degrees_of_freedom, poisson_weights
from modules.metrics.model_outputs import metric_key
from modules.metrics.ranking import RANK_OUTPUTS, RankingMetrics, ranking_metric_names
from modules.metrics.user_sums import USER_GROUPS, UserSums, user_group
from modules.tasks import BECAUSE_YOU_WATCHED, CONTINUE_WATCHING, NEXT_TITLE, RANKING_TASKS

CUTOFFS = (1, 5, 10, 50)
TWO_MODELS = config_pb2.EvalConfig(
    model_specs=[config_pb2.ModelSpec(name="new"), config_pb2.ModelSpec(name="old", is_baseline=True)]
)
ranks = st.one_of(st.integers(2, 4000).map(lambda doubled: doubled / 2), st.just(math.inf))


def _reference(name: str, values: list[float]) -> float:
    measure, k = name.split("@")
    total = 0.0
    for rank in values:
        if rank <= int(k):
            total += {"recall": 1.0, "ndcg": math.log(2) / math.log(1 + rank), "mrr": 1 / rank}[measure]
    return total / len(values)


def _extracts(user: str, by_model: dict[str, float]) -> dict:
    outputs = {name: {"rank": np.array([rank], np.float32)} for name, rank in by_model.items()}
    return {"predictions": outputs.get("", outputs), "features": {"user_id": np.array([user.encode()], object)}}


def _compute(
    examples: list[dict], bundles: list[int], group_by: str | None, config=None, models=("",), tasks=(NEXT_TITLE,)
) -> dict:
    """Runs the computation with the examples dealt into bundles, as Beam would do."""
    metric = RankingMetrics.from_config({"top_k": list(CUTOFFS), "group_by": group_by, "tasks": list(tasks)})
    (computation,) = metric.computations(eval_config=config, model_names=list(models))
    combiner = computation.combiner
    accumulators = {bundle: combiner.create_accumulator() for bundle in {*bundles, -1}}
    for example, bundle in zip(examples, bundles, strict=True):
        inputs = [value for value in computation.preprocessors[0].process(example)]
        accumulators[bundle] = combiner.add_inputs(accumulators[bundle], inputs)
    return combiner.extract_output(combiner.merge_accumulators(accumulators.values()))


@given(st.lists(st.tuples(ranks, st.integers(0, 5)), min_size=1, max_size=40))
def test_one_model_equals_numpy_however_the_examples_are_bundled(cases):
    examples = [_extracts("7", {"": rank}) for rank, _ in cases]
    together = _compute(examples, [0] * len(cases), group_by=None)
    apart = _compute(examples, [bundle for _, bundle in cases], group_by=None)
    assert {key.name for key in together} == set(ranking_metric_names(CUTOFFS))
    for key, value in together.items():
        expected = _reference(key.name, [rank for rank, _ in cases])
        assert value == pytest.approx(expected, abs=1e-9)
        assert apart[key] == pytest.approx(expected, abs=1e-9)


@settings(max_examples=30)
@given(st.lists(st.tuples(ranks, ranks, st.integers(0, 8)), min_size=1, max_size=30), st.integers(1, 7))
def test_two_models_and_intervals_equal_a_recomputation_with_each_replicates_weights(cases, bundles):
    users = [str(user) for _, _, user in cases]
    examples = [_extracts(user, {"new": new, "old": old}) for user, (new, old, _) in zip(users, cases, strict=True)]
    result = _compute(examples, [index % bundles for index in range(len(cases))], "user_id", TWO_MODELS, ("new", "old"))
    groups = [user_group(example, "user_id") for example in examples]
    weights = poisson_weights(np.array(groups))  # [replicates, examples]
    sizes = np.array([users.count(user) for user in set(users)])
    effective = sizes.sum() ** 2 / (sizes**2).sum()
    for name in ranking_metric_names(CUTOFFS):
        new, old = metric_key(name, "new"), metric_key(name, "old")
        gains = np.array([[_reference(name, [row[model]]) for model in (0, 1)] for row in cases])
        gains = np.column_stack([gains, gains[:, 0] - gains[:, 1]])
        with np.errstate(invalid="ignore"):
            replicates = (weights @ gains) / weights.sum(axis=1, keepdims=True)
        spread = np.nanstd(replicates, axis=0, ddof=1) * np.sqrt(effective / max(effective - 1, 1e-9))
        for key, estimate, error in zip((new, old, new.make_diff_key()), gains.mean(axis=0), spread, strict=True):
            assert float(result[key]) == pytest.approx(estimate, abs=1e-9)
            if not degrees_of_freedom(sizes):
                assert isinstance(result[key], float)
            else:
                assert isinstance(result[key], types.ValueWithTDistribution)
                assert result[key].sample_degrees_of_freedom == degrees_of_freedom(sizes)
                assert result[key].sample_standard_deviation == pytest.approx(error, abs=1e-9)


def test_a_tie_at_the_cutoff_is_judged_by_its_mean_rank():
    assert _compute([_extracts("1", {"": 10.0})], [0], None)[metric_key("recall@10", "")] == 1.0
    assert _compute([_extracts("1", {"": 10.5})], [0], None)[metric_key("recall@10", "")] == 0.0


def test_many_users_share_a_bounded_number_of_groups():
    examples = [_extracts(str(user), {"": 1.0 + user % 3}) for user in range(2000)]
    value = _compute(examples, [0] * 2000, "user_id")[metric_key("mrr@10", "")]
    assert 300 < value.sample_degrees_of_freedom < USER_GROUPS


def test_no_example_gives_no_metric():
    assert _compute([], [], "user_id") == {}


OPTIONAL_RANKS = st.one_of(ranks, st.just(math.nan))


@settings(max_examples=30)
@given(st.lists(st.tuples(*[OPTIONAL_RANKS] * 3, st.integers(0, 4)), min_size=1, max_size=20), st.integers(1, 4))
def test_each_task_counts_its_own_events(cases, bundles):
    examples = []
    for *values, user in cases:
        outputs = {RANK_OUTPUTS[task]: np.array([[value]]) for task, value in zip(RANKING_TASKS, values, strict=True)}
        examples.append({"predictions": outputs, "features": {"user_id": np.array([str(user)])}})
    result = _compute(examples, [n % bundles for n in range(len(cases))], "user_id", tasks=RANKING_TASKS)
    for position, task in enumerate(RANKING_TASKS):
        counted = [(case[position], case[3]) for case in cases if not math.isnan(case[position])]
        names = ranking_metric_names(CUTOFFS, task)
        if not counted:
            assert not any(metric_key(name, "") in result for name in (*names, f"{task}_user_sums"))
            continue
        sums = UserSums.from_bytes(task, result[metric_key(f"{task}_user_sums", "")])
        users = {user for _, user in counted}
        assert sums.metric_names == names and len(sums.group_ids) == len(users)
        np.testing.assert_array_equal(
            np.sort(sums.counts[:, 0]), sorted(sum(u == v for _, v in counted) for u in users)
        )
        for name, estimate in zip(names, sums.estimates(), strict=True):
            expected = _reference(name.removeprefix(f"{task}_"), [rank for rank, _ in counted])
            reported = result[metric_key(name, "")]
            assert float(reported) == pytest.approx(expected, abs=1e-9) and float(reported) == estimate
            # Only users who count take part in the interval.
            sizes = np.array([sum(u == v for _, v in counted) for u in users])
            assert isinstance(reported, float) == (not degrees_of_freedom(sizes))
            if not isinstance(reported, float):
                assert reported.sample_degrees_of_freedom == degrees_of_freedom(sizes)


def test_user_sums_are_of_many_groups():
    examples = [_extracts(str(user), {"": 1.0}) for user in range(5000)]
    content = _compute(examples, [0] * 5000, "user_id")[metric_key("next_title_user_sums", "")]
    sums = UserSums.from_bytes(NEXT_TITLE, content)
    assert 0.98 * USER_GROUPS < len(sums.group_ids) <= USER_GROUPS and sums.group_ids.dtype == np.int64
    assert (np.diff(sums.group_ids) > 0).all()
    assert (sums.counts.sum(axis=0) == 5000).all() and sums.sums.dtype == np.float64


def test_a_baseline_may_be_older_than_a_task():
    ranks_of_new = {"rank": np.array([2.0]), "similar_rank": np.array([4.0]), "repeat_rank": np.array([math.nan])}
    example = {
        "predictions": {"new": ranks_of_new, "old": {"rank": np.array([1.0])}},
        "features": {"user_id": np.array([b"1"], object)},
    }
    result = _compute([example], [0], "user_id", TWO_MODELS, ("new", "old"), RANKING_TASKS)
    assert result[metric_key("because_you_watched_mrr@5", "new")] == 0.25
    assert result[metric_key("mrr@5", "new").make_diff_key()] == -0.5
    assert not any(
        key.name.startswith(BECAUSE_YOU_WATCHED) and (key.model_name == "old" or key.is_diff) for key in result
    )
    assert not any(key.name.startswith(CONTINUE_WATCHING) for key in result)
    del ranks_of_new["similar_rank"]
    with pytest.raises(ValueError, match="'new' must return 'similar_rank'"):
        _compute([example], [0], "user_id", TWO_MODELS, ("new", "old"), RANKING_TASKS)


def test_a_slice_of_repeats_has_no_metric_of_the_next_title():
    assert _compute([_extracts("1", {"": math.nan})], [0], "user_id") == {}


def test_refuses_an_unknown_task():
    with pytest.raises(ValueError, match=r"tasks must be some of .*received \['rank'\]"):
        RankingMetrics(tasks=["rank"]).computations()


@pytest.mark.parametrize("rank", [0.5, -1.0])
def test_refuses_a_rank_that_is_none(rank):
    with pytest.raises(ValueError, match="rank of at least 1"):
        _compute([_extracts("1", {"": rank})], [0], None)


def test_names_a_missing_output_and_a_missing_feature():
    with pytest.raises(ValueError, match=r"'candidate' must return 'rank'.*received \['scores'\]"):
        _compute([{"predictions": {"scores": np.ones(1)}, "features": {}}], [0], None)
    with pytest.raises(ValueError, match=r"'user_id' must hold one value.*features \['age'\]"):
        _compute([{"predictions": {"rank": np.ones(1)}, "features": {"age": np.ones(1)}}], [0], "user_id")


@pytest.mark.parametrize("top_k", [(), (0,), (1.5,)])
def test_refuses_useless_cutoffs(top_k):
    with pytest.raises(ValueError, match="top_k must hold positive integers"):
        RankingMetrics(top_k=top_k).computations()


def test_is_registered_under_a_name_of_its_own():
    assert metric_types.registered_metrics()["RankingMetrics"] is RankingMetrics
