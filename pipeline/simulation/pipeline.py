"""The DAG of one world: its log once, then a Trainer, an online deployment and an Evaluator for each model."""

from __future__ import annotations

from tfx.dsl.components.base.base_component import BaseComponent
from tfx.orchestration.pipeline import Pipeline

from pipeline.components.recommender_evaluator import RecommenderEvaluator
from pipeline.config import GateConfig, ModelConfig, PipelineConfig
from pipeline.config_checks import check_against_schema
from pipeline.evaluation import build_eval_config, off_policy_settings
from pipeline.pipeline import assemble, check_model, create_trainer, prepare_data
from pipeline.simulation.config import ModelEntry, SimulationConfig
from pipeline.simulation.deployment_component import OnlineDeployment
from pipeline.simulation.fits import plan_fits
from pipeline.simulation.scenario import Scenario


def create_simulation_pipeline(config: PipelineConfig, simulation: SimulationConfig, scenario: Scenario) -> Pipeline:
    """Returns the pipeline that trains, deploys and evaluates every model on the log of one world.

    Nothing is blessed, compared with an earlier model or pushed.

    Args:
      config: data, features and evaluation, in the world's workspace.
      simulation: the models.
      scenario: the world.

    Raises:
      ConfigError: if a model's settings do not exist, or the configuration and the schema do not fit.
    """
    check_against_schema(config)
    fits = plan_fits(simulation)
    configs = [configure(config, simulation, fit.model) for fit in fits]
    for model_config in configs:
        check_model(model_config)
    data = prepare_data(config)
    evaluation = config.evaluation.model_copy(update={"slices": (), "gate": GateConfig()})
    eval_config = build_eval_config(
        evaluation, config.data.feedback, config.data.like_threshold, off_policy_settings(config)
    )
    components: list[BaseComponent] = list(data.components)
    for fit, model_config in zip(fits, configs, strict=True):
        trainer = create_trainer(model_config, data).with_id(fit.trainer_id)
        # One model after the other, so that an interrupted simulation has finished models to show for its time.
        trainer.add_upstream_node(components[-1])
        deployment = OnlineDeployment(trainer.outputs["model"], scenario.to_json(), config.read_schema_text()).with_id(
            fit.deployment_id
        )
        evaluator = RecommenderEvaluator(
            examples=data.interactions.outputs["examples"],
            example_splits=["test", "impressions_test"],
            model=trainer.outputs["model"],
            eval_config=eval_config,
            gate=evaluation.gate,
            schema=data.schema.outputs["schema"],
        ).with_id(fit.evaluator_id)
        evaluator.add_upstream_node(deployment)  # A model is done when it is evaluated.
        components += [trainer, deployment, evaluator]
    return assemble(config, components, config.metadata_path)


def configure(config: PipelineConfig, simulation: SimulationConfig, entry: ModelEntry) -> PipelineConfig:
    """Returns the configuration that fits one model."""
    features = config.features.model_copy(update={"groups": entry.groups})
    model = ModelConfig(
        family=entry.family,
        settings=dict(entry.settings),
        seed=simulation.model_seed,
        propensity_weighting=entry.propensity_weighting,
    )
    return config.model_copy(update={"features": features, "model": model, "tuned": {}})
