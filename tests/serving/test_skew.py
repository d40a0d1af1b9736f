"""Skew measured by TensorFlow Data Validation on a synthetic world, with and without something planted."""

from __future__ import annotations

import datetime
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from pipeline.config import load_config
from pipeline.report.drift import jensen_shannon
from pipeline.report.feature_statistics import feature_name, number_buckets
from pipeline.serving.messages import example_pb2
from pipeline.serving.skew import chance
from pipeline.serving.skew.chance import JENSEN_SHANNON, L_INFINITY, chance_distance, limit
from pipeline.serving.skew.measure import Tolerances, compare_with_training, measure_skew
from pipeline.serving.skew.report import FeatureSkew, SkewReport, print_skew
from pipeline.serving.skew.served import SkewError, bucket_numbers
from tests.serving.skew_world import RUN, World, log_requests, make_world, write_workspace


@pytest.fixture(scope="module")
def world() -> World:
    return make_world()


def moved(report: SkewReport) -> set[tuple[str, str]]:
    return {(feature.feature, feature.measure) for feature in report.features if feature.moved}


def find(report: SkewReport, name: str, measure: str) -> FeatureSkew:
    (found,) = (row for row in report.features if (row.feature, row.measure) == (name, measure))
    return found


def test_an_unchanged_sample_has_not_moved_and_is_told_apart_by_role(world: World) -> None:
    report = world.compare(world.requests(1, 200))
    assert not report.moved
    assert (report.training_examples, report.served_examples) == (5000, 200)
    compared = {feature.feature for feature in report.features}
    assert compared == {
        "device", "age", "gender", "occupation", "history_item_ids", "history_rating", "seen_item_ids"
    }  # fmt: skip
    assert report.not_compared == {
        "user_id": "it says who asks",
        "item_id": "no request holds it",
        "timestamp": "time moves on",
        "rating": "no request holds it",
        "title": "no request holds it",
        "release_year": "no request holds it",
        "genres": "no request holds it",
        "history_timestamps": "time moves on",
    }
    assert find(report, "age", JENSEN_SHANNON).tolerated == 0.02
    assert find(report, "device", L_INFINITY).tolerated == 0.05


@pytest.mark.parametrize("count", [60, 200, pytest.param(1000, marks=pytest.mark.slow)])
def test_samples_of_any_size_raise_no_false_alarm_even_if_nothing_is_tolerated(world: World, count: int) -> None:
    reports = [world.compare(world.requests(seed, count), Tolerances(0.0, 0.0)) for seed in range(6)]
    rows = [feature for report in reports for feature in report.features]
    alarms = [feature for feature in rows if feature.moved]
    assert len(alarms) <= 0.03 * len(rows), alarms
    assert all(feature.chance > 0 for feature in rows if feature.distance > 0)


def test_planted_skew_is_found_by_the_features_that_have_it_and_told_in_words(world: World) -> None:
    def change(user: dict[str, Any], context: dict[str, Any]) -> None:
        user["age"] += 25
        if context["device"] == "tv":
            context["device"] = "phone"

    report = world.compare(world.requests(2, 200, change))
    assert moved(report) == {("age", JENSEN_SHANNON), ("device", L_INFINITY)}
    assert {feature.feature for feature in report.features[:2]} == {"age", "device"}
    device = find(report, "device", L_INFINITY).told
    assert device.startswith(("“tv” ", "“phone” "))
    assert "“tv” " in device
    assert "% → 0 %" in device
    age = find(report, "age", JENSEN_SHANNON)
    before, after = (float(text) for text in age.told.split(",")[0].removeprefix("mean ").split(" → "))
    assert after - before == pytest.approx(25, abs=4)
    assert report.moved


def test_a_feature_that_clients_stopped_sending_has_moved(world: World) -> None:
    def change(user: dict[str, Any], context: dict[str, Any]) -> None:
        user["occupation"] = None

    report = world.compare(world.requests(3, 100, change))
    assert moved(report) == {("occupation", "missing")}
    assert find(report, "occupation", "missing").told == "missing 0 % → 100 %"


def test_a_feature_of_another_type_has_moved(world: World) -> None:
    examples = [example_pb2.Example.FromString(request) for request in world.requests(4, 100)]
    for example in examples:
        age = example.features.feature["age"]
        age.bytes_list.value.append(str(age.int64_list.value[0]).encode())
    report = world.compare([example.SerializeToString() for example in examples])
    assert moved(report) == {("age", "type")}
    assert find(report, "age", "type").told == "INT → STRING"


def test_the_schemas_comparators_decide_where_they_are_set(world: World) -> None:
    schema = schema_pb2.Schema()
    schema.CopyFrom(world.schema)
    for feature in schema.feature:
        if feature.name == "device":
            feature.skew_comparator.infinity_norm.threshold = 0.9
        if feature.name == "user_id":
            feature.skew_comparator.infinity_norm.threshold = 0.0
        if feature.name == "gender":
            feature.skew_comparator.jensen_shannon_divergence.threshold = 0.3

    def change(user: dict[str, Any], context: dict[str, Any]) -> None:
        context["device"] = "tablet"

    examples = world.requests(5, 300, change)
    assert ("device", L_INFINITY) in moved(world.compare(examples))
    report = world.compare(examples, schema=schema)
    assert not report.moved
    assert find(report, "device", L_INFINITY).tolerated == 0.9
    assert find(report, "user_id", L_INFINITY).tolerated == 0.0
    assert find(report, "gender", JENSEN_SHANNON).tolerated == 0.3


def test_the_distance_of_numbers_is_the_divergence_of_histograms_with_the_same_buckets(world: World) -> None:
    examples = world.requests(6, 150)
    (training,) = (feature for feature in world.training.features if feature_name(feature) == "age")
    buckets = number_buckets(training)
    ages = [example_pb2.Example.FromString(one).features.feature["age"].int64_list.value[0] for one in examples]
    edges = [low for low, _, _ in buckets] + [buckets[-1][1]]
    assert edges[0] <= min(ages)
    assert max(ages) <= edges[-1]
    counts = np.histogram(-np.array(ages), -np.array(edges)[::-1])[0][::-1]  # Edges belong to the bucket below.
    expected = jensen_shannon(
        [(low, high, float(count)) for (low, high, _), count in zip(buckets, counts, strict=True)], buckets
    )
    assert find(world.compare(examples), "age", JENSEN_SHANNON).distance == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("edges", [[1.0, 2.0, 3.0], [2.0]])
def test_numbers_beyond_training_and_on_its_edges_have_buckets(edges: list[float]) -> None:
    numbers = bucket_numbers(np.array([0.0, *edges, 9.0]), np.array(edges))
    assert numbers.tolist() == ([0, 1, 1, 2, 3] if len(edges) == 3 else [0, 1, 2])


def test_a_feature_that_training_knows_one_number_of_moves_when_another_comes(world: World) -> None:
    training = statistics_pb2.DatasetFeatureStatistics()
    training.CopyFrom(world.training)
    for feature in training.features:
        if feature_name(feature) == "age":
            standard = feature.num_stats.histograms[0]
            del standard.buckets[:]
            standard.buckets.add(low_value=30, high_value=30, sample_count=5000)
    for age, distance in ((30, 0.0), (31, 1.0)):

        def change(user: dict[str, Any], context: dict[str, Any], age: int = age) -> None:
            user["age"] = age

        examples = world.requests(9, 100, change)
        report = compare_with_training(training, examples, world.schema, Tolerances(), RUN)
        assert find(report, "age", JENSEN_SHANNON).distance == pytest.approx(distance, abs=1e-6)
        assert find(report, "age", JENSEN_SHANNON).moved == (distance == 1.0)


def test_requests_of_too_few_users_are_refused(world: World) -> None:
    request = world.requests(7, 1)
    with pytest.raises(SkewError, match=r"of 1 users; telling skew from chance takes 20"):
        world.compare(request * 100)


def test_chance_counts_users_and_not_their_requests() -> None:
    generator = np.random.default_rng(1)
    users = np.arange(40)
    categories = generator.integers(0, 2, 40)
    alone = chance_distance(users, categories, L_INFINITY, np.random.default_rng(2))
    repeated = chance_distance(np.repeat(users, 25), np.repeat(categories, 25), L_INFINITY, np.random.default_rng(2))
    independent = chance_distance(np.arange(1000), generator.integers(0, 2, 1000), L_INFINITY, np.random.default_rng(2))
    assert repeated == pytest.approx(alone)
    assert independent < alone / 3
    assert alone == pytest.approx(2.58 * 0.5 / 40**0.5, rel=0.2)  # The normal approximation's 99 % quantile.


def test_what_has_not_come_may_yet_be_as_frequent_as_chance_allows() -> None:
    """Of 50 users none has a value that one in eleven has: the probability of that is 1 %."""
    none = np.zeros(50, np.int64)
    unseen = chance_distance(np.arange(50), none, L_INFINITY, np.random.default_rng(1))
    assert (1 - unseen) ** 50 == pytest.approx(0.01)
    assert 0 < chance_distance(np.arange(50), none, JENSEN_SHANNON, np.random.default_rng(1)) < unseen


def test_what_is_too_much_to_tell_apart_does_not_count_as_one_category(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the values are each of a category of its own: together they vary far more than any of them."""
    generator = np.random.default_rng(1)
    users = np.repeat(np.arange(200), 20)
    rare = np.repeat(generator.random(200) < 0.5, 20)
    categories = np.where(rare, 100 + np.arange(4000), generator.integers(0, 20, 4000))
    exact = chance_distance(users, categories, L_INFINITY, np.random.default_rng(2))
    monkeypatch.setattr(chance, "_MOST_CELLS", 200 * 30)
    bounded = chance_distance(users, categories, L_INFINITY, np.random.default_rng(2))
    assert bounded == pytest.approx(exact)
    assert chance_distance(users, categories, JENSEN_SHANNON, np.random.default_rng(2)) > 0


def test_limits_add_tolerance_and_chance_as_metrics_do() -> None:
    assert limit(0.05, 0.1, L_INFINITY) == pytest.approx(0.15)
    assert limit(0.04, 0.01, JENSEN_SHANNON) == pytest.approx(0.09)
    assert limit(0.9, 0.9, L_INFINITY) == 1.0


def test_logged_requests_are_compared_with_the_latest_run(world: World, tmp_path: Path) -> None:
    config = load_config("synthetic", [f"workspace={tmp_path}"])
    requests = world.requests(8, 300)
    pattern = log_requests(tmp_path / "requests", [requests[:100], *([one] for one in requests[100:])])
    with pytest.raises(SkewError, match="no run yet"):
        measure_skew(config, world.schema, pattern, 1000, Tolerances())
    write_workspace(tmp_path, world.training)
    report = measure_skew(config, world.schema, pattern, 1000, Tolerances())
    distinct = 100 + len(set(requests[100:]))  # The same request again is a replay.
    assert (report.run_id, report.served_examples, report.moved) == (RUN, distinct, False)
    assert measure_skew(config, world.schema, pattern, 50, Tolerances()).served_examples == 50
    with pytest.raises(SkewError, match=r"nothing-\* holds no logged request for recommendations of 'recommender'"):
        measure_skew(config, world.schema, f"{tmp_path}/nothing-*", 1000, Tolerances())
    with pytest.raises(SkewError, match="no run yesterday in ML Metadata"):
        measure_skew(config, world.schema, pattern, 1000, Tolerances(), "yesterday")
    output = io.StringIO()
    print_skew(report, Console(file=output, width=200))
    printed = output.getvalue()
    assert printed.startswith(f"{distinct} served examples of ")
    assert "not compared: timestamp, history_timestamps (time moves on)" in printed
    assert SkewReport.model_validate_json(report.model_dump_json()) == report
    assert datetime.datetime.fromisoformat(report.run_id)
