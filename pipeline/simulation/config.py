"""`SimulationConfig`: worlds, models and the figures to be trusted or not; read from a YAML file.

Importing this module imports neither TensorFlow nor TFX.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import pydantic
from pydantic import Field

from modules.models.registry import FAMILIES
from pipeline.config import CONFIG_DIRECTORY, FeatureGroup, PipelineConfig, PropensityWeightingConfig, load_config
from pipeline.config_files import read_config
from pipeline.data_config import Section, Share

SIMULATION_DIRECTORY = CONFIG_DIRECTORY / "simulations"
QUICK_SIMULATION = "quick"
OVERRIDE_PREFIX = "simulation."

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]


class WorldConfig(Section):
    """A world of users, titles and time; see `pipeline.simulation.world` for what the numbers do."""

    users: int = Field(default=600, ge=10)
    """People."""
    items: int = Field(default=150, ge=20)
    """Titles."""
    days: int = Field(default=60, ge=3)
    """Length of the log."""
    base_logit: float = -1.4
    """Logit of the relevance of an average title to anybody; with a low one few titles are worth a click."""
    taste_scale: NonNegative = 1.3
    """How much relevance depends on who the user is."""
    quality_scale: NonNegative = 0.8
    """How much relevance depends on the title alone."""
    trend_scale: NonNegative = 0.5
    """How much the appeal of titles rises or falls over the log."""
    drift: NonNegative = 0.3
    """Angle in radians by which tastes turn from the log's beginning to its end."""
    new_share: Share = 0.2
    """Share of the titles that come out during the first 70 % of the log; the others are there from the start."""
    examination: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        default=(1.0, 0.57, 0.42, 0.33, 0.28), min_length=1
    )
    """Probability that the title at each position of a list is looked at; as many as positions."""


class LoggingConfig(Section):
    """The recommender that was live while the log was written, and learned from its own clicks."""

    lists: int = Field(default=24_000, ge=100)
    """Lists shown during the log."""
    refits: int = Field(default=25, ge=1)
    """Times that the recommender is fitted again on the clicks so far, at even distances."""
    popularity_weight: NonNegative = 1.2
    """Weight of the logarithm of a title's clicks so far; from 1 on, the popular get ever more popular."""
    taste_weight: NonNegative = 0.25
    """Weight of the view of users' tastes."""
    taste_noise: NonNegative = 1.0
    """Standard deviation of what is wrong about that view, for a true affinity of standard deviation 1."""
    temperatures: tuple[Positive, ...] = Field(default=(0.8, 0.9, 1.0, 1.1, 1.2), min_length=1)
    """Temperature of the softmax at each position: the lower, the more certainly the best title is shown."""
    exploration: float = Field(default=0.1, gt=0, le=1)
    """Probability with which a position shows a title drawn evenly: no title's propensity is 0."""
    initial_clicks: Positive = 20.0
    """Clicks per title before the log begins, e.g. from a launch campaign: unrelated to what titles are worth."""


class DeploymentConfig(Section):
    """How each model is tried out online once the log has ended."""

    visits: int = Field(default=3000, ge=10)
    """Visits that each model answers, the same for all models."""
    days: Positive = 3.0
    """Time after the end of the log in which they fall, in days."""


class ModelEntry(Section):
    """One model to train on the log and to deploy."""

    title: str
    """What a reader is told."""
    family: str
    """Name in `modules.models.registry`."""
    settings: dict[str, Any] = Field(default={})
    """Fields of the family's config."""
    groups: tuple[FeatureGroup, ...] = Field(default=("ids",), min_length=1)
    """Feature groups that the model sees."""
    propensity_weighting: PropensityWeightingConfig | None = None
    """Trains with inverse propensities. Unset: every click counts the same."""
    unweighted: str | None = None
    """Name of the model that is the same but for the weighting; the two are then compared."""


class BootstrapConfig(Section):
    """Intervals of the rank correlations: resampling of models and of worlds."""

    replicates: int = Field(default=4000, ge=100)
    """Resamples."""
    seed: int = Field(default=17, ge=0)
    """Seed of the resampling."""


class SimulationConfig(Section):
    """Everything a simulation depends on, beside the pipeline's configuration."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    """Name of the simulation, and of its workspace."""
    title: str
    """Headline of the page."""
    config: str = "simulated"
    """The pipeline's configuration: a YAML file or the name of a shipped one."""
    overrides: tuple[str, ...] = ()
    """Assignments that win over the pipeline's configuration."""
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(1, 2, 3), min_length=1)
    """One world for each seed."""
    like: str | None = None
    """A pipeline's configuration whose data lend the worlds their popularity skew, activity and genre shares."""
    world: WorldConfig = WorldConfig()
    """The worlds."""
    logging: LoggingConfig = LoggingConfig()
    """What was live while the log was written."""
    deployment: DeploymentConfig = DeploymentConfig()
    """What comes after."""
    naive: str = "ndcg@10"
    """Metric that the naive choice goes by."""
    rule: str = "policy_value_pbm"
    """Off-policy estimate that the better choice goes by."""
    bootstrap: BootstrapConfig = BootstrapConfig()
    """How intervals are computed."""
    level: float = Field(default=0.05, gt=0, lt=1)
    """The intervals cover 1 minus this."""
    model_seed: int = Field(default=17, ge=0)
    """Seed of every fit."""
    models: dict[str, ModelEntry] = Field(min_length=4)
    """The models by name."""

    @pydantic.model_validator(mode="after")
    def _require_known_names(self) -> SimulationConfig:
        for name, model in self.models.items():
            if model.family not in FAMILIES:
                raise ValueError(f"models.{name}.family: received {model.family!r}; expected one of {sorted(FAMILIES)}")
            if model.unweighted is not None and (
                model.unweighted not in self.models or model.unweighted == name or model.propensity_weighting is None
            ):
                raise ValueError(
                    f"models.{name}.unweighted: received {model.unweighted!r}; expected the name of another model, and "
                    f"`propensity_weighting`"
                )
        return self

    @pydantic.model_validator(mode="after")
    def _require_one_number_per_position(self) -> SimulationConfig:
        positions = len(self.world.examination)
        if len(self.logging.temperatures) != positions:
            raise ValueError(
                f"logging.temperatures must have one number for each of the {positions} positions of "
                f"world.examination; received {list(self.logging.temperatures)}"
            )
        if positions > self.world.items // 4:
            raise ValueError(f"world.examination: received {positions} positions; expected at most a quarter of items")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must differ; received {list(self.seeds)}")
        return self


def load_simulation(
    name_or_path: str | Path, overrides: Iterable[str] = (), seeds: Sequence[int] = (), like: str | None = None
) -> tuple[SimulationConfig, PipelineConfig]:
    """Reads a simulation and the pipeline's configuration that it builds on.

    Args:
      name_or_path: a YAML file, or the name of one shipped in `pipeline/configs/simulations`.
      overrides: assignments `a.b=value`; those that begin with `simulation.` win over the simulation's file, the others
        over the pipeline's configuration.
      seeds: seeds instead of the file's, if there are any.
      like: see `SimulationConfig.like`; instead of the file's.

    Returns:
      The simulation and the configuration, whose workspace is the simulation's: each world has a folder below.

    Raises:
      ConfigError: naming the file and, for each bad field, its path, the value received and what was expected.
    """
    assignments = list(overrides)
    own = [text.removeprefix(OVERRIDE_PREFIX) for text in assignments if text.startswith(OVERRIDE_PREFIX)]
    own += [f"seeds={list(seeds)}"] if seeds else []
    own += [f"like={json.dumps(like)}"] if like else []
    simulation = read_config(SimulationConfig, "simulation", name_or_path, SIMULATION_DIRECTORY, own)
    others = [text for text in assignments if not text.startswith(OVERRIDE_PREFIX)]
    workspace = f"workspace=runs/simulations/{simulation.name}"
    positions = f"evaluation.policy.positions={len(simulation.world.examination)}"
    return simulation, load_config(simulation.config, [workspace, positions, *simulation.overrides, *others])


def world_config(config: PipelineConfig, seed: int) -> PipelineConfig:
    """Returns the configuration of one world's pipeline."""
    workspace = f"{config.workspace}/world-{seed}"
    data = config.data.model_copy(update={"directory": f"{workspace}/data"})
    return config.model_copy(update={"workspace": workspace, "data": data})
