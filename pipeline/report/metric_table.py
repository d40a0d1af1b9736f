"""All metrics on all slices as the rows of one table, and the few of them that charts show."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping

from modules.derived_names import WEEKS_SINCE_TRAINING
from modules.metrics.directions import lower_is_better
from modules.metrics.off_policy_refusal import explain_refusal
from modules.tasks import NEXT_TITLE, TASKS, metric_prefix
from pipeline.slice_names import split_slice
from pipeline.verdict import Estimate, Verdict

_POLICY_PREFIX = "policy_"
_POLICY_VALUE_PREFIX = "policy_value_"
_REFUSAL_SUFFIX = "_refusal"
_POLICY_GROUP = "off-policy"
_OTHER_GROUP = "beyond accuracy"
_NEXT_TITLE_MEASURES = ("recall", "ndcg", "mrr")


@dataclasses.dataclass(frozen=True)
class MetricRow:
    """One metric on one slice.

    Attributes:
      group: what the metric is about: a task, `off-policy` or `beyond accuracy`.
      metric: its name.
      slice: name of the slice.
      events: test events of the slice.
      users: users that they are of; None if they were not counted.
      estimate: the numbers.
      outcome: `better` or `worse` if the change is certain, otherwise empty.
      refusal: why there is no off-policy estimate, in words; empty if there is one, or it is another metric.
    """

    group: str
    metric: str
    slice: str
    events: int
    users: int | None
    estimate: Estimate
    outcome: str
    refusal: str


def metric_rows(verdict: Verdict) -> list[MetricRow]:
    """Returns a row for each metric and slice: group by group, and the slices of one metric beside each other."""
    rows = [
        MetricRow(
            group=metric_group(metric),
            metric=metric,
            slice=name,
            events=verdict.example_counts.get(name, 0),
            users=verdict.user_counts.get(name),
            estimate=estimate,
            outcome=_outcome(metric, estimate),
            refusal=_refusal(metric, metrics) if estimate.value is None else "",
        )
        for name, metrics in verdict.slices.items()
        for metric, estimate in metrics.items()
        if not metric.endswith(_REFUSAL_SUFFIX)
    ]
    groups = group_order(row.group for row in rows)
    metrics = list(dict.fromkeys(row.metric for row in rows))
    return sorted(rows, key=lambda row: (groups.index(row.group), metrics.index(row.metric)))


def metric_group(metric: str) -> str:
    """Returns what a metric is about, which the beginning of its name tells."""
    if metric.startswith(_POLICY_PREFIX):
        return _POLICY_GROUP
    for task in TASKS:
        if task != NEXT_TITLE and metric.startswith(metric_prefix(task)):
            return task
    return NEXT_TITLE if metric.partition("@")[0] in _NEXT_TITLE_MEASURES else _OTHER_GROUP


def group_order(groups: Iterable[str]) -> list[str]:
    """Returns the groups there are, in the order in which they are shown."""
    present = set(groups)
    return [group for group in (*TASKS, _OTHER_GROUP, _POLICY_GROUP) if group in present]


def slices_of(verdict: Verdict, metric: str) -> dict[str, Estimate]:
    """Returns a metric overall and on the slices of one feature, but not over time; slices without it are left out."""
    return {
        name: metrics[metric]
        for name, metrics in verdict.slices.items()
        if len(split_slice(name)) <= 1
        and WEEKS_SINCE_TRAINING not in split_slice(name)
        and metric in metrics
        and metrics[metric].value is not None
    }


def by_week(verdict: Verdict, metric: str) -> dict[str, Estimate]:
    """Returns a metric by whole weeks since the training cut, the earliest first; empty if there are no such slices.

    Weeks are as in the slices' names: `0`, `1`, and at the end perhaps `12+`, which is all that is later.
    """
    found = {}
    for name, metrics in verdict.slices.items():
        features = split_slice(name)
        week = features.get(WEEKS_SINCE_TRAINING, "")
        known = metric in metrics and metrics[metric].value is not None
        if len(features) == 1 and week.removesuffix("+").isdecimal() and known:
            found[week] = metrics[metric]
    return dict(sorted(found.items(), key=lambda item: first_week(item[0])))


def first_week(label: str) -> int:
    """Returns the first week that a slice of weeks stands for."""
    return int(label.removesuffix("+"))


def has_baseline(verdict: Verdict) -> bool:
    """Tells whether the model was compared with an earlier one."""
    return any(estimate.baseline is not None for estimate in verdict.overall.values())


def _outcome(metric: str, estimate: Estimate) -> str:
    sign = estimate.certain_change * (-1 if lower_is_better(metric) else 1)
    return {1: "better", -1: "worse", 0: ""}[sign]


def _refusal(metric: str, metrics: Mapping[str, Estimate]) -> str:
    """Returns in words why an off-policy estimate is undefined; empty for other metrics."""
    if not metric.startswith(_POLICY_VALUE_PREFIX):
        return ""
    numbers = {name: math.nan if one.value is None else one.value for name, one in metrics.items()}
    return explain_refusal(numbers, metric.removeprefix(_POLICY_VALUE_PREFIX)) or "undefined"
