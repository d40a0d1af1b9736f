"""What the metrics read from the `evaluate` signature of a model, and how they name what they report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tensorflow_model_analysis import constants
from tensorflow_model_analysis.metrics import metric_types

from modules.features import IMPRESSION

RANK = "rank"
REPEAT_RANK = "repeat_rank"
SIMILAR_RANK = "similar_rank"
TARGET_SCORE = "target_score"
LIKE_PROBABILITY = "like_probability"
PREDICTED_FEEDBACK = "predicted_feedback"
CATALOGUE_SIZE = "catalogue_size"
TOP_K_ITEM_IDS = "top_k_item_ids"


def metric_key(name: str, model_name: str) -> metric_types.MetricKey:
    """Returns the key of a metric.

    `example_weighted` is None because that is how TFMA looks up the thresholds that a MetricsSpec holds by name; with
    False, its default, every such threshold would end as "metric not found".
    """
    return metric_types.MetricKey(name=name, model_name=model_name, example_weighted=None)


def read_number(extracts: dict[str, Any], model_name: str, output: str, optional: bool = False) -> float:
    """Returns the one number that a model returns for one example.

    Args:
      extracts: TFMA's extracts of the example.
      model_name: the model's name; see `read_output`.
      output: name of the output.
      optional: whether a model may lack it, as one does that was exported before its task existed: NaN then.

    Raises:
      ValueError: if there is none and it is not optional, or several.
    """
    if optional and output not in (_predictions(extracts, model_name) or ()):
        return float("nan")
    values = read_output(extracts, model_name, output)
    if values.size != 1:
        raise ValueError(
            f"model {model_name or 'candidate'!r} must return one {output} for an example; received {values}"
        )
    return float(values[0])


def read_features(extracts: dict[str, Any], name: str) -> np.ndarray:
    """Returns the values of a raw feature in one example, flattened; none if it is missing."""
    values = extracts[constants.FEATURES_KEY].get(name)
    return np.zeros(0) if values is None else np.asarray(values).reshape(-1)


def is_impression(extracts: dict[str, Any]) -> bool:
    """Whether an example tells what was shown, and is for off-policy estimates only, not one of an interaction."""
    return bool(read_features(extracts, IMPRESSION).size)


def has_output(extracts: dict[str, Any], model_name: str, output: str) -> bool:
    """Whether a model returns this output: one that was exported before there was such an output does not."""
    return output in (_predictions(extracts, model_name) or ())


def read_output(extracts: dict[str, Any], model_name: str, output: str) -> np.ndarray:
    """Returns one output of one model for one example, flattened to `[width]`.

    Args:
      extracts: TFMA's extracts of the example.
      model_name: the model's name; empty when only one model is evaluated, whose outputs TFMA does not key by name.
      output: name of the output.

    Raises:
      ValueError: if the model has no such output.
    """
    predictions = _predictions(extracts, model_name)
    if predictions is None or output not in predictions:
        received = "no named outputs" if predictions is None else sorted(predictions)
        raise ValueError(
            f"model {model_name or 'candidate'!r} must return {output!r} from the evaluated signature; "
            f"received {received}"
        )
    return np.asarray(predictions[output]).reshape(-1)


def _predictions(extracts: dict[str, Any], model_name: str) -> dict[str, Any] | None:
    predictions = extracts[constants.PREDICTIONS_KEY]
    if model_name:
        predictions = predictions[model_name]
    return predictions if isinstance(predictions, dict) else None


def check_cutoffs(top_k: Sequence[int]) -> tuple[int, ...]:
    """Returns the cut-offs in ascending order, each once.

    Raises:
      ValueError: if there is none, or one that is no positive integer.
    """
    cutoffs = tuple(sorted(set(top_k)))
    if not cutoffs or any(not isinstance(k, int) or k < 1 for k in cutoffs):
        raise ValueError(f"top_k must hold positive integers; received {list(top_k)}")
    return cutoffs
