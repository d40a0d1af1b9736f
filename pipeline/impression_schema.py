"""What a log of impressions adds to the curated schema, so that reviewers need not think of it."""

from __future__ import annotations

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from modules.features import IMPRESSION, ColumnTable, Role, SchemaError, parse_schema
from pipeline.data_config import DataConfig


def with_impressions(schema_text: str, data: DataConfig) -> str:
    """Returns the schema as text, completed for a log of impressions; unchanged for a log without propensities.

    The feature `impression`, which marks their examples, is described. And feedback may be missing, since it is in the
    examples of what was not taken: ingestion makes sure that every interaction has it.

    Args:
      schema_text: the curated schema in text format.
      data: the configuration of the tables.

    Raises:
      SchemaError: if the columns of propensity and position are not tagged as such.
    """
    if data.propensity is None:
        return schema_text
    schema = parse_schema(schema_text, "schema_file")
    columns = ColumnTable.from_schema(schema)
    for role, name in ((Role.PROPENSITY, data.propensity), (Role.POSITION, data.position)):
        tagged = list(columns.names(role))
        if name is not None and tagged != [name]:
            raise SchemaError(f"data.{role.value}: exactly {name!r} must be tagged {role.value!r}; received {tagged}")
    labels = list(columns.names(Role.LABEL))
    if labels != [data.feedback]:
        raise SchemaError(f"data.feedback: exactly {data.feedback!r} must be tagged 'label'; received {labels}")
    for feature in schema.feature:
        if feature.name == data.feedback:
            feature.presence.CopyFrom(schema_pb2.FeaturePresence(min_fraction=0.0))
    if IMPRESSION not in columns.names(Role.IMPRESSION):
        feature = schema.feature.add(name=IMPRESSION, type=schema_pb2.INT)
        feature.presence.min_fraction = 0.0
        feature.value_count.CopyFrom(schema_pb2.ValueCount(min=1, max=1))
        feature.int_domain.CopyFrom(schema_pb2.IntDomain(min=1, max=1))
        feature.annotation.tag.append(Role.IMPRESSION.value)
    return text_format.MessageToString(schema)
