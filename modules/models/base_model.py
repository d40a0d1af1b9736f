"""Warm starts: a fit that begins with the weights of an exported model instead of random ones.

The weights are read from the SavedModel's own variables, and the tokens that its ids stand for from its vocabulary
assets; beside them, a small file says which rows of which weight belong to which vocabulary. So a pushed version's
folder is all that is needed, and no weight is stored twice.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import tensorflow as tf
from tensorflow.core.protobuf import trackable_object_graph_pb2

from modules.features import ITEM_ID
from modules.model_inputs import ModelInput
from modules.models.carry_over import RowCounts, Rows, base_rows, continue_rows

DESCRIPTION_FILE = os.path.join("assets.extra", "warm_start.json")
"""Below the SavedModel's folder: the models within it, their weights and what the rows of these stand for."""

_SCORER = "_scorer"  # Where `ServingModule` keeps what was fitted.
_VARIABLES = os.path.join("variables", "variables")
_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"

RowsOfWeight = tuple[tf.Variable, Sequence[Rows]]
"""A weight and what its rows, along the first axis, stand for."""


class TrainedModel(Protocol):
    """A model whose weights a later fit may continue."""

    def rows_of_weights(self) -> Sequence[RowsOfWeight]:
        """Returns the weights that have rows for tokens, buckets or features; all others are continued as a whole."""


@dataclasses.dataclass(frozen=True)
class ModelStart:
    """How a model began.

    Attributes:
      family: its family.
      carried_weights: names of the weights that continue those of the base model.
      fresh_weights: names of those that do not, because the base model has none of that name and shape.
      rows: what became of the tokens' rows, summed over weights.
      reason: why nothing was carried over; empty if something was.
      validation_before: validation metric before the first step, if it was computed.
    """

    family: str
    carried_weights: Sequence[str] = ()
    fresh_weights: Sequence[str] = ()
    rows: RowCounts = dataclasses.field(default_factory=RowCounts)
    reason: str = ""
    validation_before: float | None = None

    def told(self) -> str:
        """Returns a line for the user."""
        if not self.carried_weights:
            return f"{self.family}: cold start: {self.reason}"
        rows, total = self.rows, len(self.carried_weights) + len(self.fresh_weights)
        fresh = f" (fresh: {', '.join(self.fresh_weights)})" if self.fresh_weights else ""
        return (
            f"{self.family}: warm start: {len(self.carried_weights)} of {total} weights carried over{fresh}; "
            f"rows of tokens: {rows.carried} carried over, {rows.from_unknown} new as the unknown one, "
            f"{rows.fresh} new and fresh, {rows.lost} lost"
        )


@dataclasses.dataclass(frozen=True)
class BaseModel:
    """An exported model that fits may continue, or a part of one.

    Attributes:
      path: folder of the SavedModel.
      description: contents of `DESCRIPTION_FILE`.
      vocabulary: returns the new data's tokens of a vocabulary, in order of their ids.
      learning_rate_factor: factor on the peak learning rate of models that continue.
      part: path of the model or scorer that is meant, below the scorer of the whole.
      starts: how the models of this fit began, by their path; fits add to it.
    """

    path: str
    description: Mapping[str, Any]
    vocabulary: Callable[[str], Sequence[bytes]]
    learning_rate_factor: float = 1.0
    part: str = ""
    starts: dict[str, ModelStart] = dataclasses.field(default_factory=dict)

    def below(self, part: str) -> BaseModel:
        """Returns a part: the scorer that is the attribute `part` of this one."""
        return dataclasses.replace(self, part=_joined(self.part, part))

    def continue_into(self, model: TrainedModel, name: str, family: str) -> ModelStart:
        """Overwrites a new model's initial weights by those of the base model, as far as they fit.

        Args:
          model: the new model; its variables exist.
          name: the attribute under which its scorer keeps it.
          family: its family.
        """
        path = _joined(self.part, name)
        described = next((entry for entry in self.description["models"] if entry["path"] == path), None)
        if described is None or described["family"] != family:
            found = sorted({entry["family"] for entry in self.description["models"]})
            start = ModelStart(
                family,
                fresh_weights=sorted(weights_by_path(model)),
                reason=f"the base model has no {family!r} in this place; it holds {found}",
            )
        else:
            start = self._continue(model, path, family, described["weights"])
        self.starts[path] = start
        return start

    def note_validation(self, name: str, value: float) -> None:
        """Records the validation metric of a model before its first step."""
        path = _joined(self.part, name)
        self.starts[path] = dataclasses.replace(self.starts[path], validation_before=value)

    def _continue(
        self, model: TrainedModel, path: str, family: str, described: Mapping[str, Mapping[str, Any]]
    ) -> ModelStart:
        reader = tf.train.load_checkpoint(os.path.join(self.path, _VARIABLES))
        keys = _checkpoint_keys(reader, _joined(_SCORER, path), described)
        layouts = {id(weight): tuple(rows) for weight, rows in model.rows_of_weights()}
        # Several weights have rows of the same vocabulary, which may be long.
        vocabulary, base_vocabulary = functools.cache(self.vocabulary), functools.cache(self._base_vocabulary)
        carried, fresh, counts = [], [], RowCounts()
        for name, weight in sorted(weights_by_path(model).items()):
            value = reader.get_tensor(keys[name]) if name in keys else None
            new_rows = layouts.get(id(weight))
            rows_of_base = [Rows(**rows) for rows in described.get(name, {}).get("rows", ())]
            shape = tuple(weight.shape)
            if value is None or bool(new_rows) != bool(rows_of_base):
                fresh.append(name)
            elif new_rows and value.shape[1:] == shape[1:]:
                sources, of_weight = base_rows(
                    new_rows, rows_of_base, _tokens(new_rows, vocabulary), _tokens(rows_of_base, base_vocabulary)
                )
                weight.assign(continue_rows(weight.numpy(), value, sources))
                counts += of_weight
                carried.append(name)
            elif value.shape == shape:
                weight.assign(value)
                carried.append(name)
            else:
                fresh.append(name)
        reason = "" if carried else "no weight of the base model has the name and shape of a new one"
        return ModelStart(family, carried, fresh, counts, reason)

    def _base_vocabulary(self, name: str) -> Sequence[bytes]:
        with tf.io.gfile.GFile(os.path.join(self.path, self.description["vocabularies"][name]), "rb") as file:
            return [line.rstrip(b"\n") for line in file]


def read_base_model(
    path: str | None, vocabulary: Callable[[str], Sequence[bytes]], learning_rate_factor: float
) -> tuple[BaseModel | None, str]:
    """Reads what an exported model says of its weights.

    Args:
      path: folder of a SavedModel, or None. A folder without a model means, like None, that there is no base model.
      vocabulary: see `BaseModel`.
      learning_rate_factor: see `BaseModel`.

    Returns:
      The base model; or None, and why there is none.
    """
    if not path or not tf.io.gfile.exists(os.path.join(path, "saved_model.pb")):
        return None, "there is no base model"
    file_name = os.path.join(path, DESCRIPTION_FILE)
    if not tf.io.gfile.exists(file_name):
        return None, f"the base model {path} has no {DESCRIPTION_FILE}: it was exported by an earlier version"
    with tf.io.gfile.GFile(file_name) as file:
        return BaseModel(path, json.loads(file.read()), vocabulary, learning_rate_factor), ""


def write_description(saved_model: str, models: Mapping[str, tuple[str, TrainedModel]]) -> None:
    """Writes what a later fit needs to know to continue this model.

    Args:
      saved_model: folder of the SavedModel, which gets the file `DESCRIPTION_FILE`.
      models: family and model, by path below the scorer; see `Scorer.trained_models`.

    Raises:
      FileNotFoundError: if the SavedModel has no asset for a vocabulary.
    """
    entries, vocabularies = [], set()
    for path, (family, model) in sorted(models.items()):
        layouts = {id(weight): rows for weight, rows in model.rows_of_weights()}
        weights = {}
        for name, weight in sorted(weights_by_path(model).items()):
            rows = [dataclasses.asdict(part) for part in layouts.get(id(weight), ())]
            vocabularies |= {part["vocabulary"] for part in rows if part["vocabulary"]}
            weights[name] = {"shape": weight.shape.as_list(), **({"rows": rows} if rows else {})}
        entries.append({"path": path, "family": family, "weights": weights})
    assets = {name: os.path.join("assets", name) for name in sorted(vocabularies)}
    for asset in assets.values():
        if not tf.io.gfile.exists(os.path.join(saved_model, asset)):
            raise FileNotFoundError(f"{saved_model} has no vocabulary {asset!r}, without which no fit can continue it")
    path = os.path.join(saved_model, DESCRIPTION_FILE)
    tf.io.gfile.makedirs(os.path.dirname(path))
    with tf.io.gfile.GFile(path, "w") as file:
        file.write(json.dumps({"vocabularies": assets, "models": entries}, sort_keys=True))


def weights_by_path(model: Any) -> dict[str, tf.Variable]:
    """Returns a model's weights by the attributes that lead to them, e.g. `item_tower/_ids/embeddings`.

    These names, unlike those of variables, do not depend on what else was created in the process.
    """
    wanted = {id(weight) for weight in model.weights}
    view = tf.train.TrackableView(model)
    found: dict[str, tf.Variable] = {}
    seen, queue = {id(model)}, deque([("", model)])
    while queue:
        path, node = queue.popleft()
        for name, child in view.children(node).items():
            if id(child) in seen:
                continue
            seen.add(id(child))
            if id(child) in wanted:
                found[_joined(path, name)] = child
            queue.append((_joined(path, name), child))
    return found


def item_rows(size: int, item_id_dropout: float = 0.0) -> tuple[Rows, ...]:
    """Returns the rows of a weight with one for each title.

    Args:
      size: number of item ids.
      item_id_dropout: share of ids that training hides; if there are any, the unknown title's row is learned.
    """
    return (Rows(ITEM_ID, size, ITEM_ID, unknown_is_learned=item_id_dropout > 0),)


def category_rows(inputs: Sequence[ModelInput]) -> tuple[Rows, ...]:
    """Returns the rows of a common table of ids, one after the other for each feature."""
    return tuple(Rows(feature.name, feature.size, feature.vocabulary) for feature in inputs)


def number_rows(names: Sequence[str]) -> tuple[Rows, ...]:
    """Returns the rows of a linear layer on numbers, by their names."""
    return tuple(Rows(name, 1) for name in names)


def _tokens(rows: Sequence[Rows], vocabulary: Callable[[str], Sequence[bytes]]) -> dict[str, Sequence[bytes]]:
    """Returns the tokens of each vocabulary that rows are of."""
    return {part.vocabulary: vocabulary(part.vocabulary) for part in rows if part.vocabulary}


def _checkpoint_keys(reader: Any, root: str, names: Mapping[str, Any]) -> dict[str, str]:
    """Returns the checkpoint's key of each weight, found by the attributes that lead to it.

    Args:
      reader: reads the SavedModel's variables.
      root: path of the model within the SavedModel.
      names: paths of the weights below it.
    """
    graph = trackable_object_graph_pb2.TrackableObjectGraph.FromString(reader.get_tensor(_OBJECT_GRAPH))
    keys = {}
    for name in names:
        node = graph.nodes[0]
        for part in _joined(root, name).split("/"):
            children = {child.local_name: child.node_id for child in node.children}
            node = graph.nodes[children[part]]
        keys[name] = node.attributes[0].checkpoint_key
    return keys


def _joined(*parts: str) -> str:
    return "/".join(part for part in parts if part)
