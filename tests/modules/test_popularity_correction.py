"""The popularity correction of the loss: the stronger it is, the less scores follow popularity."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from modules.models.registry import create_recommender
from modules.training_data import TRAIN
from tests.modules.conftest import SETTINGS


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "further"),
    [
        ("two_tower", {}),
        ("autoencoder", {}),
        ("transformer", {}),
        ("transformer", {"sampled_candidates": 20}),
    ],
)
def test_scores_follow_popularity_less(world, family, further):
    counts = np.bincount(
        world.transformed[TRAIN]["item_id"].numpy(), minlength=world.fit_context().inputs.item_vocabulary_size
    )
    popularity = counts[world.catalogue.vocabulary_ids]
    # Without looking at validation, where more popular lists do better.
    context = dataclasses.replace(world.fit_context(), epochs=12)
    correlations = []
    for correction in (0.0, 1.0):
        settings = {**SETTINGS[family], **further, "learning_rate": 0.02, "popularity_correction": correction}
        scorer, _ = create_recommender(family, settings).fit(world.data, world.catalogue, context)
        scores = scorer.score_catalogue(world.transformed["eval"]).numpy().mean(axis=0)
        correlations.append(stats.spearmanr(popularity, scores).statistic)
    assert correlations[0] > 0.5 and correlations[1] < correlations[0] - 0.05, correlations
