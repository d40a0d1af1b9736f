"""Says what TensorFlow Data Validation found in plain words: table, splits, column, what was seen, what was expected.

Data Validation's own descriptions tell what was seen; what was expected is read from the schema that its protos carry
along (`baseline`). Reasons without a wording here keep Data Validation's description.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeAlias

from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2

_MOST_VALUES_LISTED = 10
_MOST_CHARACTERS = 300

_Reason: TypeAlias = anomalies_pb2.AnomalyInfo.Reason | anomalies_pb2.AnomalyInfo

_DISTANCE = (
    (
        r"The (?P<distance>.+) between (?P<data>.+) is (?P<value>\S+) .*threshold (?P<threshold>[\d.e+-]*\d)",
        "has changed: the {distance} between {data} is {value}; expected at most {threshold}",
    ),
)

# Reason type -> (pattern searched in Data Validation's description, predicate of the sentence). A predicate may use
# the pattern's named groups and the expectations of the schema; the first pattern found wins.
_WORDINGS: dict[str, tuple[tuple[str, str], ...]] = {
    "SCHEMA_NEW_COLUMN": (("", "is in the data but not in the schema"),),
    "UNEXPECTED_DATA_TYPE": (
        (r"type: (?P<wanted_type>\w+) but got (?P<type>\w+)", "should be {wanted_type} but is {type}"),
    ),
    "SCHEMA_MISSING_COLUMN": (("", "is missing from every example; expected in {expected_presence}"),),
    "FEATURE_TYPE_NOT_PRESENT": (("", "is missing from every example; expected in {expected_presence}"),),
    "FEATURE_TYPE_LOW_FRACTION_PRESENT": (
        (
            r"actual = (?P<share>[\d.e+-]+)",
            "is present in only {share} of the examples; expected in {expected_presence}",
        ),
        (r"in (?P<count>\d+) examples", "is missing from {count} examples; expected in {expected_presence}"),
    ),
    "FEATURE_TYPE_LOW_NUMBER_PRESENT": (
        (
            r"count = (?P<expected>\d+), actual = (?P<count>\d+)",
            "is present in {count} examples; expected in at least {expected}",
        ),
    ),
    "FEATURE_TYPE_LOW_NUMBER_VALUES": (
        (
            r"expected\.$",
            "holds too few values in some examples; expected at least {expected_count.min}",
        ),
    ),
    "FEATURE_TYPE_HIGH_NUMBER_VALUES": (
        (r"expected\.$", "holds too many values in some examples; expected at most {expected_count.max}"),
    ),
    "ENUM_TYPE_UNEXPECTED_STRING_VALUES": (
        (r"schema: (?P<values>(?s:.+))", "has unexpected values: {values}; expected {expected_values}"),
    ),
    "ENUM_TYPE_INVALID_UTF8": (("", "holds bytes that are not UTF-8 text"),),
    "INT_TYPE_SMALL_INT": ((r"value: (?P<value>-?\d+)", "has values down to {value}; expected {expected_values}"),),
    "INT_TYPE_BIG_INT": ((r"value: (?P<value>-?\d+)", "has values up to {value}; expected {expected_values}"),),
    "INT_TYPE_NOT_INT_STRING": ((r'as (?P<text>".*")', "holds text that is no whole number, such as {text}"),),
    "FLOAT_TYPE_STRING_NOT_FLOAT": ((r'as (?P<text>".*")', "holds text that is no number, such as {text}"),),
    "FLOAT_TYPE_SMALL_FLOAT": ((r": (?P<value>[^<>]+)<", "has values down to {value}; expected {expected_values}"),),
    "FLOAT_TYPE_BIG_FLOAT": ((r": (?P<value>[^<>]+)>", "has values up to {value}; expected {expected_values}"),),
    "FLOAT_TYPE_HAS_NAN": (("", "has NaN values; expected numbers"),),
    "FLOAT_TYPE_HAS_INF": (("", "has infinite values; expected finite numbers"),),
    "COMPARATOR_L_INFTY_HIGH": _DISTANCE,
    "COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH": _DISTANCE,
    "COMPARATOR_NORMALIZED_ABSOLUTE_DIFFERENCE_HIGH": _DISTANCE,
}


def describe_anomalies(table: str, splits: Mapping[str, anomalies_pb2.Anomalies]) -> list[str]:
    """Describes the anomalies of one table.

    Args:
      table: name of the table, e.g. `interactions`.
      splits: the anomalies of each split, by its name.

    Returns:
      One sentence per column with an anomaly, ordered by column, then one for findings on whole splits. Empty if all
      is clean. A table without any split is not clean.
    """
    if not splits:
        return [f"{table}: no split was validated; expected at least one."]
    findings: dict[str, dict[str, list[str]]] = {}  # subject -> predicate -> splits

    def add(subject: str, predicate: str, split: str) -> None:
        findings.setdefault(subject, {}).setdefault(predicate, []).append(split)

    for split, anomalies in splits.items():
        if anomalies.data_missing:
            add("the split ", "holds no example; expected at least one", split)
        if anomalies.HasField("dataset_anomaly_info"):
            add("the split ", _own_words(anomalies.dataset_anomaly_info), split)
        for key, info in anomalies.anomaly_info.items():
            name = ".".join(info.path.step) or key
            for reason in info.reason or [info]:
                add(f"column {name!r} ", _describe_reason(reason, name, anomalies.baseline), split)
    return [_sentence(table, subject, findings[subject]) for subject in sorted(findings)]


def _sentence(table: str, subject: str, predicates: Mapping[str, list[str]]) -> str:
    """Joins the findings on a subject; the splits stand in front where all findings share them."""
    shared = {tuple(splits) for splits in predicates.values()}
    if len(shared) == 1:
        return f"{table} ({', '.join(shared.pop())}): {subject}{'; '.join(predicates)}."
    parts = [f"{predicate} ({', '.join(splits)})" for predicate, splits in predicates.items()]
    return f"{table}: {subject}{'; '.join(parts)}."


def _describe_reason(reason: _Reason, name: str, schema: schema_pb2.Schema) -> str:
    if isinstance(reason, anomalies_pb2.AnomalyInfo.Reason):
        type_name = anomalies_pb2.AnomalyInfo.Type.Name(reason.type)
        for pattern, predicate in _WORDINGS.get(type_name, ()):
            if match := re.search(pattern, reason.description):
                seen = {group: _tidy(group, text) for group, text in match.groupdict().items()}
                return predicate.format(**seen, **_expectations(name, schema))
    return _own_words(reason)


def _tidy(group: str, text: str) -> str:
    """Rewrites what was seen: shares as percentages, TFMD's name of the string type, long lists of values shortened."""
    if group == "share":
        return f"{100 * float(text):.4g} %"
    if group in ("type", "wanted_type"):
        return "BYTES" if text == "STRING" else text
    if group == "values":  # X (~33%), Y (<1%).
        values = re.findall(r"(.*?) \(([~<]\d+%)\)(?:, |\.\s*$)", text, re.DOTALL)
        return _list_some([f"{value!r} ({share})" for value, share in values]) if values else _shorten(text)
    return text


def _expectations(name: str, schema: schema_pb2.Schema) -> dict[str, object]:
    """Returns what the schema expects of a column, in words."""
    feature = next((feature for feature in schema.feature if feature.name == name), schema_pb2.Feature())
    fraction = feature.presence.min_fraction
    return {
        "expected_presence": "every example" if fraction >= 1 else f"at least {100 * fraction:.4g} % of them",
        "expected_count": feature.value_count,
        "expected_values": _expected_values(feature, schema),
    }


def _expected_values(feature: schema_pb2.Feature, schema: schema_pb2.Schema) -> str:
    domain_kind = feature.WhichOneof("domain_info")
    if domain_kind in ("int_domain", "float_domain"):
        domain = getattr(feature, domain_kind)
        if domain.HasField("min") and domain.HasField("max"):
            return f"{domain.min} to {domain.max}"
        bounds = [("at least", "min"), ("at most", "max")]
        return " and ".join(f"{words} {getattr(domain, bound)}" for words, bound in bounds if domain.HasField(bound))
    shared = {domain.name: domain for domain in schema.string_domain}
    domain = shared.get(feature.domain, feature.string_domain) if domain_kind == "domain" else feature.string_domain
    return f"one of {_list_some([repr(value) for value in domain.value])}"


def _list_some(values: list[str]) -> str:
    more = len(values) - _MOST_VALUES_LISTED
    return ", ".join(values[:_MOST_VALUES_LISTED]) + (f" and {more} more" if more > 0 else "")


def _own_words(reason: _Reason) -> str:
    text = (reason.description or reason.short_description).strip().rstrip(".")
    return f"does not match the schema: {_shorten(text)}"


def _shorten(text: str) -> str:
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}…"
