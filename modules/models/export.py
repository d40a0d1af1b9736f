"""One SavedModel for every family, always with the same signatures.

| signature | in | out |
| --- | --- | --- |
| `serving_default` | `examples`: serialized tf.Examples `[batch]` | `item_ids`, `scores`: `[batch, K]` |
| `rank` | `examples` `[batch]`, `candidate_ids` `[batch, C]` | `scores` `[batch, C]` |
| `similar` | `item_ids` `[batch]` | `item_ids`, `scores`: `[batch, K]` |
| `evaluate` | `examples` `[batch]`, labelled | ranks and scores of the true title, see `ServingModule.evaluate` |
| `slices` | `examples` `[batch]`, labelled | derived slice keys, each `[batch, 1]` |

Requests hold raw features, any of which may be missing. Titles of the history and of `seen_item_ids` are never
recommended; where fewer than K titles remain, lists end in "" with score -inf. With approximate retrieval
`serving_default` may miss a title; all other signatures stay exact.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft

from modules import features, ranking
from modules.catalogue import Catalogue
from modules.features import Column, ColumnTable, Role
from modules.models.approximate_retrieval import ScannRetrieval
from modules.models.base import Scorer
from modules.models.list_statistics import LIST_LENGTH, ListStatistics
from modules.reward_model import EXAMINATION, LOGGED_REWARD_ESTIMATE, TOP_K_REWARD_ESTIMATES, RewardModel
from modules.slices import SliceKeys

EXAMPLES = "examples"
CANDIDATE_IDS = "candidate_ids"
ITEM_IDS = "item_ids"
SCORES = "scores"


class ServingModule(tf.Module):
    """A fitted scorer with everything around it that serving needs.

    Args:
      scorer: the fitted model.
      transform: the transform graph.
      columns: roles and kinds of the raw columns.
      catalogue: the titles that can be recommended.
      slice_keys: the derived slices.
      list_statistics: what `evaluate` says of whole lists.
      top_k: length K of the lists.
      reward_model: what the model of logged impressions expects of titles and positions, if there are any.
      retrieval: how `recommend` finds candidates; None scores the whole catalogue, which is exact.
    """

    def __init__(
        self,
        scorer: Scorer,
        transform: tft.TFTransformOutput,
        columns: ColumnTable,
        catalogue: Catalogue,
        slice_keys: SliceKeys,
        list_statistics: ListStatistics,
        top_k: int,
        reward_model: RewardModel | None = None,
        retrieval: ScannRetrieval | None = None,
    ):
        super().__init__()
        self._scorer = scorer
        self._columns = columns
        self._num_items = catalogue.size
        self._top_k = min(top_k, catalogue.size)
        self._slice_keys = slice_keys
        self._list_statistics = list_statistics
        self._retrieval = retrieval
        self._rewards = None
        if reward_model is not None:
            # One more than titles: nothing is earned behind the end of a list.
            attractiveness = np.append(reward_model.attractiveness[catalogue.vocabulary_ids], 0.0)
            self._rewards = (
                tf.constant(reward_model.examination, tf.float32),
                tf.constant(attractiveness, tf.float32),
                tf.constant(reward_model.attractiveness[-1], tf.float32),
            )
        # Kept as an attribute: its lookup tables must be part of the exported object, or they are never initialised.
        self._transform_layer = transform.transform_features_layer()
        self._raw_spec = {
            column.name: tf.io.VarLenFeature(transform.raw_feature_spec()[column.name].dtype)
            for column in columns.columns
            if column.name in transform.raw_feature_spec()
        }
        # One slot more than titles: what stands behind the end of a list.
        self._item_ids = tf.constant([*catalogue.item_ids, b""])
        self._rows = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(
                tf.constant(catalogue.item_ids), tf.range(catalogue.size, dtype=tf.int64)
            ),
            default_value=-1,
        )

    def signatures(self) -> dict[str, tf.types.experimental.ConcreteFunction]:
        """Returns the traced signatures by name."""
        examples = tf.TensorSpec([None], tf.string, name=EXAMPLES)
        candidates = tf.TensorSpec([None, None], tf.string, name=CANDIDATE_IDS)
        items = tf.TensorSpec([None], tf.string, name=ITEM_IDS)
        return {
            "serving_default": tf.function(self.recommend).get_concrete_function(examples),
            "rank": tf.function(self.rank).get_concrete_function(examples, candidates),
            "similar": tf.function(self.similar).get_concrete_function(items),
            "evaluate": tf.function(self.evaluate).get_concrete_function(examples),
            "slices": tf.function(self.slices).get_concrete_function(examples),
        }

    def recommend(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the best titles of the whole catalogue that the user has not seen."""
        raw = self._parse(examples, self._columns.query_columns)
        query, seen = self._transform(raw), self._seen_rows(raw)
        if self._retrieval is None:
            return self._list(*self._best(ranking.hide_rows(self._scorer.score_catalogue(query), seen), self._top_k))
        rows, scores = self._retrieval.candidates(query)
        best, positions = tf.math.top_k(tf.where(ranking.contains(seen, rows), -float("inf"), scores), self._top_k)
        rows = tf.cast(tf.gather(rows, positions, batch_dims=1), tf.int32)
        return self._list(best, tf.where(tf.math.is_inf(best), self._num_items, rows))

    def rank(self, examples: tf.Tensor, candidate_ids: tf.Tensor) -> dict[str, tf.Tensor]:
        """Scores given candidates; unknown ones get -inf, seen ones their score."""
        query = self._transform(self._parse(examples, self._columns.query_columns))
        rows = self._rows.lookup(candidate_ids)
        scores = self._scorer.score_candidates(query, tf.maximum(rows, 0))
        return {SCORES: tf.where(rows >= 0, scores, -float("inf"))}

    def similar(self, item_ids: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the titles most like given ones, without themselves; unknown titles get an empty list."""
        rows = self._rows.lookup(item_ids)
        scores = self._scorer.score_similar(tf.maximum(rows, 0))
        itself = tf.RaggedTensor.from_tensor(rows[:, tf.newaxis])
        best, best_rows = self._best(ranking.hide_rows(scores, itself), self._top_k)
        known = (rows >= 0)[:, tf.newaxis]
        return self._list(tf.where(known, best, -float("inf")), tf.where(known, best_rows, self._num_items))

    def evaluate(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        """Judges the true title of labelled examples, for each task of `modules.tasks`.

        An example is a repeat if its title is in the user's history or seen list. Ranks are float32 from 1, mean ranks
        where scores tie, NaN where the example is none of the task, and infinite where it is but the title is not in
        the catalogue or its score is no number.

        Returns:
          Each `[batch, 1]`, unless said otherwise:
          * `rank`: among all titles not seen; NaN for repeats;
          * `repeat_rank`: of a repeat among the titles seen, by the same scores; NaN for all else;
          * `similar_rank`: among all titles not seen, by likeness to the latest title of the history, which the
            `similar` signature scores; NaN for repeats, without a history, or if that title is not in the catalogue;
          * `target_score`: score of the true title, float32; minus infinity if it is no number, or the title is not in
            the catalogue;
          * `like_probability`, `predicted_feedback`: of the true title, float32; NaN if it is not in the catalogue, or
            the model predicts no feedback;
          * `num_candidates`: titles not seen, int64;
          * `catalogue_size`: titles, int64;
          * `top_k_item_ids`: what is recommended, strings `[batch, K]`;
          * those of `modules.models.list_statistics`;
          * where the data have impressions, those of `modules.reward_model`, float32: `examination` `[batch,
            positions]`, and the expected reward, if it is examined, of the true title, `logged_reward_estimate`, and of
            those recommended, `top_k_reward_estimates` `[batch, K]`, 0 behind the end of a list.
        """
        columns = {*self._columns.query_columns, *self._columns.with_role(Role.ITEM_ID)}
        raw = self._parse(examples, columns)
        item = tf.RaggedTensor.from_sparse(raw.pop(self._columns.names(Role.ITEM_ID)[0]))[:, :1]
        target_rows = self._rows.lookup(item.to_tensor("", shape=[None, 1])[:, 0])
        query, seen = self._transform(raw), ranking.rows_mask(self._seen_rows(raw), self._num_items)
        scores = self._scorer.score_catalogue(query)
        repeat = ranking.row_values(seen, target_rows, False)
        anchor_rows = self._latest_rows(raw)
        similar = self._scorer.score_similar(tf.maximum(anchor_rows, 0))
        target_scores = ranking.row_values(scores, target_rows, -float("inf"))
        target_scores = tf.where(tf.math.is_nan(target_scores), -float("inf"), target_scores)
        feedback = self._scorer.predict_feedback(query, tf.maximum(target_rows, 0)[:, tf.newaxis])
        unknown = tf.fill(tf.shape(target_scores), float("nan"))
        per_example = {
            "rank": tf.where(repeat, unknown, ranking.mean_rank(scores, seen, target_rows)),
            "repeat_rank": tf.where(repeat, ranking.mean_rank(scores, ~seen, target_rows), unknown),
            "similar_rank": tf.where(
                repeat | (anchor_rows < 0), unknown, ranking.mean_rank(similar, seen, target_rows)
            ),
            "target_score": target_scores,
            "like_probability": unknown,
            "predicted_feedback": unknown,
            "num_candidates": tf.reduce_sum(tf.cast(~seen, tf.int64), axis=1),
            "catalogue_size": tf.fill(tf.shape(target_rows), tf.constant(self._num_items, tf.int64)),
        }
        if feedback is not None:
            known = target_rows >= 0
            per_example["like_probability"] = tf.where(known, feedback.like_probability[:, 0], unknown)
            per_example["predicted_feedback"] = tf.where(known, feedback.feedback[:, 0], unknown)
        columns_of_one = {name: value[:, tf.newaxis] for name, value in per_example.items()}
        unseen_scores = tf.where(seen, -float("inf"), scores)
        _, rows = self._best(unseen_scores, max(self._top_k, min(LIST_LENGTH, self._num_items)))
        return {
            **columns_of_one,
            **self._list_statistics.compute(rows, seen),
            **self._reward_estimates(target_rows, rows[:, : self._top_k]),
            "top_k_item_ids": tf.gather(self._item_ids, rows[:, : self._top_k]),
        }

    def _reward_estimates(self, target_rows: tf.Tensor, listed_rows: tf.Tensor) -> dict[str, tf.Tensor]:
        if self._rewards is None:
            return {}
        examination, attractiveness, of_unknown = self._rewards
        logged = tf.where(target_rows < 0, of_unknown, tf.gather(attractiveness, tf.maximum(target_rows, 0)))
        return {
            EXAMINATION: tf.repeat(examination[tf.newaxis], tf.shape(target_rows)[0], axis=0),
            LOGGED_REWARD_ESTIMATE: logged[:, tf.newaxis],
            TOP_K_REWARD_ESTIMATES: tf.gather(attractiveness, listed_rows),
        }

    def slices(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the derived slice keys of labelled examples, strings `[batch, 1]`."""
        return self._slice_keys.compute(self._parse(examples, self._slice_keys.columns))

    def _parse(self, examples: tf.Tensor, columns: Iterable[Column]) -> dict[str, tf.SparseTensor]:
        spec = {column.name: self._raw_spec[column.name] for column in columns if column.name in self._raw_spec}
        return tf.io.parse_example(examples, spec)

    def _transform(self, raw: dict[str, tf.SparseTensor]) -> dict[str, tf.Tensor]:
        (timestamp,) = self._columns.names(Role.TIMESTAMP)
        return self._transform_layer({**raw, timestamp: _default_to_now(raw[timestamp])})

    def _seen_rows(self, raw: dict[str, tf.SparseTensor]) -> tf.RaggedTensor:
        """Returns the rows of the history's and the seen list's titles, int64 `[batch, (any)]`; -1 for unknown ones."""
        lists = [
            tf.RaggedTensor.from_sparse(raw[name])
            for name in (features.HISTORY_ITEM_IDS, features.SEEN_ITEM_IDS)
            if name in raw
        ]
        ids = tf.concat(lists, axis=1)
        return ids.with_flat_values(self._rows.lookup(ids.flat_values))

    def _latest_rows(self, raw: dict[str, tf.SparseTensor]) -> tf.Tensor:
        """Returns int64 `[batch]`: the last title of each history, -1 without one or if it is not in the catalogue."""
        latest = tf.RaggedTensor.from_sparse(raw[features.HISTORY_ITEM_IDS])[:, -1:]
        rows = latest.with_flat_values(self._rows.lookup(latest.flat_values))
        return rows.to_tensor(-1, shape=[None, 1])[:, 0]

    def _best(self, scores: tf.Tensor, k: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the k best scores and their catalogue rows, `num_items` where none is left."""
        best, rows = ranking.top_k(tf.ensure_shape(scores, [None, self._num_items]), k)
        return best, tf.where(tf.math.is_inf(best), self._num_items, rows)

    def _list(self, scores: tf.Tensor, rows: tf.Tensor) -> dict[str, tf.Tensor]:
        return {ITEM_IDS: tf.gather(self._item_ids, rows), SCORES: scores}


def _default_to_now(timestamps: tf.SparseTensor) -> tf.SparseTensor:
    """Gives requests without a time the server's: they ask for recommendations now."""
    dense = tf.RaggedTensor.from_sparse(timestamps)[:, :1].to_tensor(-1, shape=[None, 1])
    filled = tf.where(dense < 0, tf.cast(tf.timestamp(), tf.int64), dense)
    batch_size = tf.shape(filled, out_type=tf.int64)[0]
    rows = tf.range(batch_size)
    indices = tf.stack([rows, tf.zeros_like(rows)], axis=1)
    return tf.SparseTensor(indices, filled[:, 0], tf.stack([batch_size, tf.constant(1, tf.int64)]))


def export_saved_model(module: ServingModule, directory: str) -> None:
    """Writes the SavedModel with all signatures."""
    options = tf.saved_model.SaveOptions(namespace_whitelist=["Scann"])
    tf.saved_model.save(module, directory, signatures=module.signatures(), options=options)
