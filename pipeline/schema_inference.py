"""Proposes a curated schema for a new data set: types and domains from its tables, tags guessed.

Everything that is guessed comes with its reason, as a comment in the proposal: a person reviews it before it is used.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
import re
from collections.abc import Iterator, Sequence

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from modules.features import (
    HISTORY_ITEM_IDS,
    HISTORY_TIMESTAMPS,
    ITEM_ID,
    SEEN_ITEM_IDS,
    TIMESTAMP,
    USER_ID,
    ColumnTable,
    Kind,
    Role,
    history_feature_name,
    parse_schema,
)
from pipeline.column_profile import ColumnProfile, TableProfile
from pipeline.components.column_values import LARGEST_FLOAT32, ColumnType
from pipeline.data_config import DataConfig

LARGEST_DOMAIN = 100
"""Distinct values up to which a string column counts as categorical and gets a domain."""

_TYPES = {ColumnType.INT: schema_pb2.INT, ColumnType.FLOAT: schema_pb2.FLOAT, ColumnType.STRING: schema_pb2.BYTES}
_ROLES = {"interactions": Role.CONTEXT, "items": Role.ITEM, "users": Role.USER}
_PROPENSITY = re.compile(r"(^|_)(propensity|propensities|logging_prob(ability)?)(_|$)", re.IGNORECASE)
_POSITION = re.compile(r"(^|_)(position|rank|slot)(_|$)", re.IGNORECASE)
_RANGE_SLACK = 0.1  # of the range seen, added on either side
_EXACT_INTEGERS = 2**53  # below, doubles hold every integer
_PRESENCE_SLACK = 0.1  # of the share seen
_USUALLY_PRESENT = 0.99  # for columns without a gap: a profile or a cell may be missing now and then
_TEXT_SHARE = 0.3  # of values with white space; titles of one word are common
_RATING_STEPS = 20  # distinct feedback values up to which it is taken for a scale with fixed ends
_FIELD_ORDER = {"name": 0, "type": 1}  # the others follow in the order of their numbers


@dataclasses.dataclass(frozen=True)
class Guess:
    """One proposed feature.

    Attributes:
      feature: the proposal.
      domain: the string domain that it names, if it names one.
      reason: what was seen and what was concluded, in words.
    """

    feature: schema_pb2.Feature
    domain: schema_pb2.StringDomain | None
    reason: str


def propose_schema(data: DataConfig, tables: dict[str, TableProfile]) -> list[Guess]:
    """Proposes the features of the interactions' examples.

    Args:
      data: the configuration of the tables.
      tables: their profiles, from `column_profile.profile_tables`.

    Returns:
      The features in the order of tables and columns; then those of the history.
    """
    guesses = []
    for table_name in ("interactions", "users", "items"):
        for name, profile in tables[table_name].columns.items() if table_name in tables else ():
            if table_name == "interactions" or name not in (USER_ID, ITEM_ID):
                guesses.append(_guess_column(data, table_name, name, profile))
    return [*guesses, *_history(data)]


def to_schema(guesses: Sequence[Guess]) -> schema_pb2.Schema:
    """Returns the proposed schema."""
    return schema_pb2.Schema(
        feature=[guess.feature for guess in guesses],
        string_domain=[guess.domain for guess in guesses if guess.domain is not None],
    )


def render_proposal(name: str, guesses: Sequence[Guess], tables: dict[str, TableProfile]) -> str:
    """Writes the proposal in protobuf text format, each feature under its reason.

    Raises:
      SchemaError: if the proposal is not a consistent schema.
    """
    lines = [
        f"# Proposed schema of {name}: review me, line by line. Types and ranges are those of the rows read:",
        *(f"#   {table}: {_describe_rows(profile)}" for table, profile in tables.items()),
        "# Tags are guesses. Everything downstream derives from them.",
        "#",
        f"# Kinds:  {'  '.join(kind.value for kind in Kind)}",
        f"# Roles:  {'  '.join(role.value for role in Role)}",
        "",
    ]
    for guess in guesses:
        lines += [f"# {guess.reason}", "feature {", *(f"  {line}" for line in _field_lines(guess.feature)), "}"]
    for guess in guesses:
        if guess.domain is not None:
            values = [_field_lines(schema_pb2.StringDomain(value=[value]))[0] for value in guess.domain.value]
            rows = (" ".join(values[start : start + 5]) for start in range(0, len(values), 5))
            head = _field_lines(schema_pb2.StringDomain(name=guess.domain.name))
            lines += ["string_domain {", *(f"  {line}" for line in (*head, *rows)), "}"]
    text = "\n".join(lines) + "\n"
    ColumnTable.from_schema(parse_schema(text, "the proposal"))
    return text


def _guess_column(data: DataConfig, table_name: str, name: str, profile: ColumnProfile) -> Guess:
    if name in (USER_ID, ITEM_ID):
        return _guess(name, profile, [name], "reserved name; ids are strings", presence=1.0)
    if name == TIMESTAMP:
        low, _ = _widen(profile)
        end = datetime.datetime.combine(data.latest, datetime.time(), datetime.timezone.utc)
        seconds = _int_domain(low, end.timestamp() - 1)
        return _guess(
            name, profile, [name], "reserved name; seconds, up to data.latest", presence=1.0, int_domain=seconds
        )
    if name == data.feedback:
        is_scale = len(profile.distinct) <= _RATING_STEPS
        low, high = (profile.minimum or 0, profile.maximum or 0) if is_scale else _widen(profile)
        reason = "data.feedback; " + ("a scale, its ends kept as they are" if is_scale else _range_words(profile))
        domain = _float_domain(low, high)
        return _guess(name, profile, [Role.LABEL.value], reason, presence=1.0, float_domain=domain)
    if name == data.propensity:
        profile.type = ColumnType.FLOAT
        # How many interactions were not shown is another share than that of all rows.
        tags, reason, domain = [Role.PROPENSITY.value], "data.propensity; missing where a title was not shown", (0, 1)
        return _guess(name, profile, tags, reason, presence=0.0, float_domain=_float_domain(*domain))
    if name == data.position:
        bounds = schema_pb2.IntDomain(min=1)
        return _guess(name, profile, [Role.POSITION.value], "data.position", presence=0.0, int_domain=bounds)
    if table_name == "interactions" and profile.most_values == 1 and data.propensity is None:
        if profile.type is ColumnType.FLOAT and _PROPENSITY.search(name):
            tags, domain = [Role.PROPENSITY.value], _float_domain(0, 1)
            return _guess(name, profile, tags, "a probability, by its name", float_domain=domain)
        if profile.type is ColumnType.INT and _POSITION.search(name):
            tags, bounds = [Role.POSITION.value], schema_pb2.IntDomain(min=min(1, int(profile.minimum or 0)))
            return _guess(name, profile, tags, "a place in a list, by its name", int_domain=bounds)
    return _guess_by_values(_ROLES[table_name], name, profile)


def _guess_by_values(role: Role, name: str, profile: ColumnProfile) -> Guess:
    """Guesses the kind of a column by its type and values."""
    is_multivalent = _is_multivalent(profile)
    count = f"more than {len(profile.distinct) - 1:,}" if profile.has_many_distinct else f"{len(profile.distinct):,}"
    seen = f"{count} distinct of {profile.values:,} values"
    if profile.values == 0:
        return _guess(name, profile, [role.value], "no value was seen, so it has no kind", presence=0.0)
    if profile.type is not ColumnType.STRING:
        if is_multivalent:
            return _guess(name, profile, [role.value], "several numbers in a row, for which there is no kind")
        low, high = _widen(profile)
        tags, reason = [role.value, Kind.CONTINUOUS.value], f"numbers {_range_words(profile)}; codes are categorical"
        if profile.type is ColumnType.INT:
            bounds = _int_domain(low, high)
            return _guess(name, profile, tags, reason, int_domain=bounds)
        return _guess(name, profile, tags, reason, float_domain=_float_domain(low, high))
    values = sorted(str(value) for value in profile.distinct)
    string_domain = None
    # A value that is there once is no category but an identifier; few rows make few distinct values of anything.
    if len(values) <= LARGEST_DOMAIN and 2 * len(values) <= profile.values:
        string_domain = schema_pb2.StringDomain(name=name, value=values)
    if is_multivalent:
        tags = [role.value, Kind.MULTI_HOT.value]
        return _guess(name, profile, tags, f"several values in a row, {seen}", string_domain=string_domain)
    if string_domain is not None:
        tags = [role.value, Kind.CATEGORICAL.value]
        return _guess(name, profile, tags, f"few values: {seen}", string_domain=string_domain)
    if profile.with_spaces >= _TEXT_SHARE * profile.values:
        return _guess(name, profile, [role.value, Kind.TEXT.value], f"words: {seen}, with spaces")
    return _guess(name, profile, [role.value], f"looks like identifiers ({seen}, without spaces), so it has no kind")


def _guess(
    name: str,
    profile: ColumnProfile,
    tags: Sequence[str],
    reason: str,
    *,
    presence: float | None = None,
    string_domain: schema_pb2.StringDomain | None = None,
    int_domain: schema_pb2.IntDomain | None = None,
    float_domain: schema_pb2.FloatDomain | None = None,
) -> Guess:
    share = profile.present / profile.rows
    if presence is None:
        presence = _USUALLY_PRESENT if share == 1 else math.floor(100 * (1 - _PRESENCE_SLACK) * share) / 100
        reason += "" if share == 1 else f"; {share:.1%} of the rows have it"
    most_values = 1
    if _is_multivalent(profile):
        most_values = len(string_domain.value) if string_domain else 2 * max(profile.most_values, 1)
    feature = schema_pb2.Feature(
        name=name,
        type=_TYPES[profile.type],
        presence=_presence(presence),
        value_count=schema_pb2.ValueCount(min=1, max=max(most_values, profile.most_values)),
        annotation=schema_pb2.Annotation(tag=tags),
    )
    if string_domain is not None:
        feature.domain = string_domain.name
    if int_domain is not None:
        feature.int_domain.CopyFrom(int_domain)
    if float_domain is not None:
        feature.float_domain.CopyFrom(float_domain)
    return Guess(feature, string_domain, f"{' + '.join(tags)}: {reason}.")


def _history(data: DataConfig) -> Iterator[Guess]:
    """Yields the features that the ingestion adds to every interaction."""
    recorded = [
        (HISTORY_ITEM_IDS, schema_pb2.BYTES, Role.ITEM_ID),
        (HISTORY_TIMESTAMPS, schema_pb2.INT, Role.TIMESTAMP),
    ]
    if data.feedback is not None:
        recorded.append((history_feature_name(data.feedback), schema_pb2.FLOAT, Role.LABEL))
    features = [
        (name, type_, schema_pb2.ValueCount(min=1, max=data.history_length), [Role.HISTORY.value, role.value])
        for name, type_, role in recorded
    ]
    features.append((SEEN_ITEM_IDS, schema_pb2.BYTES, schema_pb2.ValueCount(min=1), [Role.SEEN.value]))
    for name, type_, value_count, tags in features:
        feature = schema_pb2.Feature(name=name, type=type_, presence=_presence(0.0), value_count=value_count)
        feature.annotation.tag.extend(tags)
        limit = f"the last {data.history_length}" if value_count.max else "all"
        yield Guess(feature, None, f"{' + '.join(tags)}: added by the ingestion, {limit} of the user's interactions.")


def _is_multivalent(profile: ColumnProfile) -> bool:
    return profile.separator is not None or profile.most_values > 1


def _presence(fraction: float) -> schema_pb2.FeaturePresence:
    return schema_pb2.FeaturePresence(min_fraction=fraction, min_count=1 if fraction > 0 else None)


def _float_domain(low: float, high: float) -> schema_pb2.FloatDomain:
    low, high = max(low, -LARGEST_FLOAT32), min(high, LARGEST_FLOAT32)
    return schema_pb2.FloatDomain(min=low, max=high, disallow_nan=True, disallow_inf=True)


def _widen(profile: ColumnProfile) -> tuple[float, float]:
    """Returns the range of a column's numbers with some slack, which does not change the sign of an end."""
    low, high = profile.minimum or 0, profile.maximum or 0
    slack = _RANGE_SLACK * (high - low) or 1
    wider_low, wider_high = low - slack, high + slack
    return max(wider_low, 0) if low >= 0 else wider_low, min(wider_high, 0) if high <= 0 else wider_high


def _int_domain(low: float, high: float) -> schema_pb2.IntDomain:
    """Returns the domain of a range; an end that Data Validation's statistics, which are doubles, may miss is open."""
    return schema_pb2.IntDomain(
        min=math.floor(low) if abs(low) < _EXACT_INTEGERS else None,
        max=math.ceil(high) if abs(high) < _EXACT_INTEGERS else None,
    )


def _range_words(profile: ColumnProfile) -> str:
    return f"from {profile.minimum} to {profile.maximum}, widened by {_RANGE_SLACK:.0%}"


def _describe_rows(profile: TableProfile) -> str:
    which = "all" if profile.is_complete else "the first"
    return f"{which} {profile.rows:,} rows" + (f", {profile.malformed:,} of them malformed" * bool(profile.malformed))


def _field_lines(proto: schema_pb2.Feature | schema_pb2.StringDomain) -> list[str]:
    """Returns one line of text format per field of a message."""
    lines = []
    for field, value in sorted(proto.ListFields(), key=lambda pair: _FIELD_ORDER.get(pair[0].name, len(_FIELD_ORDER))):
        single = type(proto)()
        if field.message_type is not None:
            getattr(single, field.name).CopyFrom(value)
        elif isinstance(value, (str, int, float)):
            setattr(single, field.name, value)
        else:
            getattr(single, field.name).extend(value)
        lines.append(text_format.MessageToString(single, as_one_line=True, as_utf8=True))
    return lines
