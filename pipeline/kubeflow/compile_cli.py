"""Compiling as a command does it: the libraries' talk goes into a log, and what is wrong is told in one message."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from modules.features import SchemaError
from pipeline.config import PipelineConfig
from pipeline.config_files import ConfigError
from pipeline.options import fail, load_schema_or_fail

DEFAULT_IMAGE = "marquee:latest"


def compile_or_fail(settings: PipelineConfig, output: Path, image: str) -> None:
    """Writes the pipeline's specification; see `compile_pipeline`.

    Raises:
      typer.Exit: if it cannot be compiled; the message is printed, and the log kept.
    """
    from pipeline import terminal

    load_schema_or_fail(settings)
    # The workspace may be remote; the log of compiling is of this machine.
    descriptor, name = tempfile.mkstemp(prefix="marquee-compile-", suffix=".log")
    os.close(descriptor)
    log = Path(name)
    reason: str | None = None
    with terminal.log_to_file(log):
        from pipeline.kubeflow.compiler import KubeflowMissingError, compile_pipeline

        try:
            compile_pipeline(settings, output, image)
        except (ConfigError, SchemaError, KubeflowMissingError) as error:
            reason = str(error)
    if reason is not None:
        raise fail(f"not compiled: {reason}\nThe whole story is in {log}")
    log.unlink()
