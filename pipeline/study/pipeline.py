"""The DAG of a study: the data once, then a Trainer and an Evaluator for each variant."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tfx.dsl.components.base.base_component import BaseComponent
from tfx.orchestration.pipeline import Pipeline

from pipeline.components.recommender_evaluator import RecommenderEvaluator
from pipeline.components.recommender_trainer import RecommenderTrainer
from pipeline.config import GateConfig, ModelConfig, PipelineConfig
from pipeline.config_checks import check_against_schema
from pipeline.evaluation import build_eval_config
from pipeline.pipeline import PreparedData, assemble, check_model, create_trainer, prepare_data
from pipeline.study.planted_component import PlantedEffects
from pipeline.study.variants import Variant


def create_study_pipeline(
    config: PipelineConfig,
    variants: Sequence[Variant],
    slices: Sequence[tuple[str, ...]],
    metadata_path: str,
    world: Mapping[str, Any] | None = None,
) -> Pipeline:
    """Returns the pipeline that fits and evaluates every variant on the same data.

    Nothing is blessed, compared with an earlier model or pushed.

    Args:
      config: data, features and evaluation.
      variants: what to fit, in this order.
      slices: slices to evaluate beside overall.
      metadata_path: SQLite file of ML Metadata.
      world: arguments of the synthetic world that the data are from, if they are, whose effects to ask models for.

    Raises:
      ConfigError: if a variant's settings do not exist, or the configuration and the schema do not fit.
    """
    check_against_schema(config)
    configs = [configure(config, variant) for variant in variants]
    for variant_config in configs:
        check_model(variant_config)
    data = prepare_data(config)
    evaluation = config.evaluation.model_copy(
        update={"slices": tuple(slices), "gate": GateConfig(), "confidence_intervals": True}
    )
    eval_config = build_eval_config(evaluation, config.data.feedback, config.data.like_threshold)
    components: list[BaseComponent] = list(data.components)
    for variant, variant_config in zip(variants, configs, strict=True):
        trainer = create_trainer(variant_config, data).with_id(variant.trainer_id)
        # One variant after the other, so that an interrupted study has finished variants to show for its time.
        trainer.add_upstream_node(components[-1])
        evaluator = RecommenderEvaluator(
            examples=data.interactions.outputs["examples"],
            example_splits=["test"],
            model=trainer.outputs["model"],
            eval_config=eval_config,
            gate=evaluation.gate,
            schema=data.schema.outputs["schema"],
        ).with_id(variant.evaluator_id)
        probes = _probes(variant, trainer, data, world)
        evaluator.add_upstream_nodes(probes)  # A variant is done when it is evaluated.
        components += [trainer, *probes, evaluator]
    return assemble(config, components, metadata_path)


def _probes(
    variant: Variant, trainer: RecommenderTrainer, data: PreparedData, world: Mapping[str, Any] | None
) -> list[BaseComponent]:
    if world is None:
        return []
    examples = data.interactions.outputs["examples"]
    probe = PlantedEffects(trainer.outputs["model"], examples, json.dumps(world, sort_keys=True))
    return [probe.with_id(variant.planted_id)]


def configure(config: PipelineConfig, variant: Variant) -> PipelineConfig:
    """Returns the configuration that fits one variant."""
    features = config.features.model_copy(update={"groups": variant.groups})
    model = ModelConfig(family=variant.family, settings=dict(variant.settings), seed=variant.seed, refit=variant.refit)
    # The variant's settings are complete.
    return config.model_copy(update={"features": features, "model": model, "tuned": {}})
