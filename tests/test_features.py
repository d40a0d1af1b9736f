"""Roles and kinds from a schema's tags."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorflow_metadata.proto.v0 import schema_pb2

from modules.features import (
    Column,
    ColumnTable,
    Kind,
    Role,
    SchemaError,
    catalogue_schema,
    history_feature_name,
    parse_schema,
    sub_schema,
)
from pipeline.config import CONFIG_DIRECTORY, load_config

BYTES, INT, FLOAT = schema_pb2.BYTES, schema_pb2.INT, schema_pb2.FLOAT


def feature(name: str, type_: int, *tags: str, most_values: int | None = 1, domain: str = "") -> schema_pb2.Feature:
    result = schema_pb2.Feature(name=name, type=type_, annotation=schema_pb2.Annotation(tag=tags))
    if domain:
        result.domain = domain
    if most_values is not None:
        result.value_count.min, result.value_count.max = 1, most_values
    return result


KEYS = (
    feature("who", BYTES, "user_id"),
    feature("what", BYTES, "item_id"),
    feature("when", INT, "timestamp"),
)
PAST = (
    feature("history_item_ids", BYTES, "history", "item_id", most_values=50),
    feature("seen_item_ids", BYTES, "seen", most_values=None),
)


def schema_of(*features: schema_pb2.Feature, domains: tuple[str, ...] = ()) -> schema_pb2.Schema:
    string_domains = [schema_pb2.StringDomain(name=name, value=["a", "b"]) for name in domains]
    return schema_pb2.Schema(feature=[*KEYS, *features, *PAST], string_domain=string_domains)


def test_columns_are_read_from_tags_not_from_names():
    table = ColumnTable.from_schema(
        schema_of(
            feature("stars", FLOAT, "label"),
            feature("words", BYTES, "text", "item"),
            feature("labels", BYTES, "item", "multi_hot", most_values=5),
            feature("device", BYTES, "context", "categorical"),
            feature("chance", FLOAT, "propensity"),
            feature("slot", INT, "position"),
            feature("note", BYTES, "user", most_values=None),
            feature("history_timestamps", INT, "timestamp", "history", most_values=50),
            feature("history_stars", FLOAT, "history", "label", most_values=50),
        )
    )

    assert table.with_role(Role.ITEM) == (
        Column("words", Role.ITEM, Kind.TEXT, BYTES, multivalent=False),
        Column("labels", Role.ITEM, Kind.MULTI_HOT, BYTES, multivalent=True),
    )
    assert table.with_role(Role.USER) == (Column("note", Role.USER, None, BYTES, multivalent=True),)
    assert table.names(Role.TIMESTAMP, Role.LABEL, Role.POSITION) == ("when", "stars", "slot")
    assert table.history_of(Role.LABEL) == Column(
        "history_stars", Role.HISTORY, None, FLOAT, multivalent=True, history_of=Role.LABEL
    )
    assert table.names(Role.HISTORY) == ("history_timestamps", "history_stars", "history_item_ids")
    assert [column.name for column in table.query_columns] == [
        *("who", "when", "device", "note", "history_timestamps", "history_stars", "history_item_ids", "seen_item_ids"),
    ]
    assert [column.name for column in table.catalogue_columns] == ["what", "words", "labels"]


def test_a_history_that_the_schema_does_not_have_is_none():
    table = ColumnTable.from_schema(schema_of())

    assert (table.history_of(Role.LABEL), table.history_of(Role.TIMESTAMP)) == (None, None)
    assert table.history_of(Role.ITEM_ID) == table.with_role(Role.HISTORY)[0]
    assert history_feature_name("rating") == "history_rating"


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (schema_of(feature("age", INT, "usr")), "feature 'age' has unknown tags ['usr']; expected some of ["),
        (schema_of(feature("age", INT)), "feature 'age' needs exactly one role out of ["),
        (schema_of(feature("age", INT, "continuous")), "; received ['continuous']"),
        (schema_of(feature("age", INT, "user", "item")), "feature 'age' needs exactly one role out of ["),
        (
            schema_of(feature("age", INT, "user", "continuous", "categorical")),
            "feature 'age' has more than one kind; received ['user', 'continuous', 'categorical']",
        ),
        (
            schema_of(feature("past", BYTES, "history")),
            "feature 'past': a history says what it records with one of the tags item_id, timestamp and label; "
            "received ['history']",
        ),
        (schema_of(feature("past", BYTES, "history", "user")), "a history says what it records"),
        (schema_of(feature("past", BYTES, "history", "item_id", "label")), "a history says what it records"),
        (
            schema_of(feature("who2", BYTES, "user_id")),
            "exactly one feature must be tagged 'user_id'; received ['who', 'who2']",
        ),
        (schema_pb2.Schema(feature=KEYS[:2]), "exactly one feature must be tagged 'timestamp'; received []"),
        (schema_pb2.Schema(), "exactly one feature must be tagged 'user_id'; received []"),
        (
            schema_of(feature("age", INT, "user"), feature("age", INT, "item")),
            "each feature may be described once; received ['age'] more than once",
        ),
        (
            schema_of(feature("sex", BYTES, "user", domain="gender"), domains=("genres", "colours")),
            "feature 'sex': no string_domain is named 'gender'; expected one of ['colours', 'genres']",
        ),
        (
            schema_of(feature("age", schema_pb2.TYPE_UNKNOWN, "user")),
            "feature 'age': user needs a type out of ['BYTES', 'INT', 'FLOAT']; received TYPE_UNKNOWN",
        ),
        (
            schema_of(feature("zip", BYTES, "user", "continuous")),
            "feature 'zip': continuous needs a type out of ['INT', 'FLOAT']; received BYTES",
        ),
        (
            schema_of(feature("title", INT, "item", "text")),
            "feature 'title': text needs a type out of ['BYTES']; received INT",
        ),
        (
            schema_of(feature("past", INT, "history", "item_id")),
            "feature 'past': item_id needs a type out of ['BYTES']; received INT",
        ),
        (
            schema_pb2.Schema(feature=[*KEYS[:2], feature("when", FLOAT, "timestamp")]),
            "feature 'when': timestamp needs a type out of ['INT']; received FLOAT",
        ),
        (
            schema_of(schema_pb2.Feature(name="vector", type=FLOAT, shape=schema_pb2.FixedShape())),
            "feature 'vector': received a shape; expected a value_count",
        ),
        (
            schema_of(feature("past", INT, "history", "timestamp")),
            "feature 'past': what is tagged ['history', 'timestamp'] must be named 'history_timestamps'",
        ),
        (
            schema_of(feature("all_past", BYTES, "seen")),
            "feature 'all_past': what is tagged ['seen'] must be named 'seen_item_ids'",
        ),
        (
            schema_pb2.Schema(feature=[*KEYS, PAST[1]]),
            "a feature 'history_item_ids' must be tagged 'history', or what was seen would be recommended again; "
            "received []",
        ),
        (
            schema_pb2.Schema(feature=[*KEYS, PAST[0], feature("seen_item_ids", BYTES, "user")]),
            "a feature 'seen_item_ids' must be tagged 'seen', or what was seen would be recommended again; received []",
        ),
    ],
)
def test_contradictory_tags_are_refused(schema, message):
    with pytest.raises(SchemaError) as error:
        ColumnTable.from_schema(schema)

    assert message in str(error.value)


@pytest.mark.parametrize(
    "name",
    [
        *("hour", "hour_sin", "weekday_cos", "day", "history_log_gaps", "user_activity", "title_popularity"),
        *("log_gap", "log_gap_bucket", "log_seen_count_missing", "age_bucket", "age_missing", "history_stars_bucket"),
    ],
)
def test_names_of_what_is_derived_are_refused(name):
    age = feature("age", INT, "user", "continuous")
    history = feature("history_stars", FLOAT, "history", "label", most_values=50)
    message = f"the features ['{name}'] must have other names: these stand for what is derived"
    with pytest.raises(SchemaError, match=f"^{re.escape(message)}$"):
        ColumnTable.from_schema(schema_of(age, history, feature(name, INT, "context")))

    # Nothing is derived from a column without a kind.
    plain = schema_of(
        feature("age", INT, "user"), feature("age_bucket", INT, "user"), feature("age_missing", INT, "user")
    )
    assert ColumnTable.from_schema(plain).names(Role.USER) == ("age", "age_bucket", "age_missing")


def test_text_that_is_no_schema_is_refused_with_its_place():
    with pytest.raises(SchemaError, match=r'mine\.pbtxt is not a TFMD schema in text format: 2:\d+ .*"shape2"'):
        parse_schema('feature { name: "a"\n shape2: 3 }', "mine.pbtxt")


@given(
    st.lists(
        st.tuples(st.sampled_from(["user", "item", "context"]), st.sampled_from([None, *Kind]), st.booleans()),
        max_size=12,
    ),
    st.randoms(use_true_random=False),
)
def test_every_column_is_in_one_role_whatever_the_order(columns, random):
    types = {None: BYTES, Kind.CONTINUOUS: FLOAT, Kind.CATEGORICAL: INT, Kind.TEXT: BYTES, Kind.MULTI_HOT: BYTES}
    features = [*KEYS, *PAST]
    for index, (role, kind, is_multivalent) in enumerate(columns):
        tags = [role, *([kind.value] if kind else [])]
        random.shuffle(tags)
        features.append(feature(f"f{index}", types[kind], *tags, most_values=3 if is_multivalent else 1))
    random.shuffle(features)
    schema = schema_pb2.Schema(feature=features)

    table = ColumnTable.from_schema(schema)

    assert [column.name for column in table.columns] == [each.name for each in features]
    assert sorted(column for role in Role for column in table.names(role)) == sorted(each.name for each in features)
    for index, (role, kind, is_multivalent) in enumerate(columns):
        column = next(column for column in table.columns if column.name == f"f{index}")
        assert (column.role.value, column.kind, column.multivalent) == (role, kind, is_multivalent)
    derived = catalogue_schema(schema)
    assert [each.name for each in derived.feature] == [column.name for column in table.catalogue_columns]
    assert all(each in features for each in derived.feature)


def test_the_catalogues_schema_keeps_what_items_use_only():
    schema = schema_of(
        feature("sex", BYTES, "user", "categorical", domain="sex"),
        feature("genres", BYTES, "item", "multi_hot", domain="genres", most_values=3),
        domains=("sex", "genres"),
    )
    schema.dataset_constraints.min_examples_count = 1000
    schema.tensor_representation_group[""].tensor_representation["who"].varlen_sparse_tensor.column_name = "who"
    before = schema_pb2.Schema.FromString(schema.SerializeToString())

    derived = catalogue_schema(schema)

    assert [each.name for each in derived.feature] == ["what", "genres"]
    assert derived.feature[1] == schema.feature[4]
    assert [domain.name for domain in derived.string_domain] == ["genres"]
    assert not derived.HasField("dataset_constraints")
    assert not derived.tensor_representation_group
    assert schema == before


def test_sub_schema_takes_names_in_the_schemas_order_and_ignores_others():
    schema = schema_of(feature("age", INT, "user"))

    assert [each.name for each in sub_schema(schema, ["age", "who", "nothing"]).feature] == ["who", "age"]


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIG_DIRECTORY.glob("*.yaml")))
def test_shipped_schemas_fit_their_configurations(name):
    config = load_config(name)
    table = ColumnTable.from_schema(parse_schema(config.read_schema_text(), config.schema_file))

    roles = {column.name: column.role for column in table.columns}
    data = config.data
    expected = {name: Role.ITEM for name in data.items.columns} | {
        name: Role.USER for name in (data.users.columns if data.users else ())
    }
    expected |= {
        "user_id": Role.USER_ID,
        "item_id": Role.ITEM_ID,
        "timestamp": Role.TIMESTAMP,
        "seen_item_ids": Role.SEEN,
    }
    expected |= {"history_item_ids": Role.HISTORY, "history_timestamps": Role.HISTORY}
    if data.feedback:
        expected |= {data.feedback: Role.LABEL, history_feature_name(data.feedback): Role.HISTORY}
    assert {name: roles[name] for name in expected} == expected
    assert set(roles) - set(expected) == set(data.interactions.columns) - set(expected)
