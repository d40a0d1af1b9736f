"""The compiled pipeline, executed step by step from a clean install: it pushes the model that a local run pushes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from typer.testing import CliRunner

from pipeline.benchmark_inputs import read_test_examples
from pipeline.cli import app
from pipeline.config import PipelineConfig
from pipeline.runs import read_examples
from tests.end_to_end.compiled_pipeline import CompiledPipeline, StepFailure, install
from tests.end_to_end.small_pipeline import COMPONENTS, RESOLVER, SMALL_TWO_TOWER, make_config, run, served

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]
pytest.importorskip("kfp")
