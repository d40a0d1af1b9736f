r"""MAP@K over queries, and recall, NDCG, MRR and MAP averaged per user, of the task `next_title`.

A *query* is all events of one user at one instant: they are given the same list, in which several titles are relevant.
With $R$ its relevant titles and $r_i$ the rank of title $i$ among all candidates,

$$ AP@K = \frac{1}{\min(|R|, K)} \sum_{i \in R,\, r_i \le K} \frac{\rho_i}{r_i} $$

where $\rho_i$ is the rank of $i$ among the relevant titles, so that $\rho_i / r_i$ is the precision at its place.
`map@K` is the mean over queries. `user_map@K` is the mean over users of the mean over each one's queries, and
`user_recall@K`, `user_ndcg@K`, `user_mrr@K` of the mean over each one's events (`ranking`), so that somebody with many
events counts no more than anybody else.

Ties: both ranks are mean ranks. Two relevant titles tied for the places 1 and 2 have $r = \rho = 1.5$, precision 1.
Relevant titles that cannot be recommended have an infinite rank: they count in $|R|$. Repeats (rank NaN) belong to
another task and count nowhere.

A query's events may come in any order, so events are kept until all of a slice are there: 20 bytes an event and slice
with one model, 4 more for a second.

References:
  Buckley & Voorhees, Evaluating evaluation measure stability, SIGIR 2000 (average precision).
  Voorhees, The TREC-8 question answering track report, 1999 (MRR).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tensorflow_model_analysis.metrics import metric_types
from tensorflow_model_analysis.proto import config_pb2

from modules.features import USER_ID
from modules.metrics.bootstrap import poisson_weights
from modules.metrics.event_records import RecordCombiner, event_time, user_digest
from modules.metrics.model_outputs import RANK, check_cutoffs, is_impression, metric_key, read_number
from modules.metrics.ranking import MEASURES, ranking_gains
from modules.metrics.reporting import find_baseline, report_metrics
from modules.metrics.user_sums import ratios, sum_by_group, user_group

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def query_metric_names(top_k: Sequence[int]) -> tuple[str, ...]:
    """Returns the metrics' names: `map@1`, ..., `user_map@1`, ..., `user_recall@1`, ..."""
    prefixes = ("map", "user_map", *(f"user_{measure}" for measure in MEASURES))
    return tuple(f"{prefix}@{k}" for prefix in prefixes for k in check_cutoffs(top_k))


class QueryRankingMetrics(metric_types.Metric):
    """MAP and averages per user at several cut-offs, with paired differences to a baseline."""

    def __init__(self, top_k: Sequence[int] = (10,), with_intervals: bool = True, name: str = "query_ranking") -> None:
        """Initialises the metric.

        Args:
          top_k: cut-offs.
          with_intervals: whether each metric and each difference carries a 95 % interval by a bootstrap over users.
          name: name of the family. The metrics themselves are named by `query_metric_names`.
        """
        super().__init__(_query_computations, top_k=list(top_k), with_intervals=with_intervals, name=name)


metric_types.register_metric(QueryRankingMetrics)


def _query_computations(
    top_k: Sequence[int],
    with_intervals: bool = True,
    name: str = "query_ranking",
    eval_config: config_pb2.EvalConfig | None = None,
    model_names: Sequence[str] | None = None,
) -> metric_types.MetricComputations:
    """Returns one computation for all metrics of all models."""
    models = tuple(model_names or ("",))
    cutoffs = check_cutoffs(top_k)
    return [
        metric_types.MetricComputation(
            keys=[metric_key(metric, model) for model in models for metric in query_metric_names(cutoffs)],
            preprocessors=[QueryPreprocessor(models, name=name)],
            combiner=QueryCombiner(models, find_baseline(eval_config, models), cutoffs, with_intervals),
        )
    ]


def _record_type(num_models: int) -> np.dtype:
    """Returns how an event is kept: a hash of the user, his group, the time and the rank by each model."""
    return np.dtype([("user", "<i8"), ("time", "<i8"), ("group", "<i4"), ("ranks", "<f4", (num_models,))])


class QueryPreprocessor(metric_types.Preprocessor):
    """Turns one event of the task into a record of `_record_type`, as bytes."""

    def __init__(self, models: Sequence[str], name: str) -> None:
        """Initialises the preprocessor; see `QueryRankingMetrics`."""
        super().__init__(name=name)
        self._models = tuple(models)
        self._record = np.zeros(1, _record_type(len(self._models)))

    def process(self, extracts: dict[str, Any]) -> Iterator[bytes]:
        """Yields the example's record; nothing for impressions and for repeats.

        Raises:
          ValueError: if a model returns no rank, or user or time are not there.
        """
        if is_impression(extracts):
            return
        ranks = [read_number(extracts, model, RANK) for model in self._models]
        if all(np.isnan(ranks)):
            return
        record = self._record
        record["user"] = int.from_bytes(user_digest(extracts), "little", signed=True)
        record["group"] = user_group(extracts, USER_ID)
        record["time"] = event_time(extracts)
        record["ranks"] = ranks
        yield record.tobytes()


class QueryCombiner(RecordCombiner):
    """Computes the metrics when all events of a slice are there."""

    def __init__(
        self, models: Sequence[str], baseline: str | None, cutoffs: Sequence[int], with_intervals: bool
    ) -> None:
        """Initialises the combiner; see `QueryRankingMetrics`."""
        self._models = tuple(models)
        self._baseline = baseline
        self._cutoffs = np.asarray(cutoffs, np.float64)
        self._with_intervals = with_intervals

    def extract_output(self, accumulator: bytearray) -> dict[metric_types.MetricKey, Any]:
        """Returns the metrics of every model and their differences to the baseline."""
        records = np.frombuffer(bytes(accumulator), _record_type(len(self._models)))
        # Whether an event is a repeat is told by the data, but its title may be missing from one model's catalogue.
        records = records[~np.isnan(records["ranks"]).all(axis=1)]
        if not len(records):
            return {}
        # What bundles the examples came in must not show, not even in the last digit.
        records = records[np.lexsort((*records["ranks"].T, records["time"], records["user"]))]
        groups = np.unique(records["group"].astype(np.int64))
        tables = {}
        for number, model in enumerate(self._models):
            own = records[~np.isnan(records["ranks"][:, number])]
            if len(own):
                tables[model] = self._sum(own, own["ranks"][:, number].astype(np.float64), groups)
        replicates = sizes = None
        if self._with_intervals:
            weights = poisson_weights(groups)
            resampled = [np.tensordot(weights, table, axes=1) for table in tables.values()]
            replicates = np.stack([ratios(sums[:, 0], sums[:, 1]) for sums in resampled], axis=1)
            sizes = np.bincount(np.searchsorted(groups, records["group"])).astype(np.float64)
        totals = [table.sum(axis=0) for table in tables.values()]
        return report_metrics(
            query_metric_names([int(k) for k in self._cutoffs]),
            list(tables),
            self._baseline if self._baseline in tables else None,
            np.stack([ratios(*total) for total in totals]),
            replicates,
            sizes,
        )

    def _sum(self, records: NDArray[np.void], ranks: Floats, groups: Integers) -> Floats:
        """Returns sums and counts of what the metrics are means of, by group of users: `[G, 2, M]`."""
        size = len(self._cutoffs)
        users, first_of_user, user = np.unique(records["user"], return_index=True, return_inverse=True)
        instants = np.unique(records["time"], return_inverse=True)[1]
        _, first_of_query, query = np.unique(
            user * (instants.max() + 1) + instants, return_index=True, return_inverse=True
        )
        precision = average_precision(query, ranks, self._cutoffs)
        gains = ranking_gains(ranks, self._cutoffs)
        events = np.bincount(user)[:, np.newaxis]
        queries = np.bincount(user[first_of_query])[:, np.newaxis]
        per_user = np.concatenate(
            [
                sum_by_group(user[first_of_query], precision, len(users)) / queries,
                sum_by_group(user, gains, len(users)) / events,
            ],
            axis=1,
        )
        result = np.zeros((len(groups), 2, size + per_user.shape[1]))
        for firsts, values, columns in (
            (first_of_query, precision, slice(0, size)),
            (first_of_user, per_user, slice(size, None)),
        ):
            group = np.searchsorted(groups, records["group"][firsts])
            result[:, 0, columns] = sum_by_group(group, values, len(groups))
            result[:, 1, columns] = np.bincount(group, minlength=len(groups))[:, np.newaxis]
        return result


def average_precision(queries: Integers, ranks: Floats, cutoffs: Floats) -> Floats:
    """Returns AP of each query at each cut-off, float64 `[Q, C]`.

    Args:
      queries: query of each relevant title, `[n]`, from 0 to Q - 1, each with one title at least.
      ranks: its mean rank among all candidates, `[n]`, from 1, infinite if it is none.
      cutoffs: `[C]`.
    """
    order = np.lexsort((ranks, queries))
    queries, ranks = queries[order], ranks[order]
    relevant = np.bincount(queries)
    places = np.arange(1, len(queries) + 1) - np.repeat(np.cumsum(relevant) - relevant, relevant)
    new_run = np.ones(len(queries), bool)
    new_run[1:] = (queries[1:] != queries[:-1]) | (ranks[1:] != ranks[:-1])
    runs = np.cumsum(new_run) - 1
    own_ranks = (np.bincount(runs, weights=places) / np.bincount(runs))[runs]
    hits = ranks[:, np.newaxis] <= cutoffs
    sums = sum_by_group(queries, hits * (own_ranks / ranks)[:, np.newaxis], len(relevant))
    return sums / np.minimum(relevant[:, np.newaxis], cutoffs)
