"""StatisticsGen that reads whole files."""

from __future__ import annotations

from typing import Any, ClassVar

from tfx.components import StatisticsGen
from tfx.components.statistics_gen.executor import Executor
from tfx.dsl.components.base import executor_spec

from pipeline.components.whole_file_examples import read_whole_files


class WholeFileStatisticsGenExecutor(Executor):
    """TFX's executor, on `whole_file_examples`."""

    def Do(self, input_dict: Any, output_dict: Any, exec_properties: Any) -> None:
        """Computes the statistics of each split."""
        with read_whole_files():
            super().Do(input_dict, output_dict, exec_properties)


class WholeFileStatisticsGen(StatisticsGen):
    """Computes the same as TFX's StatisticsGen."""

    EXECUTOR_SPEC: ClassVar = executor_spec.BeamExecutorSpec(WholeFileStatisticsGenExecutor)
