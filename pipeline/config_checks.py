"""Whether a configuration fits its schema, checked before a run spends time on the data."""

from __future__ import annotations

from collections.abc import Iterator

from tensorflow_metadata.proto.v0 import schema_pb2

from modules.derived_names import SLICES, band_name
from modules.features import ColumnTable, Kind, Role, SchemaError, history_feature_name, parse_schema
from pipeline.config import EvaluationConfig, PipelineConfig
from pipeline.config_files import ConfigError
from pipeline.impression_schema import with_impressions


def read_schema(config: PipelineConfig) -> schema_pb2.Schema:
    """Returns the curated schema.

    Raises:
      ConfigError: naming `schema_file`, if there is no such file, or it is no schema that models can be built on.
    """
    text = config.read_schema_text()
    try:
        schema = parse_schema(with_impressions(text, config.data), config.schema_file)
        ColumnTable.from_schema(schema)
    except SchemaError as error:
        raise ConfigError(f"schema_file: {config.schema_file} cannot be used: {error}") from error
    return schema


def check_against_schema(config: PipelineConfig) -> None:
    """Checks what the configuration says of columns.

    Raises:
      ConfigError: for the schema (see `read_schema`), a feedback that the schema's history does not record, bands of
        something else than a numeric column, genres that are no multi-valued column of the titles, and slices of
        features that neither the schema nor the bands have;
        naming the field, the value received and what was expected.
    """
    columns = ColumnTable.from_schema(read_schema(config))
    _check_feedback(config, columns)
    check_evaluation(config.evaluation, columns)


def check_evaluation(evaluation: EvaluationConfig, columns: ColumnTable) -> None:
    """Checks bands, genres and slices; see `check_against_schema`.

    Raises:
      ConfigError: naming the field, the value received and what was expected.
    """
    described = columns.with_role(Role.USER, Role.ITEM, Role.CONTEXT)
    numeric = sorted(column.name for column in described if column.type != schema_pb2.BYTES)
    raw = {column.name for column in columns.columns}
    for column in evaluation.bands:
        if column not in numeric:
            raise ConfigError(f"evaluation.bands: received {column!r}; expected one of the numeric columns {numeric}")
        if (name := band_name(column)) in raw | set(SLICES):
            raise ConfigError(
                f"evaluation.bands: the slice {name!r} of the bands of {column!r} has the name of another feature; "
                f"rename that in the schema"
            )
    genres = [column.name for column in columns.with_role(Role.ITEM) if column.kind is Kind.MULTI_HOT]
    if evaluation.genre_feature is not None and evaluation.genre_feature not in genres:
        raise ConfigError(
            f"evaluation.genre_feature: received {evaluation.genre_feature!r}; expected one of the item columns tagged "
            f"{Kind.MULTI_HOT.value!r}, {genres}"
        )
    known = raw | set(SLICES) | {band_name(column) for column in evaluation.bands}
    for field, names in _sliced_features(evaluation):
        for name in names:
            if name not in known:
                raise ConfigError(f"{field}: received {name!r}; expected one of {sorted(known)}")


def _check_feedback(config: PipelineConfig, columns: ColumnTable) -> None:
    history = columns.history_of(Role.LABEL)
    feedback = config.data.feedback
    written = history_feature_name(feedback) if feedback else None
    if history is not None and history.name != written:
        raise ConfigError(
            f"data.feedback: received {feedback!r}, of which the history is {written!r}; "
            f"expected the history that the schema describes, {history.name!r}"
        )


def _sliced_features(evaluation: EvaluationConfig) -> Iterator[tuple[str, tuple[str, ...]]]:
    for position, names in enumerate(evaluation.slices):
        yield f"evaluation.slices.{position}", names
    for position, rule in enumerate(evaluation.gate.rules):
        yield f"evaluation.gate.rules.{position}.slice", tuple(rule.slice)
    for position, protected in enumerate(evaluation.gate.protected):
        for number, names in enumerate(protected.slices):
            yield f"evaluation.gate.protected.{position}.slices.{number}", names
