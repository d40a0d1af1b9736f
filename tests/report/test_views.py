"""From what a run left behind to what is shown of it, part by part."""

from __future__ import annotations

import math

import pytest

from pipeline.report.feature_statistics import summarise_split
from pipeline.report.figures import slices_figure
from pipeline.report.headline import headline
from pipeline.report.learning import describe_settings, describe_start, learning_figures
from pipeline.report.metric_table import by_week, metric_group, metric_rows, slices_of
from pipeline.report.model_card import SplitFacts, fairness_gaps, features_used, limits, split_facts
from pipeline.slice_names import split_slice
from pipeline.verdict import Estimate, Verdict, read_verdict
from tests.report.simulated import COLUMNS, HOSTILE, estimate, report, statistics, verdict


def test_numbers_that_are_none_are_read_as_missing(tmp_path):
    path = tmp_path / "verdict.json"
    path.write_text('{"slices": {"overall": {"ndcg@10": {"value": NaN, "lower": Infinity, "baseline": 0.5}}}}')
    found = read_verdict(path).overall["ndcg@10"]
    assert (found.value, found.lower, found.upper, found.baseline) == (None, None, None, 0.5)
    assert read_verdict(tmp_path / "none.json") == Verdict()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("overall", {}),
        ("gender=F", {"gender": "F"}),
        ("age_band=<18, gender=F", {"age_band": "<18", "gender": "F"}),
        ("genre=Action, Drama", {"genre": "Action, Drama"}),
        ("query=a=b", {"query": "a=b"}),
    ],
)
def test_slices_are_taken_apart(name: str, expected: dict[str, str]):
    assert split_slice(name) == expected


@pytest.mark.parametrize(
    ("value", "baseline", "told"),
    [
        (0.11, 0.08, "is better than the last blessed one: ndcg@10 changed by +0.0300 (95 %: +0.0200 to +0.0400)."),
        (0.08, 0.11, "is worse than the last blessed one: ndcg@10 changed by −0.0300"),  # noqa: RUF001
        (0.11, 0.105, "cannot be told apart from the last blessed one: ndcg@10 changed by +0.0050"),
        (0.11, None, "ndcg@10 on the test split is 0.1100; there is no earlier blessed model"),
    ],
)
def test_the_headline_claims_no_more_than_the_interval_allows(value: float, baseline: float | None, told: str):
    found = headline(report(), Verdict.model_validate({"slices": {"overall": {"ndcg@10": estimate(value, baseline)}}}))
    assert told in found.sentence
    assert (found.metric, found.decision, found.good) == ("ndcg@10", "Blessed and pushed", True)


def test_the_headline_of_runs_that_pushed_nothing():
    assert headline(report(pushed=None, servable=False), verdict()).sentence.endswith("but no server could serve it.")
    assert headline(report(blessed=False, pushed=None), verdict()).decision == "Not blessed"
    running = headline(report(blessed=None, pushed=None, state="running"), Verdict())
    assert (running.metric, running.decision, running.good) == (None, "Not evaluated", None)
    assert running.sentence == "The run is still running."
    failed = headline(report(blessed=None, pushed=None, state="failed", failure="No space."), Verdict())
    assert (failed.decision, failed.good, failed.sentence) == ("Failed", False, "The run failed: No space.")


def test_rows_are_grouped_and_know_what_is_certainly_better():
    rows = metric_rows(verdict())
    groups = list(dict.fromkeys(row.group for row in rows))
    assert groups == ["next_title", "rank", "beyond accuracy", "off-policy"]
    outcomes = {(row.metric, row.slice): row.outcome for row in rows}
    assert outcomes["ndcg@10", "overall"] == "better"
    assert outcomes["ndcg@10", "gender=F"] == "worse"
    assert outcomes["ndcg@10", "gender=M"] == ""
    assert outcomes["ndcg@10", "user_activity=new"] == ""
    assert outcomes["gini@10", "overall"] == "better", "less of it is better"
    assert [row.slice for row in rows if row.metric == "ndcg@10"] == list(verdict().slices)


@pytest.mark.parametrize(
    ("metric", "group"),
    [
        ("recall@50", "next_title"),
        ("because_you_watched_ndcg@10", "because_you_watched"),
        ("continue_watching_mrr@1", "continue_watching"),
        ("rank_auc", "rank"),
        ("novelty@10", "beyond accuracy"),
        ("policy_value_dr", "off-policy"),
    ],
)
def test_the_name_of_a_metric_tells_its_group(metric: str, group: str):
    assert metric_group(metric) == group


def test_charts_take_slices_of_one_feature_and_weeks_in_order():
    crossed = verdict()
    crossed.slices["age_band=18-24, gender=F"] = crossed.slices["gender=F"]
    assert list(slices_of(crossed, "ndcg@10")) == [
        "overall",
        "gender=F",
        "gender=M",
        "user_activity=new",
        f"occupation={HOSTILE}",
    ]
    weeks = by_week(crossed, "ndcg@10")
    assert list(weeks) == ["0", "2", "10+"]
    assert weeks["10+"].value == pytest.approx(0.02)
    assert by_week(crossed, "recall@10") == {}


@pytest.mark.parametrize(
    ("halves", "ends"),
    [
        ((0.01, 0.02), (0.09, 0.22)),  # All intervals are shown.
        ((0.01, 5.0), (0.05, 0.25)),  # One is wider than all the values lie apart.
    ],
)
def test_one_wide_interval_does_not_dwarf_the_others(halves: tuple[float, float], ends: tuple[float, float]):
    pairs = zip(("gender=F", "gender=M"), (0.1, 0.2), halves, strict=True)
    estimates = {name: Estimate.model_validate(estimate(value, half=half)) for name, value, half in pairs}
    low, high = slices_figure(estimates, "ndcg@10")["layout"]["xaxis"]["range"]
    assert (low, high) == (pytest.approx(ends[0] - 0.005), pytest.approx(ends[1] + 0.005))


def test_statistics_of_numbers_times_and_texts():
    split = summarise_split("train", statistics(x=0.75, y=0.25), times={"timestamp"})
    age, timestamp, user_id = split.features
    assert (age.type, age.mean, age.lowest, age.highest) == ("integer", "30", "20", "40")
    assert age.missing_share == pytest.approx(0.1)
    assert [(bar.label, bar.share) for bar in age.bars] == [
        ("20 to 30", pytest.approx(2 / 3)),
        ("30 to 40", pytest.approx(1 / 3)),
    ]
    assert (timestamp.type, timestamp.lowest, timestamp.highest) == ("time", "1997-09-20", "1998-04-22")
    assert (user_id.type, user_id.distinct, user_id.missing_share) == ("text", 2, 0)
    assert [(bar.label, bar.share) for bar in user_id.top] == [("x", 0.75), ("y", 0.25)]


def test_a_feature_that_is_always_missing_has_no_numbers():
    nothing = statistics()
    nothing.features[0].num_stats.Clear()
    age = summarise_split("train", nothing).features[0]
    assert (age.missing_share, age.values_per_example, age.mean, age.bars) == (1.0, 0.0, "", ())


def test_splits_are_told_in_order_of_time():
    splits = [summarise_split(name, statistics(a=1.0), {"timestamp"}) for name in ("test", "impressions_test", "train")]
    facts = split_facts(splits, COLUMNS)
    assert [(fact.name, fact.events, fact.users, fact.first) for fact in facts] == [
        ("train", 1_000, 1, "1997-09-20"),
        ("test", 1_000, 1, "1997-09-20"),
    ]


def test_features_used_are_those_of_the_groups_that_reach_the_model():
    found = dict(features_used(COLUMNS, ["ids", "user", "context"]))
    assert found["ids"] == "item_id"
    assert found["user"] == "age, gender, occupation", "zip_code is carried along only"
    assert "context" not in found
    assert "history_item_ids" in found["history"]


def test_the_gap_is_between_the_best_and_the_worst_served_with_enough_users():
    slices = {
        f"age_band={value}": {"ndcg@10": estimate(number, half=half)}
        for value, number, half in (("<18", 0.9, 0.1), ("18-24", 0.3, 0.03), ("25+", 0.1, 0.04), ("missing", None, 0))
    }
    users = {"age_band=<18": 19, "age_band=18-24": 20, "age_band=25+": 500, "age_band=missing": 400}
    (gap,) = fairness_gaps(
        Verdict.model_validate({"slices": {"overall": {}, **slices}, "user_counts": users}), "ndcg@10", COLUMNS
    )
    assert (gap.feature, gap.best, gap.worst, gap.left_out) == ("age_band", "18-24", "25+", ("<18",))
    assert gap.value == pytest.approx(0.2)
    half = math.sqrt(0.03**2 + 0.04**2)
    assert (gap.lower, gap.upper) == (pytest.approx(0.2 - half), pytest.approx(0.2 + half))


def test_a_gap_without_intervals_has_none():
    slices = {f"gender={value}": {"ndcg@10": {"value": number}} for value, number in (("F", 0.1), ("M", 0.2))}
    counts = {"gender=F": 100, "gender=M": 100}
    (gap,) = fairness_gaps(Verdict.model_validate({"slices": slices, "example_counts": counts}), "ndcg@10", COLUMNS)
    assert (gap.best, gap.lower, gap.upper) == ("M", None, None)


def test_limits_state_shares_of_this_run():
    found = " ".join(limits(verdict(), {"items_rejected": 2}, [], "ndcg@10"))
    assert "13 % of the test events are of users without any training event; ndcg@10 is 0.1000 there." in found
    assert "2 rows of the source tables" in found
    assert "on titles without any training event" not in found, "there is no such slice"


def test_a_refitted_model_knows_the_validation_split_too():
    facts = [
        SplitFacts("train", 10, 1, "1998-01-01", "1998-01-31"),
        SplitFacts("validation", 10, 1, "1998-02-01", "1998-02-28"),
        SplitFacts("test", 10, 1, "1998-03-01", "1998-03-31"),
    ]
    fitted = limits(Verdict(), {}, facts, None)
    assert "It knows nothing after 1998-01-31; the test split begins on 1998-03-01." in fitted
    refitted = limits(Verdict(), {}, facts, None, ["train", "eval"])
    assert "It knows nothing after 1998-02-28; the test split begins on 1998-03-01." in refitted


def test_settings_are_told_by_path_members_one_by_one():
    settings = {"a": {"b": 1e-3}, "members": [{"family": "ease"}, {"family": "gru", "settings": {"d": 8}}], "l": [1, 2]}
    assert describe_settings(settings) == [
        ("a.b", "0.001"),
        ("members.0.family", "ease"),
        ("members.1.family", "gru"),
        ("members.1.settings.d", "8"),
        ("l", "[1, 2]"),
    ]


def test_models_without_epochs_have_no_curve():
    assert learning_figures({"epochs": [], "best_epoch": None}) == {}


def test_the_start_of_a_fit_is_told_where_there_is_a_base_model():
    assert describe_start({}) == describe_start({"kind": "cold", "reason": "there is no base model"}) == []
    warm = {
        "kind": "warm",
        "base_model": "serving/17",
        "learning_rate_factor": 0.5,
        "models": {"model": {"told": "two_tower: warm start: 3 of 3 weights carried over"}},
    }
    assert describe_start(warm) == [
        "Warm start from serving/17, at 0.5 times the learning rate.",
        "model: two_tower: warm start: 3 of 3 weights carried over.",
    ]
    assert describe_start({"kind": "cold", "base_model": "serving/17", "reason": "closed form", "models": {}}) == [
        "Cold start, though there is a base model, serving/17.",
        "Reason: closed form.",
    ]
