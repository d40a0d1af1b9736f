"""The Evaluator's configuration: which metrics, on which slices."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tensorflow_model_analysis.proto import config_pb2

from modules.features import USER_ID
from modules.metrics.event_counts import EventCounts
from modules.metrics.feedback import FEEDBACK_METRIC_NAMES, FeedbackMetrics
from modules.metrics.list_quality import GENRE_METRIC_NAMES, LIST_METRIC_NAMES, ListQualityMetrics
from modules.metrics.off_policy import OffPolicyMetrics
from modules.metrics.off_policy_refusal import DIAGNOSTIC_NAMES, POLICY_VALUE_NAMES
from modules.metrics.query_ranking import QueryRankingMetrics, query_metric_names
from modules.metrics.ranking import RankingMetrics, ranking_metric_names
from modules.tasks import NEXT_TITLE, RANK, RANKING_TASKS
from pipeline.config import EvaluationConfig, PipelineConfig
from pipeline.config_files import ConfigError

CANDIDATE = "candidate"
BASELINE = "baseline"
EVALUATE_SIGNATURE = "evaluate"
SLICES_SIGNATURE = "slices"
_LARGEST_QUERY_CUTOFF = 10


def build_eval_config(
    evaluation: EvaluationConfig,
    feedback: str | None = None,
    like_threshold: float | None = None,
    off_policy: Mapping[str, object] | None = None,
) -> config_pb2.EvalConfig:
    """Returns what TFX's Evaluator is to do.

    The baseline, the last blessed model, is always part of it: Evaluator drops it as long as there is no blessed model.
    TFMA's own thresholds, which know no intervals, are not used: `pipeline.gate` judges what is computed here.

    Args:
      evaluation: tasks, metrics, slices and the gate.
      feedback: raw feature that holds the feedback, if there is any.
      like_threshold: feedback from which on a title counts as liked; without it the task `rank` is left out.
      off_policy: what `off_policy_settings` returns.

    Raises:
      ConfigError: if a rule of the gate names a metric that is not computed.
    """
    with_feedback = RANK in evaluation.tasks and feedback is not None and like_threshold is not None
    _check_gate_metrics(evaluation, with_feedback, off_policy is not None)
    metrics = [
        _metric_config(EventCounts),
        _metric_config(ListQualityMetrics, with_intervals=evaluation.confidence_intervals),
    ]
    if cutoffs := _query_cutoffs(evaluation):
        metrics.append(
            _metric_config(QueryRankingMetrics, top_k=cutoffs, with_intervals=evaluation.confidence_intervals)
        )
    if ranking_tasks := _ranking_tasks(evaluation):
        group_by = USER_ID if evaluation.confidence_intervals else None
        metrics.append(_metric_config(RankingMetrics, top_k=evaluation.top_k, tasks=ranking_tasks, group_by=group_by))
    if with_feedback:
        settings = {"feedback": feedback, "like_threshold": like_threshold}
        metrics.append(_metric_config(FeedbackMetrics, with_intervals=evaluation.confidence_intervals, **settings))
    if off_policy is not None:
        metrics.append(_metric_config(OffPolicyMetrics, **off_policy))
    return config_pb2.EvalConfig(
        model_specs=[_model_spec(CANDIDATE), _model_spec(BASELINE, is_baseline=True)],
        slicing_specs=_slicing_specs(evaluation),
        metrics_specs=[config_pb2.MetricsSpec(metrics=metrics)],
    )


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


def _slicing_specs(evaluation: EvaluationConfig) -> list[config_pb2.SlicingSpec]:
    """Returns overall, the slices asked for and those of the features that only the gate names.

    The latter by feature, never by value: TFMA reads a value such as `3` as a number, which then equals no string.
    """
    features = [keys for keys in evaluation.slices if keys]
    features += [tuple(rule.slice) for rule in evaluation.gate.rules if rule.slice]
    features += [keys for protected in evaluation.gate.protected for keys in protected.slices]
    unique = {frozenset(keys): keys for keys in features}
    return [config_pb2.SlicingSpec(), *(config_pb2.SlicingSpec(feature_keys=keys) for keys in unique.values())]


def _ranking_tasks(evaluation: EvaluationConfig) -> list[str]:
    return [task for task in RANKING_TASKS if task in evaluation.tasks]


def _query_cutoffs(evaluation: EvaluationConfig) -> list[int]:
    """Returns the cut-offs of what is averaged over queries and users: few, for the table to stay readable."""
    return [k for k in evaluation.top_k if k <= _LARGEST_QUERY_CUTOFF] if NEXT_TITLE in evaluation.tasks else []


def off_policy_settings(config: PipelineConfig) -> dict[str, object] | None:
    """Returns the settings of `OffPolicyMetrics`; None where the log has no propensities."""
    data = config.data
    if config.policy is None or data.propensity is None:
        return None
    return {
        **config.policy.model_dump(),
        "propensity": data.propensity,
        "feedback": data.feedback,
        "position": data.position,
        "separated": data.interactions.columns[data.propensity].separator is not None,
        "with_intervals": config.evaluation.confidence_intervals,
    }


def _check_gate_metrics(evaluation: EvaluationConfig, with_feedback: bool, with_policy: bool) -> None:
    """Makes sure that the gate can be passed: a rule on a metric that is never computed would refuse every model."""
    known = set(LIST_METRIC_NAMES) - (set() if evaluation.genre_feature else set(GENRE_METRIC_NAMES))
    if cutoffs := _query_cutoffs(evaluation):
        known |= set(query_metric_names(cutoffs))
    for task in _ranking_tasks(evaluation):
        known |= set(ranking_metric_names(evaluation.top_k, task))
    if with_feedback:
        known |= set(FEEDBACK_METRIC_NAMES)
    if with_policy:
        known |= {*POLICY_VALUE_NAMES, *DIAGNOSTIC_NAMES}
    named = [(f"rules.{number}", rule.metric) for number, rule in enumerate(evaluation.gate.rules)]
    named += [(f"protected.{number}", protected.metric) for number, protected in enumerate(evaluation.gate.protected)]
    for field, metric in named:
        if metric not in known:
            raise ConfigError(
                f"evaluation.gate.{field}.metric: received {metric!r}; expected one of {', '.join(sorted(known))}"
            )
