"""`measure_skew`: the features of logged requests against the statistics of the training split."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2

from modules.features import ColumnTable, Role, sub_schema
from pipeline.config import PipelineConfig
from pipeline.metadata import open_metadata
from pipeline.report.feature_statistics import (
    describe_number,
    describe_share,
    feature_name,
    read_statistics,
    value_shares,
)
from pipeline.report.run_artifacts import INTERACTION_STATISTICS, read_run_artifacts
from pipeline.runs import NoRunError, RunStore
from pipeline.serving.prediction_logs import EXAMPLES, logged_requests
from pipeline.serving.skew.chance import JENSEN_SHANNON, L_INFINITY, chance_distance, limit
from pipeline.serving.skew.columns import Comparison, choose_comparisons
from pipeline.serving.skew.report import FeatureSkew, SkewReport
from pipeline.serving.skew.served import (
    ServedExamples,
    ServedValues,
    SkewError,
    bucket_edges,
    bucket_numbers,
    count_in_training_buckets,
)
from pipeline.serving.tensors import read_tensor

LEAST_USERS = 20
"""Users that the requests must be of: fewer do not tell skew from chance."""

_TRAINING_SPLIT = "train"
_SEED = 17
_MOST_TOLD = 3
_MEASURES = {
    anomalies_pb2.DriftSkewInfo.Measurement.L_INFTY: L_INFINITY,
    anomalies_pb2.DriftSkewInfo.Measurement.JENSEN_SHANNON_DIVERGENCE: JENSEN_SHANNON,
}


@dataclasses.dataclass(frozen=True)
class Tolerances:
    """What may differ where the schema's `skew_comparator` says nothing.

    Attributes:
      l_infinity: difference of the share of a text, and of the share of examples without a value.
      jensen_shannon: divergence of numbers, in bits.
    """

    l_infinity: float = 0.05
    jensen_shannon: float = 0.02


def measure_skew(
    config: PipelineConfig,
    schema: schema_pb2.Schema,
    pattern: str,
    most_requests: int,
    tolerances: Tolerances,
    run_id: str | None = None,
) -> SkewReport:
    """Compares logged requests with a run's training split.

    Args:
      config: the workspace and the model's name.
      schema: the tagged schema.
      pattern: of the log files; see `pipeline.serving.prediction_logs.log_files`.
      most_requests: latest requests to read.
      tolerances: what may differ.
      run_id: the run; None for the latest that described its data.

    Raises:
      SkewError: if there are no such requests, or no statistics to compare them with.
    """
    chosen, training = _training_statistics(config, run_id)
    requests = logged_requests(pattern, config.serving.model_name, most_requests)
    if not requests:
        raise SkewError(f"{pattern} holds no logged request for recommendations of {config.serving.model_name!r}")
    examples = [example for request in requests for example in read_tensor(request.inputs[EXAMPLES]).reshape(-1)]
    return compare_with_training(training, examples, schema, tolerances, chosen)


def compare_with_training(
    training: statistics_pb2.DatasetFeatureStatistics,
    examples: Sequence[bytes],
    schema: schema_pb2.Schema,
    tolerances: Tolerances,
    run_id: str,
) -> SkewReport:
    """Compares served examples with the statistics of a training split.

    Args:
      training: the statistics.
      examples: serialized tf.Examples; at least one.
      schema: the tagged schema.
      tolerances: what may differ.
      run_id: the run that the statistics are of.

    Raises:
      SkewError: if the examples are of too few users, or cannot be decoded.
    """
    (user_column,) = ColumnTable.from_schema(schema).names(Role.USER_ID)
    served = ServedExamples(examples, user_column)
    if served.user_count < LEAST_USERS:
        raise SkewError(
            f"the logged requests are of {served.user_count} users; telling skew from chance takes {LEAST_USERS}"
        )
    comparisons, left_out = choose_comparisons(schema, training, tolerances.l_infinity, tolerances.jensen_shannon)
    statistics = served.statistics()
    count_in_training_buckets(statistics, training, served)
    before = {feature_name(feature): feature for feature in training.features}
    after = {feature_name(feature): feature for feature in statistics.features}
    generator = np.random.default_rng(_SEED)
    rows: list[FeatureSkew] = []
    compared: list[Comparison] = []
    chances: dict[str, float] = {}
    for comparison in comparisons:
        name = comparison.column.name
        values = served.values(name)
        rows.append(_missing(name, before[name], training, values, served, tolerances.l_infinity, generator))
        if name not in after or not len(values.values):
            continue
        if before[name].WhichOneof("stats") != after[name].WhichOneof("stats"):
            rows.append(_other_type(name, before[name], after[name]))
            continue
        compared.append(comparison)
        chances[name] = _chance(comparison, before[name], values, generator)
    distances = _distances(schema, compared, chances, training, statistics)
    for comparison in compared:
        name = comparison.column.name
        if name not in distances:
            left_out[name] = f"its {comparison.measure} cannot be measured: see its skew_comparator"
            continue
        bound = limit(comparison.tolerated, chances[name], comparison.measure)
        rows.append(
            FeatureSkew(
                feature=name,
                measure=comparison.measure,
                distance=distances[name],
                tolerated=comparison.tolerated,
                chance=chances[name],
                limit=bound,
                moved=distances[name] > bound,
                told=_tell(before[name], after[name]),
            )
        )
    rows.sort(key=lambda row: (not row.moved, -row.distance / max(row.limit, 1e-9), row.feature))
    return SkewReport(
        run_id=run_id,
        training_examples=int(training.num_examples),
        served_examples=served.count,
        served_users=served.user_count,
        features=rows,
        not_compared=left_out,
    )


def _training_statistics(
    config: PipelineConfig, run_id: str | None
) -> tuple[str, statistics_pb2.DatasetFeatureStatistics]:
    try:
        run_ids = RunStore(config.metadata_path).run_ids()
    except NoRunError as error:
        raise SkewError(str(error)) from error
    if run_id is not None and run_id not in run_ids:
        raise SkewError(f"no run {run_id} in ML Metadata; it holds {run_ids or 'none'}")
    store = open_metadata(config.metadata_path)
    for candidate in [run_id] if run_id is not None else run_ids[::-1]:
        folder = read_run_artifacts(store, candidate).folder(INTERACTION_STATISTICS, "statistics")
        if folder is not None and (found := read_statistics(folder).get(_TRAINING_SPLIT)) is not None:
            return candidate, found
    raise SkewError(f"no statistics of the training split of {run_id or 'any run'} in {config.workspace}")


def _distances(
    schema: schema_pb2.Schema,
    comparisons: Sequence[Comparison],
    chances: Mapping[str, float],
    training: statistics_pb2.DatasetFeatureStatistics,
    served: statistics_pb2.DatasetFeatureStatistics,
) -> dict[str, float]:
    """Returns TFDV's skew measurements by feature, with its comparators set to the limits."""
    import tensorflow_data_validation as tfdv

    by_name = {comparison.column.name: comparison for comparison in comparisons}
    compared = sub_schema(schema, by_name)
    for feature in compared.feature:
        comparison = by_name[feature.name]
        bound = limit(comparison.tolerated, chances[feature.name], comparison.measure)
        feature.ClearField("skew_comparator")
        if comparison.measure == JENSEN_SHANNON:
            feature.skew_comparator.jensen_shannon_divergence.threshold = bound
        else:
            feature.skew_comparator.infinity_norm.threshold = bound
    anomalies = tfdv.validate_statistics(
        statistics_pb2.DatasetFeatureStatisticsList(datasets=[training]),
        compared,
        serving_statistics=statistics_pb2.DatasetFeatureStatisticsList(datasets=[served]),
    )
    return {
        ".".join(info.path.step): measurement.value
        for info in anomalies.drift_skew_info
        for measurement in info.skew_measurements
        if _MEASURES.get(measurement.type) == by_name[".".join(info.path.step)].measure
    }


def _chance(
    comparison: Comparison,
    training: statistics_pb2.FeatureNameStatistics,
    values: ServedValues,
    generator: np.random.Generator,
) -> float:
    if training.WhichOneof("stats") == "num_stats":
        numbers = values.values.astype(float)
        finite = np.isfinite(numbers)
        categories = bucket_numbers(numbers[finite], bucket_edges(training))
        return chance_distance(values.users[finite], categories, comparison.measure, generator)
    _, texts = np.unique(values.values.astype(bytes), return_inverse=True)
    return chance_distance(values.users, texts.astype(np.int64), comparison.measure, generator)


def _missing(
    name: str,
    feature: statistics_pb2.FeatureNameStatistics,
    training: statistics_pb2.DatasetFeatureStatistics,
    values: ServedValues,
    served: ServedExamples,
    tolerated: float,
    generator: np.random.Generator,
) -> FeatureSkew:
    """Compares the shares of examples without a value, which TFDV's comparators know nothing of."""
    stats = feature.num_stats if feature.WhichOneof("stats") == "num_stats" else feature.string_stats
    before = 1 - stats.common_stats.num_non_missing / training.num_examples
    now = float(values.missing.mean())
    missing: NDArray[np.int64] = values.missing.astype(np.int64)
    chance = chance_distance(served.users, missing, L_INFINITY, generator)
    bound = limit(tolerated, chance, L_INFINITY)
    distance = abs(now - before)
    return FeatureSkew(
        feature=name,
        measure="missing",
        distance=distance,
        tolerated=tolerated,
        chance=chance,
        limit=bound,
        moved=distance > bound,
        told=f"missing {describe_share(max(before, 0.0))} → {describe_share(now)}" if distance else "",
    )


def _other_type(
    name: str, before: statistics_pb2.FeatureNameStatistics, now: statistics_pb2.FeatureNameStatistics
) -> FeatureSkew:
    types = " → ".join(statistics_pb2.FeatureNameStatistics.Type.Name(one.type) for one in (before, now))
    return FeatureSkew(
        feature=name, measure="type", distance=1.0, tolerated=0.0, chance=0.0, limit=0.0, moved=True, told=types
    )


def _tell(before: statistics_pb2.FeatureNameStatistics, now: statistics_pb2.FeatureNameStatistics) -> str:
    """Returns what has changed most, in words."""
    if before.WhichOneof("stats") == "num_stats":
        return ", ".join(
            f"{what} {describe_number(one)} → {describe_number(other)}"
            for what, one, other in (
                ("mean", before.num_stats.mean, now.num_stats.mean),
                ("median", before.num_stats.median, now.num_stats.median),
                ("largest", before.num_stats.max, now.num_stats.max),
            )
        )
    earlier, later = value_shares(before), value_shares(now)
    changes = {value: later.get(value, 0.0) - earlier.get(value, 0.0) for value in {*earlier, *later}}
    largest = sorted(changes, key=lambda value: (-abs(changes[value]), value))[:_MOST_TOLD]
    return ", ".join(
        f"“{value}” {describe_share(earlier.get(value, 0.0))} → {describe_share(later.get(value, 0.0))}"
        for value in largest
        if changes[value]
    )
