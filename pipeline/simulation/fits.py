"""The models of a simulation as nodes of its pipeline."""

from __future__ import annotations

import dataclasses

from pipeline.simulation.config import ModelEntry, SimulationConfig

TRAINER_PREFIX, DEPLOYMENT_PREFIX, EVALUATOR_PREFIX = "Trainer", "OnlineDeployment", "Evaluator"


@dataclasses.dataclass(frozen=True)
class Fit:
    """One model, fitted once in each world.

    Attributes:
      name: of the model.
      model: how to fit it.
      refit: models are fitted on the training split alone.
      expected_seconds: nobody said how long it takes.
    """

    name: str
    model: ModelEntry
    refit: bool = False
    expected_seconds: float | None = None

    @property
    def family(self) -> str:
        """Name of its family."""
        return self.model.family

    @property
    def trainer_id(self) -> str:
        """Node that fits it."""
        return f"{TRAINER_PREFIX}.{self.name}"

    @property
    def deployment_id(self) -> str:
        """Node that puts it online."""
        return f"{DEPLOYMENT_PREFIX}.{self.name}"

    @property
    def evaluator_id(self) -> str:
        """Node that evaluates it on the log."""
        return f"{EVALUATOR_PREFIX}.{self.name}"


def plan_fits(simulation: SimulationConfig) -> list[Fit]:
    """Returns the models in the order of fitting."""
    return [Fit(name, model) for name, model in simulation.models.items()]
