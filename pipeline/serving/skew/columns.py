"""Which features are compared, by which measure, and why the others are not."""

from __future__ import annotations

import dataclasses

from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from modules.features import Column, ColumnTable, Role
from pipeline.report.feature_statistics import feature_name
from pipeline.serving.skew.chance import JENSEN_SHANNON, L_INFINITY

NO_REQUEST = "no request holds it"
IDENTITY = "it says who asks"
TIME = "time moves on"
NO_INPUT = "it is no input of any model"
NO_TRAINING = "training has no values of it"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One feature that is compared.

    Attributes:
      column: the feature.
      measure: `L∞` or `Jensen-Shannon`.
      tolerated: distance that is tolerated.
    """

    column: Column
    measure: str
    tolerated: float


def choose_comparisons(
    schema: schema_pb2.Schema,
    training: statistics_pb2.DatasetFeatureStatistics,
    max_l_infinity: float,
    max_jensen_shannon: float,
) -> tuple[list[Comparison], dict[str, str]]:
    """Chooses what to compare by the schema's tags; a `skew_comparator` there asks for a feature in any case.

    Args:
      schema: the tagged schema.
      training: statistics of the training split.
      max_l_infinity: tolerance of texts that the schema gives none.
      max_jensen_shannon: tolerance of numbers that the schema gives none.

    Returns:
      The comparisons in the schema's order, and why other features are not compared, by name.
    """
    table = ColumnTable.from_schema(schema)
    known = {feature_name(feature): feature for feature in training.features}
    described = {feature.name: feature for feature in schema.feature}
    chosen: list[Comparison] = []
    left_out: dict[str, str] = {}
    for column in table.columns:
        feature = described[column.name]
        asked_for = feature.HasField("skew_comparator")
        reason = _reason(column, column in table.query_columns, asked_for, known.get(column.name))
        if reason:
            left_out[column.name] = reason
            continue
        comparator = feature.skew_comparator
        if comparator.HasField("infinity_norm"):
            chosen.append(Comparison(column, L_INFINITY, comparator.infinity_norm.threshold))
        elif comparator.HasField("jensen_shannon_divergence"):
            chosen.append(Comparison(column, JENSEN_SHANNON, comparator.jensen_shannon_divergence.threshold))
        elif known[column.name].WhichOneof("stats") == "num_stats":
            chosen.append(Comparison(column, JENSEN_SHANNON, max_jensen_shannon))
        else:
            chosen.append(Comparison(column, L_INFINITY, max_l_infinity))
    return chosen, left_out


def _reason(
    column: Column, in_requests: bool, asked_for: bool, training: statistics_pb2.FeatureNameStatistics | None
) -> str:
    """Returns why a feature is not compared; empty if it is."""
    if not in_requests:
        return NO_REQUEST
    if training is None or not _common(training).num_non_missing:
        return NO_TRAINING
    if asked_for:
        return ""
    if column.role is Role.USER_ID:
        return IDENTITY
    if Role.TIMESTAMP in (column.role, column.history_of):
        return TIME
    if column.role in (Role.USER, Role.CONTEXT) and column.kind is None:
        return NO_INPUT
    return ""


def _common(feature: statistics_pb2.FeatureNameStatistics) -> statistics_pb2.CommonStatistics:
    if feature.WhichOneof("stats") == "num_stats":
        return feature.num_stats.common_stats
    return feature.string_stats.common_stats
