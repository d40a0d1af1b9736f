"""`StudyConfig`: which families, feature groups and seeds a study compares; read from a YAML file.

Importing this module imports neither TensorFlow nor TFX.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from modules.models.registry import FAMILIES
from modules.tasks import NEXT_TITLE, Task
from pipeline.config import CONFIG_DIRECTORY, FeatureGroup, PipelineConfig, load_config
from pipeline.config_files import read_config
from pipeline.data_config import Section

STUDY_DIRECTORY = CONFIG_DIRECTORY / "studies"
QUICK_STUDY = "quick"
OVERRIDE_PREFIX = "study."

Kind = Literal["simple", "deep", "combined"]


class StepConfig(Section):
    """One set of feature groups that models are given."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    """Name in component ids, e.g. `time_buckets`."""
    title: str
    """What a reader is told of a model at this step, e.g. `with metadata`."""
    adds: str | None = None
    """What a reader is told that this rung adds to the one below, e.g. `metadata`. Unset: the title says it."""
    groups: tuple[FeatureGroup, ...] = Field(min_length=1)
    """The feature groups."""
    instead_of: str | None = None
    """Name of the step that this one is an alternative to. Unset: a rung of the ladder, compared with the one below."""


class FamilyConfig(Section):
    """One family of recommenders."""

    kind: Kind
    """`simple` and `deep` models are what the claims compare; `combined` ones blend both and are only reported."""
    title: str
    """What a reader is told."""
    steps: tuple[str, ...] = Field(default=("ids",), min_length=1)
    """Names of the steps to fit it at. Families that ignore features need only the first."""
    seeds: tuple[int, ...] | None = Field(default=None, min_length=1)
    """Seeds of this family; unset: the study's. One is enough for families without randomness."""
    refitted: tuple[str, ...] = ()
    """Names of steps at which, with the first seed, there is one more fit: after everything was decided on validation,
    on training and validation data together. It is a model of its own, reported beside the others and kept out of the
    claims, whose models are all fitted on training data alone."""
    fit_seconds: float | None = Field(default=None, gt=0)
    """About how long one fit on training data takes, for the estimate at the start. Unset: no estimate."""
    settings: dict[str, Any] = Field(default={})
    """Fields of the family's config that win over the settings tuned for the pipeline."""


class SyntheticConfig(Section):
    """A synthetic world to make when a study's workspace has none."""

    users: Annotated[int, Field(ge=1)] = 400
    """People."""
    items: Annotated[int, Field(ge=2)] = 300
    """Titles."""
    interactions: Annotated[int, Field(ge=1)] = 20_000
    """Events."""
    seed: Annotated[int, Field(ge=0)] = 7
    """Seed of everything that is drawn."""


class BootstrapConfig(Section):
    """The paired bootstrap over users."""

    replicates: int = Field(default=10_000, ge=100)
    """Resamples of the users."""
    seed: int = Field(default=17, ge=0)
    """Seed of the resampling."""


class StudyConfig(Section):
    """Everything a study depends on, beside the pipeline's configuration."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    """Name of the study, and of its folder in the workspace."""
    title: str
    """Headline of the page."""
    config: str
    """The pipeline's configuration: a YAML file or the name of a shipped one."""
    overrides: tuple[str, ...] = ()
    """Assignments that win over the pipeline's configuration, e.g. `workspace=runs/quick`."""
    synthetic: SyntheticConfig | None = None
    """Makes a synthetic world in the study's folder. Unset: the configuration's own data."""
    seeds: tuple[int, ...] = Field(default=(17,), min_length=1)
    """Seeds to fit each model with. Metrics are means over the seeds."""
    slices: tuple[tuple[str, ...], ...] = ()
    """Slices to evaluate beside overall; each costs time."""
    main_task: Task = NEXT_TITLE
    """Task by which the claims about features and depth are judged."""
    headline_metrics: dict[str, str] = Field(default={})
    """Metric by which a task orders its models, where it is not the task's main metric."""
    bootstrap: BootstrapConfig = BootstrapConfig()
    """How intervals and tests are computed."""
    level: float = Field(default=0.05, gt=0, lt=1)
    """Family-wise error of each task's tests; the intervals cover 1 minus this."""
    margin: float = Field(default=0.05, gt=0, lt=1)
    """Share of a score that counts as no difference worth having: what "does not beat" has to stay below."""
    steps: tuple[StepConfig, ...] = Field(min_length=1)
    """The ladder of feature groups, from the fewest."""
    families: dict[str, FamilyConfig] = Field(min_length=1)
    """The families by name in `modules.models.registry`."""

    @pydantic.model_validator(mode="after")
    def _require_known_names(self) -> StudyConfig:
        names = [step.name for step in self.steps]
        if len(set(names)) < len(names):
            raise ValueError(f"the names of the steps must differ; received {names}")
        for position, step in enumerate(self.steps):
            if step.instead_of is not None and step.instead_of not in names[:position]:
                raise ValueError(
                    f"steps.{position}.instead_of: received {step.instead_of!r}; expected one of {names[:position]}"
                )
        for family, settings in self.families.items():
            if family not in FAMILIES:
                raise ValueError(f"families: received {family!r}; expected some of {sorted(FAMILIES)}")
            if unknown := [step for step in settings.steps if step not in names]:
                raise ValueError(f"families.{family}.steps: received {unknown}; expected some of {names}")
            if unknown := [step for step in settings.refitted if step not in settings.steps]:
                raise ValueError(
                    f"families.{family}.refitted: received {unknown}; expected some of {list(settings.steps)}"
                )
        return self


def load_study(name_or_path: str | Path, overrides: Iterable[str] = ()) -> tuple[StudyConfig, PipelineConfig]:
    """Reads a study and the pipeline's configuration that it builds on.

    Args:
      name_or_path: a YAML file, or the name of one shipped in `pipeline/configs/studies`.
      overrides: assignments `a.b=value`; those that begin with `study.` win over the study's file, the others over the
        pipeline's configuration.

    Returns:
      The study and the configuration. Its workspace is the study's own folder, below that of the pipeline, so that
      `marquee status` goes on telling of the pipeline's runs.

    Raises:
      ConfigError: naming the file and, for each bad field, its path, the value received and what was expected.
    """
    assignments = list(overrides)
    own = [text.removeprefix(OVERRIDE_PREFIX) for text in assignments if text.startswith(OVERRIDE_PREFIX)]
    study = read_config(StudyConfig, "study", name_or_path, STUDY_DIRECTORY, own)
    others = [text for text in assignments if not text.startswith(OVERRIDE_PREFIX)]
    base = load_config(study.config, [*study.overrides, *others])
    workspace = f"{base.workspace}/studies/{study.name}"
    update: dict[str, Any] = {"workspace": workspace}
    if study.synthetic is not None and not any(text.startswith("data.directory=") for text in others):
        update["data"] = base.data.model_copy(update={"directory": str(data_directory(workspace, study.synthetic))})
    return study, base.model_copy(update=update)


def data_directory(workspace: str, synthetic: SyntheticConfig) -> Path:
    """Returns the folder of the synthetic world that a study makes in its workspace: another for every world."""
    return Path(workspace) / "data" / "-".join(f"{name}_{size}" for name, size in synthetic.model_dump().items())
