"""The contents of a report, made up: what names and titles say is as hostile as it gets."""

from __future__ import annotations

from typing import Any

from tensorflow_metadata.proto.v0 import statistics_pb2

from modules.features import ColumnTable, parse_schema
from pipeline.config import SCHEMA_DIRECTORY, ModelCardConfig
from pipeline.gate_line import GateLine
from pipeline.report.content import DriftReport, ReportContent
from pipeline.report.drift import measure_drift
from pipeline.report.example_users import ExampleUser, Recommendation, Title
from pipeline.report.feature_statistics import summarise_split
from pipeline.runs import ComponentReport, PushReport, RunReport
from pipeline.verdict import Verdict

HOSTILE = "</script><script>alert(1)</script>"
RUN_ID = "2026-11-24T12:00:00.000001"
COLUMNS = ColumnTable.from_schema(
    parse_schema((SCHEMA_DIRECTORY / "movielens-100k" / "schema.pbtxt").read_text(encoding="utf-8"))
)

_Type = statistics_pb2.FeatureNameStatistics


def estimate(value: float | None, baseline: float | None = None, half: float = 0.01) -> dict[str, float | None]:
    """An estimate as the Evaluator writes it; `half` is half the width of its intervals."""
    change = None if value is None or baseline is None else value - baseline

    def ends(middle: float | None) -> tuple[float | None, float | None]:
        return (None, None) if middle is None else (middle - half, middle + half)

    numbers = (value, *ends(value), baseline, change, *ends(change))
    names = ("value", "lower", "upper", "baseline", "change", "change_lower", "change_upper")
    return dict(zip(names, numbers, strict=True))


def verdict(**more: Any) -> Verdict:
    """Three slices of gender and activity, one that is hostile, and three weeks."""
    slices = {
        "overall": {
            "ndcg@10": estimate(0.11, 0.08),
            "recall@10": estimate(0.21, 0.22),
            "gini@10": estimate(0.5, 0.8),
            "rank_user_auc": estimate(0.7, 0.5),
            "policy_value_ips": estimate(None),
            "policy_value_snips": estimate(0.3, 0.29),
            "off_policy_refusal": estimate(2.0),
            "policy_impressions": estimate(1000.0),
            "policy_effective_sample_size": estimate(55.0),
            "policy_mean_weight": estimate(0.5),
        },
        "gender=F": {"ndcg@10": estimate(0.09, 0.12)},
        "gender=M": {"ndcg@10": estimate(0.12, 0.115)},
        "user_activity=new": {"ndcg@10": estimate(0.1, 0.05, 0.2)},
        f"occupation={HOSTILE}": {"ndcg@10": estimate(0.2, None)},
        **{
            f"weeks_since_training={label}": {"ndcg@10": estimate(0.12 - week / 100, 0.1)}
            for label, week in (("10+", 10), ("0", 0), ("2", 2))
        },
    }
    counts = {name: 100 + 10 * number for number, name in enumerate(slices)} | {"overall": 1_000}
    users = {name: max(count // 4, 1) for name, count in counts.items()}
    return Verdict.model_validate({"slices": slices, "example_counts": counts, "user_counts": users, **more})


def report(**more: Any) -> RunReport:
    """A run that went well."""
    document: dict[str, Any] = {
        "pipeline": "small",
        "run_id": RUN_ID,
        "state": "complete",
        "components": {"AtomicPusher": ComponentReport(state="run", seconds=0.1)},
        "total_seconds": 10.0,
        "anomalies": f"Clean: {HOSTILE}",
        "data": {"num_examples_catalogue": 50, "interactions_rejected": 3},
        "training": {
            "model": {"family": "two_tower", "seed": 17, "settings": {"dimension": 8, "label": HOSTILE}},
            "settings_from": {"dimension": "tuned"},
            "fit_seconds": 3.0,
            "validation_ndcg@10": 0.1,
            "final_fit_splits": ["train", "eval"],
            "best_epoch": 2,
            "epochs": [{"epoch": number, "loss": 2 / number, "validation_ndcg@10": 0.1} for number in (1, 2, 3)],
        },
        "gate": [
            GateLine(
                rule="ndcg@10: at least 0.03",
                slice="overall",
                metric="ndcg@10",
                value=0.11,
                lower=0.1,
                upper=0.12,
                bound="lower",
                needed=0.03,
                passed=True,
                reason="",
            ),
            GateLine(
                rule="ndcg@10: no significant harm",
                slice=f"occupation={HOSTILE}",
                metric="ndcg@10",
                value=None,
                lower=None,
                upper=None,
                bound="upper",
                needed=0.0,
                passed=None,
                reason="not judged: 3 users, fewer than 20",
            ),
        ],
        "blessed": True,
        "servable": True,
        "pushed": PushReport(version="7", destination="serving/recommender/7"),
    }
    return RunReport.model_validate({**document, **more})


def statistics(**shares: float) -> statistics_pb2.DatasetFeatureStatistics:
    """One number, one time and one text, whose values have the shares given."""
    result = statistics_pb2.DatasetFeatureStatistics(num_examples=1_000)
    for name, values in (("age", (20.0, 30.0, 40.0)), ("timestamp", (874_724_710.0, 880_000_000.0, 893_286_638.0))):
        number = result.features.add(type=_Type.INT)
        number.path.step.append(name)
        number.num_stats.common_stats.num_non_missing = 900
        number.num_stats.common_stats.avg_num_values = 1.0
        number.num_stats.min, number.num_stats.mean, number.num_stats.max = values
        histogram = number.num_stats.histograms.add(type=statistics_pb2.Histogram.STANDARD)
        for low, high, count in ((values[0], values[1], 600.0), (values[1], values[2], 300.0)):
            histogram.buckets.add(low_value=low, high_value=high, sample_count=count)
    text = result.features.add(type=_Type.STRING)
    text.path.step.append("user_id")
    text.string_stats.unique = len(shares)
    text.string_stats.common_stats.num_non_missing = 1_000
    text.string_stats.common_stats.avg_num_values = 1.0
    text.string_stats.common_stats.tot_num_values = 1_000
    for label, share in shares.items():
        text.string_stats.rank_histogram.buckets.add(label=label, sample_count=1_000 * share)
    return result


def content(**more: Any) -> ReportContent:
    """Everything that there can be."""
    shares = {HOSTILE: 0.5, "b": 0.5}
    now, before = statistics(**shares), statistics(b=1.0)
    splits = [summarise_split(split, now, {"timestamp"}) for split in ("train", "eval", "test")]
    hostile = Title("1", HOSTILE, "1995 · Drama")
    user = ExampleUser(
        user_id=HOSTILE,
        profile="age 30",
        activity=2,
        day="1998-04-01",
        last_titles=(hostile, Title("2", "Two")),
        recommendations=(Recommendation(hostile, 1.5, "next"), Recommendation(Title("3", "Three"), 0.5, "later")),
        taken_next=((hostile, 1), (Title("4", "Four"), None)),
        taken_later=5,
    )
    fields: dict[str, Any] = {
        "report": report(),
        "verdict": verdict(),
        "columns": COLUMNS,
        "statistics": {"interactions": splits, "catalogue": [summarise_split("catalogue", now)]},
        "drift": DriftReport("2026-11-23T12:00:00.000001", {"interactions, train": measure_drift(now, before)}),
        "training_parameters": {"feature_groups": ["ids", "user"], "code_version": "abc123"},
        "users": [user],
        "users_missing": "",
        "card": ModelCardConfig(owner=HOSTILE),
    }
    return ReportContent(**{**fields, **more})


def empty_content() -> ReportContent:
    """A run that failed before anything was written."""
    failed = RunReport(
        pipeline="small",
        run_id=RUN_ID,
        state="failed",
        failure=f"interactions.tsv: {HOSTILE}\nline 2",
        components={},
        total_seconds=0.0,
    )
    return ReportContent(
        report=failed,
        verdict=Verdict(),
        columns=None,
        statistics={},
        drift=None,
        training_parameters={},
        users=[],
        users_missing="There is no model to ask.",
        card=ModelCardConfig(),
    )
