"""Reads what the Evaluator found out: metrics by slice, with intervals and differences to the baseline."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping

import tensorflow as tf
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto import metrics_for_slice_pb2

from modules.metrics.event_counts import EXAMPLE_COUNT, IMPRESSION_USER_COUNT, USER_COUNT
from modules.metrics.user_sums import USER_SUMS_SUFFIX, UserSums
from pipeline.evaluation import BASELINE, CANDIDATE
from pipeline.slice_names import OVERALL, slice_name


class EvaluationError(ValueError):
    """A folder that holds no evaluation."""


@dataclasses.dataclass(frozen=True)
class MetricValue:
    """One metric on one slice.

    Attributes:
      value: of the candidate; NaN where it is undefined, or the baseline alone has the metric.
      lower: lower end of its 95 % interval, if there is one. It may lie below 0 on a slice of few users.
      upper: upper end.
      baseline: value of the last blessed model, if there was one to compare with.
      change: candidate minus baseline.
      change_lower: lower end of the 95 % interval of the change, which is computed pairwise and hence narrower than
        the two models' own intervals suggest.
      change_upper: upper end.
    """

    value: float = math.nan
    lower: float | None = None
    upper: float | None = None
    baseline: float | None = None
    change: float | None = None
    change_lower: float | None = None
    change_upper: float | None = None


@dataclasses.dataclass(frozen=True)
class EvaluationResult:
    """All metrics of an evaluation.

    Attributes:
      slices: metrics by slice name and metric name, e.g. `slices["age_band=25-34, gender=F"]["ndcg@10"]`. The
        features of a cross stand in alphabetical order; overall comes first, then the slices by name.
      example_counts: interactions in each slice.
      user_counts: users that they are of.
      impression_user_counts: users that something was shown to, which off-policy estimates are about.
    """

    slices: Mapping[str, Mapping[str, MetricValue]]
    example_counts: Mapping[str, int]
    user_counts: Mapping[str, int]
    impression_user_counts: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @property
    def has_baseline(self) -> bool:
        """Whether the candidate was compared with a blessed model."""
        return any(metric.baseline is not None for metrics in self.slices.values() for metric in metrics.values())


def read_evaluation(evaluation_uri: str) -> EvaluationResult:
    """Reads the metrics of an evaluation.

    Args:
      evaluation_uri: folder of the ModelEvaluation artifact.

    Raises:
      EvaluationError: if the folder holds no metrics.
    """
    messages = _load_messages(evaluation_uri)
    slices: dict[str, dict[str, MetricValue]] = {}
    counts: dict[str, dict[str, int]] = {EXAMPLE_COUNT: {}, USER_COUNT: {}, IMPRESSION_USER_COUNT: {}}
    for name in sorted(messages, key=lambda slice_name: (slice_name != OVERALL, slice_name)):
        metrics = _read_metrics(messages[name])
        for counted, of_slices in counts.items():
            of_slices[name] = int(metrics.pop(counted).value) if counted in metrics else 0
        slices[name] = metrics
    return EvaluationResult(slices, *counts.values())


def read_user_sums(evaluation_uri: str, task: str, model_name: str = CANDIDATE) -> UserSums:
    """Reads what each group of users contributes to a task's metrics over the whole test split.

    The estimates that follow from it are those that `read_evaluation` returns for the slice `overall`. Groups of equal
    id are of the same users in every evaluation on the same test split.

    Args:
      evaluation_uri: folder of the ModelEvaluation artifact.
      task: of `modules.tasks.TASKS`.
      model_name: `candidate` or `baseline`.

    Raises:
      EvaluationError: if the folder holds no metrics, or none of this task and model: it was not evaluated, not with
        confidence intervals, or no event of the test split is of the task.
    """
    found = set()
    for item in _load_messages(evaluation_uri)[OVERALL].metric_keys_and_values:
        if item.key.name.endswith(USER_SUMS_SUFFIX):
            # A model that is evaluated alone has no name.
            key = (item.key.name.removesuffix(USER_SUMS_SUFFIX), item.key.model_name or CANDIDATE)
            if key == (task, model_name):
                return UserSums.from_bytes(task, item.value.bytes_value)
            found.add(key)
    raise EvaluationError(
        f"{evaluation_uri} holds no user sums of task {task!r} and model {model_name!r}; it holds those of "
        f"{sorted(found) or 'none'}"
    )


def _load_messages(evaluation_uri: str) -> dict[str, metrics_for_slice_pb2.MetricsForSlice]:
    if not tf.io.gfile.glob(os.path.join(evaluation_uri, "metrics*")):
        raise EvaluationError(f"{evaluation_uri} holds no evaluation: expected files named metrics*")
    return {_slice_name(message.slice_key): message for message in tfma.load_metrics(evaluation_uri)}


def _read_metrics(message: metrics_for_slice_pb2.MetricsForSlice) -> dict[str, MetricValue]:
    fields: dict[str, dict[str, float]] = {}
    for item in message.metric_keys_and_values:
        name = item.key.name
        if name.startswith("__") or name.endswith(USER_SUMS_SUFFIX):
            continue
        field = "change" if item.key.is_diff else "baseline" if item.key.model_name == BASELINE else "value"
        values = fields.setdefault(name, {})
        values[field] = item.value.double_value.value
        if item.HasField("confidence_interval") and field != "baseline":
            prefix = "change_" if item.key.is_diff else ""
            values[f"{prefix}lower"] = item.confidence_interval.lower_bound.double_value.value
            values[f"{prefix}upper"] = item.confidence_interval.upper_bound.double_value.value
    return {name: MetricValue(**values) for name, values in sorted(fields.items())}


def _slice_name(key: metrics_for_slice_pb2.SliceKey) -> str:
    features = {}
    for single in key.single_slice_keys:
        value = getattr(single, single.WhichOneof("kind"))
        features[single.column] = value.decode() if isinstance(value, bytes) else value
    return slice_name(features)
