"""What a finished run left, for benchmarks that train and ask models themselves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config import PipelineConfig
from pipeline.run_outputs import outputs_by_node
from pipeline.runs import RunStore

if TYPE_CHECKING:
    from modules.training_inputs import TrainingInputs


def find_outputs(config: PipelineConfig, *channels: str) -> list[str]:
    """Returns the folders of the latest run's artifacts of some channels, e.g. `Transform/transform_graph`.

    Raises:
      NoRunError: if there is no run.
      FileNotFoundError: if it has no artifact of a channel.
    """
    outputs = outputs_by_node(config.metadata_path, RunStore(config.metadata_path).report().run_id)
    folders = []
    for channel in channels:
        node, _, name = channel.partition("/")
        uris = [artifact.uri for artifact in outputs.get(node, ()) if Path(artifact.uri).parent.name == name]
        if len(uris) != 1:
            raise FileNotFoundError(f"the latest run in {config.workspace} must have one {channel}; received {uris}")
        folders += uris
    return folders


def read_inputs_of_run(config: PipelineConfig) -> TrainingInputs:
    """Reads what the latest run left for training.

    Raises:
      NoRunError: if there is no run.
      FileNotFoundError: if it did not come so far.
    """
    from tfx.components.trainer.fn_args_utils import FnArgs

    from modules.training_inputs import read_training_inputs

    examples, schema, graph, catalogue = find_outputs(
        config,
        "Transform/transformed_examples",
        "CuratedSchema/schema",
        "Transform/transform_graph",
        "CatalogueExampleGen/examples",
    )
    return read_training_inputs(
        FnArgs(
            train_files=[f"{examples}/Split-train/*"],
            eval_files=[f"{examples}/Split-eval/*"],
            schema_path=f"{schema}/schema.pbtxt",
            transform_graph_path=graph,
            custom_config={
                "catalogue_files": f"{catalogue}/Split-catalogue/*",
                "feature_groups": list(config.features.groups),
                "quantile_buckets": config.features.quantile_buckets,
                "like_threshold": config.data.like_threshold,
            },
        )
    )


def read_test_examples(config: PipelineConfig, count: int) -> list[bytes]:
    """Returns raw serialized tf.Examples of the latest run's test split, spread evenly over it.

    Raises:
      NoRunError: if there is no run.
    """
    import numpy as np
    import tensorflow as tf

    (examples,) = find_outputs(config, "InteractionExampleGen/examples")
    files = sorted(str(file) for file in Path(examples, "Split-test").glob("*"))
    records = list(tf.data.TFRecordDataset(files, compression_type="GZIP").as_numpy_iterator())
    return [records[int(position)] for position in np.linspace(0, len(records) - 1, count)]
