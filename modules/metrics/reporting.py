"""Turns estimates and their jackknife replicates into what TFMA reports: values, intervals, bounds and differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tensorflow_model_analysis.api import types
from tensorflow_model_analysis.metrics import metric_types
from tensorflow_model_analysis.proto import config_pb2
from tensorflow_model_analysis.utils import math_util

from modules.metrics import jackknife
from modules.metrics.model_outputs import metric_key

LOWER_SUFFIX = "_lower"
"""Ends the name of a metric's lower confidence bound, e.g. `ndcg@10_lower`; a gate may ask for a minimum of it."""


def find_baseline(eval_config: config_pb2.EvalConfig | None, models: Sequence[str]) -> str | None:
    """Returns the name of the model that the others are compared with, if it is one of those evaluated."""
    specs = eval_config.model_specs if eval_config else ()
    return next((spec.name for spec in specs if spec.is_baseline and spec.name in models), None)


def report_metrics(
    names: Sequence[str],
    models: Sequence[str],
    baseline: str | None,
    estimates: NDArray[np.float64],
    replicates: NDArray[np.float64] | None,
) -> dict[metric_types.MetricKey, Any]:
    """Returns the metrics of every model, and the differences to the baseline, by key.

    With replicates each carries a 95 % interval, and its lower bound is a further metric, `<metric>_lower`: NaN where
    fewer than two groups contribute, since no interval can be had then.

    Args:
      names: the M metrics.
      models: the models.
      baseline: the model that the others are compared with, if any.
      estimates: float64 `[models, M]`.
      replicates: the same without each of G groups, `[G, models, M]`; None if no intervals are wanted.
    """
    compared = [number for number, model in enumerate(models) if baseline is not None and model != baseline]
    keys = [metric_key(name, model) for model in models for name in names]
    keys += [metric_key(name, models[number]).make_diff_key() for number in compared for name in names]

    def with_differences(values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Flattens `[..., models, M]` into `[..., keys]`."""
        parts = [values[..., number, :] for number in range(len(models))]
        if baseline is not None:
            parts += [values[..., number, :] - values[..., models.index(baseline), :] for number in compared]
        return np.concatenate(parts, axis=-1)

    statistics = with_differences(estimates)
    values: Sequence[Any] = statistics.tolist()
    lower = np.full(len(keys), np.nan)
    if replicates is not None and len(replicates) > 1:
        errors = jackknife.jackknife_standard_errors(with_differences(replicates))
        freedom = len(replicates) - 1
        lower = math_util.calculate_confidence_interval(
            types.ValueWithTDistribution(statistics, errors, freedom, statistics)
        )[1]
        values = [
            types.ValueWithTDistribution(estimate, error, freedom, estimate)
            for estimate, error in zip(statistics.tolist(), errors.tolist(), strict=True)
        ]
    result = dict(zip(keys, values, strict=True))
    if replicates is not None:
        for key, bound in zip(keys, lower.tolist(), strict=True):
            # Given for the baseline too, TFMA would replace the bound of the difference by a difference of bounds.
            if key.model_name != baseline:
                result[key._replace(name=key.name + LOWER_SUFFIX)] = bound
    return result
