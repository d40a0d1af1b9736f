"""Gathers what a study's variants left behind, from ML Metadata and the folders of their artifacts."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_metadata.proto import metadata_store_pb2

from modules.artifact_files import PLANTED_RESPONSES, TRAINING_REPORT
from modules.metrics.user_sums import UserSums
from modules.tasks import TASKS
from pipeline.config import PipelineConfig
from pipeline.evaluation_results import EvaluationError, read_user_sums
from pipeline.metadata import open_metadata
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
    outputs = _outputs_by_node(config.metadata_path, run_id)
    sums = {variant.id: _read_sums(outputs[variant.evaluator_id]) for variant in plan.variants}
    variants = [_variant_result(variant, outputs[variant.trainer_id], sums[variant.id]) for variant in plan.variants]
    examples = _example_counts([artifact for artifacts in outputs.values() for artifact in artifacts])
    planted = {
        variant.id: json.loads(
            (Path(_uri(outputs[variant.planted_id], "PlantedResponses")) / PLANTED_RESPONSES).read_text()
        )
        for variant in plan.variants
        if variant.planted_id in outputs
    }
    return summarise_study(
        study, plan, variants, sums, pipeline=config.name, run_id=run_id, examples=examples, planted=planted
    )


def _outputs_by_node(metadata_path: str, run_id: str) -> dict[str, list[metadata_store_pb2.Artifact]]:
    store = open_metadata(metadata_path)
    run = store.get_context_by_type_and_name("pipeline_run", run_id)
    outputs: dict[str, list[metadata_store_pb2.Artifact]] = {}
    for execution in store.get_executions_by_context(run.id):
        (node,) = (context for context in store.get_contexts_by_execution(execution.id) if context.type == "node")
        events = store.get_events_by_execution_ids([execution.id])
        ids = [event.artifact_id for event in events if event.type == metadata_store_pb2.Event.OUTPUT]
        outputs[node.name.split(".", 1)[1]] = list(store.get_artifacts_by_id(ids))
    return outputs


def _uri(artifacts: Sequence[metadata_store_pb2.Artifact], type_name: str) -> str:
    (artifact,) = (artifact for artifact in artifacts if artifact.type == type_name)
    return artifact.uri


def _read_sums(artifacts: Sequence[metadata_store_pb2.Artifact]) -> list[UserSums]:
    """Returns the sums of every task that the data have events of."""
    uri = _uri(artifacts, "ModelEvaluation")
    sums = []
    for task in TASKS:
        with contextlib.suppress(EvaluationError):
            sums.append(read_user_sums(uri, task))
    if not sums:
        raise EvaluationError(f"{uri} holds no user sums of any task")
    return sums


def _variant_result(
    variant: Variant, artifacts: Sequence[metadata_store_pb2.Artifact], sums: Sequence[UserSums]
) -> VariantResult:
    report: dict[str, Any] = json.loads((Path(_uri(artifacts, "ModelRun")) / TRAINING_REPORT).read_text("utf-8"))
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


def _example_counts(artifacts: Sequence[metadata_store_pb2.Artifact]) -> dict[str, int]:
    prefix = "num_examples_"
    return {
        key.removeprefix(prefix): value.int_value
        for artifact in artifacts
        if artifact.type == "Examples"
        for key, value in artifact.custom_properties.items()
        if key.startswith(prefix)
    }
