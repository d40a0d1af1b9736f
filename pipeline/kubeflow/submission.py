"""Starts a run on Kubeflow Pipelines."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.kubeflow.connection import ClusterError, Endpoint, explained, quietly

if TYPE_CHECKING:
    from kfp import Client


@dataclasses.dataclass(frozen=True)
class SubmittedRun:
    """A run that was started.

    Attributes:
      run_id: its id on the cluster.
      url: its page.
    """

    run_id: str
    url: str


def submit(
    client: Client, endpoint: Endpoint, package: Path, experiment: str, name: str, parameters: Mapping[str, Any]
) -> SubmittedRun:
    """Starts a run of a compiled pipeline, which goes with it whole: what runs is what was compiled here.

    Args:
      client: see `connect`.
      endpoint: what it is connected to.
      package: the specification, a YAML file.
      experiment: name of the experiment; made if it does not exist.
      name: name of the run.
      parameters: value of every parameter.

    Raises:
      ClusterError: if the cluster cannot be reached, refuses or answers nonsense.
    """
    with quietly(), explained(endpoint.host):
        run = client.run_pipeline(
            experiment_id=experiment_id(client, endpoint, experiment),
            job_name=name,
            pipeline_package_path=str(package),
            params=dict(parameters),
        )
    if not run.run_id:
        raise ClusterError(f"{endpoint.host} took the run and did not say its id; is it Kubeflow Pipelines 2?")
    return SubmittedRun(run.run_id, run_url(endpoint, run.run_id))


def experiment_id(client: Client, endpoint: Endpoint, name: str) -> str:
    """Returns the id of an experiment, which is made if it does not exist."""
    experiment = client.create_experiment(name, namespace=endpoint.namespace)
    if not experiment.experiment_id:
        raise ClusterError(f"{endpoint.host} knows no id of the experiment {name!r}; is it Kubeflow Pipelines 2?")
    return str(experiment.experiment_id)


def run_url(endpoint: Endpoint, run_id: str) -> str:
    """Returns the page of a run."""
    return f"{endpoint.host.rstrip('/')}/#/runs/details/{run_id}"
