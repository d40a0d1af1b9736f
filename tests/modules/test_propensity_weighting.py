"""Interactions weighed by their inverse propensity: what is read, and that every family honours it."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from modules import features, preprocessing
from modules.features import Role
from modules.interaction_log import read_interaction_log
from modules.models.co_occurrence import gram_matrix, target_matrix
from modules.models.ease import ease_weights
from modules.models.registry import FAMILIES, create_recommender
from modules.training_data import EVENT_WEIGHT, TRAIN, TrainingData
from tests.modules.conftest import QUICK_FAMILIES, SETTINGS

PROPENSITY = "propensity"
RARE = 0.05


def with_propensities(world, folder, propensity_of):
    """Returns the small world's transformed data with a propensity, which depends on the title, in each example."""
    files = {}
    for split, paths in world.data.files.items():
        files[split] = [str(folder / f"{split}.gz")]
        with tf.io.TFRecordWriter(files[split][0], "GZIP") as writer:
            for serialized in tf.data.TFRecordDataset(list(paths), "GZIP").as_numpy_iterator():
                example = tf.train.Example.FromString(serialized)
                (item_id,) = example.features.feature["item_id"].int64_list.value
                example.features.feature[PROPENSITY].float_list.value.append(propensity_of(item_id))
                writer.write(example.SerializeToString())
    return TrainingData(files, {**world.data.feature_spec, PROPENSITY: tf.io.FixedLenFeature([], tf.float32)})


@pytest.fixture(scope="module")
def rare_title(world):
    """A title of middling popularity."""
    counts = np.bincount(world.transformed[TRAIN]["item_id"].numpy())[:-1]
    return int(np.argsort(counts)[len(counts) // 2])


@pytest.fixture(scope="module")
def data(world, rare_title, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weighted")
    return with_propensities(world, folder, lambda item_id: RARE if item_id == rare_title else 1.0)


def test_weights_are_clipped_inverse_propensities_with_mean_one(data, rare_title):
    weighted = data.weighted(PROPENSITY, clip=8.0, normalise=True)
    items = data.read(TRAIN, ["item_id"])["item_id"]
    expected = np.where(items == rare_title, 8.0, 1.0)
    expected /= expected.mean()
    np.testing.assert_allclose(weighted.read_weights(TRAIN), expected, rtol=1e-6)
    batch = next(iter(weighted.batches(TRAIN, len(items))))
    np.testing.assert_allclose(batch[EVENT_WEIGHT], expected, rtol=1e-6)
    raw = data.weighted(PROPENSITY, clip=100.0, normalise=False).read_weights(TRAIN)
    assert sorted(set(raw.tolist())) == pytest.approx([1.0, 1 / RARE])
    log = read_interaction_log(weighted, [TRAIN])
    assert log.weights is not None
    np.testing.assert_allclose(log.weights[log.item_ids == rare_title], expected.max(), rtol=1e-6)
    known = log.of_known_items(10**9)
    assert known.weights is not None and len(known.weights) == len(known)
    assert sum(len(block.weights) for block in log.blocks(7) if block.weights is not None) == len(log)


def test_nothing_is_weighed_by_default(data):
    assert data.read_weights(TRAIN) is None and read_interaction_log(data, [TRAIN]).weights is None
    assert EVENT_WEIGHT not in next(iter(data.batches(TRAIN, 2)))


def mean_rank(world, scorer, row):
    """Returns the mean rank of a title for some validation events."""
    events = next(iter(world.data.batches("eval", 60)))
    scores = tf.function(scorer.score_catalogue, autograph=False)(events).numpy()
    return float((scores > scores[:, [row]]).sum(axis=1).mean())


@pytest.mark.parametrize(
    "family",
    [pytest.param(name, marks=() if name in QUICK_FAMILIES else pytest.mark.slow) for name in sorted(FAMILIES)],
)
def test_a_title_rises_when_its_interactions_count_for_more(world, data, rare_title, family):
    context = world.fit_context()
    row = int(world.catalogue.row_of_vocabulary_id(context.inputs.item_vocabulary_size)[rare_title])
    recommender = create_recommender(family, SETTINGS[family])
    plain, _ = recommender.fit(data, world.catalogue, context)
    weighted, _ = recommender.fit(data.weighted(PROPENSITY, 20.0, True), world.catalogue, context)
    assert mean_rank(world, weighted, row) < mean_rank(world, plain, row) - 0.5


@pytest.mark.parametrize("family", ["ease", "item_knn", "markov", "matrix_factorization", "popularity"])
def test_equal_weights_change_nothing(world, data, family):
    recommender = create_recommender(family, SETTINGS[family])
    alike = data.weighted(PROPENSITY, clip=1.0, normalise=True)
    scores = [
        recommender.fit(training, world.catalogue, world.fit_context())[0].score_catalogue(world.transformed["eval"])
        for training in (data, alike)
    ]
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-4, atol=1e-5)


def test_ease_with_targets_solves_its_ridge_regression():
    generator = np.random.default_rng(3)
    taken = (generator.random((40, 6)) < 0.4).astype(float)
    targets = taken * generator.uniform(0.5, 5.0, taken.shape)
    solved = ease_weights(taken.T @ taken, 3.0, taken.T @ targets)
    for title in range(6):
        others = [other for other in range(6) if other != title]
        inputs = taken[:, others]
        ridge = np.linalg.solve(inputs.T @ inputs + 3.0 * np.eye(5), inputs.T @ targets[:, title])
        np.testing.assert_allclose(solved[others, title], ridge, atol=1e-9)
        assert solved[title, title] == 0


def test_target_matrix_equals_the_product_of_the_whole_matrices(data):
    log = read_interaction_log(data.weighted(PROPENSITY, 20.0, True), [TRAIN])
    size = int(log.item_ids.max()) + 2
    users = np.unique(log.user_keys, return_inverse=True)[1]
    weights = np.zeros((users.max() + 1, size))
    assert log.weights is not None
    for user, item, weight in zip(users, log.item_ids, log.weights, strict=True):
        weights[user, item] = max(weights[user, item], weight)
    expected = (weights > 0).T.astype(float) @ weights
    np.testing.assert_allclose(target_matrix(log.blocks(16), size), expected, rtol=1e-4)
    plain = dataclasses.replace(log, weights=None)
    np.testing.assert_array_equal(target_matrix(plain.blocks(16), size), gram_matrix(plain.blocks(16), size))


def sparse(rows, dtype):
    return tf.RaggedTensor.from_row_lengths(
        tf.constant([v for row in rows for v in row], dtype), [*map(len, rows)]
    ).to_sparse()


@pytest.mark.parametrize(
    ("most", "rows", "expected"),
    [
        (1, [[0.25], [], [0.5]], [0.25, 1.0, 0.5]),
        (3, [[0.5, 0.25, 0.125], [], [0.0, 0.75, 0.0]], [0.125, 1.0, 0.75]),
        (3, [[0.5], [], [0.25]], [0.5, 1.0, 0.25]),
    ],
)
def test_transform_takes_the_propensity_of_the_position_shown(most, rows, expected):
    text = f"""
    feature {{ name: "p" type: FLOAT value_count {{ min: 1 max: {most} }} annotation {{ tag: "propensity" }} }}
    feature {{ name: "slot" type: INT value_count {{ min: 1 max: 1 }} annotation {{ tag: "position" }} }}
    """
    keys = "".join(
        f'feature {{ name: "{name}" type: {kind} annotation {{ tag: "{tag}" }} value_count {{ min: 1 }} }}'
        for name, kind, tag in (
            ("user_id", "BYTES", "user_id"),
            ("item_id", "BYTES", "item_id"),
            ("timestamp", "INT", "timestamp"),
            ("history_item_ids", "BYTES", 'history" tag: "item_id'),
            ("seen_item_ids", "BYTES", "seen"),
        )
    )
    schema = features.parse_schema(text + keys)
    inputs = {"p": sparse(rows, tf.float32), "slot": sparse([[3], [], [2]], tf.int64)}
    settings = {"quantile_buckets": 4, "text_tokens": 3, "max_vocabulary_size": 10}
    transformer = preprocessing._ColumnTransformer(inputs, schema, settings)
    outputs = {}
    for column in features.ColumnTable.from_schema(schema).with_role(Role.PROPENSITY, Role.POSITION):
        outputs.update(transformer.transform(column))
    assert outputs["p"].dtype == tf.float32 and outputs["p"].numpy().tolist() == expected
    assert outputs["slot"].dtype == tf.int64 and outputs["slot"].numpy().tolist() == [3, 1, 2]
