"""Some users of the test split: what they had seen, what the model recommends to them and what they took next."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow_metadata.proto.v0 import schema_pb2

from modules import features
from modules.features import Column, ColumnTable, Kind, Role
from pipeline.report.feature_statistics import as_date
from pipeline.serving.messages import example_pb2, predict_pb2
from pipeline.serving.server.servable import Servable
from pipeline.serving.tensors import read_tensor, string_array, write_tensor

USERS = 10
RECOMMENDATIONS = 10
LAST_TITLES = 5
_MOST_EXAMPLES = 200_000
_PARSE_BATCH = 4_096


@dataclasses.dataclass(frozen=True)
class Title:
    """A title as a reader knows it.

    Attributes:
      item_id: its raw id.
      name: what it is called; the id if the catalogue does not say.
      details: its other columns, as text.
    """

    item_id: str
    name: str
    details: str = ""


@dataclasses.dataclass(frozen=True)
class Recommendation:
    """One place of a list.

    Attributes:
      title: what is recommended.
      score: the model's.
      taken: `next` if it was taken next, `later` if later in the test split, otherwise empty.
    """

    title: Title
    score: float
    taken: str


@dataclasses.dataclass(frozen=True)
class ExampleUser:
    """One user at their first event of the test split.

    Attributes:
      user_id: their raw id.
      profile: their columns, as text.
      activity: titles seen before.
      day: of that event.
      last_titles: the latest of them, the latest first.
      recommendations: the first places of the model's list.
      taken_next: what was taken in that very second, with its place in the list; None if it is not on it.
      taken_later: titles taken later in the test split.
    """

    user_id: str
    profile: str
    activity: int
    day: str
    last_titles: tuple[Title, ...]
    recommendations: tuple[Recommendation, ...]
    taken_next: tuple[tuple[Title, int | None], ...]
    taken_later: int


@dataclasses.dataclass(frozen=True)
class FirstEvent:
    """A user's first event of the test split.

    Attributes:
      timestamp: seconds since 1970.
      activity: titles seen before.
      record: the serialized example.
      titles: all their titles of the test split, with the time of each.
    """

    timestamp: int
    activity: int
    record: bytes
    titles: tuple[tuple[int, str], ...]


def example_users(
    test_folder: Path, catalogue_folder: Path, model: Path, columns: ColumnTable, count: int = USERS
) -> list[ExampleUser]:
    """Asks the exported model about some users of the test split, the new ones first.

    Args:
      test_folder: TFRecord files of the test split's raw examples; of very many, the first are looked at.
      catalogue_folder: TFRecord files of the catalogue's examples.
      model: the SavedModel.
      columns: roles of the raw columns.
      count: how many users.

    Raises:
      StatusError: if the model cannot be loaded or does not answer.
    """
    events = _first_events(test_folder, columns)
    chosen = choose_users({user: event.activity for user, event in events.items()}, count)
    lists = _recommend(model, [events[user].record for user in chosen])
    examples = {user: example_pb2.Example.FromString(events[user].record) for user in chosen}
    wanted = {item for user in chosen for _, item in events[user].titles}
    wanted |= {item for answer in lists for item, _ in answer[:RECOMMENDATIONS]}
    for example in examples.values():
        wanted |= set(_texts(example, features.HISTORY_ITEM_IDS)[-LAST_TITLES:])
    titles = _read_titles(catalogue_folder, columns, wanted)
    return [
        _describe(user, events[user], examples[user], answer, titles, columns)
        for user, answer in zip(chosen, lists, strict=True)
    ]


def choose_users(activities: Mapping[str, int], count: int) -> list[str]:
    """Returns users spread evenly over the logarithm of their activity, from the least active to the most.

    The choice depends on nothing else: of users equally near to a mark, the less active comes first, then the first by
    id.

    Args:
      activities: titles seen, by user.
      count: how many users; fewer if there are no more.
    """
    if not activities or count < 1:
        return []
    low, high = (math.log1p(bound(activities.values())) for bound in (min, max))
    marks = [low + (high - low) * step / max(count - 1, 1) for step in range(count)]
    left = dict(activities)
    chosen = []
    for mark in marks[: len(activities)]:
        user = min(left, key=lambda user: (abs(math.log1p(left[user]) - mark), left[user], user))
        chosen.append(user)
        del left[user]
    return sorted(chosen, key=lambda user: (activities[user], user))


def name_column(columns: ColumnTable) -> Column | None:
    """Returns the column that says what a title is called: the first text, or else the first single string."""
    described = columns.with_role(Role.ITEM)
    texts = [column for column in described if column.kind is Kind.TEXT]
    strings = [column for column in described if column.type == schema_pb2.BYTES and not column.multivalent]
    return next(iter([*texts, *strings]), None)


def _first_events(folder: Path, columns: ColumnTable) -> dict[str, FirstEvent]:
    (user_id,), (item_id,), (timestamp,) = (
        columns.names(role) for role in (Role.USER_ID, Role.ITEM_ID, Role.TIMESTAMP)
    )
    spec = {name: tf.io.FixedLenFeature([], tf.string, "") for name in (user_id, item_id)}
    spec |= {timestamp: tf.io.FixedLenFeature([], tf.int64, 0), features.SEEN_ITEM_IDS: tf.io.VarLenFeature(tf.string)}
    first: dict[str, tuple[int, int, bytes]] = {}
    titles: dict[str, list[tuple[int, str]]] = {}
    for records in _batches(folder, _MOST_EXAMPLES):
        parsed = tf.io.parse_example(records, spec)
        seen = np.bincount(parsed[features.SEEN_ITEM_IDS].indices.numpy()[:, 0], minlength=len(records))
        rows = (parsed[name].numpy().tolist() for name in (user_id, item_id, timestamp))
        for user, item, time, activity, record in zip(*rows, seen.tolist(), records.numpy(), strict=True):
            name = _text(user)
            titles.setdefault(name, []).append((time, _text(item)))
            if name not in first or time < first[name][0]:
                first[name] = (time, activity, record)
    return {
        user: FirstEvent(time, activity, record, tuple(sorted(titles[user])))
        for user, (time, activity, record) in first.items()
    }


def _recommend(model: Path, records: Sequence[bytes]) -> list[list[tuple[str, float]]]:
    """Returns titles and scores for each record, the best first."""
    if not records:
        return []
    request = predict_pb2.PredictRequest()
    write_tensor(string_array(list(records)), request.inputs["examples"])
    servable = Servable(str(model), warm_up=False)
    try:
        response = servable.predict(request)
    finally:
        servable.close()
    ids, scores = (read_tensor(response.outputs[name]) for name in ("item_ids", "scores"))
    return [
        [(_text(item), float(score)) for item, score in zip(*row, strict=True) if item]
        for row in zip(ids, scores, strict=True)
    ]


def _describe(
    user: str,
    event: FirstEvent,
    example: example_pb2.Example,
    answer: Sequence[tuple[str, float]],
    titles: Mapping[str, Title],
    columns: ColumnTable,
) -> ExampleUser:
    taken_next = {item for time, item in event.titles if time == event.timestamp}
    taken_later = {item for _, item in event.titles} - taken_next
    places = {item: place for place, (item, _) in enumerate(answer, start=1)}

    def title(item: str) -> Title:
        return titles.get(item, Title(item, item))

    def taken(item: str) -> str:
        return "next" if item in taken_next else "later" if item in taken_later else ""

    profile = [f"{name} {told}" for name in columns.names(Role.USER) if (told := _told(example, name))]
    history = _texts(example, features.HISTORY_ITEM_IDS)[-LAST_TITLES:]
    return ExampleUser(
        user_id=user,
        profile=", ".join(profile),
        activity=event.activity,
        day=as_date(event.timestamp),
        last_titles=tuple(title(item) for item in reversed(history)),
        recommendations=tuple(
            Recommendation(title(item), score, taken(item)) for item, score in answer[:RECOMMENDATIONS]
        ),
        taken_next=tuple((title(item), places.get(item)) for item in sorted(taken_next)),
        taken_later=len(taken_later),
    )


def _read_titles(folder: Path, columns: ColumnTable, wanted: Collection[str]) -> dict[str, Title]:
    (item_id,) = columns.names(Role.ITEM_ID)
    named = name_column(columns)
    others = [name for name in columns.names(Role.ITEM) if named is None or name != named.name]
    spec = {item_id: tf.io.FixedLenFeature([], tf.string, "")}
    found: dict[str, Title] = {}
    for records in _batches(folder):
        for item, record in zip(tf.io.parse_example(records, spec)[item_id].numpy(), records.numpy(), strict=True):
            if (key := _text(item)) in wanted:
                example = example_pb2.Example.FromString(record)
                name = _told(example, named.name) if named is not None else ""
                found[key] = Title(
                    key, name or key, " · ".join(told for one in others if (told := _told(example, one)))
                )
    return found


def _batches(folder: Path, most: int = -1) -> Iterable[tf.Tensor]:
    files = sorted(map(str, folder.glob("*")))
    records = tf.data.TFRecordDataset(files, compression_type="GZIP")
    return records.take(most).batch(_PARSE_BATCH)


def _told(example: example_pb2.Example, name: str) -> str:
    return ", ".join(_values(example, name))


def _texts(example: example_pb2.Example, name: str) -> list[str]:
    return [_text(value) for value in example.features.feature[name].bytes_list.value]


def _values(example: example_pb2.Example, name: str) -> Iterator[str]:
    feature = example.features.feature[name]
    kind = feature.WhichOneof("kind")
    for value in getattr(feature, kind).value if kind else ():
        yield _text(value) if isinstance(value, bytes) else f"{value:g}" if isinstance(value, float) else str(value)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")
