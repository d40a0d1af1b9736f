"""Gathers what a study's variants left behind, from ML Metadata and the folders of their artifacts."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modules.artifact_files import PLANTED_RESPONSES, TRAINING_REPORT
from modules.metrics.user_sums import UserSums
from modules.tasks import TASKS
from pipeline.config import PipelineConfig
from pipeline.evaluation_results import EvaluationError, read_user_sums
from pipeline.run_outputs import Artifacts, example_counts, outputs_by_node, uri_of
from pipeline.runs import RunStore
from pipeline.study.config import StudyConfig
from pipeline.study.results import StudyResults, VariantResult
from pipeline.study.summary import summarise_study
from pipeline.study.variants import Plan, Variant


def collect_results(study: StudyConfig, config: PipelineConfig, plan: Plan) -> StudyResults:
    """Reads the latest run of a study and works everything out.

    Args:
      study: the study.
      config: the pipeline's configuration, in the study's workspace.
      plan: what the run fitted.
    """
    run_id = RunStore(config.metadata_path).run_ids()[-1]
    outputs = outputs_by_node(config.metadata_path, run_id)
    sums = {variant.id: _read_sums(outputs[variant.evaluator_id]) for variant in plan.variants}
    variants = [_variant_result(variant, outputs[variant.trainer_id], sums[variant.id]) for variant in plan.variants]
    examples = example_counts([artifact for artifacts in outputs.values() for artifact in artifacts])
    planted = {
        variant.id: json.loads(
            (Path(uri_of(outputs[variant.planted_id], "PlantedResponses")) / PLANTED_RESPONSES).read_text()
        )
        for variant in plan.variants
        if variant.planted_id in outputs
    }
    return summarise_study(
        study, plan, variants, sums, pipeline=config.name, run_id=run_id, examples=examples, planted=planted
    )


def _read_sums(artifacts: Artifacts) -> list[UserSums]:
    """Returns the sums of every task that the data have events of."""
    uri = uri_of(artifacts, "ModelEvaluation")
    sums = []
    for task in TASKS:
        with contextlib.suppress(EvaluationError):
            sums.append(read_user_sums(uri, task))
    if not sums:
        raise EvaluationError(f"{uri} holds no user sums of any task")
    return sums


def _variant_result(variant: Variant, artifacts: Artifacts, sums: Sequence[UserSums]) -> VariantResult:
    report: dict[str, Any] = json.loads((Path(uri_of(artifacts, "ModelRun")) / TRAINING_REPORT).read_text("utf-8"))
    memory = report["peak_memory_mebibytes"]
    return VariantResult(
        id=variant.id,
        model=variant.model,
        seed=variant.seed,
        fit_seconds=report["fit_seconds"],
        peak_memory_mebibytes=None if memory is None else round(memory, 1),
        validation_ndcg=report["validation_ndcg@10"],
        final_fit_splits=tuple(report["final_fit_splits"]),
        metrics={
            of_task.task: dict(zip(of_task.metric_names, of_task.estimates().tolist(), strict=True)) for of_task in sums
        },
    )
