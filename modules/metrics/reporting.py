"""Turns estimates and their bootstrap replicates into what TFMA reports: values, intervals and differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tensorflow_model_analysis.api import types
from tensorflow_model_analysis.metrics import metric_types
from tensorflow_model_analysis.proto import config_pb2

from modules.metrics import bootstrap
from modules.metrics.model_outputs import metric_key


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
    group_sizes: NDArray[np.float64] | None,
) -> dict[metric_types.MetricKey, Any]:
    """Returns the metrics of every model, and the differences to the baseline, by key.

    With replicates each carries a 95 % interval (`bootstrap`), unless the events are, or nearly are, those of one or
    two users.

    Args:
      names: the M metrics.
      models: the models.
      baseline: the model that the others are compared with, if any.
      estimates: float64 `[models, M]`.
      replicates: the same under each of B resamples of the users, `[B, models, M]`; None if no intervals are wanted.
      group_sizes: events of each group of users, `[G]`, of those that the metrics are about; None as `replicates`.
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

    values: list[Any] = with_differences(estimates).tolist()
    freedom = 0 if group_sizes is None else bootstrap.degrees_of_freedom(group_sizes)
    if replicates is not None and group_sizes is not None and freedom:
        groups = bootstrap.effective_number(group_sizes)
        errors = bootstrap.standard_errors(with_differences(replicates), groups)
        values = [
            types.ValueWithTDistribution(value, error, freedom, value)
            for value, error in zip(values, errors.tolist(), strict=True)
        ]
    return dict(zip(keys, values, strict=True))
