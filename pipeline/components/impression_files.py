"""The transformed impressions as one more argument of user code: TFX hands over the splits `train` and `eval` only."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from tfx.types import Artifact, artifact_utils
from tfx.types.standard_component_specs import EXAMPLES_KEY

from modules.training_data import IMPRESSIONS

IMPRESSION_FILES = "impression_files"


def with_impression_files(custom_config: Mapping[str, Any], input_dict: Mapping[str, list[Artifact]]) -> dict[str, Any]:
    """Returns user code's `custom_config`, with the glob of the transformed impressions if the examples have any."""
    artifact = artifact_utils.get_single_instance(input_dict[EXAMPLES_KEY])
    if IMPRESSIONS not in artifact_utils.decode_split_names(artifact.split_names):
        return dict(custom_config)
    return {**custom_config, IMPRESSION_FILES: os.path.join(artifact_utils.get_split_uri([artifact], IMPRESSIONS), "*")}
