"""The Evaluator's configuration: which metrics, on which slices, and what a model must reach to be blessed."""

from __future__ import annotations

import json
from collections.abc import Iterable

from google.protobuf import wrappers_pb2
from tensorflow_model_analysis.proto import config_pb2

from modules.features import USER_ID
from modules.metrics.coverage import CatalogueCoverage, coverage_metric_names
from modules.metrics.feedback import RANK_QUALITY_NAMES, FeedbackMetrics
from modules.metrics.ranking import RankingMetrics, ranking_metric_names
from modules.metrics.reporting import LOWER_SUFFIX
from modules.tasks import RANK, RANKING_TASKS
from pipeline.config import ConfigError, EvaluationConfig, ThresholdConfig

CANDIDATE = "candidate"
BASELINE = "baseline"
EVALUATE_SIGNATURE = "evaluate"
SLICES_SIGNATURE = "slices"


def build_eval_config(
    evaluation: EvaluationConfig, feedback: str | None = None, like_threshold: float | None = None
) -> config_pb2.EvalConfig:
    """Returns what TFX's Evaluator is to do.

    The baseline, the last blessed model, is always part of it: Evaluator drops it, with every `minimum_change`, as
    long as there is no blessed model, and the absolute minimums still hold.

    Evaluator writes no verdict at all, and so blesses nothing, when no threshold is left. A rule that only has a
    `minimum_change` would therefore never let a first model through; such a rule also asks that the metric exists,
    which a first model with any result satisfies.

    The gate compares point estimates: TFMA's validator ignores intervals. To ask for certainty, set the threshold on
    the lower bound of the 95 % interval, named e.g. `ndcg@10_lower`: `minimum` then bounds the metric from below and
    `minimum_change` the paired difference to the baseline.

    Args:
      evaluation: tasks, metrics, slices and thresholds.
      feedback: raw feature that holds the feedback, if there is any.
      like_threshold: feedback from which on a title counts as liked; without it the task `rank` is left out.

    Raises:
      ConfigError: if a threshold names a metric that is not computed.
    """
    with_feedback = RANK in evaluation.tasks and feedback is not None and like_threshold is not None
    _check_threshold_metrics(evaluation, with_feedback)
    metrics = [
        config_pb2.MetricConfig(class_name="ExampleCount"),
        _metric_config(CatalogueCoverage, top_k=evaluation.top_k),
    ]
    if ranking_tasks := _ranking_tasks(evaluation):
        group_by = USER_ID if evaluation.confidence_intervals else None
        metrics.append(_metric_config(RankingMetrics, top_k=evaluation.top_k, tasks=ranking_tasks, group_by=group_by))
    if with_feedback:
        settings = {"feedback": feedback, "like_threshold": like_threshold}
        metrics.append(_metric_config(FeedbackMetrics, with_intervals=evaluation.confidence_intervals, **settings))
    config = config_pb2.EvalConfig(
        model_specs=[_model_spec(CANDIDATE), _model_spec(BASELINE, is_baseline=True)],
        slicing_specs=_slicing_specs(evaluation),
        metrics_specs=[config_pb2.MetricsSpec(metrics=metrics)],
    )
    for threshold in evaluation.thresholds:
        per_slice = config.metrics_specs[0].per_slice_thresholds[threshold.metric]
        per_slice.thresholds.append(
            config_pb2.PerSliceMetricThreshold(
                # A threshold outside of `per_slice_thresholds` would apply to every slice, tiny ones too.
                slicing_specs=[config_pb2.SlicingSpec(feature_values=threshold.slice)],
                threshold=_metric_threshold(threshold),
            )
        )
    return config


def _model_spec(name: str, is_baseline: bool = False) -> config_pb2.ModelSpec:
    # TFMA finds no derived slice at all unless both models derive them. Where the two disagree, for instance on the
    # popularity band of a title, an example counts in both slices, for both models alike.
    return config_pb2.ModelSpec(
        name=name,
        signature_name=EVALUATE_SIGNATURE,
        preprocessing_function_names=[SLICES_SIGNATURE],
        is_baseline=is_baseline,
    )


def _metric_config(metric: type, **settings: object) -> config_pb2.MetricConfig:
    return config_pb2.MetricConfig(
        class_name=metric.__name__, module=metric.__module__, config=json.dumps(settings, sort_keys=True)
    )


def _metric_threshold(threshold: ThresholdConfig) -> config_pb2.MetricThreshold:
    result = config_pb2.MetricThreshold()
    lowest = float("-inf") if threshold.minimum is None else threshold.minimum
    result.value_threshold.lower_bound.CopyFrom(wrappers_pb2.DoubleValue(value=lowest))
    if threshold.minimum_change is not None:
        result.change_threshold.absolute.CopyFrom(wrappers_pb2.DoubleValue(value=threshold.minimum_change))
        result.change_threshold.direction = config_pb2.MetricDirection.HIGHER_IS_BETTER
    return result


def _slicing_specs(evaluation: EvaluationConfig) -> list[config_pb2.SlicingSpec]:
    """Returns overall, the slices asked for and those of the features that only a threshold names.

    The latter by feature, never by value: TFMA reads a value such as `3` as a number, which then equals no string.
    """
    features = [keys for keys in evaluation.slices if keys]
    features += [tuple(threshold.slice) for threshold in evaluation.thresholds if threshold.slice]
    unique = {frozenset(keys): keys for keys in features}
    return [config_pb2.SlicingSpec(), *(config_pb2.SlicingSpec(feature_keys=keys) for keys in unique.values())]


def _ranking_tasks(evaluation: EvaluationConfig) -> list[str]:
    return [task for task in RANKING_TASKS if task in evaluation.tasks]


def _check_threshold_metrics(evaluation: EvaluationConfig, with_feedback: bool) -> None:
    """Makes sure that thresholds can be met: a gate sets minimums, so errors, of which less is better, have none."""
    tasks = _ranking_tasks(evaluation)
    bounded = [name for task in tasks for name in ranking_metric_names(evaluation.top_k, task)]
    bounded += RANK_QUALITY_NAMES if with_feedback else ()
    known: Iterable[str] = (*bounded, *coverage_metric_names(evaluation.top_k))
    if evaluation.confidence_intervals:
        known = (*known, *(name + LOWER_SUFFIX for name in bounded))
    for index, threshold in enumerate(evaluation.thresholds):
        if threshold.metric not in known:
            raise ConfigError(
                f"evaluation.thresholds.{index}.metric: received {threshold.metric!r}; expected one of "
                f"{', '.join(known)}"
            )
