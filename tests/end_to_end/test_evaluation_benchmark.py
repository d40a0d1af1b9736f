"""The benchmark of the Evaluator on the model of a small run."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.evaluation_benchmark import EvaluationBenchmark, measure_evaluation, print_evaluation
from tests.end_to_end.conftest import FirstRuns

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]


def test_both_kinds_of_evaluation_are_timed_in_turn(first_runs: FirstRuns):
    config = first_runs.first.config
    model, examples = (
        min((Path(config.artifact_root) / channel).glob("*"), key=lambda path: int(path.name))
        for channel in ("RecommenderTrainer/model", "InteractionExampleGen/examples")
    )
    benchmark = measure_evaluation(config, model, examples, rounds=1)
    assert min(*benchmark.plain, *benchmark.compared) > 0
    assert benchmark.ratios == [benchmark.compared[0] / benchmark.plain[0]]
    assert EvaluationBenchmark.from_json(benchmark.to_json()) == benchmark


def test_the_ratio_told_is_the_median_of_the_rounds():
    output = io.StringIO()
    print_evaluation(EvaluationBenchmark([10.0, 10.0, 20.0], [12.0, 15.0, 26.0]), Console(file=output, width=200))
    assert "Evaluator: 10.0 s without intervals and baseline, 15.0 s with both." in output.getvalue()
    assert "Ratio 1.30 (1.20 to 1.50 over 3 of each in turn)." in output.getvalue()
