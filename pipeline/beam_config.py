"""`beam`: where the pipeline's Apache Beam work runs, and how the workers get this package.

Needs neither Beam nor TFX. See https://beam.apache.org/documentation/runners/capability-matrix/ for the runners.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from pipeline.data_config import Section

Runner = Literal["direct", "flink", "spark", "dataflow", "portable"]
_NEEDED: dict[str, tuple[str, ...]] = {
    "direct": (),
    "flink": ("endpoint",),
    "spark": ("endpoint",),
    "dataflow": ("project", "region", "temp_location"),
    "portable": ("endpoint",),
}
_ENDPOINT_ARGUMENTS = {"flink": "--flink_master", "spark": "--spark_master_url", "portable": "--job_endpoint"}
_RUNNER_CLASSES = {
    "flink": "FlinkRunner",
    "spark": "SparkRunner",
    "dataflow": "DataflowRunner",
    "portable": "PortableRunner",
}
_WORKER_CODE_ARGUMENTS = (
    "--setup_file",
    "--extra_package",
    "--extra_packages",
    "--requirements_file",
    "--sdk_container_image",
    "--worker_harness_container_image",
)


class BeamConfig(Section):
    """Runner of all Beam components, its options, and the source of the workers' code."""

    runner: Runner = "direct"
    """`direct` is this process; `portable` is any Beam job service."""
    endpoint: str | None = Field(default=None, min_length=1)
    """Flink's REST address (`host:port`), Spark's master URL, or the job service's address."""
    parallelism: int | None = Field(default=None, ge=1)
    """Worker processes of the direct runner, by default none beside this one, or parallel tasks on Flink, by default as
    the cluster says."""
    environment_type: Literal["DOCKER", "PROCESS", "EXTERNAL", "LOOPBACK"] | None = None
    """How Python workers are started; left out, Beam's default, which is a container."""
    environment_config: str | None = Field(default=None, min_length=1)
    """PROCESS: JSON with the `command`; EXTERNAL: the address of a worker pool, which has this package; DOCKER: the
    image."""
    project: str | None = Field(default=None, min_length=1)
    """Google Cloud project (Dataflow)."""
    region: str | None = Field(default=None, min_length=1)
    """Google Cloud region (Dataflow)."""
    temp_location: str | None = Field(default=None, pattern="^gs://.+")
    """Folder for temporary files, `gs://...` (Dataflow)."""
    setup_file: str | None = Field(default=None, min_length=1)
    """`setup.py` by which workers install this package; left out, a local run names its own."""
    worker_image: str | None = Field(default=None, min_length=1)
    """Container image of the workers that holds this package already, in place of `setup_file`."""
    arguments: tuple[str, ...] = ()
    """Further Beam arguments, e.g. `--flink_version=1.18`; they come last."""

    @model_validator(mode="after")
    def _runner_has_what_it_needs(self) -> BeamConfig:
        for name in _NEEDED[self.runner]:
            if getattr(self, name) is None:
                raise ValueError(f"beam.runner {self.runner} needs beam.{name}; received none")
        allowed = {"runner", "arguments", "setup_file", "worker_image", *_NEEDED[self.runner]}
        if self.runner in ("flink", "spark", "portable"):
            allowed |= {"environment_type", "environment_config"}
        if self.runner in ("direct", "flink"):
            allowed.add("parallelism")
        for name in type(self).model_fields:
            if name not in allowed and getattr(self, name) is not None:
                raise ValueError(f"beam.{name} means nothing to beam.runner {self.runner}; leave it out")
        if self.setup_file is not None and self.worker_image is not None:
            raise ValueError("beam.setup_file and beam.worker_image exclude each other; received both")
        if self.environment_type in ("PROCESS", "EXTERNAL") and self.environment_config is None:
            raise ValueError(
                f"beam.environment_type {self.environment_type} needs beam.environment_config; received none"
            )
        return self

    @property
    def in_process(self) -> bool:
        """Whether the workers are threads of this process."""
        return "--direct_running_mode=in_memory" in self.pipeline_arguments()

    @property
    def brings_code(self) -> bool:
        """Whether the workers have this package already: on this machine, or in a pool that was set up with it."""
        return self.runner == "direct" or self.environment_type == "EXTERNAL"

    @property
    def ships_code(self) -> bool:
        """Whether it says where the workers get this package from."""
        return any(argument.split("=")[0] in _WORKER_CODE_ARGUMENTS for argument in self.pipeline_arguments())

    def pipeline_arguments(self) -> tuple[str, ...]:
        """Returns the arguments of every Beam pipeline."""
        arguments: list[str] = []
        if self.runner == "direct":
            given = {argument.split("=")[0] for argument in self.arguments}
            workers = self.parallelism or 1
            mode = "multi_processing" if workers > 1 else "in_memory"
            for default in (f"--direct_running_mode={mode}", f"--direct_num_workers={workers}"):
                if default.split("=")[0] not in given:
                    arguments.append(default)
        else:
            arguments.append(f"--runner={_RUNNER_CLASSES[self.runner]}")
        if self.endpoint is not None:
            arguments.append(f"{_ENDPOINT_ARGUMENTS[self.runner]}={self.endpoint}")
        values = {
            "parallelism": self.parallelism if self.runner == "flink" else None,
            "environment_type": self.environment_type,
            "environment_config": self.environment_config,
            "project": self.project,
            "region": self.region,
            "temp_location": self.temp_location,
            "setup_file": self.setup_file,
            "sdk_container_image": self.worker_image,
        }
        arguments += [f"--{name}={value}" for name, value in values.items() if value is not None]
        return (*arguments, *self.arguments)
