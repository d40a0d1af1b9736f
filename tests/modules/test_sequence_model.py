"""Sequence models: they serve what they train on, nothing leaks from the same instant, and the loss is right."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from modules import sequences
from modules.derived_names import USER_KEY
from modules.features import HISTORY_ITEM_IDS, TIMESTAMP
from modules.models import item_side
from modules.models.gru import GruConfig, GruModel
from modules.models.registry import create_recommender
from modules.models.sequence_model import SequenceScorer
from modules.models.transformer import TransformerConfig, TransformerModel
from modules.models.validation import Validator
from tests.modules.small_world import GROUPS, HISTORY_LENGTH

SMALL = {"dimension": 8, "hidden_units": 16, "dropout": 0.0, "item_id_dropout": 0.0, "chunk_length": 7}
MODELS = {
    "transformer": (TransformerModel, TransformerConfig(**SMALL)),
    "one_layer": (TransformerModel, TransformerConfig(**SMALL, layers=1)),
    "gru": (GruModel, GruConfig(**SMALL, state_units=6)),
}


@pytest.fixture(scope="module")
def log(world):
    inputs = world.fit_context().inputs
    return sequences.read_sequences(world.data, "train", [part.name for part in inputs.query], inputs.feedback)


def _make(world, log, name, window=HISTORY_LENGTH, **changes):
    """Returns a model with random weights and the batch of a few chunks."""
    tf.keras.utils.set_random_seed(4)
    model_class, config = MODELS[name]
    config = config.model_copy(update=changes)
    inputs = world.fit_context().inputs
    counts = item_side.windowed_counts(world.data, inputs.item_vocabulary_size, config.popularity_windows_days)
    model = model_class(config, inputs, world.catalogue, counts, window)
    batch = sequences.make_batch(log, log.chunks(window, config.chunk_length)[:40], window)
    model.compute_loss(batch)
    for weight in model.trainable_variables:
        weight.assign_add(tf.random.normal(weight.shape, stddev=0.3))
    return model, batch


def _query_vectors(model, batch):
    batch = {name: tf.constant(value) for name, value in batch.items()}
    tokens = model._training_tokens(batch, model.all_items(training=False)[0], training=False)
    places = tf.stack([batch["query_rows"], batch["query_positions"]], axis=1)
    return tf.gather_nd(model.encode(tokens, training=False), places).numpy()


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_query_sees_what_was_strictly_before_it_and_nothing_else(world, log, name):
    model, batch = _make(world, log, name, window=100)
    before = _query_vectors(model, batch)
    starts = batch["query_starts"][batch["query_rows"], batch["query_positions"]]
    chosen = [query for query in range(len(starts)) if starts[query] > 0][:12]
    assert len(chosen) == 12
    for query in chosen:
        row, start = batch["query_rows"][query], starts[query]
        for rows, changes in ((slice(start, None), False), (slice(0, start), True)):
            changed = {key: value.copy() for key, value in batch.items()}
            changed["event_item_ids"][row, rows] = 1 + (changed["event_item_ids"][row, rows] + 4) % 20
            after = _query_vectors(model, changed)[query]
            assert (np.abs(after - before[query]).max() > 1e-4) == changes


@pytest.mark.parametrize("name", ["one_layer", "gru", "transformer"])
def test_serving_scores_as_training_learned(world, log, name):
    """The vector of a query within its user's sequence gives the scores of the example that tells its history."""
    model, _ = _make(world, log, name)
    batch = sequences.make_batch(log, log.chunks(HISTORY_LENGTH, 1000), HISTORY_LENGTH)
    vectors = _query_vectors(model, batch)
    scorer = SequenceScorer(model, world.catalogue, world.fit_context().inputs)
    expected = model.scores(vectors, scorer.item_vectors, scorer.item_biases).numpy()
    examples = world.transformed["train"]
    keys = list(zip(examples[USER_KEY].numpy().tolist(), examples[TIMESTAMP].numpy().tolist(), strict=True))
    query = {name: value for name, value in examples.items() if not isinstance(value, tf.SparseTensor)}
    served = scorer.score_catalogue(query).numpy()
    lengths = np.count_nonzero(examples[HISTORY_ITEM_IDS].numpy(), axis=1)
    users = np.unique(examples[USER_KEY].numpy())
    compared = 0
    for number, (row, position) in enumerate(zip(batch["query_rows"], batch["query_positions"], strict=True)):
        begin = log.user_bounds[row]
        first = log.first_event[log.query_of_event[begin] + position]
        # A longer past is cut differently: sequences know what was before the history.
        if first - begin > HISTORY_LENGTH:
            continue
        # Simultaneous events may stand in another order, which the distances of attention and the state notice.
        if len(np.unique(log.timestamps[begin:first])) < first - begin:
            continue
        # Each of several events of one instant has a context of its own; a sequence keeps that of one.
        if (log.query_of_event == log.query_of_event[first]).sum() > 1:
            continue
        example = keys.index((int(users[row]), int(log.timestamps[first])))
        assert lengths[example] == first - begin
        np.testing.assert_allclose(served[example], expected[number], rtol=1e-3, atol=1e-3)
        compared += 1
    assert compared > 100


@pytest.mark.parametrize("with_repeats", [False, True])
def test_the_loss_is_the_softmax_over_what_serving_ranks(world, log, with_repeats):
    model, batch = _make(world, log, "transformer")
    if with_repeats:  # Somebody takes again what they had taken first.
        taken: dict[tuple[int, int], int] = {}
        for row, item, instant in zip(batch["seen_rows"], batch["seen_ids"], batch["seen_instants"], strict=True):
            taken.setdefault((row, instant), item)
        for target in range(0, len(batch["target_queries"]), 3):
            query = batch["target_queries"][target]
            if batch["query_instants"][query] > 0:
                batch["target_item_ids"][target] = taken.get((batch["query_rows"][query], 0), 1)
    vectors, biases = (value.numpy() for value in model.all_items(training=False))
    logits = _query_vectors(model, batch) @ vectors.T * (2 / 8**0.5) + biases
    losses, repeats = [], 0
    for target, query in zip(batch["target_item_ids"], batch["target_queries"], strict=True):
        own = batch["seen_rows"] == batch["query_rows"][query]
        seen = set(batch["seen_ids"][own & (batch["seen_instants"] < batch["query_instants"][query])].tolist())
        known = range(1, len(biases) - 1)
        candidates = [item for item in known if (item in seen) == (int(target) in seen)]
        repeats += int(target) in seen
        own_logits = logits[query, candidates].astype(np.float64)
        losses.append(np.log(np.exp(own_logits - own_logits.max()).sum()) + own_logits.max() - logits[query, target])
    assert (repeats > 10) == with_repeats
    actual = model.compute_loss({name: tf.constant(value) for name, value in batch.items()}, training=False)
    assert float(actual) == pytest.approx(np.mean(losses), rel=1e-4)


def test_a_large_sample_of_candidates_gives_about_the_full_softmax(world, log):
    full, batch = _make(world, log, "one_layer")
    batch = {name: tf.constant(value) for name, value in batch.items()}
    # No draw is excluded for being the target itself, so the estimate is a little above the full softmax.
    sampled, _ = _make(world, log, "one_layer", sampled_candidates=20_000)
    for ours, theirs in zip(sampled.trainable_variables, full.trainable_variables, strict=True):
        ours.assign(theirs)
    expected, actual = float(full.compute_loss(batch)), float(sampled.compute_loss(batch))
    assert expected < actual + 0.05
    assert actual == pytest.approx(expected, rel=0.25)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["transformer", "gru"])
def test_learns_what_popularity_cannot_know(world, family):
    context = world.fit_context()
    settings = {"dimension": 16, "hidden_units": 32, "batch_size": 64, "max_epochs": 12, "learning_rate": 0.01}
    settings["weight_average"] = 0.9
    scorer, report = create_recommender(family, settings).fit(world.data, world.catalogue, context)
    validator = Validator(scorer, world.data, world.catalogue, context.inputs.item_vocabulary_size)
    popularity, _ = create_recommender("popularity", {}).fit(world.data, world.catalogue, context)
    baseline = Validator(popularity, world.data, world.catalogue, context.inputs.item_vocabulary_size)
    assert validator.ndcg() > 1.15 * baseline.ndcg()
    best = max(report.epochs, key=lambda epoch: epoch.metrics["validation_ndcg@10"])
    assert validator.ndcg() == pytest.approx(best.metrics["validation_ndcg@10"], abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["transformer", "gru"])
@pytest.mark.parametrize("groups", [(), GROUPS[:1], GROUPS[:-1]])
def test_works_with_any_feature_groups(world, family, groups):
    context = world.fit_context(groups)
    settings = {"dimension": 4, "hidden_units": 4, "batch_size": 600, "max_epochs": 1}
    scorer, _ = create_recommender(family, settings).fit(world.data, world.catalogue, context)
    scores = scorer.score_catalogue(world.transformed["eval"]).numpy()
    assert np.isfinite(scores).all() and scores.shape[1] == world.catalogue.size


@pytest.mark.slow
def test_a_final_fit_takes_the_passes_that_were_best_and_the_later_data(world):
    context = world.fit_context()
    recommender = create_recommender("transformer", {"dimension": 4, "hidden_units": 4, "max_epochs": 2})
    scorer, report = recommender.fit(world.data, world.catalogue, context)
    told: list[str] = []
    context = dataclasses.replace(context, report_progress=told.append)
    final = recommender.refit(world.data, world.catalogue, context, scorer, report)
    assert len(told) == report.best_epoch
    again = recommender.refit(world.data, world.catalogue, context, scorer, report)
    query = world.transformed["eval"]
    assert np.abs(final.score_catalogue(query) - scorer.score_catalogue(query)).max() > 1e-3
    np.testing.assert_array_equal(final.score_catalogue(query), again.score_catalogue(query))
