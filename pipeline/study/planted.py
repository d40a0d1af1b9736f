"""How a model answers to the effects planted in a synthetic world: the same request, with one thing changed.

* `hour`: whoever comes back at nine in the evening wants other genres than at nine in the morning. The response is the
  share of evening genres' titles among the first ten in the evening, minus that in the morning.
* `sequence`: whoever has just seen a title wants its sequel. The response is the share of sequels of the latest
  visit's titles among the first ten, minus the same with that visit left out of the history.

A model that cannot see what changes answers both requests alike: its response is 0 for every user.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
import tensorflow as tf

from modules.features import HISTORY_ITEM_IDS, HISTORY_TIMESTAMPS, SEEN_ITEM_IDS, TIMESTAMP, USER_ID
from pipeline.datasets.synthetic import SyntheticWorld
from pipeline.datasets.synthetic_entities import EVENING_GENRES, GENRES, SECONDS_PER_DAY

Effect = Literal["sequence", "hour"]
EFFECTS: tuple[Effect, ...] = typing.get_args(Effect)

Recommend = Callable[[Sequence[bytes]], np.ndarray]
"""From serialized tf.Examples to the item ids recommended, bytes `[batch, K]`, best first."""

_LENGTH = 10
_MORNING_HOUR, _EVENING_HOUR = 9, 21


@dataclasses.dataclass(frozen=True)
class Responses:
    """What users' requests brought about.

    Attributes:
      users: ids.
      values: by effect, float64 `[users]`; NaN where a user's request cannot show it.
    """

    users: Sequence[str]
    values: Mapping[str, np.ndarray]


def measure_responses(world: SyntheticWorld, serialized: Iterable[bytes], recommend: Recommend) -> Responses:
    """Asks for the first request with a history of every user, once for each side of each effect.

    Args:
      world: where the examples are from.
      serialized: raw tf.Examples, in order of time.
      recommend: the model.
    """
    requests = _first_requests(serialized)
    values = {"sequence": _sequence(world, requests, recommend), "hour": _hour(world, requests, recommend)}
    return Responses([_texts(request, USER_ID)[0] for request in requests], values)


def _first_requests(serialized: Iterable[bytes]) -> list[tf.train.Example]:
    requests: dict[str, tf.train.Example] = {}
    for content in serialized:
        example = tf.train.Example.FromString(content)
        if _texts(example, HISTORY_ITEM_IDS):
            requests.setdefault(_texts(example, USER_ID)[0], example)
    return list(requests.values())


def _hour(world: SyntheticWorld, requests: Sequence[tf.train.Example], recommend: Recommend) -> np.ndarray:
    genres = world.catalogue.genres[:, np.isin(GENRES, EVENING_GENRES)].any(axis=1)
    evening = {item.encode() for item, is_evening in zip(world.item_ids, genres, strict=True) if is_evening}

    def share(hour: int) -> np.ndarray:
        lists = recommend([_at_hour(request, hour).SerializeToString() for request in requests])[:, :_LENGTH]
        return np.array([[item in evening for item in row] for row in lists]).mean(axis=1)

    return share(_EVENING_HOUR) - share(_MORNING_HOUR)


def _sequence(world: SyntheticWorld, requests: Sequence[tf.train.Example], recommend: Recommend) -> np.ndarray:
    rows = {item: row for row, item in enumerate(world.item_ids)}
    sequels = []
    for request in requests:
        seen, latest = set(_texts(request, SEEN_ITEM_IDS)), _latest_visit(request)
        items = [item for item, is_latest in zip(_texts(request, HISTORY_ITEM_IDS), latest, strict=True) if is_latest]
        successors = [world.catalogue.successors[rows[item]] for item in items]
        wanted = {world.item_ids[row] for row in successors if row >= 0} - seen
        sequels.append({item.encode() for item in wanted})

    def share(changed: Sequence[tf.train.Example]) -> np.ndarray:
        lists = recommend([request.SerializeToString() for request in changed])[:, :_LENGTH]
        found = [len(wanted & set(row)) for wanted, row in zip(sequels, lists.tolist(), strict=True)]
        sizes = np.array([len(wanted) for wanted in sequels], float)
        return np.divide(found, sizes, out=np.full(len(sizes), np.nan), where=sizes > 0)

    return share(requests) - share([_without_latest_visit(request) for request in requests])


def _at_hour(request: tf.train.Example, hour: int) -> tf.train.Example:
    """On the day after, so that the history stays in the past."""
    changed = tf.train.Example.FromString(request.SerializeToString())
    values = changed.features.feature[TIMESTAMP].int64_list.value
    values[0] = (values[0] // SECONDS_PER_DAY + 1) * SECONDS_PER_DAY + hour * 3600
    return changed


def _without_latest_visit(request: tf.train.Example) -> tf.train.Example:
    """What was seen stays masked, so that the candidates are the same."""
    changed = tf.train.Example.FromString(request.SerializeToString())
    latest = _latest_visit(request)
    for name, feature in changed.features.feature.items():
        if name.startswith("history_"):
            values = getattr(feature, feature.WhichOneof("kind")).value
            kept = [value for value, is_latest in zip(values, latest, strict=True) if not is_latest]
            del values[:]
            values.extend(kept)
    return changed


def _latest_visit(request: tf.train.Example) -> list[bool]:
    times = request.features.feature[HISTORY_TIMESTAMPS].int64_list.value
    return [time == max(times) for time in times]


def _texts(example: tf.train.Example, name: str) -> list[str]:
    return [value.decode() for value in example.features.feature[name].bytes_list.value]
