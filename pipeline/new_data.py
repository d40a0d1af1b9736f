"""Whether new data have come since the last run that ended well; importing this imports neither TensorFlow nor TFX."""

from __future__ import annotations

import os
from typing import NamedTuple

from pipeline.components.covering_pattern import covering_pattern
from pipeline.components.spans import describe_numbers, find_window, fingerprint_all, last_spans, split_directory
from pipeline.config import PipelineConfig
from pipeline.config_files import ConfigError
from pipeline.data_config import DataConfig, WindowConfig
from pipeline.run_outputs import outputs_by_node
from pipeline.runs import NoRunError, RunStore

_FINGERPRINT = "input_fingerprint"
_INGESTION = "InteractionExampleGen"


class Source(NamedTuple):
    """The source files that a run would learn from.

    Attributes:
      spans: the numbers of the spans of its window, in words.
      fingerprint: what changes when any file does, or when there are others; of the earlier spans, too, that histories
        reach back to.
    """

    spans: str
    fingerprint: str


def find_source(data: DataConfig, base: str | None = None, newest: int | None = None) -> Source:
    """Finds the source files that a run would learn from.

    Args:
      data: the tables; the directory must be of spans.
      base: in place of the directory's part before the spans.
      newest: number of the newest span, in place of the configuration's; `spans.LATEST` for the latest there is.

    Raises:
      ConfigError: if the data are not of spans.
      DataQualityError: if there is no span, or not the one wanted.
    """
    own_base, folder = split_directory(data.directory)
    if not folder:
        raise ConfigError(
            "data.directory: only spans can be new, so expected a folder such as data/span-{SPAN}; received "
            f"{data.directory!r}"
        )
    base = own_base if base is None else base
    pattern = os.path.join(folder, covering_pattern([table.pattern for table in data.tables]))
    window = data.window or WindowConfig(history_spans=0)
    spans = find_window(base, pattern, window.newest if newest is None else newest, window.reach + 1)
    numbers = describe_numbers([span.number for span in last_spans(spans, window.spans)])
    return Source(numbers, fingerprint_all(base, spans))


def find_nothing_new(settings: PipelineConfig) -> str | None:
    """Tells why there is nothing to learn: the source files are those of the last run that ended well.

    Args:
      settings: the pipeline; its data must be of spans.

    Returns:
      A sentence for the user, or None if there is something new, or no run has ended well yet.

    Raises:
      ConfigError: if the data are not of spans.
      DataQualityError: if there is no span, or not the one wanted.
    """
    source = find_source(settings.data)
    try:
        runs = RunStore(settings.metadata_path)
        complete = next(run_id for run_id in reversed(runs.run_ids()) if runs.report(run_id).state == "complete")
    except (NoRunError, StopIteration):
        return None
    for artifact in outputs_by_node(settings.metadata_path, complete).get(_INGESTION, ()):
        if artifact.custom_properties[_FINGERPRINT].string_value == source.fingerprint:
            return (
                f"Nothing new: span {source.spans} in {settings.data.directory} is as it was in the run of {complete}"
            )
    return None
