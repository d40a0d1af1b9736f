r"""Recall@K, NDCG@K and MRR@K of one relevant item, ranked among the whole catalogue, as one TFMA metric.

With $r$ the rank that the model gives to the true item (1 is best; infinite when it cannot be recommended):

$$ recall@K = [r \le K], \qquad ndcg@K = \frac{[r \le K]}{\log_2(1 + r)}, \qquad mrr@K = \frac{[r \le K]}{r} $$

averaged over the examples of a slice. NDCG's ideal gain is 1, since there is one relevant item.

Ties: items with equal scores share their mean rank, so $r$ may be a fraction, and the formulas are applied to it as it
is. Three items tied for the places 9 to 11 all have rank 10, a hit at K = 10; four tied for 9 to 12 have rank 10.5, a
miss. Hence the metrics depend neither on the order of the catalogue nor on chance.

References:
  Järvelin & Kekäläinen, Cumulated gain-based evaluation of IR techniques, ACM TOIS 20(4), 2002 (NDCG).
  Voorhees, The TREC-8 question answering track report, 1999 (MRR).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
from tensorflow_model_analysis import constants
from tensorflow_model_analysis.api import types
from tensorflow_model_analysis.metrics import metric_types
from tensorflow_model_analysis.proto import config_pb2
from tensorflow_model_analysis.utils import math_util

from modules.metrics import jackknife
from modules.metrics.model_outputs import RANK, check_cutoffs, metric_key, read_output

MEASURES = ("recall", "ndcg", "mrr")
LOWER_SUFFIX = "_lower"
"""Ends the name of a metric's lower confidence bound, e.g. `ndcg@10_lower`; a gate may ask for a minimum of it."""


def ranking_metric_names(top_k: Sequence[int]) -> tuple[str, ...]:
    """Returns the metrics' names, measure by measure, in the order of `ranking_gains`: `recall@1`, `recall@5`, ..."""
    return tuple(f"{measure}@{k}" for measure in MEASURES for k in check_cutoffs(top_k))


def ranking_gains(rank: float, cutoffs: np.ndarray) -> np.ndarray:
    """Returns what one example adds to each metric.

    Args:
      rank: rank of the true item, at least 1, possibly a fraction or infinite.
      cutoffs: float64 `[C]`.

    Returns:
      float64 `[3 * C]`: recall, NDCG and MRR at each cut-off.
    """
    hits = (rank <= cutoffs).astype(np.float64)
    return np.concatenate([hits, hits / np.log2(1.0 + rank), hits / rank])


class RankingMetrics(metric_types.Metric):
    """Recall@K, NDCG@K and MRR@K at several cut-offs, with paired differences to a baseline."""

    def __init__(self, top_k: Sequence[int] = (10,), group_by: str | None = None, name: str = "ranking") -> None:
        """Initialises the metric.

        Args:
          top_k: cut-offs.
          group_by: raw feature, e.g. `user_id`, whose values are the independent units of the data. When set, each
            metric and each difference carries a 95 % interval (`jackknife`), and its lower bound is reported as a
            further metric, `<metric>_lower`: NaN for a slice with a single group, where no interval can be had.
          name: name of the family. The metrics themselves are named by `ranking_metric_names`.
        """
        super().__init__(_ranking_computations, top_k=list(top_k), group_by=group_by, name=name)


metric_types.register_metric(RankingMetrics)


def _ranking_computations(
    top_k: Sequence[int],
    group_by: str | None = None,
    name: str = "ranking",
    eval_config: config_pb2.EvalConfig | None = None,
    model_names: Sequence[str] | None = None,
) -> metric_types.MetricComputations:
    """Returns one computation for all metrics of all models: the interval of a difference needs both at once."""
    models = tuple(model_names or ("",))
    specs = eval_config.model_specs if eval_config else ()
    baseline = next((spec.name for spec in specs if spec.is_baseline and spec.name in models), None)
    cutoffs = check_cutoffs(top_k)
    combiner = RankingCombiner(ranking_metric_names(cutoffs), models, baseline, with_intervals=group_by is not None)
    return [
        metric_types.MetricComputation(
            keys=[metric_key(metric, model) for model in models for metric in ranking_metric_names(cutoffs)],
            preprocessors=[RankingPreprocessor(models, cutoffs, group_by, name=name)],
            combiner=combiner,
        )
    ]


class RankingPreprocessor(metric_types.Preprocessor):
    """Turns one example into `(group, float64 [1 + models * metrics])`: the count 1, then every model's gains."""

    def __init__(self, models: Sequence[str], cutoffs: Sequence[int], group_by: str | None, name: str) -> None:
        """Initialises the preprocessor; see `RankingMetrics`."""
        super().__init__(name=name)
        self._models = tuple(models)
        self._cutoffs = np.asarray(cutoffs, np.float64)
        self._group_by = group_by

    def process(self, extracts: dict[str, Any]) -> Iterator[tuple[int, np.ndarray]]:
        """Yields the example's contribution.

        Raises:
          ValueError: if a rank is NaN or below 1, or the feature to group by is not there.
        """
        gains = [np.ones(1)]
        for model in self._models:
            rank = read_output(extracts, model, RANK).astype(np.float64)
            if rank.size != 1 or not rank[0] >= 1:
                raise ValueError(
                    f"model {model or 'candidate'!r} must return one rank of at least 1 for an example; received {rank}"
                )
            gains.append(ranking_gains(rank[0], self._cutoffs))
        yield self._group(extracts), np.concatenate(gains)

    def _group(self, extracts: dict[str, Any]) -> int:
        if self._group_by is None:
            return 0
        features = extracts[constants.FEATURES_KEY]
        values = np.asarray(features.get(self._group_by, ())).reshape(-1)
        if values.size != 1:
            raise ValueError(
                f"feature {self._group_by!r} must hold one value in every example, to group them for confidence "
                f"intervals; received {values.tolist()}, features {sorted(features)}"
            )
        value = values[0]
        return zlib.crc32(value if isinstance(value, bytes) else str(value).encode()) % jackknife.GROUPS


_Sums = dict[int, np.ndarray]


class RankingCombiner(beam.CombineFn):
    """Sums the examples' contributions by group; means, intervals and differences follow from these sums."""

    def __init__(
        self, metrics: Sequence[str], models: Sequence[str], baseline: str | None, with_intervals: bool
    ) -> None:
        """Initialises the combiner.

        Args:
          metrics: names of the metrics, in the order of `ranking_gains`.
          models: names of the models, in the order of the preprocessor.
          baseline: the model that the others are compared with, if any.
          with_intervals: whether to report confidence intervals.
        """
        self._metrics = tuple(metrics)
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
        """Returns the metrics of every model, and their differences to the baseline."""
        if not accumulator:
            return {}
        sums = np.stack([accumulator[group] for group in sorted(accumulator)])
        total = sums.sum(axis=0, keepdims=True)
        estimates = self._statistics(total)[0]
        keys = [metric_key(name, model) for model in self._models for name in self._metrics]
        if self._baseline is not None:
            keys += [key.make_diff_key() for key in keys if key.model_name != self._baseline]
        values: Iterable[Any] = estimates.tolist()
        lower = np.full(len(keys), np.nan)
        if self._with_intervals and len(sums) > 1:
            errors = jackknife.jackknife_standard_errors(self._statistics(total - sums))
            freedom = len(sums) - 1
            interval = types.ValueWithTDistribution(estimates, errors, freedom, estimates)
            lower = math_util.calculate_confidence_interval(interval)[1]
            values = [
                types.ValueWithTDistribution(estimate, error, freedom, estimate)
                for estimate, error in zip(estimates.tolist(), errors.tolist(), strict=True)
            ]
        result = dict(zip(keys, values, strict=True))
        if self._with_intervals:
            for key, bound in zip(keys, lower.tolist(), strict=True):
                # Given for the baseline too, TFMA would replace the bound of the difference by a difference of bounds.
                if key.model_name != self._baseline:
                    result[key._replace(name=key.name + LOWER_SUFFIX)] = bound
        return result

    def _statistics(self, sums: np.ndarray) -> np.ndarray:
        """Returns every model's metrics, then the differences: `[rows, S]` of sums `[rows, 1 + models * metrics]`."""
        means = np.split(sums[:, 1:] / sums[:, :1], len(self._models), axis=1)
        by_model = dict(zip(self._models, means, strict=True))
        if self._baseline is not None:
            means += [by_model[model] - by_model[self._baseline] for model in self._models if model != self._baseline]
        return np.concatenate(means, axis=1)
