"""The DAG: the only place where it is written.

TFX is imported module by module: `tfx.v1` would load every extension, Google Cloud's clients among them, which takes
as long as everything else together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pydantic
from tfx.components import ExampleValidator, Transform
from tfx.dsl.components.base.base_component import BaseComponent
from tfx.dsl.components.base.base_node import BaseNode
from tfx.dsl.components.common.resolver import Resolver
from tfx.dsl.input_resolution.strategies.latest_blessed_model_strategy import LatestBlessedModelStrategy
from tfx.orchestration.metadata import sqlite_metadata_connection_config
from tfx.orchestration.pipeline import Pipeline
from tfx.proto.pusher_pb2 import PushDestination
from tfx.proto.transform_pb2 import SplitsConfig
from tfx.types import BaseChannel, Channel
from tfx.types.standard_artifacts import HyperParameters, Model, ModelBlessing

from modules.hyperparameters import search_space
from modules.models.registry import FAMILIES, create_recommender
from modules.training_data import IMPRESSIONS
from pipeline.code_version import code_version
from pipeline.components.anomaly_gate import AnomalyGate
from pipeline.components.catalogue_example_gen import CatalogueExampleGen
from pipeline.components.curated_schema import CuratedSchema
from pipeline.components.earlier_model import EarlierModelStrategy
from pipeline.components.interaction_example_gen import InteractionExampleGen
from pipeline.components.latest_pushed_model import LatestPushedModel
from pipeline.components.latest_search import LatestSearchStrategy
from pipeline.components.newest_data import RecordNewestData
from pipeline.components.previous_blessed_model import PreviousBlessedModelStrategy, ServableModelStrategy
from pipeline.components.pusher import AtomicPusher
from pipeline.components.recommender_evaluator import RecommenderEvaluator
from pipeline.components.recommender_trainer import RecommenderTrainer
from pipeline.components.recommender_transform import RecommenderTransform
from pipeline.components.recommender_tuner import RecommenderTuner
from pipeline.components.server_validator import ServerValidator
from pipeline.components.span_drift import SpanDrift
from pipeline.components.statistics_gen import WholeFileStatisticsGen
from pipeline.components.window_transform import WindowTransform
from pipeline.config import PipelineConfig
from pipeline.config_checks import check_against_schema
from pipeline.config_files import ConfigError, describe_validation_error
from pipeline.evaluation import build_eval_config, off_policy_settings
from pipeline.impression_schema import with_impressions
from pipeline.runtime_parameters import RuntimeParameters
from pipeline.search_results import latest_search, tuner_id

HYPERPARAMETERS = "hyperparameters"
"""The Trainer's input for what a search found."""
BASELINE = "LatestBlessedModel"
"""The node that finds the model to beat."""
RECORD = "RecordNewestData"
"""The node that remembers what was learned from, where a run is skipped if nothing new has come."""
EARLIER_MODEL = "EarlierModel"
"""The node that finds the model whose weights a fit begins with."""

ModelsFrom = Literal["ml_metadata", "vertex_metadata", "serving_folder"]
"""Where earlier models are found: in ML Metadata, in that of Vertex, which knows TFX's own strategies only, or, since
Kubeflow Pipelines runs no resolvers, in the serving folder."""


def create_pipeline(
    config: PipelineConfig,
    models_from: ModelsFrom = "ml_metadata",
    metadata_path: str | None = None,
    parameters: RuntimeParameters = RuntimeParameters(),  # noqa: B008
) -> Pipeline:
    """Returns the pipeline that takes an interaction log to a validated, pushed recommender.

    Args:
      config: what to build.
      models_from: where the model to beat is found; see `ModelsFrom`.
      metadata_path: SQLite file of ML Metadata, or None where the orchestrator brings its own.
      parameters: what is left to be said at submission.

    Raises:
      ConfigError: if the model's family or settings do not exist, or the configuration and the schema do not fit.
    """
    check_model(config)
    check_against_schema(config)
    data = prepare_data(config, parameters)

    # Finds the settings that `marquee tune` found, if they are asked for.
    searched = _resolve_searched(config, metadata_path)

    # Finds the model whose weights the fit begins with, if it is to begin with any.
    earlier = None
    if config.model.warm_start is not None:
        catalogue = data.catalogue.outputs["examples"]
        earlier = _find_model(config, models_from, EARLIER_MODEL, EarlierModelStrategy, catalogue)

    # Fits the recommender and exports it with all signatures.
    trainer = create_trainer(config, data, searched, parameters, earlier)

    # Finds the model to beat: the last one that was blessed.
    candidate = trainer.outputs["model"]
    baseline = _find_model(config, models_from, BASELINE, PreviousBlessedModelStrategy, candidate)

    # Ranks the whole catalogue for each test event, slice by slice, and blesses the model if it passes the gate.
    evaluator = RecommenderEvaluator(
        examples=data.interactions.outputs["examples"],
        example_splits=["test", *(["impressions_test"] if config.data.propensity else [])],
        model=trainer.outputs["model"],
        baseline_model=baseline.outputs["model"],
        eval_config=build_eval_config(
            config.evaluation, config.data.feedback, config.data.like_threshold, off_policy_settings(config)
        ),
        gate=config.evaluation.gate,
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
        largest_batch=config.serving.largest_batch,
        latency_budget_milliseconds=config.serving.latency_budget_milliseconds,
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
        *([searched] if searched is not None else []),
        *([earlier] if earlier is not None else []),
        trainer,
        baseline,
        evaluator,
        server_validator,
        pusher,
    ]

    # Remembers, as the last step, what was learned from, so that it is not learned from again.
    if parameters.data_fingerprint is not None:
        record = RecordNewestData(fingerprint=parameters.data_fingerprint, workspace=config.workspace)
        record.add_upstream_nodes([pusher])
        components.append(record.with_id(RECORD))
    return assemble(config, components, metadata_path)


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


def prepare_data(
    config: PipelineConfig,
    parameters: RuntimeParameters = RuntimeParameters(),  # noqa: B008
) -> PreparedData:
    """Returns the components from the source tables to the transformed examples, with the gate between them.

    Raises:
      ConfigError: if the schema cannot be read.
    """
    schema_text = with_impressions(config.read_schema_text(), config.data)
    has_impressions = config.data.propensity is not None

    windowed = config.data.window is not None
    newest_span = parameters.newest_span or config.data.newest_span

    # Joins the tables and writes an example per interaction, with the history that was known at its time.
    interactions = InteractionExampleGen(
        config.data,
        config.rejected_rows_directory,
        parameters.data_directory,
        newest_span,
        config.span_store_directory,
    )

    # Writes an example per title: what can be recommended.
    catalogue = CatalogueExampleGen(config.data, config.rejected_rows_directory, parameters.data_directory, newest_span)

    # Describe the data, for people and for the checks below.
    interaction_statistics = WholeFileStatisticsGen(examples=interactions.outputs["examples"]).with_id(
        "InteractionStatistics"
    )
    catalogue_statistics = WholeFileStatisticsGen(examples=catalogue.outputs["examples"]).with_id("CatalogueStatistics")

    # Brings in the reviewed schema, whose tags decide on everything downstream.
    schema = CuratedSchema(schema_text)

    # Compare the data with the schema.
    interaction_validator = ExampleValidator(
        statistics=interaction_statistics.outputs["statistics"], schema=schema.outputs["schema"]
    ).with_id("InteractionValidator")
    catalogue_validator = ExampleValidator(
        statistics=catalogue_statistics.outputs["statistics"], schema=schema.outputs["catalogue_schema"]
    ).with_id("CatalogueValidator")

    # Measures how far the newest span has moved from the one before it.
    drift = SpanDrift(interactions.outputs["examples"], schema.outputs["schema"]) if windowed else None

    # Fails the run, in plain words, unless the data are clean. Nothing downstream starts before it.
    gate = AnomalyGate(
        interaction_anomalies=interaction_validator.outputs["anomalies"],
        catalogue_anomalies=catalogue_validator.outputs["anomalies"],
        drift_anomalies=drift.outputs["anomalies"] if drift is not None else None,
    )

    # Learns vocabularies, means and quantiles on the training split and turns raw features into numbers.
    transform = (WindowTransform if windowed else RecommenderTransform)(
        examples=interactions.outputs["examples"],
        schema=schema.outputs["schema"],
        preprocessing_fn="modules.preprocessing.preprocessing_fn",
        custom_config={
            "schema_text": schema_text,
            "code_version": code_version("preprocessing.py", "features.py", "derived_names.py"),
            **config.features.model_dump(include={"quantile_buckets", "text_tokens", "max_vocabulary_size"}),
            **({"span_store": config.span_store_directory} if windowed else {}),
        },
        splits_config=SplitsConfig(
            analyze=["train"], transform=["train", "eval", *([IMPRESSIONS] if has_impressions else [])]
        ),
        disable_statistics=not config.features.transform_statistics,
        # The cache of partial analyses pays off only where many spans are analysed at once.
        disable_analyzer_cache=not windowed,
    ).with_id("Transform")
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
            *([drift] if drift is not None else []),
            gate,
            transform,
        ),
    )


def create_trainer(
    config: PipelineConfig,
    data: PreparedData,
    searched: Resolver | None = None,
    parameters: RuntimeParameters = RuntimeParameters(),  # noqa: B008
    earlier: BaseNode | None = None,
) -> RecommenderTrainer:
    """Returns the component that fits the configured recommender and exports it with all signatures.

    Args:
      config: what to fit.
      data: what to fit it on.
      searched: finds the settings of an earlier search, if they are to be used.
      parameters: what is left to be said at submission.
      earlier: finds the model whose weights the fit begins with, if it is to begin with any.
    """
    found = {HYPERPARAMETERS: searched.outputs[HYPERPARAMETERS]} if searched is not None else {}
    return RecommenderTrainer(
        **found,
        examples=data.transform.outputs["transformed_examples"],
        catalogue=data.catalogue.outputs["examples"],
        transform_graph=data.transform.outputs["transform_graph"],
        schema=data.schema.outputs["schema"],
        run_fn="modules.trainer.run_fn",
        custom_config={
            **_inputs_config(config),
            "model": config.model.model_dump(mode="json", exclude={"use_tuned", "propensity_weighting", "warm_start"}),
            "tuned": config.tuned.get(config.model.family, {}),
            "bands": {column: list(boundaries) for column, boundaries in config.evaluation.bands.items()},
            "top_k": config.serving.top_k,
            "retrieval": config.serving.retrieval,
            "genre_feature": config.evaluation.genre_feature,
            **_policy_config(config),
            # Not said unless it is asked for: all other runs keep their cache keys.
            **({"warm_start": config.model.warm_start.model_dump(mode="json")} if config.model.warm_start else {}),
        },
        base_model=earlier.outputs["model"] if earlier is not None else None,
        max_epochs=parameters.max_epochs,
        feature_groups=parameters.feature_groups,
    )


def create_tuning_pipeline(
    config: PipelineConfig, families: Sequence[str], metadata_path: str | None = None
) -> Pipeline:
    """Returns the pipeline that searches for settings: the same as for a run up to Transform, and a Tuner per family.

    Args:
      config: what to build.
      families: families to tune, one after the other.
      metadata_path: SQLite file of ML Metadata, or None where the orchestrator brings its own.

    Raises:
      ConfigError: if a family or its settings do not exist, a family has nothing to tune, or the configuration and the
        schema do not fit.
    """
    for family in families:
        _check_family(family, "tuner.families")
        _check_settings(family, config.tuned.get(family, {}), f"tuned.{family}")
        _check_settings(family, config.settings_of(family), "model.settings")
        try:
            search_space(family, config.settings_of(family), config.fixed_settings_of(family))
        except ValueError as error:
            raise ConfigError(str(error)) from error
    check_against_schema(config)
    data = prepare_data(config)

    # Tries settings, each judged on the validation split.
    tuners = [
        RecommenderTuner(
            examples=data.transform.outputs["transformed_examples"],
            catalogue=data.catalogue.outputs["examples"],
            transform_graph=data.transform.outputs["transform_graph"],
            schema=data.schema.outputs["schema"],
            tuner_fn="modules.tuner.tuner_fn",
            custom_config={
                **_inputs_config(config),
                "search": {
                    "family": family,
                    "settings": config.settings_of(family),
                    "fixed": config.fixed_settings_of(family),
                    "seed": config.model.seed,
                    "trials": config.tuner.trials,
                },
            },
        ).with_id(tuner_id(family))
        for family in families
    ]
    return assemble(config, [*data.components, *tuners], metadata_path)


def check_model(config: PipelineConfig) -> None:
    """Checks the model's family and settings, before a run spends time on the data.

    Raises:
      ConfigError: naming the field, the value received and what was expected.
    """
    _check_family(config.model.family, "model.family")
    _check_settings(config.model.family, config.model.settings, "model.settings")
    for family, settings in config.tuned.items():
        _check_family(family, "tuned")
        _check_settings(family, settings, f"tuned.{family}")
    _check_settings(config.model.family, config.settings_of(config.model.family), "model.settings")


def _check_family(family: str, field: str) -> None:
    if family not in FAMILIES:
        raise ConfigError(f"{field}: received {family!r}; expected one of {sorted(FAMILIES)}")


def _check_settings(family: str, settings: Mapping[str, Any], field: str) -> None:
    try:
        create_recommender(family, settings)
    except pydantic.ValidationError as error:
        raise ConfigError(describe_validation_error(error, "the configuration", field)) from error


def _inputs_config(config: PipelineConfig) -> dict[str, Any]:
    """What trainer and tuner need to know of the inputs of a fit."""
    return {
        "code_version": code_version("."),
        "feature_groups": list(config.features.groups),
        "quantile_buckets": config.features.quantile_buckets,
        "like_threshold": config.data.like_threshold,
        **_weighting_config(config),
    }


def _weighting_config(config: PipelineConfig) -> dict[str, Any]:
    weighting = config.model.propensity_weighting
    if weighting is None:
        return {}
    return {"propensity_weighting": {"propensity": config.data.propensity, **weighting.model_dump()}}


def _policy_config(config: PipelineConfig) -> dict[str, Any]:
    """What the trainer needs to know of the lists that off-policy estimates are about; nothing without impressions."""
    return {"policy_positions": config.policy.positions} if config.policy is not None else {}


def assemble(config: PipelineConfig, components: Sequence[BaseComponent], metadata_path: str | None) -> Pipeline:
    """Returns the TFX pipeline of these components; see `create_pipeline`."""
    return Pipeline(
        pipeline_name=config.name,
        pipeline_root=config.artifact_root,
        components=list(components),
        enable_cache=True,
        metadata_connection_config=(sqlite_metadata_connection_config(metadata_path) if metadata_path else None),
        beam_pipeline_args=list(config.beam.pipeline_arguments()),
    )


def _resolve_searched(config: PipelineConfig, metadata_path: str | None) -> Resolver | None:
    """Returns the node that finds the settings of the latest search; None if they are not asked for."""
    family = config.model.family
    if not config.model.use_tuned:
        return None
    if metadata_path is None:
        # Its resolver would take the settings of any family.
        raise ConfigError(
            "model.use_tuned: received true; Kubeflow Pipelines cannot tell the searches of families apart: put what "
            f"`marquee tune` prints into the configuration, under `tuned.{family}`"
        )
    if latest_search(metadata_path, config.name, family) is None:
        raise ConfigError(
            f"model.use_tuned: received true, but no settings of {family!r} have been searched for in "
            f"{config.workspace}; run `marquee tune --family {family}` first"
        )
    channel = Channel(type=HyperParameters, producer_component_id=tuner_id(family), output_key="best_hyperparameters")
    return Resolver(strategy_class=LatestSearchStrategy, **{HYPERPARAMETERS: channel}).with_id("LatestSearch")


def _find_model(
    config: PipelineConfig,
    models_from: ModelsFrom,
    node: str,
    strategy: type[ServableModelStrategy],
    given: BaseChannel,
) -> BaseNode:
    """Returns the node that finds an earlier model.

    Args:
      config: what is built.
      models_from: where to look.
      node: its id.
      strategy: which model is meant, where ML Metadata can be asked.
      given: what the strategy has to know.
    """
    if models_from == "serving_folder":
        return LatestPushedModel(config.serving_directory).with_id(node)
    channels: dict[str, BaseChannel] = {"model": Channel(type=Model), "model_blessing": Channel(type=ModelBlessing)}
    if models_from == "vertex_metadata":
        return Resolver(strategy_class=LatestBlessedModelStrategy, **channels).with_id(node)
    return Resolver(strategy_class=strategy, **channels, **{strategy.GIVEN_KEY: given}).with_id(node)
