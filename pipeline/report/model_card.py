"""The model card: what the model is for, what it was made of, and what is known to limit it.

After Mitchell et al., Model cards for model reporting, FAT* 2019. Free text comes from the section `model_card` of the
configuration; everything else is stated from what the run left behind.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from modules.derived_names import TITLE_POPULARITY, USER_ACTIVITY, band_name
from modules.features import ColumnTable, Role
from pipeline.report.feature_statistics import SplitSummary, describe_share
from pipeline.slice_names import OVERALL, split_slice
from pipeline.verdict import Estimate, Verdict

_NEW = "new"
_LEAST_USERS = 20
_LEAST_EVENTS = 100
_ROLES_OF_GROUPS = {
    "user": (Role.USER,),
    "item": (Role.ITEM,),
    "context": (Role.CONTEXT,),
    "ids": (Role.ITEM_ID,),
    "time_buckets": (Role.TIMESTAMP,),
    "continuous_time": (Role.TIMESTAMP,),
}
_KEYS = (Role.ITEM_ID, Role.TIMESTAMP)
_SPLIT_NAMES = {"train": "train", "eval": "validation", "test": "test"}


@dataclasses.dataclass(frozen=True)
class Gap:
    """How far the model serves some users worse than others.

    Attributes:
      feature: what tells the users apart.
      best: the value that is served best.
      worst: the value that is served worst.
      value: the difference of the metric.
      lower: lower end of its 95 % interval; None if one of the two has none.
      upper: upper end.
      left_out: values with too few users or events.
    """

    feature: str
    best: str
    worst: str
    value: float
    lower: float | None
    upper: float | None
    left_out: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class SplitFacts:
    """What a split holds.

    Attributes:
      name: `train`, `validation` or `test`.
      events: its examples.
      users: different users.
      first: day of the first event.
      last: day of the last.
    """

    name: str
    events: int
    users: int | None
    first: str
    last: str


def split_facts(splits: Sequence[SplitSummary], columns: ColumnTable) -> list[SplitFacts]:
    """Returns the facts of the splits that models are fitted and judged on, in order of time."""
    (user_id,), (timestamp,) = columns.names(Role.USER_ID), columns.names(Role.TIMESTAMP)
    facts = []
    for split in splits:
        named = {feature.name: feature for feature in split.features}
        if split.split in _SPLIT_NAMES and timestamp in named:
            users = named[user_id].distinct if user_id in named else None
            time = named[timestamp]
            facts.append(SplitFacts(_SPLIT_NAMES[split.split], split.examples, users, time.lowest, time.highest))
    order = list(_SPLIT_NAMES.values())
    return sorted(facts, key=lambda fact: order.index(fact.name))


def features_used(columns: ColumnTable, groups: Sequence[str]) -> list[tuple[str, str]]:
    """Returns each feature group that the model may use, with the columns behind it. Groups without columns are out."""
    found = []
    for group in groups:
        behind = columns.with_role(*_ROLES_OF_GROUPS.get(group, ()))
        # A column without a kind is carried along only, unless it is a key.
        names = [column.name for column in behind if column.kind is not None or column.role in _KEYS]
        if names:
            found.append((group, ", ".join(names)))
    histories = columns.names(Role.HISTORY)
    return [*found, ("history", ", ".join(histories))] if histories else found


def fairness_gaps(verdict: Verdict, metric: str, columns: ColumnTable) -> list[Gap]:
    """Returns for each column of the user the gap between the values served best and worst, the widest first.

    Users of different values are different people, so the interval of a gap follows from those of its ends. The ends
    were chosen for being far apart: with many values a gap is expected even where there is no difference.
    """
    names = columns.names(Role.USER)
    features = [*names, *(band_name(name) for name in names)]
    gaps = []
    for feature in features:
        values, left_out = _values_of(verdict, metric, feature)
        if len(values) < 2:
            continue
        worst, best = (bound(values, key=lambda value: _number(values[value].value)) for bound in (min, max))
        high, low = values[best], values[worst]
        difference = _number(high.value) - _number(low.value)
        gaps.append(Gap(feature, best, worst, difference, *_interval(high, low, difference), tuple(left_out)))
    return sorted(gaps, key=lambda gap: -gap.value)


def limits(
    verdict: Verdict,
    data: Mapping[str, Any],
    facts: Sequence[SplitFacts],
    metric: str | None,
    fitted_on: Sequence[str] = ("train",),
) -> list[str]:
    """Returns what limits the model, in sentences that state facts of this run.

    Args:
      verdict: the evaluation.
      data: counts of ingestion.
      facts: of the splits.
      metric: the main metric, if there is one.
      fitted_on: the splits of the final fit, as they are named in the examples.
    """
    found = [
        "Judged offline, on what people took without it: what they would have done with its lists is not in a log."
    ]
    shares = (
        (USER_ACTIVITY, "of the test events are of users without any training event"),
        (TITLE_POPULARITY, "of the test events are on titles without any training event"),
    )
    total = verdict.example_counts.get(OVERALL, 0)
    for feature, told in shares:
        events = verdict.example_counts.get(f"{feature}={_NEW}", 0)
        if total and events:
            estimate = verdict.slices.get(f"{feature}={_NEW}", {}).get(metric or "", Estimate())
            there = f"; {metric} is {estimate.value:.4f} there" if estimate.value is not None else ""
            found.append(f"{describe_share(events / total)} {told}{there}.")
    by_name = {fact.name: fact for fact in facts}
    fitted = [by_name[_SPLIT_NAMES[split]].last for split in fitted_on if _SPLIT_NAMES.get(split) in by_name]
    if fitted and "test" in by_name:
        found.append(f"It knows nothing after {max(fitted)}; the test split begins on {by_name['test'].first}.")
    rejected = sum(int(value) for key, value in data.items() if key.endswith("_rejected"))
    if rejected:
        found.append(f"{rejected:,} rows of the source tables could not be used and were rejected.")
    narrow = [name for name, users in verdict.user_counts.items() if 0 < users < _LEAST_USERS]
    if narrow:
        found.append(f"{len(narrow)} slices have fewer than {_LEAST_USERS} users; little can be said of them.")
    return found


def _values_of(verdict: Verdict, metric: str, feature: str) -> tuple[dict[str, Estimate], list[str]]:
    """Returns the estimates by value of a feature, and the values with too few users or events."""
    values, left_out = {}, []
    for name, metrics in verdict.slices.items():
        features = split_slice(name)
        if list(features) != [feature] or metric not in metrics or metrics[metric].value is None:
            continue
        users = verdict.user_counts.get(name)
        few = verdict.example_counts.get(name, 0) < _LEAST_EVENTS if users is None else users < _LEAST_USERS
        if few:
            left_out.append(features[feature])
        else:
            values[features[feature]] = metrics[metric]
    return values, left_out


def _interval(high: Estimate, low: Estimate, difference: float) -> tuple[float | None, float | None]:
    ends = (high.lower, high.upper, low.lower, low.upper)
    if any(end is None for end in ends):
        return None, None
    below = math.hypot(_number(high.value) - _number(high.lower), _number(low.upper) - _number(low.value))
    above = math.hypot(_number(high.upper) - _number(high.value), _number(low.value) - _number(low.lower))
    return difference - below, difference + above


def _number(value: float | None) -> float:
    assert value is not None
    return value
