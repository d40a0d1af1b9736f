"""Feature roles and kinds, read from a schema's tags.

The tags of the curated schema (`annotation { tag: ... }`) are the one place that says what a column is.
Preprocessing, model inputs, slices and the serving signature ask this module and never name a data set's columns.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from modules.derived_names import derived_names

USER_ID = "user_id"
ITEM_ID = "item_id"
TIMESTAMP = "timestamp"
HISTORY_ITEM_IDS = "history_item_ids"
HISTORY_TIMESTAMPS = "history_timestamps"
SEEN_ITEM_IDS = "seen_item_ids"
IMPRESSION = "impression"
"""Marks examples of what was shown, taken or not: they are for off-policy estimates, and no interactions."""


def history_feature_name(feedback: str) -> str:
    """Returns the name of the history feature that holds the past values of a feedback column."""
    return f"history_{feedback}"


class Role(enum.Enum):
    """What a column is in an interaction."""

    USER_ID = "user_id"
    ITEM_ID = "item_id"
    TIMESTAMP = "timestamp"
    LABEL = "label"
    USER = "user"
    ITEM = "item"
    CONTEXT = "context"
    HISTORY = "history"
    SEEN = "seen"
    PROPENSITY = "propensity"
    POSITION = "position"
    IMPRESSION = "impression"


class Kind(enum.Enum):
    """How a column's values are turned into numbers."""

    CATEGORICAL = "categorical"
    MULTI_HOT = "multi_hot"
    CONTINUOUS = "continuous"
    TEXT = "text"


class SchemaError(ValueError):
    """A schema whose tags contradict each other or its types, or leave something out."""


_NUMBERS = (schema_pb2.INT, schema_pb2.FLOAT)
_REQUIRED_TYPES: dict[Role | Kind, tuple[int, ...]] = {
    Role.USER_ID: (schema_pb2.BYTES,),
    Role.ITEM_ID: (schema_pb2.BYTES,),
    Role.TIMESTAMP: (schema_pb2.INT,),
    Kind.CONTINUOUS: _NUMBERS,
    Kind.TEXT: (schema_pb2.BYTES,),
}
_HISTORY_NAMES = {Role.ITEM_ID: HISTORY_ITEM_IDS, Role.TIMESTAMP: HISTORY_TIMESTAMPS, Role.SEEN: SEEN_ITEM_IDS}


@dataclasses.dataclass(frozen=True)
class Column:
    """One column of the raw examples.

    Attributes:
      name: feature name in the tf.Example.
      role: what it is.
      kind: how it is transformed, or None for columns that are carried along only.
      type: TFMD type (`schema_pb2.BYTES`, `INT` or `FLOAT`).
      multivalent: whether an example may hold several values.
      history_of: for history columns, the role of what was recorded (item_id, timestamp or label).
    """

    name: str
    role: Role
    kind: Kind | None
    type: int
    multivalent: bool
    history_of: Role | None = None


@dataclasses.dataclass(frozen=True)
class ColumnTable:
    """All columns of a schema, by role."""

    columns: tuple[Column, ...]

    @classmethod
    def from_schema(cls, schema: schema_pb2.Schema) -> ColumnTable:
        """Reads the tags of a schema.

        Raises:
          SchemaError: naming the feature, what was received and what was expected: of tags that contradict each other
            or the types, of keys or histories that are missing, of names that stand for something derived.
        """
        columns = tuple(_read_column(feature) for feature in schema.feature)
        table = cls(columns)
        names = [column.name for column in columns]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise SchemaError(f"each feature may be described once; received {repeated} more than once")
        domains = {domain.name for domain in schema.string_domain}
        for feature in schema.feature:
            if feature.domain and feature.domain not in domains:
                raise SchemaError(
                    f"feature {feature.name!r}: no string_domain is named {feature.domain!r}; "
                    f"expected one of {sorted(domains)}"
                )
        for role in (Role.USER_ID, Role.ITEM_ID, Role.TIMESTAMP):
            names = [column.name for column in table.with_role(role)]
            if len(names) != 1:
                raise SchemaError(f"exactly one feature must be tagged {role.value!r}; received {names}")
        table._require_histories()
        table._require_free_names()
        return table

    def with_role(self, *roles: Role) -> tuple[Column, ...]:
        """Returns the columns of these roles, in the schema's order."""
        return tuple(column for column in self.columns if column.role in roles)

    def history_of(self, role: Role) -> Column | None:
        """Returns the history column that records this role, if the schema has one."""
        return next((column for column in self.columns if column.history_of is role), None)

    def names(self, *roles: Role) -> tuple[str, ...]:
        """Returns the names of the columns of these roles."""
        return tuple(column.name for column in self.with_role(*roles))

    @property
    def query_columns(self) -> tuple[Column, ...]:
        """Columns that are known when recommendations are asked for: what a serving request may hold."""
        return self.with_role(Role.USER_ID, Role.USER, Role.CONTEXT, Role.TIMESTAMP, Role.HISTORY, Role.SEEN)

    @property
    def catalogue_columns(self) -> tuple[Column, ...]:
        """Columns of one catalogue entry."""
        return self.with_role(Role.ITEM_ID, Role.ITEM)

    def _require_histories(self) -> None:
        """Makes sure that histories have the names that ingestion and requests write them under."""
        for column in self.with_role(Role.HISTORY, Role.SEEN):
            expected = _HISTORY_NAMES.get(column.history_of or column.role, column.name)
            if column.name != expected:
                tags = [column.role.value, *([column.history_of.value] if column.history_of else [])]
                raise SchemaError(f"feature {column.name!r}: what is tagged {tags} must be named {expected!r}")
        for role, name in ((Role.HISTORY, HISTORY_ITEM_IDS), (Role.SEEN, SEEN_ITEM_IDS)):
            if name not in self.names(role):
                raise SchemaError(
                    f"a feature {name!r} must be tagged {role.value!r}, or what was seen would be recommended again; "
                    f"received {list(self.names(role))}"
                )

    def _require_free_names(self) -> None:
        continuous = [column.name for column in self.columns if column.kind is Kind.CONTINUOUS]
        feedback = self.names(Role.LABEL)
        histories = [column.name for column in self.columns if column.history_of is Role.LABEL]
        taken = derived_names(continuous, feedback, histories)
        if clashes := [column.name for column in self.columns if column.name in taken]:
            raise SchemaError(f"the features {clashes} must have other names: these stand for what is derived")


def parse_schema(text: str, source: str = "schema") -> schema_pb2.Schema:
    """Parses a schema in protobuf text format.

    Raises:
      SchemaError: naming the source, line and column where it does not parse.
    """
    try:
        return text_format.Parse(text, schema_pb2.Schema())
    except text_format.ParseError as error:
        raise SchemaError(f"{source} is not a TFMD schema in text format: {error}") from error


def sub_schema(schema: schema_pb2.Schema, names: Iterable[str]) -> schema_pb2.Schema:
    """Returns the schema of these features only, with the string domains that they use.

    What the schema says of whole examples (tensor representations, number of examples) is left out: it may name
    other features, and need not hold for other examples.
    """
    wanted = set(names)
    result = schema_pb2.Schema()
    result.CopyFrom(schema)
    del result.feature[:]
    result.feature.extend(feature for feature in schema.feature if feature.name in wanted)
    result.ClearField("tensor_representation_group")
    result.ClearField("dataset_constraints")
    used_domains = {feature.domain for feature in result.feature if feature.domain}
    del result.string_domain[:]
    result.string_domain.extend(domain for domain in schema.string_domain if domain.name in used_domains)
    return result


def catalogue_schema(schema: schema_pb2.Schema) -> schema_pb2.Schema:
    """Returns the schema of the catalogue's examples: the item columns of the interactions' schema."""
    return sub_schema(schema, (column.name for column in ColumnTable.from_schema(schema).catalogue_columns))


def _read_column(feature: schema_pb2.Feature) -> Column:
    if feature.HasField("shape"):
        raise SchemaError(f"feature {feature.name!r}: received a shape; expected a value_count: all are read as sparse")
    tags = list(feature.annotation.tag)
    roles = [role for role in Role if role.value in tags]
    kinds = [kind for kind in Kind if kind.value in tags]
    known = {role.value for role in Role} | {kind.value for kind in Kind}
    unknown = [tag for tag in tags if tag not in known]
    if unknown:
        raise SchemaError(f"feature {feature.name!r} has unknown tags {unknown}; expected some of {sorted(known)}")
    history_of = None
    if Role.HISTORY in roles:
        roles.remove(Role.HISTORY)
        if len(roles) != 1 or roles[0] not in (Role.ITEM_ID, Role.TIMESTAMP, Role.LABEL):
            raise SchemaError(
                f"feature {feature.name!r}: a history says what it records with one of the tags item_id, timestamp "
                f"and label; received {tags}"
            )
        history_of, roles = roles[0], [Role.HISTORY]
    if len(roles) != 1:
        raise SchemaError(
            f"feature {feature.name!r} needs exactly one role out of {[role.value for role in Role]}; received {tags}"
        )
    if len(kinds) > 1:
        raise SchemaError(f"feature {feature.name!r} has more than one kind; received {tags}")
    typed: list[Role | Kind] = [history_of or roles[0], *kinds]
    for tag in typed:
        types = _REQUIRED_TYPES.get(tag, (schema_pb2.BYTES, *_NUMBERS))
        if feature.type not in types:
            raise SchemaError(
                f"feature {feature.name!r}: {tag.value} needs a type out of "
                f"{[schema_pb2.FeatureType.Name(type_) for type_ in types]}; "
                f"received {schema_pb2.FeatureType.Name(feature.type)}"
            )
    return Column(
        name=feature.name,
        role=roles[0],
        kind=kinds[0] if kinds else None,
        type=feature.type,
        multivalent=not (feature.HasField("value_count") and feature.value_count.max == 1),
        history_of=history_of,
    )
