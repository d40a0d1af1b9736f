r"""What whole lists of recommendations are like, whether or not they hold the true title.

| metric, @10 | what it is | |
| --- | --- | --- |
| `coverage` | share of the catalogue in any list of the slice | higher: more of it is found |
| `gini` | inequality of how often titles are recommended: 0 if equally often, 1 if it is one title alone | lower |
| `novelty` | mean self-information of recommended titles, bits | higher: less known titles |
| `popularity_lift` | mean popularity of what is recommended over that of what the user had, less 1 | 0: as popular |
| `genre_diversity` | mean Jaccard distance of the genres of two titles of a list | higher: more varied |
| `genre_calibration` | divergence of a list's genres from those that the user had | lower |

Formulas of what is averaged stand in `modules.models.list_statistics`, which computes it in the model's graph. A list
counts once for each event that it is given for; `novelty`, `genre_diversity` and `genre_calibration` are means over
those for which they are defined. `popularity_lift` is a ratio of means over users,

$$ \frac{\sum_u \overline{pop}(lists_u)}{\sum_u \overline{pop}(profile_u)} - 1 $$

of the lists for which the user had something before; so what is kept grows with the users of a slice, by a few hundred
bytes each.

Coverage and Gini are no means over examples (`concentration`): compare them between models, not between slices of
different sizes. What is kept for them are counts by group of users and title.

A model that was exported without these outputs has none of the metrics.

References:
  Abdollahpouri et al., The connection between popularity bias, calibration, and fairness in recommendation,
  RecSys 2020.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from tensorflow_model_analysis.metrics import metric_types
from tensorflow_model_analysis.proto import config_pb2

from modules.features import USER_ID
from modules.metrics.bootstrap import USER_GROUPS, poisson_weights
from modules.metrics.concentration import CONCENTRATION_MEASURES, measure_concentration
from modules.metrics.model_outputs import (
    CATALOGUE_SIZE,
    is_impression,
    metric_key,
    read_features,
    read_number,
    read_output,
)
from modules.metrics.reporting import find_baseline, report_metrics
from modules.metrics.user_sums import as_bytes, ratios, sum_by_group, user_group

LIST_ROWS = "list_rows"
_AVERAGED: Mapping[str, str] = {
    "novelty@10": "list_novelty",
    "genre_diversity@10": "list_genre_diversity",
    "genre_calibration@10": "genre_divergence",
}
"""The output of the `evaluate` signature that a metric is the mean of."""
_POPULARITIES = ("list_popularity", "history_popularity")
_COLUMNS = (*_AVERAGED.values(), *_POPULARITIES)
_LIFT = "popularity_lift@10"
CONCENTRATION_NAMES = tuple(f"{measure}@10" for measure in CONCENTRATION_MEASURES)
GENRE_METRIC_NAMES = ("genre_diversity@10", "genre_calibration@10")
LIST_METRIC_NAMES = (*CONCENTRATION_NAMES, "novelty@10", _LIFT, *GENRE_METRIC_NAMES)

_COMPACT_AFTER = 1 << 20
"""Bytes of titles not yet counted."""

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class ListQualityMetrics(metric_types.Metric):
    """The metrics of this module, with paired differences to a baseline."""

    def __init__(self, with_intervals: bool = True, name: str = "list_quality") -> None:
        """Initialises the metric.

        Args:
          with_intervals: whether each metric and each difference carries a 95 % interval by a bootstrap over users.
          name: name of the family. The metrics themselves are named by `LIST_METRIC_NAMES`.
        """
        super().__init__(_list_quality_computations, with_intervals=with_intervals, name=name)


metric_types.register_metric(ListQualityMetrics)


def _list_quality_computations(
    with_intervals: bool = True,
    name: str = "list_quality",
    eval_config: config_pb2.EvalConfig | None = None,
    model_names: Sequence[str] | None = None,
) -> metric_types.MetricComputations:
    """Returns one computation for all metrics of all models."""
    models = tuple(model_names or ("",))
    return [
        metric_types.MetricComputation(
            keys=[metric_key(metric, model) for model in models for metric in LIST_METRIC_NAMES],
            preprocessors=[ListPreprocessor(models, name=name)],
            combiner=ListCombiner(models, find_baseline(eval_config, models), with_intervals),
        )
    ]


_Element = tuple[tuple[int, bytes], np.ndarray, np.ndarray, bytes]
"""Group and id of the user; titles in each model's catalogue; sums and counts; titles recommended (`_title_codes`)."""


def _title_codes(rows: Integers, model: int, num_models: int, group: int) -> Integers:
    """Returns one number for each title that a model recommends to a group of users."""
    return (rows * num_models + model) * USER_GROUPS + group


class ListPreprocessor(metric_types.Preprocessor):
    """Turns one interaction into an `_Element`. Sums and counts are float64 `[2, models, columns]`."""

    def __init__(self, models: Sequence[str], name: str) -> None:
        """Initialises the preprocessor; see `ListQualityMetrics`."""
        super().__init__(name=name)
        self._models = tuple(models)

    def process(self, extracts: dict[str, Any]) -> Iterator[_Element]:
        """Yields the example's contribution; nothing for an impression, or if no model tells what its lists are like.

        Raises:
          ValueError: if the example has no user, or a model no catalogue size.
        """
        # NaN, too, where a list is empty, since the user had every title.
        novelties = [read_number(extracts, model, _COLUMNS[0], optional=True) for model in self._models]
        able = np.flatnonzero(~np.isnan(novelties))
        if is_impression(extracts) or not len(able):
            return
        group = user_group(extracts, USER_ID)
        sizes = np.zeros(len(self._models), np.int64)
        values = np.full((len(self._models), len(_COLUMNS)), np.nan)
        codes = []
        for number in able:
            model = self._models[number]
            rows = read_output(extracts, model, LIST_ROWS).astype(np.int64)
            sizes[number] = int(read_number(extracts, model, CATALOGUE_SIZE))
            codes.append(_title_codes(rows[rows >= 0], int(number), len(self._models), group))
            # Outputs on genres are missing where the catalogue has none.
            values[number] = [read_number(extracts, model, output, optional=True) for output in _COLUMNS]
            if np.isnan(values[number, -2:]).any():
                values[number, -2:] = np.nan
        known = ~np.isnan(values)
        user = as_bytes(read_features(extracts, USER_ID)[0])
        sums = np.stack([np.where(known, values, 0.0), known])
        yield (group, user), sizes, sums, np.concatenate(codes).astype("<i8").tobytes()


@dataclasses.dataclass
class _Accumulator:
    """What is known of a slice.

    Attributes:
      catalogue_sizes: titles in each model's catalogue, `[models]`; 0 of models without lists.
      by_user: sums and counts, `[2, models, columns]`, by group and id of the user.
      codes: titles recommended, ascending, each once; see `_title_codes`.
      counts: how often each of them is.
      pending: further titles, not yet counted.
    """

    catalogue_sizes: Integers
    by_user: dict[tuple[int, bytes], Floats]
    codes: Integers
    counts: Integers
    pending: bytearray

    def compact(self) -> None:
        """Counts what is pending."""
        new = np.frombuffer(bytes(self.pending), "<i8")
        self.add_counts(new, np.ones(len(new), np.int64))
        self.pending.clear()

    def add_counts(self, codes: Integers, counts: Integers) -> None:
        """Adds titles that are counted already."""
        merged, inverse = np.unique(np.concatenate([self.codes, codes]), return_inverse=True)
        added = np.concatenate([self.counts, counts])
        self.codes = merged.astype(np.int64)
        self.counts = np.bincount(inverse, weights=added, minlength=len(merged)).astype(np.int64)


class ListCombiner(beam.CombineFn):
    """Adds up by user and by group and title; the metrics follow from these sums."""

    def __init__(self, models: Sequence[str], baseline: str | None, with_intervals: bool) -> None:
        """Initialises the combiner; see `ListQualityMetrics`."""
        self._models = tuple(models)
        self._baseline = baseline
        self._with_intervals = with_intervals

    def create_accumulator(self) -> _Accumulator:
        """Returns empty sums."""
        empty = np.zeros(0, np.int64)
        return _Accumulator(np.zeros(len(self._models), np.int64), {}, empty, empty, bytearray())

    def add_input(self, accumulator: _Accumulator, element: _Element) -> _Accumulator:
        """Adds one example."""
        user, sizes, sums, titles = element
        np.maximum(accumulator.catalogue_sizes, sizes, out=accumulator.catalogue_sizes)
        if user in accumulator.by_user:
            accumulator.by_user[user] += sums
        else:
            accumulator.by_user[user] = sums.copy()
        accumulator.pending += titles
        if len(accumulator.pending) > _COMPACT_AFTER:
            accumulator.compact()
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[_Accumulator]) -> _Accumulator:
        """Adds sums up."""
        result = self.create_accumulator()
        for accumulator in accumulators:
            np.maximum(result.catalogue_sizes, accumulator.catalogue_sizes, out=result.catalogue_sizes)
            for user, sums in accumulator.by_user.items():
                result.by_user[user] = result.by_user[user] + sums if user in result.by_user else sums
            accumulator.compact()
            result.add_counts(accumulator.codes, accumulator.counts)
        return result

    def extract_output(self, accumulator: _Accumulator) -> dict[metric_types.MetricKey, Any]:
        """Returns the metrics of every model and their differences to the baseline."""
        if not accumulator.by_user:
            return {}
        accumulator.compact()
        users = sorted(accumulator.by_user)
        groups, group_of_user = np.unique([group for group, _ in users], return_inverse=True)
        by_user = np.stack([accumulator.by_user[user] for user in users])
        # Without intervals no replicate is computed.
        weights = poisson_weights(groups)[: None if self._with_intervals else 0]
        values: dict[str, dict[str, _Value]] = {name: {} for name in LIST_METRIC_NAMES}
        for number, model in enumerate(self._models):
            if not accumulator.catalogue_sizes[number]:
                continue
            for name, value in _mean_values(by_user[:, :, number], group_of_user, weights).items():
                values[name][model] = value
            counts = _counts_by_title(accumulator, number, len(self._models), groups)
            estimates, replicates = measure_concentration(counts, int(accumulator.catalogue_sizes[number]), weights)
            lists = sum_by_group(group_of_user, by_user[:, 1, number, :1], len(groups))[:, 0]
            for position, name in enumerate(CONCENTRATION_NAMES):
                values[name][model] = _Value(float(estimates[position]), replicates[:, position], lists)
        result: dict[metric_types.MetricKey, Any] = {}
        for name, by_model in values.items():
            defined = {model: value for model, value in by_model.items() if not np.isnan(value.estimate)}
            if defined:
                result.update(self._report(name, defined))
        return result

    def _report(self, name: str, values: Mapping[str, _Value]) -> dict[metric_types.MetricKey, Any]:
        return report_metrics(
            (name,),
            list(values),
            self._baseline if self._baseline in values else None,
            np.array([[value.estimate] for value in values.values()]),
            np.stack([value.replicates for value in values.values()], axis=1)[:, :, np.newaxis]
            if self._with_intervals
            else None,
            np.max([value.group_sizes for value in values.values()], axis=0) if self._with_intervals else None,
        )


@dataclasses.dataclass(frozen=True)
class _Value:
    """One metric of one model: estimate, replicates `[B]`, and what each group counts for `[G]`."""

    estimate: float
    replicates: Floats
    group_sizes: Floats


def _mean_values(by_user: Floats, group_of_user: Integers, weights: Floats) -> dict[str, _Value]:
    """Returns the metrics that are functions of means, from sums and counts by user `[users, 2, columns]`."""
    size = weights.shape[1]
    by_group = sum_by_group(group_of_user, by_user, size)
    result = {}
    for column, name in enumerate(_AVERAGED):
        sums, counts = by_group[:, 0, column], by_group[:, 1, column]
        estimate = float(ratios(sums.sum(), counts.sum()))
        result[name] = _Value(estimate, ratios(weights @ sums, weights @ counts), counts)
    pair = slice(len(_AVERAGED), None)
    means = ratios(by_user[:, 0, pair], by_user[:, 1, pair])
    known = ~np.isnan(means[:, 0])
    popularity = sum_by_group(group_of_user, np.where(known[:, np.newaxis], means, 0.0), size)
    listed, had = popularity.T
    lift = float(ratios(listed.sum(), had.sum())) - 1
    users = sum_by_group(group_of_user, known[:, np.newaxis].astype(np.float64), size)[:, 0]
    result[_LIFT] = _Value(lift, ratios(weights @ listed, weights @ had) - 1, users)
    return result


def _counts_by_title(accumulator: _Accumulator, number: int, num_models: int, groups: Integers) -> sparse.csr_matrix:
    """Returns how often a model recommends each title that it ever does to each group, `[titles, G]`."""
    pairs, group = np.divmod(accumulator.codes, USER_GROUPS)
    rows, models = np.divmod(pairs, num_models)
    own = models == number
    titles, position = np.unique(rows[own], return_inverse=True)
    columns = np.searchsorted(groups, group[own])
    return sparse.csr_matrix(
        (accumulator.counts[own].astype(np.float64), (position, columns)), shape=(len(titles), len(groups))
    )
