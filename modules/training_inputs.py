"""What TFX's Trainer and Tuner hand over, read into what recommenders are fitted on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import tensorflow as tf
import tensorflow_transform as tft
from tfx.components.trainer.fn_args_utils import FnArgs

from modules import features
from modules.catalogue import Catalogue, read_catalogue
from modules.features import ColumnTable
from modules.model_inputs import ModelInputs, build_model_inputs
from modules.models.base import FitContext
from modules.models.base_model import BaseModel
from modules.training_data import IMPRESSIONS, TRAIN, VALIDATION, TrainingData


@dataclasses.dataclass(frozen=True)
class TrainingInputs:
    """All that a fit reads.

    Attributes:
      columns: columns of the curated schema.
      transform: the transform graph.
      data: the transformed splits.
      catalogue: the titles to rank.
      features: the features that models may use.
      like_threshold: see `FitContext`.
    """

    columns: ColumnTable
    transform: tft.TFTransformOutput
    data: TrainingData
    catalogue: Catalogue
    features: ModelInputs
    like_threshold: float | None

    def fit_context(
        self,
        seed: int,
        log_directory: str,
        report_progress: Callable[[str], None],
        base_model: BaseModel | None = None,
    ) -> FitContext:
        """Returns the context of a fit; see `FitContext`."""
        return FitContext(
            self.features, seed, log_directory, report_progress, self.like_threshold, base_model=base_model
        )


def read_training_inputs(fn_args: FnArgs) -> TrainingInputs:
    """Reads the inputs.

    Args:
      fn_args: TFX's arguments. `custom_config` holds `catalogue_files` (glob of the raw catalogue examples),
        `feature_groups`, `quantile_buckets` and, if there are any, `like_threshold`, `impression_files` (glob of the
        transformed impressions) and `propensity_weighting` (arguments of `TrainingData.weighted`).

    Raises:
      ValueError: if a split or the catalogue has no file.
    """
    config = fn_args.custom_config
    transform = tft.TFTransformOutput(fn_args.transform_graph_path)
    with tf.io.gfile.GFile(fn_args.schema_path) as file:
        columns = ColumnTable.from_schema(features.parse_schema(file.read(), fn_args.schema_path))
    patterns = {TRAIN: fn_args.train_files, VALIDATION: fn_args.eval_files}
    if config.get("impression_files"):
        patterns[IMPRESSIONS] = [config["impression_files"]]
    data = TrainingData.from_patterns(patterns, transform)
    if weighting := config.get("propensity_weighting"):
        data = data.weighted(**weighting)
    return TrainingInputs(
        columns=columns,
        transform=transform,
        data=data,
        catalogue=read_catalogue(config["catalogue_files"], columns, transform),
        features=build_model_inputs(columns, transform, config["feature_groups"], config["quantile_buckets"]),
        like_threshold=config.get("like_threshold"),
    )
