"""Which transformed features a model may use, and in which form: derived from the schema and the feature groups."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Collection

import tensorflow_transform as tft

from modules import preprocessing
from modules.features import Column, ColumnTable, Kind, Role, history_feature_name


class Form(enum.Enum):
    """The form of a model input."""

    ID = "id"
    """int64 `[batch]` in `[0, size)`, 0 = missing."""
    ID_BAG = "id_bag"
    """int64 `[batch, length]` in `[0, size)`, 0 = padding."""
    NUMBER = "number"
    """float32 `[batch]`."""


@dataclasses.dataclass(frozen=True)
class ModelInput:
    """One transformed feature.

    Attributes:
      name: feature name in the transformed examples.
      form: shape and meaning of its values.
      size: number of ids, for the id forms.
      vocabulary: name of the vocabulary that the ids are of; None where they are buckets or the like.
    """

    name: str
    form: Form
    size: int = 0
    vocabulary: str | None = None


@dataclasses.dataclass(frozen=True)
class ModelInputs:
    """The features of each side of a recommender, and the sizes it needs.

    Attributes:
      query: features of the user, the context and the time of a request.
      item: features of a catalogue entry, without its id.
      item_vocabulary_size: number of item ids: padding, known titles and one out-of-vocabulary id.
      user_vocabulary_size: the same for users.
      use_item_ids: whether models may tell titles apart by their id.
      use_time_buckets: whether models may use buckets of the gaps between past interactions and now.
      use_continuous_time: whether models may use these gaps as numbers.
      feedback: name of an interaction's own feedback bucket, or None.
      history_feedback: name of the history's feedback buckets, or None.
      history_feedback_size: number of feedback buckets, 0 = missing.
    """

    query: tuple[ModelInput, ...]
    item: tuple[ModelInput, ...]
    item_vocabulary_size: int
    user_vocabulary_size: int
    use_item_ids: bool
    use_time_buckets: bool
    use_continuous_time: bool
    feedback: str | None
    history_feedback: str | None
    history_feedback_size: int

    @property
    def use_gaps(self) -> bool:
        """Whether models may use the gaps between past interactions and now in any form."""
        return self.use_time_buckets or self.use_continuous_time


def build_model_inputs(
    columns: ColumnTable, transform: tft.TFTransformOutput, groups: Collection[str], quantile_buckets: int
) -> ModelInputs:
    """Derives the model inputs.

    Args:
      columns: roles and kinds of the raw columns.
      transform: transform graph, which knows the vocabularies.
      groups: switched-on feature groups out of `ids`, `user`, `item`, `context`, `time_buckets` and
        `continuous_time`.
      quantile_buckets: `FeatureConfig.quantile_buckets`.
    """

    def vocabulary_size(name: str) -> int:
        # Plus one for padding, plus one for the out-of-vocabulary bucket.
        return int(transform.vocabulary_size_by_name(name)) + 2

    def inputs_of(column: Column) -> list[ModelInput]:
        if column.kind is Kind.CATEGORICAL:
            return [ModelInput(column.name, Form.ID, vocabulary_size(column.name), column.name)]
        if column.kind in (Kind.MULTI_HOT, Kind.TEXT):
            return [ModelInput(column.name, Form.ID_BAG, vocabulary_size(column.name), column.name)]
        if column.kind is Kind.CONTINUOUS:
            return [*numbers(column.name), bucket(column.name)]
        return []

    def numbers(name: str) -> list[ModelInput]:
        return [ModelInput(name, Form.NUMBER), ModelInput(preprocessing.missing_name(name), Form.NUMBER)]

    def bucket(name: str) -> ModelInput:
        return ModelInput(preprocessing.bucket_name(name), Form.ID, quantile_buckets + 2)

    query = [
        model_input
        for role, group in ((Role.USER, "user"), (Role.CONTEXT, "context"))
        if group in groups
        for column in columns.with_role(role)
        for model_input in inputs_of(column)
    ]
    if columns.with_role(Role.SEEN):
        query += [*numbers(preprocessing.LOG_SEEN_COUNT), bucket(preprocessing.LOG_SEEN_COUNT)]
    has_gaps = columns.history_of(Role.TIMESTAMP) is not None
    if "time_buckets" in groups:
        query += [ModelInput(part, Form.ID, period) for part, period in preprocessing.CYCLES.items()]
        query += [bucket(preprocessing.LOG_GAP)] if has_gaps else []
    if "continuous_time" in groups:
        query += [ModelInput(f"{part}_{wave}", Form.NUMBER) for part in preprocessing.CYCLES for wave in ("sin", "cos")]
        query.append(ModelInput(preprocessing.DAY, Form.NUMBER))
        query += numbers(preprocessing.LOG_GAP) if has_gaps else []
    item = [
        model_input for column in columns.with_role(Role.ITEM) if "item" in groups for model_input in inputs_of(column)
    ]
    history = columns.history_of(Role.LABEL)
    feedback = next(
        (name for name in columns.names(Role.LABEL) if history and history_feature_name(name) == history.name), None
    )
    (user_column,) = columns.with_role(Role.USER_ID)
    (item_column,) = columns.with_role(Role.ITEM_ID)
    return ModelInputs(
        query=tuple(query),
        item=tuple(item),
        item_vocabulary_size=vocabulary_size(item_column.name),
        user_vocabulary_size=vocabulary_size(user_column.name),
        use_item_ids="ids" in groups,
        use_time_buckets=has_gaps and "time_buckets" in groups,
        use_continuous_time=has_gaps and "continuous_time" in groups,
        feedback=preprocessing.bucket_name(feedback) if feedback else None,
        history_feedback=preprocessing.bucket_name(history.name) if history else None,
        history_feedback_size=quantile_buckets + 2,
    )
