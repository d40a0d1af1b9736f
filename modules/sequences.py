"""Whole user sequences: what deep sequence models train on, all positions in one pass.

A user's interactions, in order of time, are cut into chunks. A chunk holds *events* (titles taken) and *queries* (one
for each distinct instant: somebody came back then, with the context of one of its events), and a query's *targets* are
all titles taken at its instant. What a query or an event may look at ends at its `start`, the position of the first
event of its own instant: events of the same instant do not see each other, as in the examples that are served.

Each chunk begins with the last `window` events before it, as context without targets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import tensorflow as tf

from modules.derived_names import USER_KEY
from modules.features import ITEM_ID, TIMESTAMP
from modules.training_data import TrainingData, without_autotune

EVENT_ITEM_IDS = "event_item_ids"
EVENT_FEEDBACK = "event_feedback"
EVENT_SECONDS = "event_seconds"
EVENT_LOG_STEPS = "event_log_steps"
EVENT_STARTS = "event_starts"
QUERY_SECONDS = "query_seconds"
QUERY_STARTS = "query_starts"
TARGET_QUERIES = "target_queries"
TARGET_ITEM_IDS = "target_item_ids"
TARGET_WEIGHTS = "target_weights"
SEEN_ROWS = "seen_rows"
SEEN_ITEM_IDS = "seen_ids"
SEEN_INSTANTS = "seen_instants"
QUERY_ROWS = "query_rows"
QUERY_INSTANTS = "query_instants"
QUERY_POSITIONS = "query_positions"

_BUCKET_ROWS = 16


@dataclasses.dataclass(frozen=True)
class Chunk:
    """A part of one user's sequence, as slices of `UserSequences`.

    Attributes:
      user: slice of all events of the user.
      events: slice of its events, context included.
      queries: slice of its queries.
      targets: slice of the events that are targets.
    """

    user: slice
    events: slice
    queries: slice
    targets: slice


@dataclasses.dataclass(frozen=True)
class UserSequences:
    """All interactions by user and time, and the queries they answer; a few dozen bytes for each of them.

    Attributes:
      item_ids: vocabulary ids, int64 `[events]`.
      feedback: feedback buckets, int64 `[events]`; 0 where there is no feedback.
      timestamps: seconds, int64 `[events]`.
      query_of_event: the query that each event is a target of, int64 `[events]`.
      first_event: the first event of each query's instant, int64 `[queries]`.
      query_features: transformed features of the queries, each `[queries, ...]`.
      user_bounds: where each user's events begin, and the end, int64 `[users + 1]`.
      weights: what each event counts for as a target, float32 `[events]`; None if all count alike.
    """

    item_ids: np.ndarray
    feedback: np.ndarray
    timestamps: np.ndarray
    query_of_event: np.ndarray
    first_event: np.ndarray
    query_features: Mapping[str, np.ndarray]
    user_bounds: np.ndarray
    weights: np.ndarray | None = None

    @property
    def num_targets(self) -> int:
        """Number of interactions."""
        return len(self.item_ids)

    def chunks(self, window: int, length: int) -> list[Chunk]:
        """Cuts the sequences.

        Args:
          window: events of context before a chunk.
          length: targets per chunk at most, but for instants that have more.
        """
        result = []
        for begin, end in zip(self.user_bounds[:-1], self.user_bounds[1:], strict=True):
            first = int(begin)
            while first < end:
                last = min(first + length, int(end))
                if last < end:  # Never cut within an instant, unless it is all there is.
                    boundary = int(self.first_event[self.query_of_event[last]])
                    last = boundary if boundary > first else last
                    while last < end and self.query_of_event[last] == self.query_of_event[last - 1]:
                        last += 1
                queries = slice(int(self.query_of_event[first]), int(self.query_of_event[last - 1]) + 1)
                events = slice(max(int(begin), first - window), last)
                result.append(Chunk(slice(int(begin), last), events, queries, slice(first, last)))
                first = last
        return result


def read_sequences(
    data: TrainingData, split: str, query_features: Sequence[str], feedback: str | None
) -> UserSequences:
    """Reads the sequences of a split.

    Args:
      data: the transformed splits.
      split: name of the split.
      query_features: transformed features of the queries to keep.
      feedback: transformed feature that holds an interaction's own feedback bucket, or None.
    """
    names = dict.fromkeys([USER_KEY, ITEM_ID, TIMESTAMP, *query_features, *([feedback] if feedback else [])])
    merged = data.read(split, tuple(names))
    weights = data.read_weights(split)
    order = np.lexsort((merged[ITEM_ID], merged[TIMESTAMP], merged[USER_KEY]))
    users, times = merged[USER_KEY][order], merged[TIMESTAMP][order]
    new_user = np.diff(users, prepend=users[:1] - 1) != 0
    new_instant = new_user | (np.diff(times, prepend=times[:1] - 1) != 0)
    first_event = np.flatnonzero(new_instant)
    return UserSequences(
        item_ids=merged[ITEM_ID][order],
        feedback=merged[feedback][order] if feedback else np.zeros(len(order), np.int64),
        timestamps=times,
        query_of_event=np.cumsum(new_instant) - 1,
        first_event=first_event,
        query_features={name: merged[name][order][first_event] for name in query_features},
        user_bounds=np.append(np.flatnonzero(new_user), len(order)),
        weights=None if weights is None else weights[order],
    )


def sequence_batches(
    sequences: UserSequences, window: int, length: int, targets_per_batch: int, seed: int
) -> tf.data.Dataset:
    """Returns shuffled batches of chunks of similar size; every pass has a new order.

    A batch of chunks, padded to `[rows, events]`, whose `N` queries and `T` targets are listed without padding:

    | key | shape | |
    | --- | --- | --- |
    | `event_item_ids`, `event_feedback` | int64 `[rows, events]` | 0 = padding |
    | `event_seconds` | int32 `[rows, events]` | since the chunk's first event |
    | `event_log_steps` | float32 `[rows, events]` | see `history_log_steps` |
    | `event_starts` | int32 `[rows, events]` | first position of the event's instant |
    | `query_seconds`, `query_starts` | int32 `[rows, queries]` | -1 as start = padding |
    | `query_rows`, `query_positions` | int64 `[N]` | where each query lies |
    | `query_instants` | int32 `[N]` | number of the query's instant, counted over its user's sequence |
    | query features | `[N, ...]` | |
    | `target_queries`, `target_item_ids` | int64 `[T]` | |
    | `target_weights` | float32 `[T]` | only where interactions are weighed |
    | `seen_rows`, `seen_ids`, `seen_instants` | `[S]` | when the user of a row first took a title |

    Args:
      sequences: the sequences.
      window: events that a query sees.
      length: targets per chunk.
      targets_per_batch: about how many targets a batch has.
      seed: seed of the order.
    """
    chunks = sequences.chunks(window, length)
    sizes = np.array([chunk.events.stop - chunk.events.start for chunk in chunks])
    targets = np.array([chunk.targets.stop - chunk.targets.start for chunk in chunks])
    generator = np.random.default_rng(seed)

    def generate() -> Iterator[dict[str, np.ndarray]]:
        # Chunks of a size, give or take a few, go together: little padding, yet always other neighbours.
        jitter = generator.uniform(0, _BUCKET_ROWS, len(chunks))
        order = np.argsort(sizes + jitter, kind="stable")
        cumulative = np.cumsum(targets[order])
        batch_of = (cumulative - 1) // targets_per_batch
        groups = np.split(order, np.flatnonzero(np.diff(batch_of)) + 1)
        for group in generator.permutation(len(groups)):
            yield make_batch(sequences, [chunks[number] for number in groups[group]], window)

    example = make_batch(sequences, chunks[:1], window)
    signature = {
        name: tf.TensorSpec([None, None] if value.ndim == 2 else [None, *value.shape[1:]], value.dtype)
        for name, value in example.items()
    }
    for name in sequences.query_features:
        signature[name] = tf.TensorSpec([None, *example[name].shape[1:]], example[name].dtype)
    return without_autotune(tf.data.Dataset.from_generator(generate, output_signature=signature).prefetch(4))


def make_batch(sequences: UserSequences, chunks: Sequence[Chunk], window: int) -> dict[str, np.ndarray]:
    """Pads chunks to a batch; see `sequence_batches`."""
    rows = len(chunks)
    events = max(chunk.events.stop - chunk.events.start for chunk in chunks)
    queries = max(chunk.queries.stop - chunk.queries.start for chunk in chunks)
    batch = {name: np.zeros((rows, events), np.int64) for name in (EVENT_ITEM_IDS, EVENT_FEEDBACK)}
    batch |= {name: np.zeros((rows, events), np.int32) for name in (EVENT_SECONDS, EVENT_STARTS)}
    batch[EVENT_LOG_STEPS] = np.zeros((rows, events), np.float32)
    batch[QUERY_SECONDS] = np.zeros((rows, queries), np.int32)
    batch[QUERY_STARTS] = np.full((rows, queries), -1, np.int32)
    lists: dict[str, list[np.ndarray]] = {
        name: []
        for name in (
            *(QUERY_ROWS, QUERY_POSITIONS, QUERY_INSTANTS),
            *(TARGET_QUERIES, TARGET_ITEM_IDS),
            *(SEEN_ROWS, SEEN_ITEM_IDS, SEEN_INSTANTS),
        )
    }
    query_count = 0
    for row, chunk in enumerate(chunks):
        begin, size = chunk.events.start, chunk.events.stop - chunk.events.start
        own_queries = sequences.query_of_event[chunk.events]
        # int32 seconds since the chunk's first event reach over 68 years.
        origin = sequences.timestamps[begin]
        batch[EVENT_ITEM_IDS][row, :size] = sequences.item_ids[chunk.events]
        batch[EVENT_FEEDBACK][row, :size] = sequences.feedback[chunk.events]
        batch[EVENT_SECONDS][row, :size] = sequences.timestamps[chunk.events] - origin
        batch[EVENT_STARTS][row, :size] = np.maximum(sequences.first_event[own_queries] - begin, 0)
        before = np.maximum(np.arange(begin, chunk.events.stop) - 1, chunk.user.start)
        steps = np.log1p(sequences.timestamps[chunk.events] - sequences.timestamps[before]).astype(np.float32)
        batch[EVENT_LOG_STEPS][row, :size] = np.where(
            np.arange(begin, chunk.events.stop) == chunk.user.start, np.float32(-1), steps
        )
        count = chunk.queries.stop - chunk.queries.start
        first = sequences.first_event[chunk.queries]
        batch[QUERY_SECONDS][row, :count] = sequences.timestamps[first] - origin
        batch[QUERY_STARTS][row, :count] = first - begin
        first_query = sequences.query_of_event[chunk.user.start]
        lists[QUERY_ROWS].append(np.full(count, row, np.int64))
        lists[QUERY_POSITIONS].append(np.arange(count, dtype=np.int64))
        own_instants = np.arange(chunk.queries.start, chunk.queries.stop) - first_query
        lists[QUERY_INSTANTS].append(own_instants.astype(np.int32))
        lists[TARGET_QUERIES].append(sequences.query_of_event[chunk.targets] - chunk.queries.start + query_count)
        lists[TARGET_ITEM_IDS].append(sequences.item_ids[chunk.targets])
        query_count += count
        taken, where = np.unique(sequences.item_ids[chunk.user], return_index=True)
        lists[SEEN_ROWS].append(np.full(len(taken), row, np.int64))
        lists[SEEN_ITEM_IDS].append(taken)
        instants = sequences.query_of_event[chunk.user.start + where] - first_query
        lists[SEEN_INSTANTS].append(instants.astype(np.int32))
    batch |= {name: np.concatenate(values) for name, values in lists.items()}
    if sequences.weights is not None:
        batch[TARGET_WEIGHTS] = np.concatenate([sequences.weights[chunk.targets] for chunk in chunks])
    for name, values in sequences.query_features.items():
        batch[name] = np.concatenate([values[chunk.queries] for chunk in chunks])
    return batch
