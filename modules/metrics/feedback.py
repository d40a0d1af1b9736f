r"""Metrics of the task `rank`: do titles that users liked score above titles that they did not, and by how much.

| metric | over | better |
| --- | --- | --- |
| `rank_auc` | all events of the slice: liked ones against the others, ties one half | higher |
| `rank_user_auc` | users with events of both kinds: the mean of their own AUCs (GAUC) | higher |
| `rank_ndcg@10` | queries: two or more titles that one user gave feedback on in one day (UTC) | higher |
| `rank_log_loss` | events: $-\log$ of the probability of what happened, within $[10^{-7}, 1 - 10^{-7}]$ | lower |
| `rank_calibration_error` | ten bins of predicted probability, equally wide (ECE) | lower |
| `rank_feedback_rmse` | events: root of the mean squared error of the predicted feedback | lower |

The gain of a title in `rank_ndcg@10` is its feedback itself, or 0 if that is negative: so the metric does not depend on
the unit, and seconds watched do as well as stars. The exponential gain $2^r - 1$ would do neither. Queries in which
nothing has a gain are left out.

The last three exist for models that predict feedback (`Scorer.predict_feedback`) only. An event counts if it has
feedback; it counts whether or not it is a repeat.

AUC and calibration are no means, so the events themselves are kept until all of a slice are there: 32 bytes an event
and slice with one model, 12 more for a second.

References:
  Zhu et al., Optimized cost per click in Taobao display advertising, KDD 2017 (GAUC).
  Naeini, Cooper & Hauskrecht, Obtaining well calibrated probabilities using Bayesian binning, AAAI 2015 (ECE).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tensorflow_model_analysis.metrics import metric_types
from tensorflow_model_analysis.proto import config_pb2

from modules.features import USER_ID
from modules.metrics.bootstrap import USER_GROUPS, poisson_weights
from modules.metrics.event_records import RecordCombiner, event_time, user_digest
from modules.metrics.graded_ranking import ordered_pairs, pairs_within_groups, query_ndcg
from modules.metrics.model_outputs import (
    LIKE_PROBABILITY,
    PREDICTED_FEEDBACK,
    TARGET_SCORE,
    is_impression,
    metric_key,
    read_features,
    read_number,
)
from modules.metrics.reporting import find_baseline, report_metrics
from modules.metrics.user_sums import USER_SUMS_SUFFIX, UserSums, ratios, sum_by_group, user_group
from modules.tasks import RANK

RANK_QUALITY_NAMES = ("rank_auc", "rank_user_auc", "rank_ndcg@10")
"""Metrics of every model; the higher, the better."""
PREDICTION_ERROR_NAMES = ("rank_log_loss", "rank_calibration_error", "rank_feedback_rmse")
"""Metrics of models that predict feedback; the lower, the better."""
FEEDBACK_METRIC_NAMES = (*RANK_QUALITY_NAMES, *PREDICTION_ERROR_NAMES)

_CUTOFF = 10
_BINS = 10
_LEAST_PROBABILITY = 1e-7
_SECONDS_PER_DAY = 86_400
_OUTPUTS = (TARGET_SCORE, LIKE_PROBABILITY, PREDICTED_FEEDBACK)

# Columns of the means that make up the metrics: sums and counts of each are kept by group of users.
_USER_AUC, _NDCG, _LOG_LOSS, _SQUARED_ERROR = range(4)
_USER_SUMS = {"rank_user_auc": _USER_AUC, "rank_ndcg@10": _NDCG, "rank_log_loss": _LOG_LOSS}


class FeedbackMetrics(metric_types.Metric):
    """The metrics of the task `rank`, with paired differences to a baseline."""

    def __init__(
        self, feedback: str, like_threshold: float, with_intervals: bool = True, name: str = "feedback"
    ) -> None:
        """Initialises the metric.

        Args:
          feedback: raw feature that holds the feedback.
          like_threshold: feedback from which on a title counts as liked.
          with_intervals: whether each metric and each difference carries a 95 % interval (`bootstrap`), and each model
            gets `rank_user_sums` (`user_sums`).
          name: name of the family. The metrics themselves are named by `FEEDBACK_METRIC_NAMES`.
        """
        super().__init__(
            _feedback_computations,
            feedback=feedback,
            like_threshold=like_threshold,
            with_intervals=with_intervals,
            name=name,
        )


metric_types.register_metric(FeedbackMetrics)


def _feedback_computations(
    feedback: str,
    like_threshold: float,
    with_intervals: bool = True,
    name: str = "feedback",
    eval_config: config_pb2.EvalConfig | None = None,
    model_names: Sequence[str] | None = None,
) -> metric_types.MetricComputations:
    """Returns one computation for all metrics of all models."""
    models = tuple(model_names or ("",))
    baseline = find_baseline(eval_config, models)
    return [
        metric_types.MetricComputation(
            keys=[metric_key(metric, model) for model in models for metric in FEEDBACK_METRIC_NAMES],
            preprocessors=[FeedbackPreprocessor(models, feedback, baseline, name=name)],
            combiner=FeedbackCombiner(models, baseline, like_threshold, with_intervals),
        )
    ]


def _record_type(num_models: int) -> np.dtype:
    """Returns how an event is kept: a hash of the user, his group, the day, the feedback and each model's outputs."""
    return np.dtype(
        [
            ("user", "<i8"),
            ("group", "<i4"),
            ("day", "<i4"),
            ("feedback", "<f4"),
            ("outputs", "<f4", (num_models, len(_OUTPUTS))),
        ]
    )


class FeedbackPreprocessor(metric_types.Preprocessor):
    """Turns one example with feedback into a record of `_record_type`, as bytes; yields nothing without feedback."""

    def __init__(self, models: Sequence[str], feedback: str, baseline: str | None, name: str) -> None:
        """Initialises the preprocessor; see `FeedbackMetrics`."""
        super().__init__(name=name)
        self._models = tuple(models)
        self._feedback = feedback
        self._baseline = baseline
        self._record = np.zeros(1, _record_type(len(self._models)))

    def process(self, extracts: dict[str, Any]) -> Iterator[bytes]:
        """Yields the example's record.

        Raises:
          ValueError: if a model lacks an output (the baseline may), or user or time are not there.
        """
        feedback = read_features(extracts, self._feedback)
        if is_impression(extracts) or not feedback.size:
            return
        record = self._record
        record["user"] = int.from_bytes(user_digest(extracts), "little", signed=True)
        record["group"] = user_group(extracts, USER_ID)
        record["day"] = event_time(extracts) // _SECONDS_PER_DAY
        record["feedback"] = feedback[0]
        record["outputs"] = [
            [read_number(extracts, model, output, optional=model == self._baseline) for output in _OUTPUTS]
            for model in self._models
        ]
        yield record.tobytes()


class FeedbackCombiner(RecordCombiner):
    """Computes the metrics when all events of a slice are there."""

    def __init__(
        self, models: Sequence[str], baseline: str | None, like_threshold: float, with_intervals: bool
    ) -> None:
        """Initialises the combiner; see `FeedbackMetrics`."""
        self._models = tuple(models)
        self._baseline = baseline
        self._like_threshold = like_threshold
        self._with_intervals = with_intervals

    def extract_output(self, accumulator: bytearray) -> dict[metric_types.MetricKey, Any]:
        """Returns the metrics of every model, their differences to the baseline, and the user sums."""
        records = np.frombuffer(accumulator, _record_type(len(self._models)))
        if not len(records):
            return {}
        # What bundles the examples came in must not show, not even in the last digit.
        outputs = records["outputs"].reshape(len(records), -1)
        records = records[np.lexsort((*outputs.T, records["feedback"], records["day"], records["user"]))]
        judged = {
            model: _JudgedEvents(records, number, self._like_threshold) for number, model in enumerate(self._models)
        }
        judged = {model: events for model, events in judged.items() if len(events.records)}
        result: dict[metric_types.MetricKey, Any] = {}
        for names in (RANK_QUALITY_NAMES, PREDICTION_ERROR_NAMES):
            able = {model: events for model, events in judged.items() if names is RANK_QUALITY_NAMES or events.predicts}
            if able:
                result.update(self._report(names, able))
        if self._with_intervals:
            for model, events in judged.items():
                result[metric_key(RANK + USER_SUMS_SUFFIX, model)] = events.user_sums().to_bytes()
        return result

    def _report(self, names: Sequence[str], judged: dict[str, _JudgedEvents]) -> dict[metric_types.MetricKey, Any]:
        baseline = self._baseline if self._baseline in judged else None
        estimates = np.stack([events.estimates() for events in judged.values()])
        replicates = sizes = None
        if self._with_intervals:
            replicates = np.stack([events.replicates() for events in judged.values()], axis=1)
            sizes = np.max([events.sizes() for events in judged.values()], axis=0)
        result: dict[metric_types.MetricKey, Any] = {}
        for name in names:  # Each is about other events, and so has an interval of its own width.
            column = [FEEDBACK_METRIC_NAMES.index(name)]
            result |= report_metrics(
                [name],
                list(judged),
                baseline,
                estimates[:, column],
                None if replicates is None else replicates[:, :, column],
                None if sizes is None else sizes[:, column[0]],
            )
        return result


class _JudgedEvents:
    """One model's outputs on the events of a slice.

    Args:
      records: the events, sorted.
      number: position of the model.
      like_threshold: feedback from which on a title counts as liked.
    """

    def __init__(self, records: NDArray[np.void], number: int, like_threshold: float):
        outputs = records["outputs"][:, number].astype(np.float64)
        counted = ~np.isnan(outputs[:, 0])
        self.records = records[counted]
        self._scores, self._probabilities, self._predictions = outputs[counted].T
        self._feedback = self.records["feedback"].astype(np.float64)
        self._liked = self._feedback >= like_threshold
        self.predicts = bool((~np.isnan(self._probabilities)).any())
        self._group_ids, self._groups = np.unique(self.records["group"].astype(np.int64), return_inverse=True)
        empty = np.zeros((0, 4))
        self._sums, self._counts = self._sum_means() if counted.any() else (empty, empty)
        self._bins = self._bin()

    def user_sums(self) -> UserSums:
        """Returns those metrics that are means, by group of users."""
        names = tuple(name for name in _USER_SUMS if self.predicts or name in RANK_QUALITY_NAMES)
        columns = [_USER_SUMS[name] for name in names]
        return UserSums(RANK, names, self._group_ids, self._counts[:, columns], self._sums[:, columns])

    def sizes(self) -> NDArray[np.float64]:
        """Returns what of each group of users each metric is about, `[USER_GROUPS, 6]`; events for AUC."""
        result = np.zeros((USER_GROUPS, len(FEEDBACK_METRIC_NAMES)))
        counts, events = self._counts, np.bincount(self._groups, minlength=len(self._group_ids))
        columns = (events, *counts.T[[_USER_AUC, _NDCG, _LOG_LOSS, _LOG_LOSS, _SQUARED_ERROR]])
        result[self._group_ids] = np.stack(columns, axis=1)
        return result

    def estimates(self) -> NDArray[np.float64]:
        """Returns all metrics over all events, `[6]`, in the order of `FEEDBACK_METRIC_NAMES`."""
        auc = self._auc_and_influence()[0]
        return self._combine(
            np.array([auc]), *(table.sum(axis=0, keepdims=True) for table in (self._sums, self._counts, self._bins))
        )[0]

    def replicates(self) -> NDArray[np.float64]:
        r"""Returns the same under each resample of the users, `[B, 6]`.

        AUC is no function of sums over users, but of pairs of them. Its replicates are linear in the weights, with
        the influence $\psi_g$ of each group: $AUC_b = AUC + \sum_g (w_{bg} - 1) \psi_g$ (Obuchowski, Nonparametric
        analysis of clustered ROC curve data, Biometrics 53(2), 1997).
        """
        weights = poisson_weights(self._group_ids)
        auc, influence = self._auc_and_influence()
        return self._combine(
            auc + (weights - 1) @ influence,
            *(np.tensordot(weights, table, axes=1) for table in (self._sums, self._counts, self._bins)),
        )

    def _auc_and_influence(self) -> tuple[float, NDArray[np.float64]]:
        """Returns the AUC over all events, and by how much a group's weight above 1 changes it: `[G]`."""
        size, liked = len(self._group_ids), self._liked
        num_liked, num_others = float(liked.sum()), float((~liked).sum())
        if not num_liked * num_others:
            return float("nan"), np.zeros(size)
        ordered = ordered_pairs(self._scores, liked)
        auc = float(np.dot(ordered, liked)) / (num_liked * num_others)
        expected = auc * np.where(liked, num_others, num_liked)
        influence = np.bincount(self._groups, weights=ordered - expected, minlength=size)
        return auc, influence / (num_liked * num_others)

    @staticmethod
    def _combine(
        auc: NDArray[np.float64], sums: NDArray[np.float64], counts: NDArray[np.float64], bins: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Returns the metrics in the order of `FEEDBACK_METRIC_NAMES`, `[rows, 6]`."""
        means = ratios(sums, counts)
        gaps = np.abs(bins[:, :, 1]).sum(axis=1)
        return np.stack(
            [
                auc,
                means[:, _USER_AUC],
                means[:, _NDCG],
                means[:, _LOG_LOSS],
                ratios(gaps, bins[:, :, 0].sum(axis=1)),
                np.sqrt(np.maximum(means[:, _SQUARED_ERROR], 0.0)),
            ],
            axis=1,
        )

    def _bin(self) -> NDArray[np.float64]:
        """Returns by group and bin the events, and the sum of probabilities less likings: `[G, bins, 2]`."""
        size = len(self._group_ids)
        known = ~np.isnan(self._probabilities)
        bins = np.minimum((self._probabilities[known] * _BINS).astype(np.int64), _BINS - 1)
        gaps = self._probabilities[known] - self._liked[known]
        values = np.stack([np.ones(len(gaps)), gaps], axis=1)
        return sum_by_group(self._groups[known] * _BINS + bins, values, size * _BINS).reshape(size, _BINS, 2)

    def _sum_means(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Returns sums and counts of what is averaged, by group of users: each `[G, 4]`."""
        size = len(self._group_ids)
        sums, counts = np.zeros((2, size, 4))

        def add(column: int, groups: NDArray[np.int64], values: NDArray[np.float64]) -> None:
            known = ~np.isnan(values)
            sums[:, column] = np.bincount(groups[known], weights=values[known], minlength=size)
            counts[:, column] = np.bincount(groups[known], minlength=size)

        users, first_of_user, user = np.unique(self.records["user"], return_index=True, return_inverse=True)
        pairs = pairs_within_groups(user, self._scores, self._liked, len(users))
        add(_USER_AUC, self._groups[first_of_user], ratios(pairs.ordered, pairs.liked * pairs.others))

        days = self.records["day"].astype(np.int64)
        days -= days.min()
        queries, first_of_query, query = np.unique(
            user * (days.max() + 1) + days, return_index=True, return_inverse=True
        )
        gains = np.maximum(self._feedback, 0.0)
        ndcg = query_ndcg(query, self._scores, gains, _CUTOFF, len(queries))
        add(_NDCG, self._groups[first_of_query], ndcg)

        given = np.clip(np.where(self._liked, self._probabilities, 1 - self._probabilities), _LEAST_PROBABILITY, None)
        add(_LOG_LOSS, self._groups, -np.log(np.minimum(given, 1 - _LEAST_PROBABILITY)))
        add(_SQUARED_ERROR, self._groups, np.square(self._predictions - self._feedback))
        return sums, counts
