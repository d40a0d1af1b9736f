"""A world with the same events, in which Transform happened to number all tokens differently."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import tensorflow as tf

from modules.features import HISTORY_ITEM_IDS, ITEM_ID, SEEN_ITEM_IDS
from tests.modules.small_world import SmallWorld


def make_permuted_world(world: SmallWorld, directory: Path, seed: int = 4) -> SmallWorld:
    """Copies a world, with every vocabulary in another order and the ids of the transformed examples to match."""
    for name in ("transform", "catalogue"):
        shutil.copytree(world.directory / name, directory / name)
    shutil.copy(world.directory / "schema.pbtxt", directory)
    generator = np.random.default_rng(seed)
    new_ids = {}
    for file in sorted((directory / "transform" / "transform_fn" / "assets").iterdir()):
        tokens = file.read_bytes().splitlines()
        order = generator.permutation(len(tokens))
        file.write_bytes(b"".join(tokens[place] + b"\n" for place in order))
        # Neither "no value" nor the unknown token moves.
        new_ids[file.name] = np.concatenate([[0], 1 + np.argsort(order), [len(tokens) + 1]])
    for name in (HISTORY_ITEM_IDS, SEEN_ITEM_IDS):
        new_ids[name] = new_ids[ITEM_ID]
    for split in ("train", "eval"):
        (directory / split).mkdir()
        for file in sorted((world.directory / split).iterdir()):
            with tf.io.TFRecordWriter(str(directory / split / file.name), "GZIP") as writer:
                for record in tf.data.TFRecordDataset(str(file), "GZIP").as_numpy_iterator():
                    writer.write(_with_new_ids(record, new_ids))
    return SmallWorld(directory, world.schema_text, world.rows, world.titles)


def _with_new_ids(record: bytes, new_ids: dict[str, np.ndarray]) -> bytes:
    example = tf.train.Example.FromString(record)
    for name, ids in new_ids.items():
        values = example.features.feature[name].int64_list.value
        values[:] = ids[list(values)].tolist()
    return example.SerializeToString()
