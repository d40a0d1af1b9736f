"""Runs a metric's computations as Beam would: examples dealt into bundles, accumulators merged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tensorflow_model_analysis.metrics import metric_types
from tensorflow_model_analysis.proto import config_pb2

TWO_MODELS = config_pb2.EvalConfig(
    model_specs=[config_pb2.ModelSpec(name="new"), config_pb2.ModelSpec(name="old", is_baseline=True)]
)


def compute(
    metric: metric_types.Metric, examples: Sequence[dict], bundles: Sequence[int], models: Sequence[str] = ("",)
) -> dict[metric_types.MetricKey, Any]:
    """Returns what the metric's one computation reports of these extracts; "old" is the baseline."""
    (computation,) = metric.computations(eval_config=TWO_MODELS, model_names=list(models))
    combiner = computation.combiner
    accumulators = {bundle: combiner.create_accumulator() for bundle in {*bundles, -1}}
    for example, bundle in zip(examples, bundles, strict=True):
        for element in computation.preprocessors[0].process(example):
            accumulators[bundle] = combiner.add_input(accumulators[bundle], element)
    return combiner.extract_output(combiner.merge_accumulators(accumulators.values()))


def extracts(features: dict[str, Any], outputs_by_model: dict[str, dict[str, Any]]) -> dict:
    """Returns the extracts of one example; the outputs of a model that is evaluated alone are keyed by ""."""
    outputs = {
        model: {name: np.atleast_1d(value) for name, value in outputs.items()}
        for model, outputs in outputs_by_model.items()
    }
    values = {name: np.array([value.encode() if isinstance(value, str) else value]) for name, value in features.items()}
    return {"predictions": outputs.get("", outputs), "features": values}
