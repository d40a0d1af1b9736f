"""The models that are served: one two-tower model, fitted once, over catalogues of several sizes.

A larger catalogue holds the real titles, and synthetic ones with the features of a real title drawn at random, and
noise on the vector that the item tower gives them, so that no two scores are equal. Everything else, the transform
graph, the towers and the signatures, is that of a real model.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel

from pipeline.benchmark_inputs import read_inputs_of_run, read_test_examples
from pipeline.config import PipelineConfig, load_config

if TYPE_CHECKING:
    from modules.catalogue import Catalogue
    from modules.models.two_tower import TwoTowerScorer

FAMILY = "two_tower"
EXACT, SCANN = "exact", "scann"
EPOCHS = 2
_NOISE = 0.3
"""Standard deviation of the noise, in those of the real titles' vectors."""
_RECALL_AT = 100
RECALL_EXAMPLES = 200


class ServedModel(BaseModel):
    """A model to measure.

    Attributes:
      num_items: size of its catalogue.
      retrieval: `exact` or `scann`.
      base_path: what a model server is given.
      recall: share of the exact list's 100 titles that are in its own, over the requests; 1 if it is exact.
    """

    num_items: int
    retrieval: str
    base_path: str
    recall: float

    @property
    def path(self) -> str:
        """Folder of the SavedModel."""
        return f"{self.base_path}/1"


class ServedModels(BaseModel):
    """All models, smallest catalogue first."""

    models: list[ServedModel]


def export_models(
    config: PipelineConfig, sizes: Sequence[int], folder: Path, examples: Sequence[bytes]
) -> ServedModels:
    """Fits the model on what the latest run left, and exports it over each catalogue, exactly and approximately.

    Args:
      config: configuration of a workspace with a finished run.
      sizes: sizes of the catalogues; one below that of the real one stands for the real one.
      folder: where the models go.
      examples: serialized tf.Examples to measure recall with.
    """
    import tensorflow as tf

    from modules.models.approximate_retrieval import ScannRetrieval
    from modules.models.export import ServingModule, export_saved_model
    from modules.models.list_statistics import ListStatistics
    from modules.models.registry import create_recommender
    from modules.models.two_tower import TwoTowerScorer
    from modules.slices import SliceKeys
    from modules.warm_up import write_warm_up_requests

    inputs = read_inputs_of_run(config)
    recommender = create_recommender(FAMILY, {**config.settings_of(FAMILY), "max_epochs": EPOCHS})
    with tempfile.TemporaryDirectory(prefix="marquee-bench-logs-") as logs:
        context = inputs.fit_context(config.model.seed, logs, lambda line: None)
        real, _ = recommender.fit(inputs.data, inputs.catalogue, context)
    kinds = [EXACT, *([SCANN] if importlib.util.find_spec("scann") else [])]
    exported = []
    for size in sizes:
        catalogue = enlarge(inputs.catalogue, size, inputs.features.item_vocabulary_size - 1, config.model.seed)
        scorer = TwoTowerScorer(real.model, catalogue, inputs.features)
        _tell_titles_apart(scorer, inputs.catalogue.size, config.model.seed)
        best: list[list[bytes]] = []
        for kind in kinds:
            retrieval = ScannRetrieval(scorer, config.serving.top_k) if kind == SCANN else None
            module = ServingModule(
                scorer,
                inputs.transform,
                inputs.columns,
                catalogue,
                SliceKeys(inputs.columns, {}, {b"~": 1}, {b"~": 1}, 0),
                ListStatistics(np.ones(catalogue.size, np.int64), None),
                config.serving.top_k,
                retrieval=retrieval,
            )
            base_path = folder / f"{kind}-{size}"
            export_saved_model(module, str(base_path / "1"))
            write_warm_up_requests(str(base_path / "1"), inputs.columns, catalogue)
            lists = [module.recommend(tf.constant([example]))["item_ids"].numpy()[0].tolist() for example in examples]
            best = best or lists
            recall = float(np.mean([_recall(*pair) for pair in zip(best, lists, strict=True)]))
            exported.append(
                ServedModel(num_items=catalogue.size, retrieval=kind, base_path=str(base_path), recall=recall)
            )
    return ServedModels(models=exported)


def enlarge(catalogue: Catalogue, size: int, unknown_id: int, seed: int) -> Catalogue:
    """Returns a catalogue of at least `size` titles: the real ones, then synthetic ones that training never saw.

    Args:
      catalogue: the real titles.
      size: how many to have.
      unknown_id: vocabulary id of titles that training never saw.
      seed: seed of the features that are drawn.
    """
    more = max(0, size - catalogue.size)
    drawn = np.random.default_rng(seed).integers(0, catalogue.size, more)
    # "~" sorts behind the ids of all real titles, as the catalogue's order asks for.
    new_ids = np.array([b"~%08d" % number for number in range(more)], dtype=object)
    return dataclasses.replace(
        catalogue,
        item_ids=np.concatenate([catalogue.item_ids, new_ids]),
        vocabulary_ids=np.concatenate([catalogue.vocabulary_ids, np.full(more, unknown_id, np.int64)]),
        features={name: np.concatenate([values, values[drawn]]) for name, values in catalogue.features.items()},
    )


def _tell_titles_apart(scorer: TwoTowerScorer, num_real: int, seed: int) -> None:
    """Adds noise to the synthetic titles' vectors, as the ids that training never saw cannot tell them apart."""
    from modules.models.item_side import inverse_lengths

    vectors = scorer.item_vectors.numpy()
    noise = np.random.default_rng(seed + 1).standard_normal(vectors[num_real:].shape, np.float32)
    vectors[num_real:] += _NOISE * vectors[:num_real].std() * noise
    scorer.item_vectors.assign(vectors)
    scorer.inverse_lengths.assign(inverse_lengths(vectors))


def _recall(exact: Sequence[bytes], found: Sequence[bytes]) -> float:
    wanted = {item_id for item_id in exact[:_RECALL_AT] if item_id}
    return len(wanted.intersection(found[:_RECALL_AT])) / max(1, len(wanted))


def main() -> None:
    """Fits and exports the models of the serving benchmark, and writes where they are."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("config", help="the configuration, as for `marquee run`")
    parser.add_argument("folder", type=Path, help="where the models go")
    parser.add_argument("output", type=Path, help="JSON file to write")
    parser.add_argument("sizes", help="sizes of the catalogues, e.g. 0,100000; 0 is the real one")
    parser.add_argument("overrides", nargs="*", help="assignments, as for `marquee run --set`")
    chosen = parser.parse_args()
    config = load_config(chosen.config, chosen.overrides)
    sizes = [int(size) for size in chosen.sizes.split(",")]
    models = export_models(config, sizes, chosen.folder, read_test_examples(config, RECALL_EXAMPLES))
    chosen.output.write_text(models.model_dump_json(), encoding="utf-8")


if __name__ == "__main__":
    main()
