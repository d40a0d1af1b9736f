"""The step of a compiled pipeline that looks whether new data have come; run as a module, this is that step.

Its output parameters are `new_data`, whether the source files are others than those that the last run that ended well
has learned from, and `fingerprint`, what tells these files apart, which that run records once it has ended well.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging

from pipeline.components.newest_data import read_newest_data
from pipeline.data_config import DataConfig
from pipeline.new_data import find_source

NEW_DATA, FINGERPRINT = "new_data", "fingerprint"
DATA_DIRECTORY, NEWEST_SPAN = "data_directory", "newest_span"


def look(data: DataConfig, workspace: str, parameters: Mapping[str, Any]) -> dict[str, str]:
    """Returns the output parameters as text.

    Args:
      data: the tables, whose directory is of spans.
      workspace: folder of the pipeline, local or remote.
      parameters: what was said at submission: `data_directory`, the fixed part of the directory, and `newest_span`, the
        number of the newest span or `spans.LATEST`.

    Raises:
      DataQualityError: if there is no span, or not the one wanted.
      ValueError: if what an earlier run has recorded cannot be read.
    """
    source = find_source(data, str(parameters[DATA_DIRECTORY]), int(parameters[NEWEST_SPAN]))
    fingerprint = hashlib.sha256(source.fingerprint.encode()).hexdigest()
    known = read_newest_data(workspace)
    is_new = known is None or known.fingerprint != fingerprint
    if known is not None and not is_new:
        logging.info(
            "nothing new: span %s below %s is as it was in the run that ended at %s",
            source.spans,
            parameters[DATA_DIRECTORY],
            known.recorded,
        )
    return {NEW_DATA: json.dumps(is_new), FINGERPRINT: fingerprint}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the step, as Kubeflow Pipelines starts it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="the configuration's `data`, as JSON")
    parser.add_argument("--workspace", required=True, help="folder of the pipeline")
    parser.add_argument("--executor_input", required=True, help="Kubeflow Pipelines' ExecutorInput, as JSON")
    given = parser.parse_args(arguments)
    executor_input = json.loads(given.executor_input)
    found = look(
        DataConfig.model_validate_json(given.data), given.workspace, executor_input["inputs"]["parameterValues"]
    )
    for name, text in found.items():
        path = executor_input["outputs"]["parameters"][name]["outputFile"]
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)


if __name__ == "__main__":
    logging.set_verbosity(logging.INFO)
    main()
