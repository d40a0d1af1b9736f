"""What a study fits: a variant per family, step of the ladder and seed, without steps that change nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from modules.features import ColumnTable, Role
from modules.settings import merge_settings
from pipeline.config import FeatureGroup, PipelineConfig
from pipeline.study.config import FamilyConfig, StepConfig, StudyConfig

_COLUMNS_OF_GROUP: Mapping[FeatureGroup, Role] = {"user": Role.USER, "item": Role.ITEM, "context": Role.CONTEXT}
_EXPORT_AND_EVALUATION_SECONDS = 13.0
TRAINER_PREFIX, EVALUATOR_PREFIX, PLANTED_PREFIX = "Trainer", "Evaluator", "PlantedEffects"


@dataclasses.dataclass(frozen=True)
class Variant:
    """One fit.

    Attributes:
      family: name of the family.
      step: name of the step, i.e. of the feature groups.
      groups: the feature groups.
      seed: seed of the fit.
      settings: fields of the family's config.
      refit: whether the final fit is on training and validation data.
      expected_seconds: about how long fit and evaluation take; None if nobody said.
    """

    family: str
    step: str
    groups: tuple[FeatureGroup, ...]
    seed: int
    settings: Mapping[str, Any]
    refit: bool = False
    expected_seconds: float | None = None

    @property
    def model(self) -> str:
        """Family, step and final fit: what the seeds are averaged over."""
        return model_name(self.family, self.step, self.refit)

    @property
    def id(self) -> str:
        """Name that tells the variant from all others."""
        return f"{self.model}.{self.seed}"

    @property
    def trainer_id(self) -> str:
        """Node that fits it."""
        return f"{TRAINER_PREFIX}.{self.id}"

    @property
    def evaluator_id(self) -> str:
        """Node that evaluates it."""
        return f"{EVALUATOR_PREFIX}.{self.id}"

    @property
    def planted_id(self) -> str:
        """Node that asks it for the effects planted in a synthetic world."""
        return f"{PLANTED_PREFIX}.{self.id}"


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything that a study fits.

    Attributes:
      variants: in the order of fitting: all models with the first seed, then with the second, and so on; refits last.
      steps: the steps that the data can tell apart.
      skipped: for each step left out, why.
    """

    variants: tuple[Variant, ...]
    steps: tuple[StepConfig, ...]
    skipped: tuple[str, ...]

    @property
    def expected_seconds(self) -> float | None:
        """About how long all variants take if none is found in the cache; None unless every family's time is known."""
        known = [variant.expected_seconds for variant in self.variants if variant.expected_seconds is not None]
        return sum(known) if len(known) == len(self.variants) else None


def model_name(family: str, step: str, refit: bool = False) -> str:
    """Returns the name of a model: a family at a step, with a final fit on training data alone or on validation too."""
    return f"{family}.{step}.refit" if refit else f"{family}.{step}"


def plan_study(study: StudyConfig, config: PipelineConfig, columns: ColumnTable) -> Plan:
    """Returns what a study fits on these data.

    A step is left out where the schema has no column in any of the groups that it adds to the rung below.

    Args:
      study: families, steps and seeds.
      config: the pipeline's configuration, for the tuned settings.
      columns: the schema's columns.
    """
    steps, skipped = _distinct_steps(study, columns)
    by_name = {step.name: step for step in steps}

    def variant(family: str, step: str, position: int, refit: bool = False) -> Variant:
        settings = study.families[family]
        return Variant(
            family=family,
            step=step,
            groups=by_name[step].groups,
            seed=_seeds(study, settings)[position],
            settings=merge_settings(config.settings_of(family), settings.settings),
            refit=refit,
            expected_seconds=_expected_seconds(settings, refit),
        )

    variants = [
        variant(family, name, position)
        for position in range(max(len(_seeds(study, settings)) for settings in study.families.values()))
        for family, settings in study.families.items()
        if position < len(_seeds(study, settings))
        for name in settings.steps
        if name in by_name
    ]
    variants += [
        variant(family, name, 0, refit=True)
        for family, settings in study.families.items()
        for name in settings.refitted
        if name in by_name
    ]
    return Plan(tuple(variants), steps, skipped)


def _expected_seconds(family: FamilyConfig, refit: bool) -> float | None:
    if family.fit_seconds is None:
        return None
    return family.fit_seconds * (2 if refit else 1) + _EXPORT_AND_EVALUATION_SECONDS


def _seeds(study: StudyConfig, family: FamilyConfig) -> tuple[int, ...]:
    return family.seeds or study.seeds


def _distinct_steps(study: StudyConfig, columns: ColumnTable) -> tuple[tuple[StepConfig, ...], tuple[str, ...]]:
    empty = {group for group, role in _COLUMNS_OF_GROUP.items() if not columns.with_role(role)}
    kept: list[StepConfig] = []
    skipped = []
    for step in study.steps:
        same = next((other for other in kept if set(other.groups) - empty == set(step.groups) - empty), None)
        if same is None:
            kept.append(step)
        else:
            added = " and ".join(sorted(set(step.groups) - set(same.groups)))
            skipped.append(f"{step.title}: the schema has no {added} column, so nothing would change.")
    return tuple(kept), tuple(skipped)
