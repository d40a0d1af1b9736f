"""The DAG: the only place where it is written.

TFX is imported module by module: `tfx.v1` would load every extension, Google Cloud's clients among them, which takes
as long as everything else together.
"""

from __future__ import annotations

import dataclasses

import pydantic
from tfx.components import ExampleValidator, StatisticsGen, Transform
from tfx.dsl.components.base.base_component import BaseComponent
from tfx.dsl.components.common.resolver import Resolver, ResolverStrategy
from tfx.orchestration.metadata import sqlite_metadata_connection_config
from tfx.orchestration.pipeline import Pipeline
from tfx.proto.pusher_pb2 import PushDestination
from tfx.proto.transform_pb2 import SplitsConfig
from tfx.types import Channel
from tfx.types.standard_artifacts import Model, ModelBlessing

from modules.models.registry import create_recommender
from pipeline.code_version import code_version
from pipeline.components.anomaly_gate import AnomalyGate
from pipeline.components.catalogue_example_gen import CatalogueExampleGen
from pipeline.components.curated_schema import CuratedSchema
from pipeline.components.interaction_example_gen import InteractionExampleGen
from pipeline.components.previous_blessed_model import CANDIDATE_KEY, PreviousBlessedModelStrategy
from pipeline.components.pusher import AtomicPusher
from pipeline.components.recommender_evaluator import RecommenderEvaluator
from pipeline.components.recommender_trainer import RecommenderTrainer
from pipeline.components.server_validator import ServerValidator
from pipeline.config import ConfigError, PipelineConfig, describe_validation_error
from pipeline.config_checks import check_against_schema
from pipeline.evaluation import build_eval_config


def create_pipeline(
    config: PipelineConfig,
    baseline_strategy: type[ResolverStrategy] = PreviousBlessedModelStrategy,
    metadata_path: str | None = None,
) -> Pipeline:
    """Returns the pipeline that takes an interaction log to a validated, pushed recommender.

    Args:
      config: what to build.
      baseline_strategy: which blessed model the candidate is compared to. Orchestrators that know only TFX's own
        strategies are given `LatestBlessedModelStrategy`.
      metadata_path: SQLite file of ML Metadata, or None where the orchestrator brings its own.

    Raises:
      ConfigError: if the model's family or settings do not exist, or the configuration and the schema do not fit.
    """
    check_model(config)
    check_against_schema(config)
    data = prepare_data(config)

    # Fits the recommender and exports it with all signatures.
    trainer = create_trainer(config, data)

    # Finds the model to beat: the last one that was blessed.
    baseline = _resolve_baseline(baseline_strategy, trainer)

    # Ranks the whole catalogue for each test event, slice by slice, and blesses the model if it passes the gate.
    evaluator = RecommenderEvaluator(
        examples=data.interactions.outputs["examples"],
        example_splits=["test"],
        model=trainer.outputs["model"],
        baseline_model=baseline.outputs["model"],
        eval_config=build_eval_config(config.evaluation),
        schema=data.schema.outputs["schema"],
    )

    # Starts a model server on the candidate and sends it real requests, the nasty ones included.
    server_validator = ServerValidator(
        model=trainer.outputs["model"],
        examples=data.interactions.outputs["examples"],
        model_name=config.serving.model_name,
        split="test",
        num_requests=config.serving.validation_requests,
        timeout_seconds=config.serving.validation_timeout_seconds,
    )

    # Hands the model to TensorFlow Serving if, and only if, both blessed it.
    pusher = AtomicPusher(
        model=trainer.outputs["model"],
        model_blessing=evaluator.outputs["blessing"],
        infra_blessing=server_validator.outputs["blessing"],
        push_destination=PushDestination(
            filesystem=PushDestination.Filesystem(base_directory=config.serving_directory)
        ),
    )

    components: list[BaseComponent] = [
        *data.components,
        trainer,
        baseline,
        evaluator,
        server_validator,
        pusher,
    ]
    return Pipeline(
        pipeline_name=config.name,
        pipeline_root=config.artifact_root,
        components=components,
        enable_cache=True,
        metadata_connection_config=(sqlite_metadata_connection_config(metadata_path) if metadata_path else None),
        beam_pipeline_args=list(config.beam_args),
    )


@dataclasses.dataclass(frozen=True)
class PreparedData:
    """The components that bring data in, check and transform them; what learns is built on top.

    Attributes:
      interactions: ingested interactions, with the splits `train`, `eval` and `test`.
      catalogue: ingested titles.
      schema: the curated schema.
      transform: the transformed interactions and the transform graph.
      components: all components, also those that only describe and check.
    """

    interactions: InteractionExampleGen
    catalogue: CatalogueExampleGen
    schema: CuratedSchema
    transform: Transform
    components: tuple[BaseComponent, ...]


def prepare_data(config: PipelineConfig) -> PreparedData:
    """Returns the components from the source tables to the transformed examples, with the gate between them.

    Raises:
      ConfigError: if the schema cannot be read.
    """
    schema_text = config.read_schema_text()

    # Joins the tables and writes an example per interaction, with the history that was known at its time.
    interactions = InteractionExampleGen(config.data, config.rejected_rows_directory)

    # Writes an example per title: what can be recommended.
    catalogue = CatalogueExampleGen(config.data, config.rejected_rows_directory)

    # Describe the data, for people and for the checks below.
    interaction_statistics = StatisticsGen(examples=interactions.outputs["examples"]).with_id("InteractionStatistics")
    catalogue_statistics = StatisticsGen(examples=catalogue.outputs["examples"]).with_id("CatalogueStatistics")

    # Brings in the reviewed schema, whose tags decide on everything downstream.
    schema = CuratedSchema(schema_text)

    # Compare the data with the schema.
    interaction_validator = ExampleValidator(
        statistics=interaction_statistics.outputs["statistics"], schema=schema.outputs["schema"]
    ).with_id("InteractionValidator")
    catalogue_validator = ExampleValidator(
        statistics=catalogue_statistics.outputs["statistics"], schema=schema.outputs["catalogue_schema"]
    ).with_id("CatalogueValidator")

    # Fails the run, in plain words, unless the data are clean. Nothing downstream starts before it.
    gate = AnomalyGate(
        interaction_anomalies=interaction_validator.outputs["anomalies"],
        catalogue_anomalies=catalogue_validator.outputs["anomalies"],
    )

    # Learns vocabularies, means and quantiles on the training split and turns raw features into numbers.
    transform = Transform(
        examples=interactions.outputs["examples"],
        schema=schema.outputs["schema"],
        preprocessing_fn="modules.preprocessing.preprocessing_fn",
        custom_config={
            "schema_text": schema_text,
            "code_version": code_version("preprocessing.py", "features.py", "derived_names.py"),
            **config.features.model_dump(include={"quantile_buckets", "text_tokens", "max_vocabulary_size"}),
        },
        splits_config=SplitsConfig(analyze=["train"], transform=["train", "eval"]),
        disable_statistics=not config.features.transform_statistics,
        # The cache of partial analyses pays off only where many spans are analysed at once.
        disable_analyzer_cache=True,
    )
    transform.add_upstream_node(gate)

    return PreparedData(
        interactions=interactions,
        catalogue=catalogue,
        schema=schema,
        transform=transform,
        components=(
            interactions,
            catalogue,
            interaction_statistics,
            catalogue_statistics,
            schema,
            interaction_validator,
            catalogue_validator,
            gate,
            transform,
        ),
    )


def create_trainer(config: PipelineConfig, data: PreparedData) -> RecommenderTrainer:
    """Returns the component that fits the configured recommender and exports it with all signatures."""
    return RecommenderTrainer(
        examples=data.transform.outputs["transformed_examples"],
        catalogue=data.catalogue.outputs["examples"],
        transform_graph=data.transform.outputs["transform_graph"],
        schema=data.schema.outputs["schema"],
        run_fn="modules.trainer.run_fn",
        custom_config={
            "code_version": code_version("."),
            "model": config.model.model_dump(mode="json"),
            "feature_groups": list(config.features.groups),
            "quantile_buckets": config.features.quantile_buckets,
            "bands": {column: list(boundaries) for column, boundaries in config.evaluation.bands.items()},
            "top_k": config.serving.top_k,
        },
    )


def check_model(config: PipelineConfig) -> None:
    """Checks the model's family and settings, before a run spends time on the data.

    Raises:
      ConfigError: naming the field, the value received and what was expected.
    """
    try:
        create_recommender(config.model.family, config.model.settings)
    except pydantic.ValidationError as error:
        raise ConfigError(describe_validation_error(error, "the configuration", "model.settings")) from error
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _resolve_baseline(strategy: type[ResolverStrategy], trainer: RecommenderTrainer) -> Resolver:
    channels = {"model": Channel(type=Model), "model_blessing": Channel(type=ModelBlessing)}
    if strategy is PreviousBlessedModelStrategy:
        channels[CANDIDATE_KEY] = trainer.outputs["model"]
    return Resolver(strategy_class=strategy, **channels).with_id("LatestBlessedModel")
