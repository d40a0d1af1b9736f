"""`InteractionExampleGen`: one tf.Example per interaction, split by global time.

An example holds the interaction (`user_id`, `item_id` bytes, `timestamp` int64 seconds, the feedback float, context
columns), the columns of its user and item, and the user's history strictly before it (see `point_in_time`).

A log with propensities also gives an example per impression, taken or not, in splits of their own that are cut at the
same times. It looks the same, is marked by `impression` = 1 (int64) and has feedback only if the title was taken. What
was not taken is in no history, no split of interactions, and does not move the cuts.

With `data.window`, several spans of the source make one artifact; see `window_ingestion`. Each span is joined with its
own tables and cut by itself, and its histories reach back into earlier spans.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import apache_beam as beam
from tfx.dsl.components.base import executor_spec
from tfx.orchestration.data_types import RuntimeParameter
from tfx.types import standard_component_specs

from modules import features
from pipeline.components import column_values, temporal_split
from pipeline.components.catalogue_join import JoinByShuffle
from pipeline.components.example_assembly import AssembleExamples, OrderEvents, count_impressions
from pipeline.components.external_shuffle import SpillByKey, bucket_count
from pipeline.components.ingestion_report import Report, check_report, write_report
from pipeline.components.source_files import SourceFile, find_files
from pipeline.components.source_storage import DataQualityError
from pipeline.components.source_tables import (
    REJECTED,
    REPORTS,
    TYPES,
    ReadInteractions,
    read_keyed_table,
)
from pipeline.components.span_store import SpanStore, span_name
from pipeline.components.spans import Span, find_window, fingerprint_all, last_spans
from pipeline.components.table_example_gen import (
    PATTERN,
    REACH,
    REPORT_PATH_KEY,
    SHUFFLE_FOLDER_KEY,
    TableExampleGen,
    TableExampleGenExecutor,
    newest_span,
    read_settings,
    table_directory,
    with_span,
)
from pipeline.components.temporal_split import IMPRESSION_SPLIT_NAMES, SPLIT_NAMES, Cuts
from pipeline.components.window_ingestion import assemble_window
from pipeline.data_config import DataConfig

_EARLIER_DIRECTORIES_KEY = "earlier_directories"
_REJECTED_ROWS_KEY = "rejected_rows_directory"


class InteractionExampleGenExecutor(TableExampleGenExecutor):
    """Joins the tables, cuts the splits and writes the examples, on any Beam runner.

    Every worker holds the catalogue, if its files are small (`data.broadcast_mebibytes`), and the events of some
    users at a time; everything else goes through files below the artifact, which are removed at the end.
    """

    SPLIT_NAMES = temporal_split.SPLIT_NAMES

    def SplitNames(self, exec_properties: Mapping[str, Any]) -> tuple[str, ...]:
        """Returns the splits that are written: of logs with propensities also those of impressions."""
        return split_names(_read_config(exec_properties)[0])

    def Ingest(self, uri: str, exec_properties: Mapping[str, Any]) -> Report:
        """Writes splits and report into a folder, of one span or of a window of them; returns the report."""
        settings = read_settings(exec_properties)
        if PATTERN not in settings:
            return super().Ingest(uri, exec_properties)
        data, rejected_rows_directory = _read_config(exec_properties)
        base, pattern = exec_properties[standard_component_specs.INPUT_BASE_KEY], settings[PATTERN]
        spans = find_window(base, pattern, newest_span(exec_properties), int(settings[REACH]) + 1)
        length, history = int(settings["window_spans"]), int(settings["history_spans"])
        window = last_spans(spans, length)
        earlier = {
            span.number: [other for other in spans if span.number - history <= other.number < span.number]
            for span in window
        }
        names = {
            span.number: span_name(
                span.number,
                [
                    data.model_dump(mode="json", exclude={"directory"}),
                    fingerprint_all(base, [*earlier[span.number], span]),
                ],
            )
            for span in window
        }

        def ingest(span: Span, folder: str) -> Report:
            properties = with_span(exec_properties, span)
            properties[_EARLIER_DIRECTORIES_KEY] = [
                table_directory(with_span(exec_properties, one), data.interactions.pattern)
                for one in earlier[span.number]
            ]
            properties[_REJECTED_ROWS_KEY] = f"{rejected_rows_directory}/span-{span.number}"
            return super(InteractionExampleGenExecutor, self).Ingest(folder, properties)

        return assemble_window(uri, window, names, split_names(data), SpanStore(settings["span_store"]), ingest)

    def GenerateExamplesByBeam(
        self, pipeline: beam.Pipeline, exec_properties: dict[str, Any]
    ) -> dict[str, beam.PCollection]:
        """Builds the Beam pipeline; returns batches of examples by split."""
        data, rejected_rows_directory = _read_config(exec_properties)
        directory = table_directory(exec_properties, data.interactions.pattern)
        folder = exec_properties[SHUFFLE_FOLDER_KEY]
        logs = [
            *_earlier_files(exec_properties.get(_EARLIER_DIRECTORIES_KEY, []), data),
            *find_files(directory, "interactions", data.interactions),
        ]
        catalogue_bytes = sum(file.size_in_bytes for file in find_files(directory, "items", data.items))
        buckets = bucket_count(sum(file.size_in_bytes for file in logs) + catalogue_bytes)
        items = read_keyed_table(pipeline, directory, "items", features.ITEM_ID, data.items)
        records = (
            pipeline | "Create[interactions]" >> beam.Create(logs) | "Distribute[interactions]" >> beam.Reshuffle()
        )
        outputs = (REJECTED, REPORTS, TYPES)
        rejected, reports = [*items.rejected], [*items.reports]
        if catalogue_bytes <= data.broadcast_mebibytes << 20:
            catalogue = beam.pvalue.AsDict(items.rows)
            joined = read = records | "Read[interactions]" >> beam.ParDo(
                ReadInteractions(data), catalogue
            ).with_outputs(*outputs, main="events")
        else:
            catalogue = {}
            read = records | "Read[interactions]" >> beam.ParDo(ReadInteractions(data)).with_outputs(
                REJECTED, REPORTS, main="events"
            )
            joined = {"rows": read["events"], "items": items.rows} | "JoinItems" >> JoinByShuffle(data, folder, buckets)
            rejected.append(joined[REJECTED])
        rejected.append(read[REJECTED])
        reports.append(read[REPORTS])
        types = joined[TYPES] | "MergeTypes[interactions]" >> beam.CombineGlobally(column_values.merge_types)
        spilled = {"events": joined["events"] | "SpillEvents" >> beam.ParDo(SpillByKey(folder, buckets))}
        if data.users:
            users = read_keyed_table(pipeline, directory, "users", features.USER_ID, data.users)
            spilled["users"] = users.rows | "SpillUsers" >> beam.ParDo(SpillByKey(folder, buckets))
            rejected.extend(users.rejected)
            reports.extend(users.reports)
        ordered = (
            spilled
            | "GroupByUser" >> beam.CoGroupByKey()
            | "OrderEvents" >> beam.ParDo(OrderEvents(data, folder)).with_outputs(REPORTS, main="users")
        )
        cuts = (
            ordered["users"]
            | "Timestamps" >> beam.Map(operator.attrgetter("timestamps"))
            | "FindCuts" >> temporal_split.FindCuts(data.splits)
        )
        shown = (
            ordered["users"]
            | "CountImpressions" >> beam.Map(count_impressions, beam.pvalue.AsSingleton(cuts))
            | "SumImpressions" >> beam.CombineGlobally(temporal_split.sum_counts)
        )
        reports.extend([ordered[REPORTS], cuts | "ReportCuts" >> beam.Map(_report_cuts)])
        if data.propensity:
            reports.append(shown | "ReportImpressions" >> beam.Map(_report_impressions))
        write_report(
            pipeline, rejected, reports, _table_names(data), rejected_rows_directory, exec_properties[REPORT_PATH_KEY]
        )
        splits = ordered["users"] | "Assemble" >> beam.ParDo(
            AssembleExamples(data, folder),
            catalogue,
            beam.pvalue.AsSingleton(types),
            beam.pvalue.AsSingleton(cuts),
            beam.pvalue.AsSingleton(shown),
        ).with_outputs(*split_names(data))
        return {name: splits[name] for name in split_names(data)}

    def CheckReport(self, report: Report, exec_properties: Mapping[str, Any]) -> None:
        """Raises a `DataQualityError` for too many rejected rows, no interaction at all, or an empty split."""
        data, rejected_rows_directory = _read_config(exec_properties)
        check_report(report, _table_names(data), data.max_rejected_share, rejected_rows_directory)
        if not report["interactions_accepted"]:
            raise DataQualityError("interactions: there is no interaction to learn from; the files hold no rows")
        empty = [name for name in SPLIT_NAMES if not report[f"num_examples_{name}"]]
        if empty:
            raise DataQualityError(
                f"interactions: no events fall into the splits {empty}; {report['interactions_accepted']} events, "
                f"shares {data.splits.train} and {data.splits.validation}, cut at the timestamps "
                f"{report['eval_start_timestamp']} and {report['test_start_timestamp']}"
            )
        unseen = [name for name in split_names(data) if not report[f"num_examples_{name}"]]
        if unseen:
            raise DataQualityError(
                f"interactions: no impressions fall into the splits {unseen}; {report['impressions']} rows have a "
                f"{data.propensity} (data.propensity); unset it if none is needed"
            )


class InteractionExampleGen(TableExampleGen):
    """Turns the interaction log, the catalogue and the user profiles into examples.

    Outputs `examples` with the splits `train`, `eval` and `test`, in order of time; with `data.propensity` also
    `impressions_train`, `impressions_eval` and `impressions_test`. Custom properties of the artifact: `<table>_rows`
    and `<table>_rejected`; `interactions_accepted`, `interactions_duplicates`, `unknown_users`;
    `num_examples_<split>`; `eval_start_timestamp`, `test_start_timestamp`; with `data.propensity` also `impressions`
    and, of them, `impressions_not_taken`.

    Args:
      data: tables, splits and histories.
      rejected_rows_directory: folder of the rejected rows, `<table>.jsonl`.
      base: see `TableExampleGen`.
      newest_span: see `TableExampleGen`.
      span_store: where the examples of spans are kept; for `data.window`.

    Raises:
      ConfigError: if table patterns are not equally deep.
    """

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(InteractionExampleGenExecutor)

    def __init__(
        self,
        data: DataConfig,
        rejected_rows_directory: str,
        base: RuntimeParameter | None = None,
        newest_span: int | RuntimeParameter | None = None,
        span_store: str | None = None,
    ) -> None:
        window = data.window
        windowed = (
            {"window_spans": window.spans, "history_spans": window.history_spans, "span_store": span_store}
            if window is not None
            else {}
        )
        super().__init__(
            directory=data.directory,
            patterns=[table.pattern for table in data.tables],
            split_names=split_names(data),
            settings={
                # What counts as liked does not change the examples.
                "data": data.model_dump(mode="json", exclude={"like_threshold", "window", *_unset(data)}),
                "rejected_rows_directory": rejected_rows_directory,
                **windowed,
            },
            base=base,
            newest_span=newest_span,
            reach=window.reach if window is not None else None,
        )


def _earlier_files(directories: list[str], data: DataConfig) -> list[SourceFile]:
    """Returns the logs of earlier spans, which give history only: their files have numbers below 0."""
    files = [file for one in directories for file in find_files(one, "interactions", data.interactions)]
    return [file._replace(number=number - len(files)) for number, file in enumerate(files)]


def _report_impressions(shown: Mapping[int, int]) -> Report:
    counts = {name: shown.get(at, 0) for at, name in enumerate(IMPRESSION_SPLIT_NAMES)}
    return {
        "impressions": sum(counts.values()),
        "impressions_not_taken": shown.get(-1, 0),
        **{f"num_examples_{name}": count for name, count in counts.items()},
    }


def _report_cuts(cuts: Cuts) -> Report:
    return {
        "interactions_accepted": sum(cuts.num_examples),
        "interactions_duplicates": 0,
        "unknown_users": 0,
        "eval_start_timestamp": cuts.eval_start,
        "test_start_timestamp": cuts.test_start,
        **{f"num_examples_{name}": count for name, count in zip(SPLIT_NAMES, cuts.num_examples, strict=True)},
    }


def split_names(data: DataConfig) -> tuple[str, ...]:
    """Returns the splits that a log gives."""
    return (*SPLIT_NAMES, *(IMPRESSION_SPLIT_NAMES if data.propensity else ()))


def _unset(data: DataConfig) -> set[str]:
    """Returns the fields of impressions, of logs without: what is cached of them stays valid."""
    return set() if data.propensity else {"propensity", "position"}


def _table_names(data: DataConfig) -> tuple[str, ...]:
    return ("items", "users", "interactions") if data.users else ("items", "interactions")


def _read_config(exec_properties: Mapping[str, Any]) -> tuple[DataConfig, str]:
    settings = read_settings(exec_properties)
    rejected_rows_directory = exec_properties.get(_REJECTED_ROWS_KEY, settings["rejected_rows_directory"])
    return DataConfig.model_validate(settings["data"]), rejected_rows_directory
