"""Options that several commands share."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Annotated

import typer
from tensorflow_metadata.proto.v0 import schema_pb2

from modules.features import ColumnTable, SchemaError, parse_schema
from pipeline.config import PipelineConfig, load_config
from pipeline.config_files import ConfigError

DEFAULT_CONFIG = "movielens-100k"

ConfigOption = Annotated[
    str, typer.Option("--config", "-c", help="A YAML file, or the name of a shipped configuration.", metavar="CONFIG")
]
SetOption = Annotated[
    list[str],
    typer.Option("--set", "-s", help="Override a field, e.g. `--set model.family=popularity`. Repeatable."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def load_config_or_fail(name: str, overrides: Iterable[str]) -> PipelineConfig:
    """Loads a configuration; what is wrong with it is told in one message."""
    try:
        return load_config(name, overrides)
    except ConfigError as error:
        raise fail(str(error)) from error


def load_schema_or_fail(settings: PipelineConfig) -> schema_pb2.Schema:
    """Reads and checks the curated schema; what is wrong with it is told in one message."""
    try:
        schema = parse_schema(settings.read_schema_text(), settings.schema_file)
        ColumnTable.from_schema(schema)
    except ConfigError as error:
        raise fail(str(error)) from error
    except SchemaError as error:
        raise fail(f"schema_file {settings.schema_file}: {error}") from error
    return schema


def fail(message: str) -> typer.Exit:
    """Prints an error for the user; the result is to be raised."""
    print(f"marquee: {message}", file=sys.stderr)
    return typer.Exit(1)
