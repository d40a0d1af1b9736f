"""`kubeflow`: what the cluster is asked for when the pipeline runs there. It changes nothing that is computed."""

from __future__ import annotations

from pydantic import Field

from pipeline.data_config import Section

DEFAULT_RESOURCES = "default"
"""Key of the resources of all components that are not named."""


class ResourceConfig(Section):
    """What a component's container gets; what is left out is the cluster's choice."""

    cpus: float | None = Field(default=None, gt=0)
    """Processors, at most."""
    memory_gigabytes: float | None = Field(default=None, gt=0)
    """Memory, at most, in units of 10^9 bytes."""
    accelerator: str | None = Field(default=None, min_length=1)
    """Kind of accelerator as the cluster names it, e.g. `nvidia.com/gpu`, or `NVIDIA_TESLA_T4` on Vertex."""
    accelerator_count: int = Field(default=1, ge=1)
    """How many of them."""


class RetryConfig(Section):
    """How often a component that failed is started again: a machine may go, a store may not answer."""

    max_retries: int = Field(default=2, ge=0)
    """Further starts after the first."""
    backoff_seconds: int = Field(default=60, ge=0)
    """Pause before the first of them."""
    backoff_factor: float = Field(default=2.0, ge=1)
    """What each pause is longer than the one before."""
    max_backoff_seconds: int = Field(default=3600, ge=0)
    """Longest pause."""


class KubeflowConfig(Section):
    """Where Kubeflow Pipelines is, and resources, retries and caching there."""

    host: str | None = Field(default=None, min_length=1)
    """URL of the API that `marquee submit` and `marquee schedule` talk to, e.g. `https://kubeflow.example.com/pipeline`;
    `--host` wins over it."""
    namespace: str | None = Field(default=None, min_length=1)
    """The user's namespace, where several users share the cluster."""
    experiment: str | None = Field(default=None, min_length=1)
    """Experiment of the runs. Unset: the pipeline's name."""

    resources: dict[str, ResourceConfig] = Field(default={})
    """By component, e.g. `RecommenderTrainer`; `default` stands for all that are not named."""
    retries: RetryConfig = RetryConfig()
    """How often a component that failed is started again."""
    never_retried: tuple[str, ...] = ("AnomalyGate",)
    """Components whose failure is a verdict, which a second start only repeats."""
    cache: bool = True
    """Whether a component is skipped if it ran before with the same inputs and parameters."""
    report_final_state: bool = True
    """Whether the state in which a run ended is written to `final_states/` in the workspace, also of a failed one."""
    if_new: bool = False
    """Whether a run is skipped, but for a look at the files, if the spans are those that the last run that ended well
    has learned from; needs a `data.directory` of spans. What else is asked of the run does not count."""
