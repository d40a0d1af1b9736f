"""One world with all that happens in it: what a pipeline's components are told of it."""

from __future__ import annotations

import dataclasses
import json

from pipeline.simulation.config import DeploymentConfig, LoggingConfig, SimulationConfig, WorldConfig
from pipeline.simulation.grounding import Grounding
from pipeline.simulation.world import World


@dataclasses.dataclass(frozen=True)
class Scenario:
    """A world, what was live while its log was written, and what comes after.

    Attributes:
      world: the world.
      logging: the recommender that wrote the log.
      deployment: how models are tried out.
    """

    world: World
    logging: LoggingConfig
    deployment: DeploymentConfig

    @classmethod
    def of(cls, simulation: SimulationConfig, grounding: Grounding, seed: int) -> Scenario:
        """Returns one of a simulation's."""
        return cls(World(simulation.world, grounding, seed), simulation.logging, simulation.deployment)

    def to_json(self) -> str:
        """Returns the same text for the same scenario."""
        document = {
            "world": self.world.config.model_dump(mode="json"),
            "grounding": dataclasses.asdict(self.world.grounding),
            "seed": self.world.seed,
            "logging": self.logging.model_dump(mode="json"),
            "deployment": self.deployment.model_dump(mode="json"),
        }
        return json.dumps(document, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Scenario:
        """Reads what `to_json` wrote."""
        document = json.loads(text)
        lists = {name: tuple(value) for name, value in document["grounding"].items() if isinstance(value, list)}
        grounding = Grounding(**{**document["grounding"], **lists})
        return cls(
            World(WorldConfig.model_validate(document["world"]), grounding, document["seed"]),
            LoggingConfig.model_validate(document["logging"]),
            DeploymentConfig.model_validate(document["deployment"]),
        )
