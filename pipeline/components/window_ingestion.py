"""Makes one artifact of a window of spans: what is kept of each, put together as splits.

All of an older span is training data; only the newest has validation and test data. So no model is tested on what is
earlier than anything it has learned from.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence

from pipeline.components.ingestion_report import Report, write_json
from pipeline.components.span_store import REPORT_FILE, SpanStore, copy_part
from pipeline.components.spans import Span, describe_numbers
from pipeline.components.table_example_gen import split_folder
from pipeline.components.temporal_split import IMPRESSION_SPLIT_NAMES, SPLIT_NAMES

WINDOW = "window"
"""Custom property: the numbers of the window's spans, in words."""
SPANS_INGESTED = "spans_ingested"
SPANS_KEPT = "spans_kept"

LATER = "later"
"""Part of a span that was, or would have been, validation and test data while it was the newest."""

logger = logging.getLogger("marquee.ingestion")


def assemble_window(
    uri: str,
    window: Sequence[Span],
    names: Mapping[int, str],
    splits: Sequence[str],
    store: SpanStore,
    ingest: Callable[[Span, str], object],
) -> Report:
    """Writes the splits of a window and their report.

    Args:
      uri: folder of the artifact.
      window: the spans, in ascending order.
      names: what each span is kept by, by its number.
      splits: names of the splits.
      store: what was ingested before.
      ingest: writes a span's splits and report into a folder.

    Returns:
      The report: counts are sums over the spans, but those of validation and test data and the times of the cuts, which
      are the newest span's.
    """
    reports: dict[int, Report] = {}
    ingested = 0
    for span in window:

        def build(folder: str, span: Span = span) -> None:
            ingest(span, folder)

        folder, reports[span.number], added = store.find_or_add(names[span.number], build)
        ingested += added
        logger.info("span %d: %s", span.number, "ingested" if added else "kept from an earlier run")
        for split in splits:
            target = split if span is window[-1] else _training_split(split)
            copy_part(split_folder(folder, split), split_folder(uri, target), f"{names[span.number]}.{_part(split)}")
    report = _merge(list(reports.values()), splits)
    report |= {
        WINDOW: describe_numbers([span.number for span in window]),
        SPANS_INGESTED: ingested,
        SPANS_KEPT: len(window) - ingested,
    }
    write_json(report, os.path.join(uri, REPORT_FILE))
    return report


def _merge(reports: Sequence[Report], splits: Sequence[str]) -> Report:
    *older, newest = reports
    merged = {**newest}
    for report in older:
        for name, value in report.items():
            if (
                isinstance(value, int)
                and not name.endswith("_start_timestamp")
                and not name.startswith("num_examples_")
            ):
                merged[name] = merged.get(name, 0) + value
        for split in splits:
            merged[f"num_examples_{_training_split(split)}"] += report[f"num_examples_{split}"]
    return merged


def _part(split: str) -> str:
    """Returns the part of a span that a split of it is: analyses are kept by part, and few parts make few steps."""
    return split if split in (SPLIT_NAMES[0], IMPRESSION_SPLIT_NAMES[0]) else f"{LATER}.{split}"


def _training_split(split: str) -> str:
    return IMPRESSION_SPLIT_NAMES[0] if split in IMPRESSION_SPLIT_NAMES else SPLIT_NAMES[0]
