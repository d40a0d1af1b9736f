"""Compiles the pipeline for Kubeflow Pipelines. It is the same pipeline; only paths and the image differ.

TFX compiles the DAG. What it leaves out is added here: defaults of runtime parameters, resources, retries, and what a
step is to be cached by; and with an exit handler, the way of the parameters into the DAG that it follows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from tfx.orchestration.data_types import RuntimeParameter

from modules.models.registry import create_recommender
from pipeline.atomic_files import write_text_atomically
from pipeline.components.recommender_trainer import FEATURE_GROUPS_KEY, MAX_EPOCHS_KEY
from pipeline.components.spans import LATEST, split_directory
from pipeline.components.table_example_gen import NEWEST_SPAN_KEY
from pipeline.config import PipelineConfig
from pipeline.config_files import ConfigError
from pipeline.kubeflow.only_if_new import DATA_FINGERPRINT, LOOK, run_only_if_new
from pipeline.kubeflow_config import DEFAULT_RESOURCES, KubeflowConfig, ResourceConfig
from pipeline.pipeline import BASELINE, EARLIER_MODEL, RECORD, check_model, create_pipeline
from pipeline.runtime_parameters import RuntimeParameters

VERTEX_SUFFIX = ".json"
SOURCES = ("InteractionExampleGen", "CatalogueExampleGen")
"""Components that read what lies outside the pipeline."""


class KubeflowMissingError(ImportError):
    """The Kubeflow Pipelines SDK is not installed."""


def compile_pipeline(config: PipelineConfig, output: Path, image: str) -> None:
    """Writes the pipeline as a Kubeflow Pipelines 2.1 specification, or as a job for Vertex.

    Args:
      config: what to compile; `workspace` and `data.directory` are where the cluster finds them.
      output: a YAML file, or a JSON file for Vertex; written aside and renamed.
      image: container image that has this package installed.

    Raises:
      KubeflowMissingError: if the Kubeflow Pipelines SDK is not installed.
      ConfigError: if the model's family or settings do not exist, or `kubeflow` names a component that does not.
    """
    try:
        from google.protobuf import json_format
        from kfp.pipeline_spec import pipeline_spec_pb2
        from tfx.orchestration.kubeflow.v2 import kubeflow_v2_dag_runner

        from pipeline.kubeflow.final_state import ReportFinalState, final_status
    except ImportError as error:
        raise KubeflowMissingError(
            "the Kubeflow Pipelines SDK is missing: install the extra `marquee[kubeflow]`"
        ) from error
    parameters = runtime_parameters(config)
    if config.kubeflow.if_new and parameters.newest_span is None:
        raise ConfigError(
            "kubeflow.if_new: received true, but only spans can be new; expected a data.directory such as "
            f"data/span-{{SPAN}}, received {config.data.directory!r}"
        )
    for_vertex = output.suffix == VERTEX_SUFFIX
    pipeline = create_pipeline(config, "vertex_metadata" if for_vertex else "serving_folder", parameters=parameters)
    runner = kubeflow_v2_dag_runner.KubeflowV2DagRunner(
        config=kubeflow_v2_dag_runner.KubeflowV2DagRunnerConfig(
            default_image=image, display_name=config.name, use_pipeline_spec_2_1=True
        )
    )
    if config.kubeflow.report_final_state:
        runner.set_exit_handler(ReportFinalState(final_status=final_status(), workspace=config.workspace))
    job = runner.run(pipeline, write_out=False)
    spec = job["pipelineSpec"]
    if not for_vertex:  # Whose jobs say it elsewhere.
        spec["defaultPipelineRoot"] = config.artifact_root
    _set_defaults(spec, parameters)
    if config.kubeflow.if_new:
        run_only_if_new(spec, config, image)
    _set_cluster_options(spec, config.kubeflow, runs_drivers=for_vertex)
    # A field that the specification does not know would be refused by the cluster, or worse, ignored.
    json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    text = json.dumps(job, indent=2, sort_keys=True) if for_vertex else _yaml(spec, parameters)
    write_text_atomically(output, text)


def runtime_parameters(config: PipelineConfig) -> RuntimeParameters:
    """Returns what may be said at submission; the defaults are the configuration's.

    Raises:
      ConfigError: if the model's family or settings do not exist.
    """
    check_model(config)
    recommender = create_recommender(config.model.family, config.settings_of(config.model.family))
    max_epochs = getattr(recommender.config, MAX_EPOCHS_KEY, None)
    base, folder = split_directory(config.data.directory)
    newest = LATEST if config.data.newest_span is None else config.data.newest_span
    return RuntimeParameters(
        data_directory=RuntimeParameter("data_directory", str, base),
        newest_span=RuntimeParameter(NEWEST_SPAN_KEY, int, newest) if folder else None,
        max_epochs=RuntimeParameter(MAX_EPOCHS_KEY, int, max_epochs) if max_epochs is not None else None,
        feature_groups=RuntimeParameter(FEATURE_GROUPS_KEY, str, ",".join(config.features.groups)),
        data_fingerprint=RuntimeParameter(DATA_FINGERPRINT, str) if config.kubeflow.if_new else None,
    )


def _set_defaults(spec: dict[str, Any], parameters: RuntimeParameters) -> None:
    """Puts in the parameters' defaults, and hands the parameters on to the DAG that stands before an exit handler."""
    definitions = spec["root"]["inputDefinitions"]["parameters"]
    for parameter in parameters.said_at_submission():
        definitions[parameter.name]["defaultValue"] = parameter.default
    for task in spec["root"]["dag"]["tasks"].values():
        component = spec["components"][task["componentRef"]["name"]]
        if "dag" in component:
            component["inputDefinitions"] = {"parameters": {name: dict(value) for name, value in definitions.items()}}
            inputs = task.setdefault("inputs", {}).setdefault("parameters", {})
            inputs.update({name: {"componentInputParameter": name} for name in definitions})


def _set_cluster_options(spec: dict[str, Any], config: KubeflowConfig, runs_drivers: bool) -> None:
    """Sets resources, retries and caching.

    Args:
      spec: the specification.
      config: what to set.
      runs_drivers: whether the cluster asks an ExampleGen's driver whether its files have changed, as only Vertex does.
        Elsewhere their contents are not part of what a step is cached by, so the step must look at them each time; and
        so must those that find earlier models.
    """
    containers = dict(_container_tasks(spec))
    for field, names in (("resources", config.resources), ("never_retried", config.never_retried)):
        unknown = sorted(set(names) - containers.keys() - {DEFAULT_RESOURCES})
        if unknown:
            raise ConfigError(
                f"kubeflow.{field}: received {', '.join(unknown)}; expected some of {', '.join(sorted(containers))}"
            )
    for name, (task, container) in containers.items():
        resources = _resources(config.resources.get(name) or config.resources.get(DEFAULT_RESOURCES))
        if resources:
            container["resources"] = resources
        if config.retries.max_retries and name not in config.never_retried:
            task["retryPolicy"] = {
                "maxRetryCount": config.retries.max_retries,
                "backoffDuration": f"{config.retries.backoff_seconds}s",
                "backoffFactor": config.retries.backoff_factor,
                "backoffMaxDuration": f"{config.retries.max_backoff_seconds}s",
            }
        looks_outside = name in (*SOURCES, BASELINE, EARLIER_MODEL) and not runs_drivers
        if not config.cache or looks_outside or name in (LOOK, RECORD):
            task["cachingOptions"] = {"enableCache": False}


def _container_tasks(spec: Mapping[str, Any]) -> Iterator[tuple[str, tuple[dict[str, Any], dict[str, Any]]]]:
    """Yields each task that runs in a container, with that, by name."""
    executors, components = spec["deploymentSpec"]["executors"], spec["components"]
    dags = [spec["root"]["dag"], *(component["dag"] for component in components.values() if "dag" in component)]
    for dag in dags:
        for name, task in dag["tasks"].items():
            label = components[task["componentRef"]["name"]].get("executorLabel")
            if label and "container" in executors[label]:
                yield name, (task, executors[label]["container"])


def _resources(config: ResourceConfig | None) -> dict[str, Any]:
    if config is None:
        return {}
    resources: dict[str, Any] = {}
    if config.cpus is not None:
        resources["cpuLimit"] = config.cpus
    if config.memory_gigabytes is not None:
        resources["memoryLimit"] = config.memory_gigabytes
    if config.accelerator is not None:
        resources["accelerator"] = {"type": config.accelerator, "count": str(config.accelerator_count)}
    return resources


def _yaml(spec: Mapping[str, Any], parameters: RuntimeParameters) -> str:
    lines = [f"# Pipeline {spec['pipelineInfo']['name']}, compiled by Marquee. Parameters:"]
    lines += [
        f"#   {one.name}: {one.ptype.__name__}, {one.default!r} by default" for one in parameters.said_at_submission()
    ]
    return "\n".join([*lines, yaml.safe_dump(dict(spec), sort_keys=True)])
