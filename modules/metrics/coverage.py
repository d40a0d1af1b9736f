r"""CatalogueCoverage@K: the share of the catalogue that is recommended to anyone.

$$ coverage@K = \frac{|\bigcup_{e \in slice} top_K(e)|}{|catalogue|} $$

It is no mean over examples: it grows with their number, so compare it between models, not between slices of different
sizes. For the same reason it carries no confidence interval: a resampled set covers less by construction.

References:
  Ge, Delgado-Battenfeld & Jannach, Beyond accuracy: evaluating recommender systems by coverage and serendipity,
  RecSys 2010.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
from tensorflow_model_analysis.metrics import metric_types, metric_util

from modules.metrics.model_outputs import CATALOGUE_SIZE, TOP_K_ITEM_IDS, check_cutoffs, metric_key, read_output


def coverage_metric_names(top_k: Sequence[int]) -> tuple[str, ...]:
    """Returns the metrics' names: `coverage@1`, `coverage@5`, ..."""
    return tuple(f"coverage@{k}" for k in check_cutoffs(top_k))


class CatalogueCoverage(metric_types.Metric):
    """Share of the catalogue in the first K recommendations of any example of the slice, at several cut-offs."""

    def __init__(self, top_k: Sequence[int] = (10,), name: str = "coverage") -> None:
        """Initialises the metric.

        Args:
          top_k: cut-offs; none may exceed the number of recommendations that the model returns.
          name: name of the family. The metrics themselves are named by `coverage_metric_names`.
        """
        super().__init__(metric_util.merge_per_key_computations(_coverage_computations), top_k=list(top_k), name=name)


metric_types.register_metric(CatalogueCoverage)


def _coverage_computations(
    top_k: Sequence[int], name: str = "coverage", model_name: str = ""
) -> metric_types.MetricComputations:
    """Returns one computation for all cut-offs of one model."""
    cutoffs = check_cutoffs(top_k)
    keys = [metric_key(metric, model_name) for metric in coverage_metric_names(cutoffs)]
    preprocessor = CoveragePreprocessor(model_name, cutoffs, name=f"{name}:{model_name}")
    return [metric_types.MetricComputation(keys=keys, preprocessors=[preprocessor], combiner=CoverageCombiner(keys))]


_Recommended = tuple[int, list[set[bytes]]]
"""Titles in the catalogue; for each cut-off, the ids seen past the previous cut-off and up to this one."""


class CoveragePreprocessor(metric_types.Preprocessor):
    """Turns one example into `(catalogue size, ids of each ring)`; see `_Recommended`."""

    def __init__(self, model_name: str, cutoffs: Sequence[int], name: str) -> None:
        """Initialises the preprocessor; see `CatalogueCoverage`."""
        super().__init__(name=name)
        self._model_name = model_name
        self._cutoffs = tuple(cutoffs)

    def process(self, extracts: dict[str, Any]) -> Iterator[tuple[int, list[list[bytes]]]]:
        """Yields the example's recommendations.

        Raises:
          ValueError: if the model returns fewer places than the largest cut-off and the catalogue hold.
        """
        ids = read_output(extracts, self._model_name, TOP_K_ITEM_IDS).tolist()
        catalogue_size = int(read_output(extracts, self._model_name, CATALOGUE_SIZE)[0])
        if len(ids) < min(self._cutoffs[-1], catalogue_size):
            raise ValueError(
                f"coverage@{self._cutoffs[-1]} needs that many recommendations; model "
                f"{self._model_name or 'candidate'!r} returns {len(ids)} out of a catalogue of {catalogue_size}"
            )
        starts = (0, *self._cutoffs[:-1])
        yield catalogue_size, [ids[start:stop] for start, stop in zip(starts, self._cutoffs, strict=True)]


class CoverageCombiner(beam.CombineFn):
    """Collects which items are recommended."""

    def __init__(self, keys: Sequence[metric_types.MetricKey]) -> None:
        """Initialises the combiner with one key for each cut-off, in ascending order."""
        self._keys = tuple(keys)

    def create_accumulator(self) -> _Recommended:
        """Returns the state before the first example."""
        return 0, [set() for _ in self._keys]

    def add_input(self, accumulator: _Recommended, element: tuple[int, Iterable[Iterable[bytes]]]) -> _Recommended:
        """Adds one example."""
        catalogue_size, rings = accumulator
        for items, added in zip(rings, element[1], strict=True):
            items.update(added)
        return max(catalogue_size, element[0]), rings

    def merge_accumulators(self, accumulators: Iterable[_Recommended]) -> _Recommended:
        """Unites what several accumulators hold."""
        result = self.create_accumulator()
        for accumulator in accumulators:
            result = self.add_input(result, accumulator)
        return result

    def extract_output(self, accumulator: _Recommended) -> dict[metric_types.MetricKey, float]:
        """Returns the shares; NaN when there was no example or no catalogue."""
        catalogue_size, rings = accumulator
        covered: set[bytes] = set()
        result = {}
        for key, items in zip(self._keys, rings, strict=True):
            covered |= items - {b""}
            result[key] = len(covered) / catalogue_size if catalogue_size else float("nan")
        return result
