"""Configuration of the source tables, and of how their interactions become examples.

Importing this module imports neither TensorFlow nor TFX.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from modules import features

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Section(BaseModel):
    """Base of every section of the configuration: unknown fields are refused, nothing mutates."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class ColumnConfig(Section):
    """Where one feature comes from in a source table."""

    source: str
    """Name of the column in the file (or of the feature, for TFRecord)."""
    type: Literal["int", "float", "string"] | None = None
    """Type to parse to; values that do not parse make the row malformed. Unset: inferred from the whole column."""
    separator: str | None = Field(default=None, min_length=1)
    """Splits the cell into several values, e.g. `|` for genres. Unset: one value."""


class TableConfig(Section):
    """One source table: files of one format and the columns to take from them."""

    pattern: str
    """Glob of the table's files, relative to `data.directory`, e.g. `interactions.tsv` or `interactions-*.parquet`."""
    format: Literal["csv", "tsv", "parquet", "tfrecord"]
    """File format. CSV and TSV need a header line and UTF-8; `.gz` files are decompressed."""
    delimiter: str | None = Field(default=None, min_length=1, max_length=1)
    """Field separator of a CSV or TSV file. Unset: a comma or a tab."""
    columns: dict[str, ColumnConfig]
    """Feature name (as in the schema) to source column. A bare string is short for `{source: string}`."""

    @pydantic.field_validator("columns", mode="before")
    @classmethod
    def _expand_short_form(cls, columns: Any) -> Any:
        if isinstance(columns, Mapping):
            return {name: {"source": spec} if isinstance(spec, str) else spec for name, spec in columns.items()}
        return columns

    @property
    def field_delimiter(self) -> str:
        """The delimiter in force."""
        return self.delimiter or ("\t" if self.format == "tsv" else ",")


class SplitConfig(Section):
    """Global temporal split: shares of the events, in order of time."""

    train: Share = 0.8
    """Share of the events, the earliest ones, that models are fitted on."""
    validation: Share = 0.1
    """Share of the events, the next ones, that settings and early stopping are decided on. The rest is the test."""

    @pydantic.model_validator(mode="after")
    def _leave_a_test_split(self) -> SplitConfig:
        if not 0 < self.train < self.train + self.validation < 1:
            raise ValueError(
                "train and validation must be above 0 and leave a share for the test split; "
                f"received {self.train} + {self.validation}"
            )
        return self


class WindowConfig(Section):
    """Which spans a run learns from, where `data.directory` is a pattern of spans.

    The newest span is cut by `data.splits`, all of the older ones is training data: no model is tested on what is
    earlier than what it has learned from. Each span is ingested once, with its own tables, and kept in the workspace.
    """

    spans: int = Field(default=1, ge=1)
    """Spans in the rolling window: the newest and the numbers before it, of which missing ones are left out."""
    history_spans: int = Field(default=1, ge=0)
    """Spans before its own that the histories of a span's examples reach back to, as far as their files are there."""
    newest: int | None = Field(default=None, ge=0)
    """Number of the newest span, e.g. to repeat an earlier run; of a day, the days since 1970-01-01. Unset: the latest
    there is."""

    @property
    def reach(self) -> int:
        """Spans before the newest one that are read: for the window, and for the histories of its oldest span."""
        return self.spans - 1 + self.history_spans


class DataConfig(Section):
    """The three source tables and how interactions become examples."""

    directory: str
    """Folder of the source files. May contain `{SPAN}`, e.g. `data/span-{SPAN}`, or a date, as in
    `data/{YYYY}-{MM}-{DD}`, and a `{VERSION}`: then the latest span is ingested, or those of `window`."""
    window: WindowConfig | None = None
    """Several spans to learn from. Unset: the latest one."""
    interactions: TableConfig
    """The interaction log. Must map `user_id`, `item_id` and `timestamp`; the other columns are feedback or context."""
    items: TableConfig
    """The catalogue. Must map `item_id`."""
    users: TableConfig | None = None
    """User profiles. Must map `user_id`. Unset: users have no columns of their own."""
    feedback: str | None = None
    """Interaction column that holds the feedback (a rating, seconds watched); it is written to the history too."""
    propensity: str | None = None
    """Interaction column that makes the log one of impressions: the probability, known when it was logged, that what
    decided then would show this title at this position, in (0, 1]. With a `separator` the cell holds the probabilities
    of the title at positions 1, 2, ..., which must reach to its own position. A row with a propensity and an empty
    feedback cell was shown and not taken; a row with feedback and no propensity is an interaction that was not shown.
    Needs `feedback`."""
    position: str | None = None
    """Interaction column that holds the position in the list shown, from 1. Unset: lists of one title."""
    like_threshold: float | None = Field(default=None, allow_inf_nan=False)
    """Feedback from which on a title counts as liked, e.g. 4 of 5 stars. Unset: models are not judged by likings."""
    splits: SplitConfig = SplitConfig()
    """Shares of the global temporal split."""
    history_length: int = Field(default=50, ge=1, le=1000)
    """Most recent strictly earlier interactions that are written to an example."""
    timestamp_unit: Literal["seconds", "milliseconds"] = "seconds"
    """Unit of the source timestamps; examples always carry seconds."""
    earliest: datetime.date = Field(default=datetime.date(1980, 1, 1), ge=datetime.date(1970, 1, 2))
    """Events before this day (UTC) are rejected as malformed. From 1970-01-02 on: 0 means a missing time."""
    latest: datetime.date = datetime.date(2100, 1, 1)
    """Events on or after this day (UTC) are rejected as malformed."""
    max_rejected_share: Share = 0.001
    """Share of rejected rows, per table, above which ingestion fails."""

    broadcast_mebibytes: int = Field(default=256, ge=0)
    """Largest size of the items' files with which every worker of the ingestion holds the catalogue. Larger ones are
    joined by shuffle, which takes longer and no more memory."""

    @property
    def tables(self) -> list[TableConfig]:
        """The source tables that there are: the log, the items and, if they have profiles, the users."""
        return [self.interactions, self.items, *([self.users] if self.users else [])]

    @property
    def newest_span(self) -> int | None:
        """Number of the newest span; None for the latest there is."""
        return self.window.newest if self.window else None

    @pydantic.model_validator(mode="after")
    def _require_key_columns(self) -> DataConfig:
        required = {"interactions": ("user_id", "item_id", "timestamp"), "items": ("item_id",), "users": ("user_id",)}
        for table_name, names in required.items():
            table = getattr(self, table_name)
            for name in names:
                if table is not None and name not in table.columns:
                    raise ValueError(f"{table_name}.columns must map {name!r}; received only {sorted(table.columns)}")
        others = sorted(set(self.interactions.columns) - set(required["interactions"]))
        if self.feedback is not None and self.feedback not in others:
            raise ValueError(f"feedback must name one of interactions.columns {others}; received {self.feedback!r}")
        self._check_impressions(others)
        if self.like_threshold is not None and self.feedback is None:
            raise ValueError(
                f"like_threshold needs a feedback column; received {self.like_threshold:g} and no feedback"
            )
        return self

    def _check_impressions(self, others: Sequence[str]) -> None:
        """Makes sure that propensity and position can be what they are said to be; raises a `ValueError` if not."""
        for field, column_type in (("propensity", "float"), ("position", "int")):
            name = getattr(self, field)
            if name is None:
                continue
            if name not in others or name == self.feedback:
                columns = [other for other in others if other != self.feedback]
                raise ValueError(f"{field} must name one of interactions.columns {columns}; received {name!r}")
            declared = self.interactions.columns[name].type
            if declared not in (None, column_type):
                raise ValueError(
                    f"{field}: interactions.columns.{name}.type must be {column_type} or unset; received {declared!r}"
                )
        if self.propensity is None:
            if self.position is not None:
                raise ValueError(f"position needs a propensity column; received {self.position!r} and no propensity")
            return
        if self.feedback is None:
            raise ValueError(f"propensity needs a feedback column; received {self.propensity!r} and no feedback")
        if self.position == self.propensity:
            raise ValueError(f"position and propensity must be two columns; received {self.position!r} for both")
        if self.position is None and self.interactions.columns[self.propensity].separator:
            raise ValueError(
                f"propensity: the column {self.propensity!r} has a separator, for the probabilities at several "
                "positions; expected a position column, too"
            )
        if self.position is not None and self.interactions.columns[self.position].separator:
            raise ValueError(f"position: the column {self.position!r} must hold one value; received a separator")

    @pydantic.model_validator(mode="after")
    def _name_features_once(self) -> DataConfig:
        taken = {features.HISTORY_ITEM_IDS, features.HISTORY_TIMESTAMPS, features.SEEN_ITEM_IDS}
        if self.feedback is not None:
            taken.add(features.history_feature_name(self.feedback))
        if self.propensity is not None:
            taken.add(features.IMPRESSION)
        keys = {"interactions": None, "items": features.ITEM_ID, "users": features.USER_ID}
        for table_name, key in keys.items():
            table = getattr(self, table_name)
            names = set(table.columns) - {key} if table is not None else set()
            if taken & names:
                raise ValueError(
                    f"{table_name}.columns must use names that neither another table nor the history uses; "
                    f"received {sorted(taken & names)}"
                )
            taken |= names
        return self

    @pydantic.model_validator(mode="after")
    def _windows_need_spans(self) -> DataConfig:
        if self.window is not None and not any(part in self.directory for part in ("{SPAN", "{YYYY}")):
            raise ValueError(
                "window needs a directory of spans, such as data/span-{SPAN} or data/{YYYY}-{MM}-{DD}; received "
                f"{self.directory!r}"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _leave_some_days(self) -> DataConfig:
        if self.earliest >= self.latest:
            raise ValueError(f"earliest must be a day before latest; received {self.earliest} and {self.latest}")
        return self
