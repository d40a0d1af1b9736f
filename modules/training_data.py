"""Transformed examples as `tf.data` streams: parsed in whole batches, shuffled by a seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft

TRAIN = "train"
VALIDATION = "eval"
IMPRESSIONS = "impressions_train"
"""What was shown in the time of the training split, taken or not; only of logs with propensities."""

EVENT_WEIGHT = "event_weight"
"""Feature that is added where interactions are weighed: float32 `[batch]`."""

_SHUFFLE_BUFFER = 200_000
_READ_BATCH_SIZE = 8192
_MOST_KEPT_BYTES = 128 << 20
"""Size of a split's compressed files up to which its examples are kept in memory; they take several times as much."""


@dataclasses.dataclass(frozen=True)
class PropensityWeighting:
    """How interactions are weighed: by min(1 / propensity, clip) / mean.

    Attributes:
      propensity: transformed feature that holds the propensity, 1 where there is none.
      clip: largest weight.
      mean: what weights are divided by.
    """

    propensity: str
    clip: float
    mean: float = 1.0

    def weights(self, propensities: Any) -> Any:
        """Returns the weights of propensities in (0, 1], a tensor or an array, float32 of the same shape."""
        return tf.cast(tf.minimum(1.0 / tf.cast(propensities, tf.float64), self.clip) / self.mean, tf.float32)


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """The transformed splits.

    Attributes:
      files: files of gzipped TFRecords by split name.
      feature_spec: parsing specification of the transformed examples.
      weighting: how interactions are weighed; None if all count alike, and no example has an `EVENT_WEIGHT`.
    """

    files: Mapping[str, Sequence[str]]
    feature_spec: Mapping[str, Any]
    weighting: PropensityWeighting | None = None

    @classmethod
    def from_patterns(cls, patterns: Mapping[str, Sequence[str]], transform: tft.TFTransformOutput) -> TrainingData:
        """Finds the files of each split.

        Raises:
          ValueError: naming the split for which no file matches.
        """
        files = {}
        for split, globs in patterns.items():
            files[split] = sorted(path for glob in globs for path in tf.io.gfile.glob(glob))
            if not files[split]:
                raise ValueError(f"the {split} split has no file: nothing matches {list(globs)}")
        return cls(files, transform.transformed_feature_spec())

    def length_of(self, name: str) -> int:
        """Returns how many values a feature of fixed length has."""
        return int(self.feature_spec[name].shape[0])

    def weighted(self, propensity: str, clip: float, normalise: bool) -> TrainingData:
        """Returns the same data with interactions weighed by their inverse propensity.

        Args:
          propensity: transformed feature that holds the propensity.
          clip: largest weight.
          normalise: whether the weights of the training split have the mean 1.
        """
        weighting = PropensityWeighting(propensity, clip)
        if normalise:
            weights = weighting.weights(self.read(TRAIN, [propensity])[propensity]).numpy()
            weighting = dataclasses.replace(weighting, mean=float(weights.mean(dtype=np.float64)))
        return dataclasses.replace(self, weighting=weighting)

    def read_weights(self, split: str) -> np.ndarray | None:
        """Returns the weights of a split's interactions, float32, in the order of `read`; None if all count alike."""
        if self.weighting is None:
            return None
        return self.weighting.weights(self.read(split, [self.weighting.propensity])[self.weighting.propensity]).numpy()

    def with_validation_in_training(self) -> TrainingData:
        """Returns the same data with the validation split also a part of the training split, for a final fit."""
        train = [*self.files[TRAIN], *self.files[VALIDATION]]
        return dataclasses.replace(self, files={**self.files, TRAIN: train})

    def batches(
        self, split: str, batch_size: int, shuffle_seed: int | None = None, columns: Sequence[str] | None = None
    ) -> tf.data.Dataset:
        """Returns the batches of a split, dictionaries of `[batch, ...]` tensors.

        Serialized examples are decompressed once and kept in memory, if the split is not too large for that, shuffled
        and then parsed batch by batch, which is several times faster than to parse and shuffle them one by one. Of
        larger splits, every pass shuffles the files, whose examples are in random order already, and a part at a time.

        Args:
          split: name of the split.
          batch_size: examples per batch; the last batch may be smaller when nothing is shuffled, else it is dropped.
          shuffle_seed: seed of a new order for every pass, or None for the order of the files.
          columns: the only features to parse; None for all, and the `EVENT_WEIGHT` where interactions are weighed.
        """
        dataset = self._serialized(split, shuffle_seed)
        if shuffle_seed is not None:
            dataset = dataset.shuffle(_SHUFFLE_BUFFER, seed=shuffle_seed, reshuffle_each_iteration=True)
        return self._parse(dataset.batch(batch_size, drop_remainder=shuffle_seed is not None), split, columns)

    def _serialized(self, split: str, shuffle_seed: int | None) -> tf.data.Dataset:
        files = list(self.files[split])
        if sum(tf.io.gfile.stat(path).length for path in files) <= _MOST_KEPT_BYTES:
            return tf.data.TFRecordDataset(files, compression_type="GZIP").cache()
        paths = tf.data.Dataset.from_tensor_slices(files)
        if shuffle_seed is not None:
            paths = paths.shuffle(len(files), seed=shuffle_seed, reshuffle_each_iteration=True)
        return tf.data.TFRecordDataset(paths, compression_type="GZIP")

    def _parse(self, dataset: tf.data.Dataset, split: str, columns: Sequence[str] | None) -> tf.data.Dataset:
        """Parses batches of serialized examples."""
        spec = {name: self.feature_spec[name] for name in (self.feature_spec if columns is None else columns)}
        weighting = self.weighting if columns is None and split in (TRAIN, VALIDATION) else None

        def parse(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
            batch = tf.io.parse_example(serialized, spec)
            return (
                batch if weighting is None else {**batch, EVENT_WEIGHT: weighting.weights(batch[weighting.propensity])}
            )

        parsed = dataset.map(parse, num_parallel_calls=2, deterministic=True)
        return without_autotune(parsed.prefetch(4))

    def read(self, split: str, columns: Sequence[str]) -> dict[str, np.ndarray]:
        """Returns whole dense features of a split in the order of the files, each `[examples, ...]`.

        Args:
          split: name of the split.
          columns: names of the features.
        """
        parts: dict[str, list[np.ndarray]] = {name: [] for name in columns}
        for name, values in parts.items():  # A split may be without examples.
            spec = self.feature_spec[name]
            values.append(np.empty([0, *spec.shape], spec.dtype.as_numpy_dtype))
        serialized = tf.data.TFRecordDataset(list(self.files[split]), compression_type="GZIP")
        for batch in self._parse(serialized.batch(_READ_BATCH_SIZE), split, columns):
            for name, values in parts.items():
                values.append(batch[name].numpy())
        return {name: np.concatenate(values) for name, values in parts.items()}


def weighted_mean(losses: tf.Tensor, features: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Returns the mean of the losses of a batch's examples, `[batch]`, each times its `EVENT_WEIGHT` if it has one."""
    return tf.reduce_mean(losses * features[EVENT_WEIGHT] if EVENT_WEIGHT in features else losses)


def without_autotune(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns a data set whose passes end at once.

    With autotuning, which has nothing to tune here, the end of every pass waits for a thread that wakes up every few
    seconds only.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
