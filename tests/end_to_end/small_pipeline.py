"""Runs whole pipelines on a small synthetic world, and counts in ML Metadata what they did."""

from __future__ import annotations

import collections
import dataclasses
import io
import os
from collections.abc import Mapping
from pathlib import Path

import ml_metadata
import yaml
from ml_metadata.proto import metadata_store_pb2
from rich.console import Console

from pipeline.config import SCHEMA_DIRECTORY, PipelineConfig, load_config
from pipeline.datasets.folder import Table, write_tables
from pipeline.datasets.synthetic import SyntheticWorld
from pipeline.local import run_locally
from pipeline.run_summary import print_summary
from pipeline.runs import RunReport, RunStore

COMPONENTS = (
    "InteractionExampleGen",
    "CatalogueExampleGen",
    "InteractionStatistics",
    "CatalogueStatistics",
    "CuratedSchema",
    "InteractionValidator",
    "CatalogueValidator",
    "AnomalyGate",
    "Transform",
    "RecommenderTrainer",
    "LatestBlessedModel",
    "RecommenderEvaluator",
    "ServerValidator",
    "AtomicPusher",
)
"""Every node of the DAG."""

RESOLVER = "LatestBlessedModel"
"""The one node that is never cached: what it finds may change without any change to the pipeline."""

SMALL_WORLD = SyntheticWorld(users=150, items=100, interactions=4_000)
SMALL_TWO_TOWER = {"dimension": 8, "hidden_units": 16, "max_epochs": 2, "batch_size": 256}
SCHEMA_TEXT = (SCHEMA_DIRECTORY / "synthetic" / "schema.pbtxt").read_text(encoding="utf-8")

_State = metadata_store_pb2.Execution.State


def make_config(folder: Path, *overrides: str, tables: Mapping[str, Table] | None = None) -> PipelineConfig:
    """Returns the shipped synthetic configuration, made small, over tables that are written on the first call.

    Args:
      folder: gets `data` and `workspace`.
      overrides: further assignments as on the command line.
      tables: the source tables, or None for the small world's.
    """
    data = folder / "data"
    if not data.exists():
        write_tables(data, tables or SMALL_WORLD.generate())
    return load_config(
        "synthetic",
        [
            f"workspace={folder / 'workspace'}",
            f"data.directory={data}",
            f"model.settings={yaml.safe_dump(SMALL_TWO_TOWER, default_flow_style=True)}",
            "evaluation.gate={rules: [{metric: ndcg@10, minimum: 0.001}]}",
            *overrides,
        ],
    )


@dataclasses.dataclass(frozen=True)
class Run:
    """A run that came to its end.

    Attributes:
      config: what was run.
      report: what `marquee status` tells of it.
      states: state of the one execution of each node, by node; see `execution_states`.
      new_artifacts: artifacts that the run added to ML Metadata, by type.
      new_versions: versions that it added to the serving folder.
      output: what it printed.
    """

    config: PipelineConfig
    report: RunReport
    states: Mapping[str, str]
    new_artifacts: Mapping[str, int]
    new_versions: list[str]
    output: str

    def nodes(self, state: str) -> set[str]:
        """Returns the nodes in a state."""
        return {node for node, received in self.states.items() if received == state}


def run(config: PipelineConfig, until: str | None = None) -> Run:
    """Runs a pipeline in this process, to its end or up to a component."""
    artifacts, versions, output = _count_artifacts(config), served(config), io.StringIO()
    run_locally(config, Console(file=output, width=120), until=until)
    return Run(
        config,
        RunStore(config.metadata_path).report(),
        execution_states(config),
        _count_artifacts(config) - artifacts,
        sorted(set(served(config)) - set(versions)),
        output.getvalue(),
    )


def summarise(report: RunReport) -> str:
    """Returns the summary that people get of a run."""
    output = io.StringIO()
    print_summary(report, Console(file=output, width=500))
    return output.getvalue()


def execution_states(config: PipelineConfig) -> dict[str, str]:
    """Returns the state, e.g. `COMPLETE`, of the latest run's executions by node, in the order in which they started.

    Nodes that were never started are absent.

    Raises:
      AssertionError: if a node was executed more than once.
    """
    store = _open(config)
    latest = max(store.get_contexts_by_type("pipeline_run"), key=lambda context: context.id)
    states: dict[str, str] = {}
    for execution in sorted(store.get_executions_by_context(latest.id), key=lambda execution: execution.id):
        (node,) = (context for context in store.get_contexts_by_execution(execution.id) if context.type == "node")
        name = node.name.removeprefix(f"{config.name}.")
        assert name not in states, f"{name} was executed more than once"
        states[name] = _State.Name(execution.last_known_state)
    return states


def served(config: PipelineConfig) -> list[str]:
    """Returns the names of everything in the serving folder, hidden or not."""
    return sorted(os.listdir(config.serving_directory)) if os.path.isdir(config.serving_directory) else []


def _count_artifacts(config: PipelineConfig) -> collections.Counter[str]:
    if not os.path.exists(config.metadata_path):
        return collections.Counter()
    return collections.Counter(artifact.type for artifact in _open(config).get_artifacts())


def _open(config: PipelineConfig) -> ml_metadata.MetadataStore:
    connection = metadata_store_pb2.ConnectionConfig()
    connection.sqlite.filename_uri = config.metadata_path
    connection.sqlite.connection_mode = metadata_store_pb2.SqliteMetadataSourceConfig.READONLY
    return ml_metadata.MetadataStore(connection)
