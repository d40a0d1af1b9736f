"""Compiles the pipeline for Kubeflow Pipelines. It is the same pipeline; only paths and the image differ."""

from __future__ import annotations

import os
from pathlib import Path

from tfx.dsl.input_resolution.strategies.latest_blessed_model_strategy import LatestBlessedModelStrategy

from pipeline.config import PipelineConfig
from pipeline.pipeline import create_pipeline


class KubeflowMissingError(ImportError):
    """The Kubeflow Pipelines SDK is not installed."""


def compile_pipeline(config: PipelineConfig, output: Path, image: str) -> None:
    """Writes the pipeline as a Kubeflow Pipelines 2.1 specification.

    Args:
      config: what to compile; `workspace` and `data.directory` are where the cluster finds them.
      output: the YAML file; written aside and renamed.
      image: container image that has this package installed.

    Raises:
      KubeflowMissingError: if the Kubeflow Pipelines SDK is not installed.
      ConfigError: if the model's family or settings do not exist.
    """
    try:
        from tfx.orchestration.kubeflow.v2 import kubeflow_v2_dag_runner
    except ImportError as error:
        raise KubeflowMissingError(
            "the Kubeflow Pipelines SDK is missing: install the extra `marquee[kubeflow]`"
        ) from error
    # Kubeflow's driver knows TFX's own strategies only.
    pipeline = create_pipeline(config, baseline_strategy=LatestBlessedModelStrategy)
    temporary = output.with_name(f".{output.stem}-{os.getpid()}.yaml")
    output.parent.mkdir(parents=True, exist_ok=True)
    runner = kubeflow_v2_dag_runner.KubeflowV2DagRunner(
        config=kubeflow_v2_dag_runner.KubeflowV2DagRunnerConfig(
            default_image=image, display_name=config.name, use_pipeline_spec_2_1=True
        ),
        output_dir=str(output.parent),
        output_filename=temporary.name,
    )
    try:
        runner.run(pipeline)
        temporary.replace(output)
    finally:
        temporary.unlink(missing_ok=True)
