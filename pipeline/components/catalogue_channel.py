"""The catalogue as one input more of TFX's Trainer and Tuner: a retrieval model must know all titles."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from tfx.types import Artifact, artifact_utils

CATALOGUE_KEY = "catalogue"
CATALOGUE_FILES = "catalogue_files"


def with_catalogue_files(custom_config: Mapping[str, Any], input_dict: Mapping[str, list[Artifact]]) -> dict[str, Any]:
    """Returns user code's `custom_config` with the glob of the catalogue's raw examples as `catalogue_files`."""
    artifact = artifact_utils.get_single_instance(input_dict[CATALOGUE_KEY])
    (split,) = artifact_utils.decode_split_names(artifact.split_names)
    return {**custom_config, CATALOGUE_FILES: os.path.join(artifact_utils.get_split_uri([artifact], split), "*")}
