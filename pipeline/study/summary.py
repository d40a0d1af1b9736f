"""From what the variants earned from the users to everything that a study says."""

from __future__ import annotations

import importlib.metadata
import itertools
import platform
from collections.abc import Mapping, Sequence

from modules.metrics.user_sums import UserSums
from modules.models.registry import create_recommender
from pipeline.study.analysis import describe_agreements, describe_task, score_tasks
from pipeline.study.claims import Evidence, judge_claims
from pipeline.study.config import StudyConfig
from pipeline.study.planted_summary import PlantedDocument, describe_planted_effects
from pipeline.study.results import ModelResult, StepResult, StudyResults, VariantResult
from pipeline.study.variants import Plan, model_name

_LIBRARIES = ("numpy", "tensorflow", "tensorflow-recommenders", "tensorflow-model-analysis", "tfx")


def summarise_study(
    study: StudyConfig,
    plan: Plan,
    variants: Sequence[VariantResult],
    sums: Mapping[str, Sequence[UserSums]],
    *,
    pipeline: str,
    run_id: str,
    examples: Mapping[str, int],
    planted: Mapping[str, PlantedDocument] | None = None,
) -> StudyResults:
    """Works everything out.

    Args:
      study: the study.
      plan: what was fitted.
      variants: how each fit went.
      sums: by variant id, what it earned from each group of users in each task.
      pipeline: name of the pipeline's configuration.
      run_id: run in ML Metadata.
      examples: examples by split.
      planted: by variant id, its responses to planted effects, if the data have any.

    Raises:
      StudyError: if the sums do not belong to one study.
    """
    models = _model_results(study, plan, variants)
    scores = score_tasks(study, plan, sums)
    tasks = [describe_task(study, plan, task) for task in scores]
    agreements = describe_agreements(study, scores, [model.name for model in models if model.top])
    evidence = Evidence(
        study=study,
        plan=plan,
        models={model.name: model for model in models},
        tasks={task.name: task for task in tasks},
        scores={task.name: task for task in scores},
        agreements=agreements,
    )
    return StudyResults(
        study=study.name,
        title=study.title,
        pipeline=pipeline,
        run_id=run_id,
        versions={
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _LIBRARIES},
        },
        examples=dict(examples),
        replicates=study.bootstrap.replicates,
        bootstrap_seed=study.bootstrap.seed,
        level=study.level,
        margin=study.margin,
        steps=tuple(StepResult(**step.model_dump()) for step in plan.steps),
        skipped_steps=plan.skipped,
        models=tuple(models),
        variants=tuple(variants),
        tasks=tuple(tasks),
        agreements=tuple(agreements),
        claims=tuple(judge_claims(evidence)),
        planted_effects=tuple(describe_planted_effects(study, plan, planted or {})),
        total_fit_seconds=round(sum(variant.fit_seconds for variant in variants), 1),
    )


def _model_results(study: StudyConfig, plan: Plan, results: Sequence[VariantResult]) -> list[ModelResult]:
    ladder = [step.name for step in plan.steps if step.instead_of is None]
    models = []
    for family, settings in study.families.items():
        richest = [step for step in ladder if step in settings.steps][-1]
        for step, refit in itertools.product(plan.steps, (False, True)):
            name = model_name(family, step.name, refit)
            seeds = [result for result in results if result.model == name]
            if not seeds:
                continue
            variant = next(variant for variant in plan.variants if variant.model == name)
            memory = [result.peak_memory_mebibytes for result in seeds if result.peak_memory_mebibytes is not None]
            recommender = create_recommender(family, variant.settings)
            models.append(
                ModelResult(
                    name=name,
                    family=family,
                    title=f"{settings.title} (refit)" if refit else settings.title,
                    kind=settings.kind,
                    step=step.name,
                    top=step.name == richest and not refit,
                    final_fit_splits=seeds[0].final_fit_splits,
                    groups=step.groups,
                    settings=recommender.config.model_dump(mode="json"),
                    seeds=tuple(result.seed for result in seeds),
                    fit_seconds=round(sum(result.fit_seconds for result in seeds) / len(seeds), 3),
                    peak_memory_mebibytes=max(memory, default=None),
                )
            )
    return models
