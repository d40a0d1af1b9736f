r"""Recall@K, NDCG@K and MRR@K of one relevant item among candidates, as one TFMA metric for all ranking tasks.

With $r$ the rank that the model gives to the true item (1 is best; infinite when it cannot be recommended):

$$ recall@K = [r \le K], \qquad ndcg@K = \frac{[r \le K]}{\log_2(1 + r)}, \qquad mrr@K = \frac{[r \le K]}{r} $$

averaged over the events of a slice that the task counts. NDCG's ideal gain is 1, since there is one relevant item.

Which events count is told by the model's `evaluate` signature: a rank of NaN means that the event is none of this task
(see `modules.tasks`): a repeat is no `next_title`, what is no repeat was no `continue_watching`, and without a history
there is no "because you watched". A slice without any event of a task has no metric of it.

Ties: items with equal scores share their mean rank, so $r$ may be a fraction, and the formulas are applied to it as it
is. Three items tied for the places 9 to 11 all have rank 10, a hit at K = 10; four tied for 9 to 12 have rank 10.5, a
miss. Hence the metrics depend neither on the order of the catalogue nor on chance.

References:
  Järvelin & Kekäläinen, Cumulated gain-based evaluation of IR techniques, ACM TOIS 20(4), 2002 (NDCG).
  Voorhees, The TREC-8 question answering track report, 1999 (MRR).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
from numpy.typing import NDArray
from tensorflow_model_analysis.metrics import metric_types
from tensorflow_model_analysis.proto import config_pb2

from modules.metrics.bootstrap import poisson_weights
from modules.metrics.model_outputs import (
    RANK,
    REPEAT_RANK,
    SIMILAR_RANK,
    check_cutoffs,
    is_impression,
    metric_key,
    read_number,
)
from modules.metrics.reporting import find_baseline, report_metrics
from modules.metrics.user_sums import USER_SUMS_SUFFIX, UserSums, ratios, user_group
from modules.tasks import BECAUSE_YOU_WATCHED, CONTINUE_WATCHING, NEXT_TITLE, RANKING_TASKS, metric_prefix

MEASURES = ("recall", "ndcg", "mrr")
RANK_OUTPUTS: Mapping[str, str] = {
    NEXT_TITLE: RANK,
    BECAUSE_YOU_WATCHED: SIMILAR_RANK,
    CONTINUE_WATCHING: REPEAT_RANK,
}
"""The output of the `evaluate` signature that holds a task's rank."""


def ranking_metric_names(top_k: Sequence[int], task: str = NEXT_TITLE) -> tuple[str, ...]:
    """Returns a task's metrics, measure by measure, in the order of `ranking_gains`: `recall@1`, `recall@5`, ..."""
    return tuple(f"{metric_prefix(task)}{measure}@{k}" for measure in MEASURES for k in check_cutoffs(top_k))


def ranking_gains(ranks: np.ndarray, cutoffs: np.ndarray) -> np.ndarray:
    """Returns what examples add to each metric.

    Args:
      ranks: ranks of their true items, at least 1, possibly fractions or infinite: float64 `[...]`.
      cutoffs: float64 `[C]`.

    Returns:
      float64 `[..., 3 * C]`: recall, NDCG and MRR at each cut-off.
    """
    ranks = np.asarray(ranks, np.float64)[..., np.newaxis]
    hits = (ranks <= cutoffs).astype(np.float64)
    return np.concatenate([hits, hits / np.log2(1.0 + ranks), hits / ranks], axis=-1)


class RankingMetrics(metric_types.Metric):
    """Recall@K, NDCG@K and MRR@K at several cut-offs for several tasks, with paired differences to a baseline."""

    def __init__(
        self,
        top_k: Sequence[int] = (10,),
        tasks: Sequence[str] = (NEXT_TITLE,),
        group_by: str | None = None,
        name: str = "ranking",
    ) -> None:
        """Initialises the metric.

        Args:
          top_k: cut-offs.
          tasks: some of `modules.tasks.RANKING_TASKS`.
          group_by: raw feature, e.g. `user_id`, whose values are the independent units of the data. When set, each
            metric and each difference carries a 95 % interval (`bootstrap`), and each task and model gets a metric
            `<task>_user_sums` (`user_sums`).
          name: name of the family. The metrics themselves are named by `ranking_metric_names`.
        """
        super().__init__(_ranking_computations, top_k=list(top_k), tasks=list(tasks), group_by=group_by, name=name)


metric_types.register_metric(RankingMetrics)


def _ranking_computations(
    top_k: Sequence[int],
    tasks: Sequence[str],
    group_by: str | None = None,
    name: str = "ranking",
    eval_config: config_pb2.EvalConfig | None = None,
    model_names: Sequence[str] | None = None,
) -> metric_types.MetricComputations:
    """Returns one computation for all metrics of all models: the interval of a difference needs both at once."""
    if unknown := sorted(set(tasks) - set(RANKING_TASKS)):
        raise ValueError(f"tasks must be some of {list(RANKING_TASKS)}; received {unknown}")
    models = tuple(model_names or ("",))
    baseline = find_baseline(eval_config, models)
    cutoffs = check_cutoffs(top_k)
    metrics = {task: ranking_metric_names(cutoffs, task) for task in tasks}
    return [
        metric_types.MetricComputation(
            keys=[metric_key(metric, model) for model in models for names in metrics.values() for metric in names],
            preprocessors=[RankingPreprocessor(models, tuple(tasks), cutoffs, group_by, baseline, name=name)],
            combiner=RankingCombiner(metrics, models, baseline, with_intervals=group_by is not None),
        )
    ]


class RankingPreprocessor(metric_types.Preprocessor):
    """Turns one example into `(group, row)`.

    The row is float64 `[models * tasks * (1 + 3 * C)]`: for each model and task the count 1 and the gains, or zeros.
    """

    def __init__(
        self,
        models: Sequence[str],
        tasks: Sequence[str],
        cutoffs: Sequence[int],
        group_by: str | None,
        baseline: str | None,
        name: str,
    ) -> None:
        """Initialises the preprocessor; see `RankingMetrics`."""
        super().__init__(name=name)
        # A baseline may have been exported before there were tasks other than `next_title`.
        self._ranks = [
            (model, RANK_OUTPUTS[task], model == baseline and task != NEXT_TITLE) for model in models for task in tasks
        ]
        self._cutoffs = np.asarray(cutoffs, np.float64)
        self._group_by = group_by

    def process(self, extracts: dict[str, Any]) -> Iterator[tuple[int, np.ndarray]]:
        """Yields the example's contribution; nothing for an impression.

        Raises:
          ValueError: if a rank is below 1, or the feature to group by is not there.
        """
        if is_impression(extracts):
            return
        row = np.zeros((len(self._ranks), 1 + len(MEASURES) * len(self._cutoffs)))
        for part, (model, output, optional) in zip(row, self._ranks, strict=True):
            rank = read_number(extracts, model, output, optional)
            if rank < 1:
                raise ValueError(
                    f"model {model or 'candidate'!r} must return a {output} of at least 1 for an example, or NaN; "
                    f"received {rank}"
                )
            if rank >= 1:
                part[0], part[1:] = 1.0, ranking_gains(np.array(rank), self._cutoffs)
        yield (user_group(extracts, self._group_by) if self._group_by else 0), row.reshape(-1)


_Sums = dict[int, np.ndarray]


class RankingCombiner(beam.CombineFn):
    """Sums the examples' contributions by group; means, intervals and differences follow from these sums."""

    def __init__(
        self,
        metrics: Mapping[str, Sequence[str]],
        models: Sequence[str],
        baseline: str | None,
        with_intervals: bool,
    ) -> None:
        """Initialises the combiner.

        Args:
          metrics: names of the metrics by task, in the order of `ranking_gains`.
          models: names of the models, in the order of the preprocessor.
          baseline: the model that the others are compared with, if any.
          with_intervals: whether to report confidence intervals and user sums.
        """
        self._metrics = dict(metrics)
        self._models = tuple(models)
        self._baseline = baseline
        self._with_intervals = with_intervals

    def create_accumulator(self) -> _Sums:
        """Returns empty sums."""
        return {}

    def add_input(self, accumulator: _Sums, element: tuple[int, np.ndarray]) -> _Sums:
        """Adds one example."""
        group, row = element
        if group in accumulator:
            accumulator[group] += row
        else:
            accumulator[group] = row.copy()
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[_Sums]) -> _Sums:
        """Adds sums up."""
        result: _Sums = {}
        for accumulator in accumulators:
            for element in accumulator.items():
                self.add_input(result, element)
        return result

    def extract_output(self, accumulator: _Sums) -> dict[metric_types.MetricKey, Any]:
        """Returns the metrics of every model, their differences to the baseline, and the user sums."""
        result: dict[metric_types.MetricKey, Any] = {}
        if not accumulator:
            return result
        groups = np.array(sorted(accumulator))
        sums = np.stack([accumulator[group] for group in groups])
        sums = sums.reshape(len(groups), len(self._models), len(self._metrics), -1)
        for number, (task, names) in enumerate(self._metrics.items()):
            result.update(self._report_task(task, names, groups, sums[:, :, number]))
        return result

    def _report_task(
        self, task: str, names: Sequence[str], groups: NDArray[np.int64], sums: NDArray[np.float64]
    ) -> dict[metric_types.MetricKey, Any]:
        """Returns what is reported of one task, from sums `[G, models, 1 + M]`; nothing of models without events."""
        counted = sums[:, :, 0] > 0
        models = [model for model, any_event in zip(self._models, counted.any(axis=0), strict=True) if any_event]
        if not models:
            return {}
        chosen = counted.any(axis=1)
        groups, sums = groups[chosen], sums[chosen][:, counted.any(axis=0)]
        total = sums.sum(axis=0)
        replicates = sizes = None
        if self._with_intervals:
            resampled = np.tensordot(poisson_weights(groups), sums, axes=1)
            replicates = ratios(resampled[:, :, 1:], np.broadcast_to(resampled[:, :, :1], resampled[:, :, 1:].shape))
            sizes = sums[:, :, 0].max(axis=1)
        result = report_metrics(
            names,
            models,
            self._baseline if self._baseline in models else None,
            total[:, 1:] / total[:, :1],
            replicates,
            sizes,
        )
        if self._with_intervals:
            for model, of_model in zip(models, np.moveaxis(sums, 1, 0), strict=True):
                counts = np.repeat(of_model[:, :1], len(names), axis=1)
                user_sums = UserSums(task, tuple(names), groups, counts, of_model[:, 1:])
                result[metric_key(task + USER_SUMS_SUFFIX, model)] = user_sums.to_bytes()
        return result
