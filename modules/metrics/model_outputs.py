"""What the metrics read from the `evaluate` signature of a model, and how they name what they report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tensorflow_model_analysis import constants
from tensorflow_model_analysis.metrics import metric_types

RANK = "rank"
CATALOGUE_SIZE = "catalogue_size"
TOP_K_ITEM_IDS = "top_k_item_ids"


def metric_key(name: str, model_name: str) -> metric_types.MetricKey:
    """Returns the key of a metric.

    `example_weighted` is None because that is how TFMA looks up the thresholds that a MetricsSpec holds by name; with
    False, its default, every such threshold would end as "metric not found".
    """
    return metric_types.MetricKey(name=name, model_name=model_name, example_weighted=None)


def read_output(extracts: dict[str, Any], model_name: str, output: str) -> np.ndarray:
    """Returns one output of one model for one example, flattened to `[width]`.

    Args:
      extracts: TFMA's extracts of the example.
      model_name: the model's name; empty when only one model is evaluated, whose outputs TFMA does not key by name.
      output: name of the output.

    Raises:
      ValueError: if the model has no such output.
    """
    predictions = extracts[constants.PREDICTIONS_KEY]
    if model_name:
        predictions = predictions[model_name]
    if not isinstance(predictions, dict) or output not in predictions:
        received = sorted(predictions) if isinstance(predictions, dict) else type(predictions).__name__
        raise ValueError(
            f"model {model_name or 'candidate'!r} must return {output!r} from the evaluated signature; "
            f"received {received}"
        )
    return np.asarray(predictions[output]).reshape(-1)


def check_cutoffs(top_k: Sequence[int]) -> tuple[int, ...]:
    """Returns the cut-offs in ascending order, each once.

    Raises:
      ValueError: if there is none, or one that is no positive integer.
    """
    cutoffs = tuple(sorted(set(top_k)))
    if not cutoffs or any(not isinstance(k, int) or k < 1 for k in cutoffs):
        raise ValueError(f"top_k must hold positive integers; received {list(top_k)}")
    return cutoffs
