"""Transform over a window of spans: what was learned of a span in an earlier run is not learned again.

TensorFlow Transform keeps partial analyses by data set. TFX takes each split of an artifact for one, known by its path,
so nothing would ever be found again for a window, whose artifact is a new one each time. Here a data set is a part of a
kept span (see `span_store`), known by what it was made from, and the analyses are kept beside the spans.
"""

from __future__ import annotations

import json
import logging
import os
import uuid
from collections.abc import Mapping
from typing import Any, ClassVar

from tensorflow_transform.beam import analyzer_cache
from tfx import types
from tfx.dsl.components.base import executor_spec
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_artifacts, standard_component_specs
from tfx.utils import io_utils

from pipeline.components.analysis_files import ReadEntry, WriteEntry
from pipeline.components.recommender_transform import (
    FileByFileProcessor,
    RecommenderTransform,
    RecommenderTransformExecutor,
)
from pipeline.components.span_store import parts_of

ANALYZER_CACHE_DIRECTORY = "analyzer_cache"
PARTS_ANALYSED = "parts_analysed"
PARTS_KEPT = "parts_kept"
"""Custom properties of the `updated_analyzer_cache`: parts of spans that were read for analysis, and those that were
not, because all that was wanted of them was known."""

logger = logging.getLogger("marquee.transform")


class WindowTransformProcessor(FileByFileProcessor):
    """Takes each part of a kept span for a data set of its own.

    Attributes:
      kept: parts whose analysis was found.
      analysed: parts that were analysed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[str] = []
        self.analysed: list[str] = []

    def _MakeDatasetList(
        self,
        file_patterns: Any,
        file_formats: Any,
        data_format: int,
        data_view_uri: str | None,
        can_process_jointly: bool,
        stats_output_paths: Any = None,
        materialize_output_paths: Any = None,
    ) -> list[Any]:
        """Returns the data sets of the patterns, those to be analysed part by part."""
        if stats_output_paths or materialize_output_paths:
            return super()._MakeDatasetList(
                file_patterns,
                file_formats,
                data_format,
                data_view_uri,
                can_process_jointly,
                stats_output_paths,
                materialize_output_paths,
            )
        keys, patterns, formats = {}, [], []
        for pattern, file_format in zip(file_patterns, file_formats, strict=True):
            parts = parts_of(fileio.glob(pattern)) or {"": pattern}
            for name, part in parts.items():
                patterns.append(part)
                formats.append(file_format)
                if name:
                    keys[part] = analyzer_cache.DatasetKey(name)
        datasets = super()._MakeDatasetList(patterns, formats, data_format, data_view_uri, can_process_jointly)
        for dataset in datasets:
            dataset.dataset_key = keys.get(dataset.file_pattern, dataset.dataset_key)
        datasets.sort(key=lambda dataset: dataset.dataset_key)
        for index, dataset in enumerate(datasets):
            dataset.index = index
        return datasets

    @staticmethod
    def _GetCacheSource() -> type[ReadEntry]:
        return ReadEntry

    @staticmethod
    def _GetCacheSink() -> type[WriteEntry]:
        return WriteEntry

    def _JoinUncachedDatasets(
        self, analyze_data_list: Any, optimized_analyze_data_dict: Any, *further: Any, **named: Any
    ) -> Any:
        """Notes what was found; see the base class."""
        for dataset in analyze_data_list:
            found = optimized_analyze_data_dict.get(dataset.dataset_key, dataset) is None
            (self.kept if found else self.analysed).append(dataset.dataset_key.key)
        return super()._JoinUncachedDatasets(analyze_data_list, optimized_analyze_data_dict, *further, **named)


class WindowTransformExecutor(RecommenderTransformExecutor):
    """Transform's executor, with the analyses of the spans that are kept in the workspace."""

    PROCESSOR: ClassVar[type[FileByFileProcessor]] = WindowTransformProcessor

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Analyses and transforms; then keeps the analyses for later windows."""
        settings = json.loads(exec_properties[standard_component_specs.CUSTOM_CONFIG_KEY])
        self._store = os.path.join(settings["span_store"], ANALYZER_CACHE_DIRECTORY)
        inputs = dict(input_dict)
        if fileio.exists(self._store):
            kept = standard_artifacts.TransformCache()
            kept.uri = self._store
            inputs[standard_component_specs.ANALYZER_CACHE_KEY] = [kept]
        super().Do(inputs, output_dict, exec_properties)

    def Finish(self, processor: FileByFileProcessor, output_dict: Mapping[str, list[types.Artifact]]) -> None:
        """Says what was analysed, and keeps the analyses."""
        assert isinstance(processor, WindowTransformProcessor)
        cache = artifact_utils.get_single_instance(output_dict[standard_component_specs.UPDATED_ANALYZER_CACHE_KEY])
        cache.set_int_custom_property(PARTS_ANALYSED, len(processor.analysed))
        cache.set_int_custom_property(PARTS_KEPT, len(processor.kept))
        logger.info(
            "analysed %d parts of spans, %d were known from earlier runs", len(processor.analysed), len(processor.kept)
        )
        for part in processor.analysed:
            _keep(os.path.join(cache.uri, part), os.path.join(self._store, part))


class WindowTransform(RecommenderTransform):
    """Transform for the examples of `data.window`; the custom config holds `span_store`, the folder of kept spans."""

    EXECUTOR_SPEC: ClassVar = executor_spec.BeamExecutorSpec(WindowTransformExecutor)


def _keep(source: str, target: str) -> None:
    """Puts the analyses of a part in the place of older ones, of which they hold all; aside first."""
    if not fileio.exists(source):
        return
    aside = f"{target}.{uuid.uuid4().hex}.tmp"
    io_utils.copy_dir(source, aside)
    if fileio.exists(target):
        fileio.rmtree(target)
    fileio.rename(aside, target)
