"""`PipelineConfig`: the one typed object that describes a pipeline.

It is read from a YAML file and may be overridden field by field from the command line. Importing this module
imports neither TensorFlow nor TFX, so that commands which only look something up start quickly.
"""

from __future__ import annotations

import itertools
import math
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import Field

from modules.settings import WARM_START_LEARNING_RATE_FACTOR, merge_settings
from modules.tasks import TASKS, Task
from pipeline.beam_config import BeamConfig
from pipeline.config_files import ConfigError, read_config
from pipeline.data_config import DataConfig, Section
from pipeline.kubeflow_config import KubeflowConfig

CONFIG_DIRECTORY = Path(__file__).parent / "configs"
SCHEMA_DIRECTORY = Path(__file__).parent.parent / "schemas"

FeatureGroup = Literal["ids", "user", "item", "context", "time_buckets", "continuous_time"]
FEATURE_GROUPS: tuple[FeatureGroup, ...] = typing.get_args(FeatureGroup)


class FeatureConfig(Section):
    """What Transform computes and which of it the models see."""

    groups: tuple[FeatureGroup, ...] = FEATURE_GROUPS
    """Feature groups that models may use: `time_buckets` are hours, weekdays and bucketised gaps, `continuous_time` the
    same as numbers. Leave some out to run an ablation; Transform stays cached."""
    quantile_buckets: int = Field(default=10, ge=2)
    """Buckets of each bucketised continuous feature."""
    text_tokens: int = Field(default=8, ge=1)
    """Tokens kept of each text feature."""
    max_vocabulary_size: int = Field(default=1_000_000, ge=1)
    """Most frequent values kept in a vocabulary; the others share the out-of-vocabulary bucket."""
    transform_statistics: bool = False
    """Also compute statistics of the transformed data. Costs about as much as the transformation itself."""


class PropensityWeightingConfig(Section):
    """Inverse propensity weights of the interactions that models learn from.

    What the logging policy seldom showed counts for more, so that a model learns what people take and not what they
    were shown (Schnabel et al., "Recommendations as treatments", ICML 2016).
    """

    clip: float = Field(default=10.0, ge=1)
    """Largest weight: an interaction counts min(1 / propensity where it was shown, clip), or 1 if it was not shown."""
    normalise: bool = True
    """Divide by the mean weight of the training split, so that settings keep their meaning."""


class WarmStartConfig(Section):
    """Training that begins with the weights of the last blessed model instead of random ones.

    Rows of ids are carried over by raw token; families fitted in closed form take no notice.
    """

    learning_rate_factor: float = Field(default=WARM_START_LEARNING_RATE_FACTOR, gt=0, le=1)
    """Factor on the peak learning rate when weights were carried over, so that the first steps undo less of them."""


class ModelConfig(Section):
    """Which recommender to train."""

    family: str = "two_tower"
    """Name in `modules.models.registry`, e.g. `ease` or `transformer`."""
    settings: dict[str, Any] = Field(default={})
    """Fields of that family's own config; checked against it before a run starts."""
    seed: int = 17
    """Seed of every source of randomness in training."""
    refit: bool = False
    """After everything was decided on the validation split, fit again on the training and validation splits together:
    about twice the training time, for a model that knows the latest interactions."""
    propensity_weighting: PropensityWeightingConfig | None = None
    """Weigh interactions by their inverse propensity; every family honours it. Needs `data.propensity`. Unset: all
    interactions count alike."""
    warm_start: WarmStartConfig | None = None
    """Begin with the last blessed model's weights; `{}` does so with the defaults. Unset: with random ones."""
    use_tuned: bool = False
    """Train with what the latest `marquee tune` of this family found in this workspace; `settings` win over it."""


class TunerConfig(Section):
    """The search that `marquee tune` makes."""

    families: tuple[str, ...] = ()
    """Families to tune. Empty: the model's."""
    trials: int = Field(default=20, ge=1)
    """Fits per family at most; the first is one with the settings as they are."""


class RuleConfig(Section):
    """One rule that a model must satisfy to be blessed."""

    metric: str
    """Metric name, e.g. `ndcg@10`."""
    slice: dict[str, str] = Field(default={})
    """Feature values of the slice, e.g. `{gender: F}`. Empty: overall."""
    minimum: float | None = None
    """Lowest acceptable value."""
    maximum: float | None = None
    """Highest acceptable value, for metrics of which less is better."""
    minimum_change: float | None = None
    """What the difference to the last blessed model must exceed. 0 asks for an improvement, less tolerates a loss."""
    maximum_change: float | None = None
    """What the difference must stay below."""
    certain: bool = True
    """Whether the whole 95 % interval must satisfy the rule, or the estimate only."""
    least_users: int = Field(default=0, ge=0)
    """Users that the slice must have for the rule to be judged; with fewer it is left out."""

    @pydantic.model_validator(mode="after")
    def _require_a_bound(self) -> RuleConfig:
        if all(bound is None for bound in (self.minimum, self.maximum, self.minimum_change, self.maximum_change)):
            raise ValueError(
                "a rule needs one or more of `minimum`, `maximum`, `minimum_change` and `maximum_change`; received none"
            )
        return self


class ProtectedSlicesConfig(Section):
    """Slices on which no model may be significantly worse than the last blessed one, however good it is overall."""

    slices: tuple[tuple[str, ...], ...] = Field(min_length=1)
    """Features, or crosses of features, of `evaluation.slices`: each of their values is protected."""
    metric: str = "ndcg@10"
    """Metric name."""
    tolerance: float = Field(default=0.0, ge=0.0)
    """Loss that is tolerated. The model is refused if the whole 95 % interval of the change is beyond it."""
    least_users: int = Field(default=20, ge=2)
    """Users that a slice must have to be judged."""


class GateConfig(Section):
    """What a model must satisfy to be blessed. Without a rule that can be judged no model is."""

    rules: tuple[RuleConfig, ...] = ()
    """All must hold."""
    protected: tuple[ProtectedSlicesConfig, ...] = ()
    """Slices that must not be harmed."""


class PolicyConfig(Section):
    """Off-policy estimates of what a model would earn, from the log of what another one showed."""

    positions: int = Field(default=10, ge=1)
    """Length of the lists that are judged: their first so many positions, of those that the log has."""
    clip: float = Field(default=10.0, gt=0)
    """Largest weight of `policy_value_clipped_ips`."""
    least_effective_sample_size: float = Field(default=100.0, ge=1)
    """Effective number of impressions, of what the model would have shown too, below which no value is given."""


class EvaluationConfig(Section):
    """Metrics, slices and the gate."""

    top_k: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(1, 5, 10, 50, 100), min_length=1)
    """Cut-offs of the ranking metrics."""
    bands: dict[str, tuple[float, ...]] = Field(default={})
    """Ascending boundaries by numeric column; `age: [18, 25]` makes the derived slice `age_band`: <18, 18-24, 25+."""
    tasks: tuple[Task, ...] = Field(default=TASKS, min_length=1)
    """Tasks to judge models on; see `modules.tasks`. Those that do not apply to the data report nothing: `rank` needs
    `data.like_threshold`, `continue_watching` needs repeats."""
    slices: tuple[tuple[str, ...], ...] = ()
    """Slices by raw or derived feature, e.g. `[gender]`, or a cross `[gender, age_band]`. Overall is always there."""
    gate: GateConfig = GateConfig()
    """Rules of the gate. A model that fails one is not blessed and never pushed."""
    genre_feature: str | None = None
    """Item column, tagged `multi_hot`, that holds a title's genres or the like; diversity and calibration of lists are
    about it. Unset: they are not reported."""
    policy: PolicyConfig | None = None
    """Off-policy estimates. Unset: as by default, where `data.propensity` is set."""
    confidence_intervals: bool = True
    """Compute 95 % intervals by a Poisson bootstrap over users, at little cost."""

    @pydantic.model_validator(mode="after")
    def _judge_by_intervals_only_if_there_are_any(self) -> EvaluationConfig:
        if not self.confidence_intervals and (self.gate.protected or any(rule.certain for rule in self.gate.rules)):
            raise ValueError(
                "without confidence_intervals the gate cannot have protected slices, and its rules must say "
                "`certain: false`"
            )
        return self

    @pydantic.field_validator("bands")
    @classmethod
    def _require_ascending_bands(cls, bands: dict[str, tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
        for column, boundaries in bands.items():
            rising = all(low < high for low, high in itertools.pairwise(boundaries))
            if not (boundaries and rising and all(map(math.isfinite, boundaries))):
                raise ValueError(
                    f"the boundaries of {column!r} must be one or more finite numbers, each above the one before; "
                    f"received {list(boundaries)}"
                )
        return bands


class ServingConfig(Section):
    """Where validated models go and how they are served."""

    model_name: str = Field(default="recommender", pattern=r"^[A-Za-z0-9_.-]+$")
    """Name that clients ask for; also the folder below `<workspace>/serving`."""
    port: int = Field(default=8500, ge=0, le=65535)
    """gRPC port of the local server (8500 is TensorFlow Serving's). 0 picks a free one."""
    top_k: int = Field(default=100, ge=1)
    """Recommendations that the exported signatures return."""
    retrieval: Literal["exact", "scann"] = "exact"
    """How `serving_default` finds them: by scoring the whole catalogue, or approximately with ScaNN, for very large
    catalogues, in the families two_tower, gru and transformer. Stock TensorFlow Serving cannot load the latter."""
    validation_requests: int = Field(default=16, ge=1)
    """Examples of the test split that the server validator sends to a candidate."""
    validation_timeout_seconds: float = Field(default=120.0, gt=0)
    """Time a candidate has to load and answer."""
    largest_batch: int = Field(default=64, ge=1)
    """Examples in the largest request that clients may send; the server validator sends one."""
    latency_budget_milliseconds: float = Field(default=250.0, gt=0)
    """What 95 of 100 single requests to a candidate may take at most, on the machine that validates it."""
    rest_port: int = Field(default=8501, ge=0, le=65535)
    """Port of the local server's REST API (8501 is TensorFlow Serving's). 0 picks a free one."""


class ModelCardConfig(Section):
    """Free text of the model card in `marquee report`; everything else there is stated from the run."""

    intended_use: str = (
        "Ranking the titles of one catalogue for one user of the service whose log it was fitted on: the next title, "
        "titles like the latest one, and the order of given candidates."
    )
    """What the model is meant for."""
    out_of_scope: str = (
        "Judging people, or guessing anything about them but what they may want to see next; other catalogues than its "
        "own; decisions that cannot be undone."
    )
    """What it must not be used for."""
    owner: str = "Not named; set `model_card.owner`."
    """Who answers for it, and how to reach them."""
    ethical_considerations: str = (
        "It learns from what people took, so it repeats what they were offered before: popular titles, and the habits "
        "of the majority. Look at the slices and gaps before it is pushed."
    )
    """What may go wrong for the people concerned."""


class PipelineConfig(Section):
    """Everything a run of the pipeline depends on."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    """Pipeline name in ML Metadata and on Kubeflow."""
    workspace: str
    """Folder of this pipeline's metadata, artifacts, logs, rejected rows and pushed models."""
    schema_file: str
    """Curated schema: a path, or a path below `schemas/` of the installed package."""
    data: DataConfig
    features: FeatureConfig = FeatureConfig()
    model: ModelConfig = ModelConfig()
    tuned: dict[str, dict[str, Any]] = Field(default={})
    """Settings by family, chosen on the validation split by `marquee tune`; `model.settings` win over them."""
    tuner: TunerConfig = TunerConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    serving: ServingConfig = ServingConfig()
    model_card: ModelCardConfig = ModelCardConfig()
    """What the report says of the model that no figure tells."""
    kubeflow: KubeflowConfig = KubeflowConfig()
    """What the cluster is asked for; nothing on this machine."""
    beam: BeamConfig = BeamConfig()
    """Where Apache Beam's work runs."""

    @pydantic.model_validator(mode="after")
    def _lists_are_long_enough(self) -> PipelineConfig:
        longest = max(self.evaluation.top_k)
        if self.serving.top_k < longest:
            raise ValueError(
                f"serving.top_k must be at least the largest evaluation.top_k, {longest}; received {self.serving.top_k}"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _warm_starts_need_spans(self) -> PipelineConfig:
        if self.model.warm_start is not None and "{" not in self.data.directory:
            raise ValueError(
                "model.warm_start begins with a model of earlier spans, so data.directory must be of spans, such as "
                f"data/span-{{SPAN}}; received {self.data.directory!r}"
            )
        return self

    def settings_of(self, family: str) -> dict[str, Any]:
        """Returns a family's settings as configured: its tuned ones, and over them `model.settings` if it is meant."""
        return merge_settings(self.tuned.get(family, {}), self.fixed_settings_of(family))

    def fixed_settings_of(self, family: str) -> dict[str, Any]:
        """Returns what `model.settings` say of a family: nothing, unless it is the model's."""
        return self.model.settings if family == self.model.family else {}

    @pydantic.model_validator(mode="after")
    def _policies_need_impressions(self) -> PipelineConfig:
        if self.data.propensity is None:
            fields: dict[str, Section | None] = {
                "evaluation.policy": self.evaluation.policy,
                "model.propensity_weighting": self.model.propensity_weighting,
            }
            for field, value in fields.items():
                if value is not None:
                    raise ValueError(f"{field} needs data.propensity; received {value.model_dump()} and no propensity")
        elif self.policy is not None and self.policy.positions > self.serving.top_k:
            raise ValueError(
                f"evaluation.policy.positions must be at most serving.top_k, {self.serving.top_k}; "
                f"received {self.policy.positions}"
            )
        return self

    @property
    def policy(self) -> PolicyConfig | None:
        """The off-policy estimates to make; None where the log has no propensities."""
        if self.data.propensity is None:
            return None
        policy = self.evaluation.policy or PolicyConfig(positions=min(10, self.serving.top_k))
        return policy if self.data.position else policy.model_copy(update={"positions": 1})

    @property
    def artifact_root(self) -> str:
        """Folder of the artifacts that components write."""
        return f"{self.workspace}/artifacts"

    @property
    def metadata_path(self) -> str:
        """SQLite file of ML Metadata."""
        return f"{self.workspace}/metadata.sqlite"

    @property
    def log_directory(self) -> str:
        """Folder of the runs' logs."""
        return f"{self.workspace}/logs"

    @property
    def rejected_rows_directory(self) -> str:
        """Folder that malformed rows are written to."""
        return f"{self.workspace}/rejected"

    @property
    def span_store_directory(self) -> str:
        """Folder that the examples of spans are kept in, and what was learned of them; it may be deleted."""
        return f"{self.workspace}/spans"

    @property
    def serving_directory(self) -> str:
        """`model_base_path` for TensorFlow Serving: one numbered folder per pushed version."""
        return f"{self.workspace}/serving/{self.serving.model_name}"

    def read_schema_text(self) -> str:
        """Returns the curated schema's text.

        Raises:
          ConfigError: if the file is neither at the path given nor below the package's `schemas/`.
        """
        for candidate in (Path(self.schema_file), SCHEMA_DIRECTORY / self.schema_file):
            if candidate.is_file():
                return candidate.read_text(encoding="utf-8")
        raise ConfigError(
            f"schema_file: no such file {self.schema_file!r}, neither here nor in the package's schemas/ folder"
        )


def load_config(name_or_path: str | Path, overrides: Iterable[str] = ()) -> PipelineConfig:
    """Reads a pipeline's configuration.

    Args:
      name_or_path: a YAML file, or the name of one shipped in `pipeline/configs`, e.g. `movielens-100k`.
      overrides: assignments `a.b=value` that win over the file; the value is read as YAML.

    Returns:
      The validated configuration.

    Raises:
      ConfigError: naming the file and, for each bad field, its path, the value received and what was expected.
        Values are not coerced between kinds: the text "8500" is no port.
    """
    return read_config(PipelineConfig, "configuration", name_or_path, CONFIG_DIRECTORY, overrides)
