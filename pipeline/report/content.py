"""Everything that a report shows, collected from what a run left behind."""

from __future__ import annotations

import dataclasses
from typing import Any

from ml_metadata import MetadataStore

from modules.features import ColumnTable, Role, parse_schema
from pipeline.config import ModelCardConfig
from pipeline.report import run_artifacts
from pipeline.report.drift import Drift, measure_drift
from pipeline.report.feature_statistics import SplitSummary, read_statistics, summarise_split
from pipeline.report.run_artifacts import RunArtifacts
from pipeline.runs import RunReport
from pipeline.verdict import Verdict

_DRIFT_SPLITS = {"train": "interactions, train", "catalogue": "catalogue"}
_STATISTICS = {
    run_artifacts.INTERACTION_STATISTICS: "interactions",
    run_artifacts.CATALOGUE_STATISTICS: "catalogue",
}


@dataclasses.dataclass(frozen=True)
class DriftReport:
    """Drift against an earlier run.

    Attributes:
      run_id: the run that had the earlier data.
      by_data: the drift of each feature by what the data are of, the largest first.
    """

    run_id: str
    by_data: dict[str, list[Drift]]


@dataclasses.dataclass(frozen=True)
class ReportContent:
    """What there is to show of a run. What the run did not get to is empty.

    Attributes:
      report: what `marquee status` tells.
      verdict: the evaluation and the gate.
      columns: roles of the raw columns; None if the run did not get to the schema.
      statistics: summaries of the splits by what the data are of: `interactions`, `catalogue`.
      drift: None without earlier data.
      training_parameters: what the Trainer was told.
      users: some users of the test split; empty if the model could not be asked.
      users_missing: why there are none.
      card: the free text of the model card.
    """

    report: RunReport
    verdict: Verdict
    columns: ColumnTable | None
    statistics: dict[str, list[SplitSummary]]
    drift: DriftReport | None
    training_parameters: dict[str, Any]
    users: list[Any]
    users_missing: str
    card: ModelCardConfig


def collect(store: MetadataStore, run_ids: list[str], report: RunReport, card: ModelCardConfig) -> ReportContent:
    """Reads everything.

    Args:
      store: ML Metadata.
      run_ids: all runs, the earliest first.
      report: of the run that is shown.
      card: the free text of the model card.
    """
    artifacts = run_artifacts.read_run_artifacts(store, report.run_id)
    columns = ColumnTable.from_schema(parse_schema(artifacts.schema_text)) if artifacts.schema_text else None
    users, missing = _users(artifacts, columns)
    return ReportContent(
        report=report,
        verdict=artifacts.verdict,
        columns=columns,
        statistics=_summaries(artifacts, columns),
        drift=_drift(artifacts, run_artifacts.latest_with_other_data(store, run_ids, artifacts), columns),
        training_parameters=artifacts.training_parameters,
        users=users,
        users_missing=missing,
        card=card,
    )


def time_columns(columns: ColumnTable | None) -> set[str]:
    """Returns the columns that hold seconds since 1970."""
    if columns is None:
        return set()
    history = columns.history_of(Role.TIMESTAMP)
    return {*columns.names(Role.TIMESTAMP), *([history.name] if history is not None else [])}


def _summaries(artifacts: RunArtifacts, columns: ColumnTable | None) -> dict[str, list[SplitSummary]]:
    found = {}
    for component, told in _STATISTICS.items():
        folder = artifacts.folder(component, "statistics")
        if folder is not None:
            times = time_columns(columns)
            splits = [summarise_split(split, one, times) for split, one in read_statistics(folder).items()]
            found[told] = sorted(splits, key=lambda split: (split.split.startswith("impressions"), -split.examples))
    return found


def _drift(artifacts: RunArtifacts, earlier: RunArtifacts | None, columns: ColumnTable | None) -> DriftReport | None:
    if earlier is None or artifacts.data_id is None:
        return None
    by_data = {}
    for component in _STATISTICS:
        folders = [run.folder(component, "statistics") for run in (artifacts, earlier)]
        if None in folders:
            continue
        now, before = (read_statistics(folder) for folder in folders if folder is not None)
        for split, told in _DRIFT_SPLITS.items():
            if split in now and split in before:
                by_data[told] = measure_drift(now[split], before[split], time_columns(columns))
    return DriftReport(earlier.run_id, by_data)


def _users(artifacts: RunArtifacts, columns: ColumnTable | None) -> tuple[list[Any], str]:
    examples = artifacts.folder(run_artifacts.INTERACTIONS, "examples")
    catalogue = artifacts.folder(run_artifacts.CATALOGUE, "examples")
    if artifacts.model is None:
        return [], "There is no model to ask."
    if columns is None or examples is None or catalogue is None:
        return [], "The examples of the test split are not there any more."
    # TensorFlow is needed for nothing else here.
    from pipeline.report.example_users import example_users
    from pipeline.serving.errors import StatusError

    try:
        return example_users(examples / "Split-test", catalogue / "Split-catalogue", artifacts.model, columns), ""
    except StatusError as error:
        return [], f"The model does not answer: {error}"
