"""How titles fared before a given instant: what a ranker may know of them without seeing its own answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from modules.features import ITEM_ID, TIMESTAMP
from modules.models.item_side import SECONDS_PER_DAY
from modules.training_data import TRAIN, TrainingData

_SMOOTHING = 5.0


class TitleStatistics:
    """Point-in-time popularity and mean feedback of titles, from the events of a log.

    A mean over the whole log would contain the label of the example that it is given to. Only events strictly before
    the example's own time count here, as in Prokhorenkova et al., "CatBoost: unbiased boosting with categorical
    features" (NeurIPS 2018, "ordered target statistics"):

        share_w = log( (n_w(i, t) + 1) / (n_w(t) + V) * V )      for all time and for each window w
        mean = (sum of feedback + k m) / (n(i, t) + k) - m,      k = 5, m = the log's mean

    for standardised feedback and for likes. Times after the log count as its end, so that windows do not run empty.

    Args:
      item_ids: vocabulary id of each event, int64 `[events]`.
      timestamps: seconds, int64 `[events]`.
      vocabulary_size: number V of vocabulary ids.
      windows_days: lengths of the windows.
      feedback: feedback of each event, float `[events]`, or None without.
      like_threshold: feedback from which on an event counts as liked.
    """

    def __init__(
        self,
        item_ids: np.ndarray,
        timestamps: np.ndarray,
        vocabulary_size: int,
        windows_days: Sequence[float],
        feedback: np.ndarray | None = None,
        like_threshold: float | None = None,
    ):
        order = np.lexsort((timestamps, item_ids))
        self._start = int(timestamps.min())
        # One number that sorts by title, then time; the last second stands for every time after the log.
        self._span = int(timestamps.max()) - self._start + 2
        self._windows = [int(days * SECONDS_PER_DAY) for days in windows_days]
        self._vocabulary_size = vocabulary_size
        self._keys = tf.constant(item_ids[order] * self._span + timestamps[order] - self._start, tf.int64)
        self._times = tf.constant(np.sort(timestamps) - self._start, tf.int64)
        self._sums: list[tf.Tensor] = []
        self.feedback_mean, self.feedback_deviation = 0.0, 1.0
        if feedback is not None and like_threshold is not None:
            self.feedback_mean, self.feedback_deviation = float(feedback.mean()), float(feedback.std()) or 1.0
            likes = (feedback >= like_threshold).astype(np.float64)
            for values in ((feedback - self.feedback_mean) / self.feedback_deviation, likes - likes.mean()):
                self._sums.append(tf.constant(np.concatenate([[0.0], np.cumsum(values[order])]), tf.float64))

    @property
    def size(self) -> int:
        """Number of statistics."""
        return 2 + len(self._windows) + len(self._sums)

    def before(self, item_ids: tf.Tensor, timestamps: tf.Tensor) -> tf.Tensor:
        """Returns what was known of titles at some times.

        Args:
          item_ids: vocabulary ids, int64 `[...]`.
          timestamps: seconds, int64, of the same shape.

        Returns:
          float32 `[..., size]`: `share` of all time and by window, log(1 + n) / 5, the means of feedback and of likes.
        """
        shape = tf.shape(item_ids)
        times = tf.reshape(tf.clip_by_value(timestamps - self._start, 0, self._span - 1), [-1])
        bases = tf.reshape(item_ids, [-1]) * self._span
        end, first = self._position(bases + times), self._position(bases)
        count = tf.cast(end - first, tf.float32)
        total = tf.cast(tf.searchsorted(self._times, times), tf.float32)
        columns = [self._log_share(count, total)]
        for window in self._windows:
            since = tf.maximum(times - window, 0)
            recent = tf.cast(end - self._position(bases + since), tf.float32)
            recent_total = total - tf.cast(tf.searchsorted(self._times, since), tf.float32)
            columns.append(self._log_share(recent, recent_total))
        columns.append(tf.math.log1p(count) / 5.0)
        for sums in self._sums:
            columns.append(tf.cast(tf.gather(sums, end) - tf.gather(sums, first), tf.float32) / (count + _SMOOTHING))
        return tf.reshape(tf.stack(columns, axis=-1), tf.concat([shape, [self.size]], axis=0))

    def latest(self) -> tf.Tensor:
        """Returns what is known of every title after the log: float32 `[vocabulary_size, size]`."""
        ids = tf.range(self._vocabulary_size, dtype=tf.int64)
        return self.before(ids, tf.fill(tf.shape(ids), tf.constant(self._start + self._span, tf.int64)))

    def _position(self, keys: tf.Tensor) -> tf.Tensor:
        return tf.searchsorted(self._keys, keys)

    def _log_share(self, count: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
        size = float(self._vocabulary_size)
        return tf.math.log((count + 1.0) / (total + size) * size)


def read_title_statistics(
    data: TrainingData,
    vocabulary_size: int,
    windows_days: Sequence[float],
    label: str | None,
    like_threshold: float | None,
) -> tuple[TitleStatistics, np.ndarray]:
    """Computes the statistics of the training split; also returns its events by title, int64 `[vocabulary_size]`.

    Args:
      data: the transformed splits.
      vocabulary_size: number of vocabulary ids.
      windows_days: lengths of the windows.
      label: name of the feedback, or None.
      like_threshold: feedback from which on an event counts as liked, or None.
    """
    names = [ITEM_ID, TIMESTAMP, *([label] if label else [])]
    columns = data.read(TRAIN, names)
    ids, feedback = columns[ITEM_ID], columns[label] if label else None
    statistics = TitleStatistics(ids, columns[TIMESTAMP], vocabulary_size, windows_days, feedback, like_threshold)
    return statistics, np.bincount(ids, minlength=vocabulary_size)
