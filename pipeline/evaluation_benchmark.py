"""What confidence intervals and a baseline cost the Evaluator: with both and without either, on one model, in turn.

The baseline is the candidate itself, so the comparison asks as much of the model's graph as any other would.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import tempfile
import time
from pathlib import Path

from rich.console import Console

from pipeline.benchmark_inputs import find_outputs
from pipeline.benchmark_process import run_as_process
from pipeline.config import PipelineConfig

ROUNDS = 3


@dataclasses.dataclass(frozen=True)
class EvaluationBenchmark:
    """Seconds of the Evaluator, round by round.

    Attributes:
      plain: without intervals and without a baseline.
      compared: with both.
    """

    plain: list[float]
    compared: list[float]

    @property
    def ratios(self) -> list[float]:
        """Seconds with both by seconds without either, round by round."""
        return [compared / plain for plain, compared in zip(self.plain, self.compared, strict=True)]

    def to_json(self) -> str:
        """Returns what `from_json` reads."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> EvaluationBenchmark:
        """Reads what `to_json` wrote."""
        return cls(**json.loads(text))


def measure_evaluation(
    config: PipelineConfig, model: Path, examples: Path, rounds: int = ROUNDS
) -> EvaluationBenchmark:
    """Evaluates a model both ways in turn.

    Args:
      config: configuration of the run that made the model.
      model: folder of the model's artifact.
      examples: folder of the interactions' artifact.
      rounds: measured evaluations of each kind; one of each comes before them, for what is slow only once.
    """
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(1 + rounds):
        for compared in seconds:
            with tempfile.TemporaryDirectory(prefix="marquee-bench-evaluation-") as folder:
                started = time.monotonic()
                _evaluate(config, model, examples, Path(folder), compared)
                seconds[compared].append(time.monotonic() - started)
    return EvaluationBenchmark(seconds[False][1:], seconds[True][1:])


def _evaluate(config: PipelineConfig, model: Path, examples: Path, folder: Path, compared: bool) -> None:
    from tfx.types import standard_artifacts
    from tfx.utils import json_utils, proto_utils

    from pipeline.components.recommender_evaluator import GATE_KEY, RecommenderEvaluatorExecutor
    from pipeline.evaluation import build_eval_config

    def artifact(kind: type, uri: Path) -> object:
        result = kind()
        result.uri = str(uri)
        return result

    interactions = standard_artifacts.Examples()
    interactions.uri, interactions.split_names = str(examples), json.dumps(["test"])
    inputs = {"examples": [interactions], "model": [artifact(standard_artifacts.Model, model)]}
    if compared:
        inputs["baseline_model"] = [artifact(standard_artifacts.Model, model)]
    outputs = {
        "evaluation": [artifact(standard_artifacts.ModelEvaluation, folder / "evaluation")],
        "blessing": [artifact(standard_artifacts.ModelBlessing, folder / "blessing")],
    }
    evaluation = config.evaluation.model_copy(update={"confidence_intervals": compared})
    executor = RecommenderEvaluatorExecutor(
        RecommenderEvaluatorExecutor.Context(
            beam_pipeline_args=list(config.beam.pipeline_arguments()), tmp_dir=str(folder / "tmp")
        )
    )
    executor.Do(
        inputs,
        outputs,
        {
            "eval_config": proto_utils.proto_to_json(
                build_eval_config(evaluation, config.data.feedback, config.data.like_threshold)
            ),
            "example_splits": json_utils.dumps(["test"]),
            GATE_KEY: evaluation.gate.model_dump_json(),
        },
    )


def print_evaluation(benchmark: EvaluationBenchmark, console: Console) -> None:
    """Prints the figures for a person."""
    plain, compared = (statistics.median(seconds) for seconds in (benchmark.plain, benchmark.compared))
    ratios = benchmark.ratios
    console.print(
        f"Evaluator: {plain:.1f} s without intervals and baseline, {compared:.1f} s with both. Ratio "
        f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f} over {len(ratios)} of each in turn).",
        highlight=False,
    )


def _measure_latest_run(config: PipelineConfig) -> str:
    model, examples = find_outputs(config, "RecommenderTrainer/model", "InteractionExampleGen/examples")
    return measure_evaluation(config, Path(model), Path(examples)).to_json()


def main() -> None:
    """Measures on the artifacts of a workspace, in a process of its own, and writes the figures as JSON."""
    run_as_process(main.__doc__, _measure_latest_run)


if __name__ == "__main__":
    main()
