"""What TensorFlow Data Validation counted, feature by feature. Its protos are read without importing it."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Collection
from pathlib import Path

from tensorflow_metadata.proto.v0 import statistics_pb2

_SPLIT_PREFIX = "Split-"
_STATISTICS_FILE = "FeatureStats.pb"
_MOST_BARS = 20
_MOST_TOP_VALUES = 3
_TYPES = {
    statistics_pb2.FeatureNameStatistics.INT: "integer",
    statistics_pb2.FeatureNameStatistics.FLOAT: "number",
    statistics_pb2.FeatureNameStatistics.STRING: "text",
    statistics_pb2.FeatureNameStatistics.BYTES: "bytes",
    statistics_pb2.FeatureNameStatistics.STRUCT: "structure",
}
_STANDARD = statistics_pb2.Histogram.STANDARD


@dataclasses.dataclass(frozen=True)
class Bar:
    """One bar of a small histogram.

    Attributes:
      label: the value, or the range of values.
      share: of all values, from 0 to 1.
    """

    label: str
    share: float


@dataclasses.dataclass(frozen=True)
class FeatureSummary:
    """One feature of one split.

    Attributes:
      name: its name.
      type: `integer`, `number`, `text` or `time`.
      missing_share: examples without a value, from 0 to 1.
      values_per_example: mean number of values where there are any.
      mean: of numbers; as a date of times; empty otherwise.
      lowest: of numbers; as a date of times; empty otherwise.
      highest: of numbers; as a date of times; empty otherwise.
      distinct: different texts; None of numbers.
      top: the most frequent texts with their shares.
      bars: the histogram: ranges of numbers in order, or the most frequent texts.
    """

    name: str
    type: str
    missing_share: float
    values_per_example: float
    mean: str = ""
    lowest: str = ""
    highest: str = ""
    distinct: int | None = None
    top: tuple[Bar, ...] = ()
    bars: tuple[Bar, ...] = ()


@dataclasses.dataclass(frozen=True)
class SplitSummary:
    """All features of one split.

    Attributes:
      split: its name.
      examples: number of examples.
      features: by name.
    """

    split: str
    examples: int
    features: tuple[FeatureSummary, ...]


def read_statistics(folder: Path) -> dict[str, statistics_pb2.DatasetFeatureStatistics]:
    """Returns the statistics of each split below the folder of an ExampleStatistics artifact, by split."""
    found = {}
    for path in sorted(folder.glob(f"{_SPLIT_PREFIX}*/{_STATISTICS_FILE}")):
        statistics = statistics_pb2.DatasetFeatureStatisticsList.FromString(path.read_bytes())
        found[path.parent.name.removeprefix(_SPLIT_PREFIX)] = statistics.datasets[0]
    return found


def summarise_split(
    split: str, statistics: statistics_pb2.DatasetFeatureStatistics, times: Collection[str] = ()
) -> SplitSummary:
    """Returns what a reader wants to know of each feature.

    Args:
      split: its name.
      statistics: of its examples.
      times: features that hold seconds since 1970, which are shown as dates.
    """
    examples = int(statistics.num_examples)
    features = sorted(statistics.features, key=feature_name)
    return SplitSummary(split, examples, tuple(_summarise(feature, examples, times) for feature in features))


def feature_name(feature: statistics_pb2.FeatureNameStatistics) -> str:
    """Returns a feature's name, however it is written down."""
    return ".".join(feature.path.step) or feature.name


def value_shares(feature: statistics_pb2.FeatureNameStatistics) -> dict[str, float]:
    """Returns the shares of a text feature's values: of all values, though only the most frequent are listed."""
    counts = {bucket.label: bucket.sample_count for bucket in feature.string_stats.rank_histogram.buckets}
    total = feature.string_stats.common_stats.tot_num_values or sum(counts.values())
    return {label: count / total for label, count in counts.items()} if total else {}


def number_buckets(feature: statistics_pb2.FeatureNameStatistics) -> list[tuple[float, float, float]]:
    """Returns lower end, upper end and count of each bucket of a numeric feature, equally wide."""
    histogram = next((one for one in feature.num_stats.histograms if one.type == _STANDARD), None)
    if histogram is None:
        return []
    return [(bucket.low_value, bucket.high_value, bucket.sample_count) for bucket in histogram.buckets]


def as_date(seconds: float) -> str:
    """Returns the day (UTC) of seconds since 1970."""
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%d")


def describe_number(value: float) -> str:
    """Returns a number as short as it can be: a year has no comma."""
    return f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"


def describe_share(value: float) -> str:
    """Returns a share as per cent, e.g. `18.5 %`."""
    return "0 %" if value == 0 else "< 0.01 %" if value < 1e-4 else f"{100 * value:.3g} %"


def _summarise(feature: statistics_pb2.FeatureNameStatistics, examples: int, times: Collection[str]) -> FeatureSummary:
    name = feature_name(feature)
    if feature.WhichOneof("stats") == "num_stats":
        numbers = feature.num_stats
        told = as_date if name in times else describe_number
        missing, per_example = _presence(numbers.common_stats, examples)
        buckets = number_buckets(feature)
        total = sum(count for _, _, count in buckets)
        present = numbers.common_stats.num_non_missing > 0
        return FeatureSummary(
            name,
            "time" if name in times else _TYPES[feature.type],
            missing,
            per_example,
            mean=told(numbers.mean) if present else "",
            lowest=told(numbers.min) if present else "",
            highest=told(numbers.max) if present else "",
            bars=tuple(Bar(f"{told(low)} to {told(high)}", count / total) for low, high, count in buckets if total),
        )
    strings = feature.string_stats
    missing, per_example = _presence(strings.common_stats, examples)
    bars = tuple(Bar(label, share) for label, share in list(value_shares(feature).items())[:_MOST_BARS])
    return FeatureSummary(
        name,
        _TYPES[feature.type],
        missing,
        per_example,
        distinct=int(strings.unique),
        top=bars[:_MOST_TOP_VALUES],
        bars=bars,
    )


def _presence(common: statistics_pb2.CommonStatistics, examples: int) -> tuple[float, float]:
    """Returns the share of examples without a value, and the mean number of values of the others."""
    present = common.num_non_missing
    return (1 - present / examples if examples else 1.0, common.avg_num_values if present else 0.0)
