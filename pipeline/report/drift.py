r"""How far the data have moved since an earlier run, feature by feature.

* Texts: $L_\infty$, the largest difference of a value's share, $\max_v |p(v) - q(v)|$.
* Numbers: the Jensen-Shannon divergence in bits, $\frac{1}{2} KL(p \Vert m) + \frac{1}{2} KL(q \Vert m)$ with
  $m = \frac{1}{2}(p + q)$, of the two histograms after cutting both at the edges of either; within a bucket values are
  taken for evenly spread.

Both are 0 for equal data and at most 1. They are the measures of TensorFlow Data Validation's drift comparator.

References:
  Lin, Divergence measures based on the Shannon entropy, IEEE Transactions on Information Theory 37(1), 1991.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Collection, Mapping, Sequence

from tensorflow_metadata.proto.v0 import statistics_pb2

from pipeline.report.feature_statistics import (
    describe_number,
    describe_share,
    feature_name,
    number_buckets,
    value_shares,
)

Bucket = tuple[float, float, float]
"""Lower end, upper end, count."""


@dataclasses.dataclass(frozen=True)
class Drift:
    """How far one feature has moved.

    Attributes:
      feature: its name.
      measure: `L∞` or `Jensen-Shannon`.
      distance: from 0 to 1.
      told: what has changed most, in words; empty if nothing has.
    """

    feature: str
    measure: str
    distance: float
    told: str


def measure_drift(
    now: statistics_pb2.DatasetFeatureStatistics,
    before: statistics_pb2.DatasetFeatureStatistics,
    left_out: Collection[str] = (),
) -> list[Drift]:
    """Returns the drift of the features that both have values of, the largest first.

    Args:
      now: statistics of these data.
      before: statistics of the earlier data.
      left_out: features that move in any case, such as times.
    """
    earlier = {feature_name(feature): feature for feature in before.features}
    found = []
    for feature in now.features:
        name = feature_name(feature)
        other = earlier.get(name)
        if name in left_out or other is None or feature.WhichOneof("stats") != other.WhichOneof("stats"):
            continue
        if feature.WhichOneof("stats") == "num_stats":
            drift = _number_drift(name, feature, other)
        else:
            drift = _text_drift(name, feature, other)
        if drift is not None:
            found.append(drift)
    return sorted(found, key=lambda drift: (-drift.distance, drift.feature))


def l_infinity(now: Mapping[str, float], before: Mapping[str, float]) -> tuple[float, str]:
    """Returns the largest difference of shares, and the value that has it; of equal ones the first by name."""
    values = sorted({*now, *before})
    value = max(values, key=lambda value: abs(now.get(value, 0.0) - before.get(value, 0.0)))
    return abs(now.get(value, 0.0) - before.get(value, 0.0)), value


def jensen_shannon(now: Sequence[Bucket], before: Sequence[Bucket]) -> float:
    """Returns the divergence of two histograms in bits; each must hold something."""
    edges = sorted({edge for low, high, _ in (*now, *before) for edge in (low, high)})
    first, second = _spread(now, edges), _spread(before, edges)
    total = 0.0
    for place in first.keys() | second.keys():
        p, q = first.get(place, 0.0), second.get(place, 0.0)
        total += sum(0.5 * share * math.log2(2 * share / (p + q)) for share in (p, q) if share > 0)
    return min(max(total, 0.0), 1.0)


def _text_drift(
    name: str, feature: statistics_pb2.FeatureNameStatistics, other: statistics_pb2.FeatureNameStatistics
) -> Drift | None:
    now, before = value_shares(feature), value_shares(other)
    if not now or not before:
        return None
    distance, value = l_infinity(now, before)
    shares = (describe_share(shares.get(value, 0.0)) for shares in (before, now))
    told = f"“{value}” {' → '.join(shares)}" if distance else ""
    return Drift(name, "L∞", distance, told)


def _number_drift(
    name: str, feature: statistics_pb2.FeatureNameStatistics, other: statistics_pb2.FeatureNameStatistics
) -> Drift | None:
    now, before = number_buckets(feature), number_buckets(other)
    if not sum(count for _, _, count in now) or not sum(count for _, _, count in before):
        return None
    distance = jensen_shannon(now, before)
    means = (describe_number(one.num_stats.mean) for one in (other, feature))
    return Drift(name, "Jensen-Shannon", distance, f"mean {' → '.join(means)}" if distance else "")


def _spread(buckets: Sequence[Bucket], edges: Sequence[float]) -> dict[tuple[float, float], float]:
    """Returns the share of a histogram in each part between two edges; a bucket without width is a part of its own."""
    total = sum(count for _, _, count in buckets)
    shares: dict[tuple[float, float], float] = {}
    for low, high, count in buckets:
        if count <= 0:
            continue
        parts = [(low, high)] if low == high else [p for p in itertools.pairwise(edges) if low <= p[0] and p[1] <= high]
        for start, end in parts:
            weight = 1.0 if low == high else (end - start) / (high - low)
            shares[start, end] = shares.get((start, end), 0.0) + weight * count / total
    return shares
