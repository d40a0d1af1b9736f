"""Runs whole pipelines on a small synthetic world, and counts in ML Metadata what they did."""

from __future__ import annotations

import collections
import dataclasses
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_metadata
import yaml
from ml_metadata.proto import metadata_store_pb2
from rich.console import Console

from pipeline.config import SCHEMA_DIRECTORY, PipelineConfig, load_config
from pipeline.datasets.folder import Table, write_tables
from pipeline.datasets.synthetic import SyntheticWorld
from pipeline.local import run_locally
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
            "evaluation.thresholds=[{metric: ndcg@10, minimum: 0.001}]",
            *overrides,
        ],
    )
