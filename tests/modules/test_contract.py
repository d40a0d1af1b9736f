"""The contract that a model of every family must fulfil, checked on what was exported and loaded from disk."""

import collections
import concurrent.futures
import itertools
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from modules.models.list_statistics import LIST_LENGTH
from modules.models.registry import FAMILIES, create_recommender
from modules.slices import popularity_boundaries
from tests.modules.conftest import QUICK_FAMILIES, SETTINGS
from tests.modules.small_world import NEW_TITLES, TOP_K, query_of, serialize

NOW = 1_709_000_000
CONCURRENT_CALLS = 40
STRANGE_REQUESTS = {
    "nothing": {},
    "an unknown user": {"user_id": ["nobody"], "timestamp": [NOW]},
    "unknown values": {"user_id": ["nobody"], "gender": ["?"], "device": ["toaster"], "channel": [77], "age": [10**9]},
    "unknown titles": {"history_item_ids": ["x", "y"], "history_timestamps": [1, 2], "seen_item_ids": ["x", "y"]},
    "a history without times": {"history_item_ids": ["i0001", "i0002"], "timestamp": [NOW]},
    "times without a history": {"history_timestamps": [NOW - 5, NOW - 3], "timestamp": [NOW]},
    "uneven histories": {"history_item_ids": ["i0001"], "history_timestamps": [3, 4, 5], "history_rating": [1.0] * 4},
    "a long history": {"history_item_ids": [f"i{n:04d}" for n in range(1, 30)], "history_timestamps": list(range(29))},
    "a history in the future": {"history_item_ids": ["i0001"], "history_timestamps": [NOW + 9], "timestamp": [NOW]},
    "a time before all": {"timestamp": [-(2**40)], "history_item_ids": ["i0001"], "history_timestamps": [5]},
    "a time after all": {"timestamp": [2**60], "history_item_ids": ["i0001"], "history_timestamps": [5]},
    "no number": {"minutes": [float("nan")], "history_item_ids": ["i0001"], "history_rating": [float("inf")]},
    "empty text": {"user_id": [""], "gender": [""], "history_item_ids": [""], "seen_item_ids": [""]},
    "bytes that are no text": {"user_id": [b"\xff\xfe"], "device": [b"\x00\xff"], "history_item_ids": [b"\xff"]},
    "a column that the schema does not know": {"favourite_colour": ["blue"]},
}


def _seen(row):
    return {tf.compat.as_bytes(item) for name in ("history_item_ids", "seen_item_ids") for item in row.get(name, [])}


def _assert_is_a_list_of_recommendations(item_ids, scores, allowed):
    """Checks one answer: the best first, no title twice, then only empty places."""
    count = min(TOP_K, len(allowed))
    titles = item_ids[:count].tolist()
    assert len(set(titles)) == count and set(titles) <= allowed
    assert np.isfinite(scores[:count]).all() and (np.diff(scores[:count]) <= 0).all()
    assert (item_ids[count:] == b"").all() and np.isneginf(scores[count:]).all()


@pytest.fixture(scope="module")
def item_ids(world):
    return world.catalogue.item_ids.tolist()


@pytest.fixture(scope="module")
def rows(world):
    """Test events, first those of strangers with little history and of new titles, then any."""
    test = world.rows["test"]
    new = [row for row in test if row["item_id"][0] in NEW_TITLES]
    return [*sorted(test, key=lambda row: len(row.get("seen_item_ids", [])))[:5], *new[:3], *test[:40]]


def test_every_family_is_under_contract():
    assert set(SETTINGS) == set(FAMILIES)


def test_signatures_have_the_agreed_names_types_and_shapes(served):
    text, number, count = tf.string, tf.float32, tf.int64
    slices = ("age_band", "minutes_band", "user_activity", "title_popularity", "hour", "weeks_since_training")
    agreed: dict[str, tuple[dict, dict]] = {
        "serving_default": ({"examples": 1}, {"item_ids": (text, TOP_K), "scores": (number, TOP_K)}),
        "rank": ({"examples": 1, "candidate_ids": 2}, {"scores": (number, None)}),
        "similar": ({"item_ids": 1}, {"item_ids": (text, TOP_K), "scores": (number, TOP_K)}),
        "evaluate": (
            {"examples": 1},
            {
                "rank": (number, 1),
                "repeat_rank": (number, 1),
                "similar_rank": (number, 1),
                "target_score": (number, 1),
                "like_probability": (number, 1),
                "predicted_feedback": (number, 1),
                "num_candidates": (count, 1),
                "catalogue_size": (count, 1),
                "top_k_item_ids": (text, TOP_K),
                "list_rows": (count, LIST_LENGTH),
                "list_novelty": (number, 1),
                "list_popularity": (number, 1),
                "history_popularity": (number, 1),
                "list_genre_diversity": (number, 1),
                "genre_divergence": (number, 1),
            },
        ),
        "slices": ({"examples": 1}, {name: (text, 1) for name in slices}),
    }
    assert set(served.signatures) == set(agreed)
    for name, (inputs, outputs) in agreed.items():
        signature = served.signatures[name]
        positional, received = signature.structured_input_signature
        assert not positional
        assert {key: (spec.dtype, spec.shape.rank) for key, spec in received.items()} == {
            key: (text, rank) for key, rank in inputs.items()
        }
        assert {key: spec.dtype for key, spec in signature.structured_outputs.items()} == {
            key: dtype for key, (dtype, _) in outputs.items()
        }
    for name in ("serving_default", "evaluate", "slices"):
        for key, value in served.call(name, [{}, {}, {}]).items():
            assert value.shape == (3, agreed[name][1][key][1]), (name, key)


def test_titles_of_the_history_and_seen_ones_are_never_recommended(served, world, item_ids):
    rows = [query_of(row) for row in world.rows["test"]]
    rows.append({"history_item_ids": ["i0001", "i0002", "i0003"]})
    rows.append({"seen_item_ids": ["i0001", "i0002", "i0003"]})
    answer = served.call("serving_default", rows)
    for row, titles, scores in zip(rows, answer["item_ids"], answer["scores"], strict=True):
        _assert_is_a_list_of_recommendations(titles, scores, set(item_ids) - _seen(row))


@pytest.mark.parametrize("left", [0, 1, 3])
def test_lists_end_in_empty_places_when_few_titles_are_left(served, item_ids, left):
    row = {"seen_item_ids": item_ids[left + 2 :], "history_item_ids": item_ids[left : left + 2]}
    answer = served.call("serving_default", [row, {}])
    _assert_is_a_list_of_recommendations(answer["item_ids"][0], answer["scores"][0], set(item_ids[:left]))
    _assert_is_a_list_of_recommendations(answer["item_ids"][1], answer["scores"][1], set(item_ids))


def test_recommendations_are_the_best_by_the_scores_of_rank(served, rows, item_ids):
    queries = [query_of(row) for row in rows]
    answer, scores = served.call("serving_default", queries), served.score_all(queries, item_ids)
    assert np.isfinite(scores).all()
    again = served.call("rank", queries, candidate_ids=answer["item_ids"])["scores"]
    np.testing.assert_allclose(again, answer["scores"], atol=1e-5)
    for row, own, best in zip(queries, scores, answer["scores"], strict=True):
        unseen = [score for item_id, score in zip(item_ids, own, strict=True) if item_id not in _seen(row)]
        np.testing.assert_allclose(best, np.sort(unseen)[::-1][:TOP_K], atol=1e-5)


def test_rank_scores_whatever_it_is_given(served, item_ids):
    given = [item_ids[3], item_ids[3], b"unknown", b"", item_ids[0]]
    scores = served.call("rank", [{"seen_item_ids": [item_ids[0]]}], candidate_ids=[given])["scores"]
    assert scores.shape == (1, 5) and scores[0, 0] == scores[0, 1]
    assert np.isneginf(scores[0]).tolist() == [False, False, True, True, False]
    with pytest.raises(tf.errors.InvalidArgumentError):
        served.call("rank", [{}, {}, {}], candidate_ids=[[item_ids[0]], [item_ids[1]]])


def test_similar_titles_leave_out_the_title_itself(served, item_ids):
    answer = served.call_raw("similar", item_ids=[*item_ids, b"unknown", b""])
    for item_id, titles, scores in zip(item_ids, answer["item_ids"], answer["scores"], strict=False):
        _assert_is_a_list_of_recommendations(titles, scores, set(item_ids) - {item_id})
    for titles, scores in zip(answer["item_ids"][-2:], answer["scores"][-2:], strict=True):
        _assert_is_a_list_of_recommendations(titles, scores, set())


@pytest.mark.parametrize("name", STRANGE_REQUESTS)
def test_strange_requests_get_sensible_answers(served, item_ids, name):
    row = STRANGE_REQUESTS[name]
    answer = served.call("serving_default", [row])
    _assert_is_a_list_of_recommendations(answer["item_ids"][0], answer["scores"][0], set(item_ids) - _seen(row))
    assert np.isfinite(served.score_all([row], item_ids)).all()
    evaluated = served.call("evaluate", [row])  # There is no true title to rank.
    assert evaluated["rank"].tolist() == [[np.inf]] and np.isnan(evaluated["repeat_rank"]).all()
    assert evaluated["target_score"].tolist() == [[-np.inf]] and np.isnan(evaluated["like_probability"]).all()
    assert all(value.shape == (1, 1) for value in served.call("slices", [row]).values())


def test_no_example_gets_no_answer(served):
    for signature in ("serving_default", "evaluate", "slices"):
        assert all(len(value) == 0 for value in served.call(signature, []).values())


@pytest.mark.parametrize("signature", ["serving_default", "evaluate", "slices"])
def test_what_is_no_example_is_an_invalid_argument(served, signature):
    for garbage in (b"\x01garbage", serialize({"user_id": [7], "timestamp": ["now"]})):
        with pytest.raises(tf.errors.InvalidArgumentError):
            served.call_raw(signature, examples=[serialize({}), garbage])
    # TensorFlow quotes the bytes in its message, which Python then cannot decode.
    with pytest.raises((tf.errors.InvalidArgumentError, UnicodeDecodeError)):
        served.call_raw(signature, examples=[serialize({}), b"\xffgarbage"])


def test_answers_do_not_depend_on_the_batch(served, rows, item_ids):
    rows = [*rows[:10], *STRANGE_REQUESTS.values()]
    together = served.score_all(rows, item_ids)
    best, evaluated = served.call("serving_default", rows)["scores"], served.call("evaluate", rows)
    for number, row in enumerate(rows):
        if "timestamp" not in row:
            continue  # Its time is the server's.
        np.testing.assert_allclose(served.score_all([row], item_ids)[0], together[number], rtol=1e-5, atol=1e-5)
        alone = served.call("evaluate", [row]) | served.call("serving_default", [row])
        np.testing.assert_allclose(alone["scores"][0], best[number], rtol=1e-5, atol=1e-5)
        for name in ("rank", "num_candidates"):
            assert alone[name][0] == evaluated[name][number]
        for name in ("target_score", "like_probability", "predicted_feedback"):
            np.testing.assert_allclose(alone[name][0], evaluated[name][number], rtol=1e-5, atol=1e-5)


def test_batches_that_run_at_the_same_time_do_not_disturb_each_other(served, rows):
    """As in a server that joins requests; a kernel that is not made for it ends the process, or answers wrongly."""
    rows = rows[:24]
    alone = served.call("serving_default", rows)["scores"]

    def ask_often(seed):
        random = np.random.default_rng(seed)
        for _ in range(CONCURRENT_CALLS):
            chosen = random.choice(len(rows), random.integers(1, len(rows) + 1))
            answer = served.call("serving_default", [rows[number] for number in chosen])["scores"]
            np.testing.assert_allclose(answer, alone[chosen], rtol=1e-5, atol=1e-5)

    with concurrent.futures.ThreadPoolExecutor() as threads:
        list(threads.map(ask_often, range(4)))


def test_no_layer_goes_through_the_kernel_that_concurrent_batches_break(served):
    """What the test above may miss, as it takes luck: Keras 2's own layer normalisation is made of this kernel."""
    saved = saved_model_pb2.SavedModel.FromString((served.directory / "model" / "saved_model.pb").read_bytes())
    library = saved.meta_graphs[0].graph_def.library.function
    operations = {node.op for function in library for node in function.node_def}
    assert "ParseExampleV2" in operations
    assert not {name for name in operations if name.startswith("FusedBatchNorm")}


def test_no_request_makes_later_ones_copy_the_catalogue(served, rows, item_ids):
    """After `ResourceGather` on a variable, everything that reads it whole is given a copy; see `row_lookup`."""
    served.call_raw("similar", item_ids=item_ids[:3])
    served.call("rank", rows[:2], candidate_ids=[item_ids[:3]] * 2)
    served.call("serving_default", rows[:2])
    served.call("evaluate", rows[:2])

    def address(variable):
        # Kept until both are read, or the second might get the memory of the first.
        value = variable.read_value()
        return value, np.asarray(memoryview(value)).__array_interface__["data"][0]

    variables = {id(one): one for signature in served.signatures.values() for one in signature.variables}
    # Embeddings are looked up row by row only.
    read_whole = [one for one in variables.values() if one.dtype == tf.float32 and "/embeddings" not in one.name]
    assert read_whole or served.family == "popularity"
    for variable in read_whole:
        (first, here), (second, there) = address(variable), address(variable)
        assert here == there, variable.name
        del first, second


def test_answers_do_not_depend_on_what_happened(served, rows):
    """The labels of an example, its title above all, are unknown when recommendations are asked for."""
    labelled, queries = (served.call("serving_default", batch) for batch in (rows, [query_of(row) for row in rows]))
    np.testing.assert_array_equal(labelled["item_ids"], queries["item_ids"])
    np.testing.assert_array_equal(labelled["scores"], queries["scores"])


def _expected_rank(scores, candidates, target, own=None):
    """Mean rank of a target among candidates, `[num_items]` each; infinite if it is not in the catalogue."""
    if target is None:
        return np.inf
    others = scores[candidates]
    return 1 + (others > scores[target]).sum() + ((others == scores[target]).sum() - 1) / 2


@pytest.fixture(scope="module")
def labelled(world, rows):
    """Test events, one of an unknown title, and repeats, one of them without a history."""
    rows = [*world.rows["test"][:100], *rows, {**rows[0], "item_id": ["unknown"]}]
    past = [row for row in world.rows["test"] if len(row.get("seen_item_ids", [])) > 2][:8]
    rows += [{**row, "item_id": [row["seen_item_ids"][number % 3]]} for number, row in enumerate(past)]
    rows.append({**query_of(past[0]), "item_id": [past[0]["seen_item_ids"][0]]})
    del rows[-1]["history_item_ids"]
    return [*rows, {**past[1], "history_item_ids": ["i0001", "unknown"]}]


def test_evaluate_ranks_the_true_title_for_each_task(served, labelled, item_ids):
    evaluated, scores = served.call("evaluate", labelled), served.score_all(labelled, item_ids)
    kinds: collections.Counter = collections.Counter()
    for number, row in enumerate(labelled):
        seen = np.array([item_id in _seen(row) for item_id in item_ids])
        title = row["item_id"][0].encode()
        target = item_ids.index(title) if title in item_ids else None
        repeat = target is not None and seen[target]
        expected = {"rank": np.nan, "repeat_rank": np.nan, "similar_rank": np.nan}
        if repeat:
            expected["repeat_rank"] = _expected_rank(scores[number], seen, target)
        else:
            expected["rank"] = _expected_rank(scores[number], ~seen, target)
            anchor = tf.compat.as_bytes(row.get("history_item_ids", ["unknown"])[-1])
            if anchor in item_ids:
                rank = evaluated["similar_rank"][number, 0]
                assert np.isinf(rank) if target is None else rank >= 1
                expected["similar_rank"] = rank  # See the test of saving for the value.
        for name, rank in expected.items():
            np.testing.assert_array_equal(evaluated[name][number, 0], np.float32(rank), err_msg=f"{name} of {row}")
            kinds[name] += not np.isnan(rank)
            kinds[f"infinite {name}"] += np.isinf(rank)
        assert evaluated["num_candidates"][number, 0] == (~seen).sum()
        assert evaluated["catalogue_size"][number, 0] == len(item_ids)
    assert kinds["repeat_rank"] == 9 and kinds["rank"] > 100 and kinds["similar_rank"] > 100
    assert kinds["infinite rank"] >= 1
    np.testing.assert_array_equal(evaluated["top_k_item_ids"], served.call("serving_default", labelled)["item_ids"])


def test_evaluate_gives_the_score_of_the_true_title(served, labelled, item_ids):
    evaluated, scores = served.call("evaluate", labelled), served.score_all(labelled, item_ids)
    for number, row in enumerate(labelled):
        title = row["item_id"][0].encode()
        expected = scores[number, item_ids.index(title)] if title in item_ids else -np.inf
        # Another number of candidates may be multiplied in another order.
        np.testing.assert_allclose(evaluated["target_score"][number, 0], expected, rtol=1e-5, atol=1e-6)
    for name in ("like_probability", "predicted_feedback"):
        known = [row["item_id"][0].encode() in item_ids for row in labelled]
        undefined = np.isnan(evaluated[name][:, 0])
        assert undefined.all() or (undefined == ~np.array(known)).all()


def test_slices_say_what_training_knew(served, world):
    users = collections.Counter(row["user_id"][0] for row in world.rows["train"])
    titles = collections.Counter(row["item_id"][0] for row in world.rows["train"])
    middle, head = popularity_boundaries(np.array(list(titles.values())))
    end = max(row["timestamp"][0] for row in world.rows["train"])
    stale = [{"timestamp": [end + weeks * 604_800 - 1], "user_id": ["nobody"]} for weeks in (1, 4, 12)]
    rows = [*world.rows["test"], {}, *stale]
    slices = {name: value[:, 0].tolist() for name, value in served.call("slices", rows).items()}
    for number, row in enumerate(rows):
        age, minutes, time = (row.get(name, [None])[0] for name in ("age", "minutes", "timestamp"))
        expected = {
            "age_band": "missing" if age is None else ("<25", "25-44", "45+")[np.digitize(age, [25, 45])],
            "minutes_band": "missing" if minutes is None else ("<0.5", "0.5+")[int(minutes >= 0.5)],
            "user_activity": ("new", "1-19", "20-99", "100+")[
                np.digitize(users[row.get("user_id", [""])[0]], [1, 20, 100])
            ],
            "title_popularity": ("new", "tail", "middle", "head")[
                np.digitize(titles[row.get("item_id", [""])[0]], [1, middle, head])
            ],
            "hour": ("00-05", "06-11", "12-17", "18-23")[(time or 0) // 3600 % 24 // 6],
            "weeks_since_training": str(max((time or 0) - end, 0) // 604_800),
        }
        assert {name: values[number].decode() for name, values in slices.items()} == expected
    assert set(slices["title_popularity"]) == {b"new", b"tail", b"middle", b"head"}
    assert slices["weeks_since_training"][-3:] == [b"0", b"3", b"11"] and slices["user_activity"][-1] == b"new"


def test_lists_are_described_by_what_training_knew(served, world, rows, item_ids):
    evaluated = served.call("evaluate", rows)
    events = collections.Counter(row["item_id"][0] for row in world.rows["train"])
    counts = np.array([events[item_id.decode()] for item_id in item_ids])
    genres = {row["item_id"][0].encode(): set(row.get("genres", ())) for row in world.titles}
    for number, row in enumerate(rows):
        chosen = evaluated["list_rows"][number]
        assert [item_ids[place] if place >= 0 else b"" for place in chosen] == evaluated["top_k_item_ids"][
            number
        ].tolist()[:LIST_LENGTH]
        chosen = chosen[chosen >= 0]
        surprise = -np.log2((counts[chosen] + 1) / (counts.sum() + len(counts)))
        assert evaluated["list_novelty"][number, 0] == pytest.approx(surprise.mean(), rel=1e-4)
        had = [item_ids.index(item_id) for item_id in _seen(row) if item_id in item_ids]
        popularity = counts / counts.sum()
        expected = popularity[had].mean() if had else math.nan
        assert evaluated["history_popularity"][number, 0] == pytest.approx(expected, rel=1e-4, nan_ok=True)
        own = [genres[item_ids[place]] for place in chosen if genres[item_ids[place]]]
        distances = [1 - len(one & other) / len(one | other) for one, other in itertools.combinations(own, 2)]
        assert evaluated["list_genre_diversity"][number, 0] == pytest.approx(np.mean(distances), rel=1e-4, abs=1e-6)
    divergences = evaluated["genre_divergence"][:, 0]
    assert (np.isnan(divergences) == [not _seen(row) for row in rows]).all() and (np.nan_to_num(divergences) >= 0).all()


def test_finds_the_titles_that_are_taken_next_better_than_chance(served, world):
    evaluated = served.call("evaluate", world.rows["test"])
    ranks, candidates = evaluated["rank"][:, 0], evaluated["num_candidates"][:, 0]
    gains = np.where(ranks <= 10, 1 / np.log2(1 + ranks), 0)
    by_chance = sum(1 / np.log2(1 + rank) for rank in range(1, 11)) / candidates
    difference = gains - by_chance
    assert difference.mean() > 2 * difference.std() / np.sqrt(len(difference))


def test_the_same_seed_gives_the_same_model_and_saving_keeps_it(served, world, rows):
    """Fits a second time without export: what was saved and loaded scores like it."""
    recommender = create_recommender(served.family, served.settings)
    scorer, _ = recommender.fit(world.data, world.catalogue, world.fit_context())
    scores = scorer.score_catalogue(world.transform_rows([query_of(row) for row in rows])).numpy()
    loaded = served.score_all([query_of(row) for row in rows], world.catalogue.item_ids)
    np.testing.assert_allclose(scores, loaded, rtol=1e-6, atol=1e-6)
    similar = scorer.score_similar(tf.constant([0, 1], tf.int64)).numpy()
    similar[[0, 1], [0, 1]] = -np.inf
    answer = served.call_raw("similar", item_ids=world.catalogue.item_ids[:2].tolist())["scores"]
    np.testing.assert_allclose(np.sort(similar)[:, ::-1][:, :TOP_K], answer, rtol=1e-6, atol=1e-6)
    _assert_judges_like(scorer, served, world)


def _assert_judges_like(scorer, served, world):
    """Checks what `evaluate` says of likeness and feedback against the scorer, up to rounding."""
    item_ids = world.catalogue.item_ids.tolist()
    events = [row for row in world.rows["test"] if row.get("history_item_ids")][:60]
    targets, anchors = (
        np.array([item_ids.index(tf.compat.as_bytes(row[name][-1])) for row in events])
        for name in ("item_id", "history_item_ids")
    )
    evaluated, similar = served.call("evaluate", events), scorer.score_similar(tf.constant(anchors)).numpy()
    for row, target, scores, rank in zip(events, targets, similar, evaluated["similar_rank"][:, 0], strict=True):
        others = scores[[item_id not in _seen(row) for item_id in item_ids]]
        rounding = 1e-5 * (1 + abs(scores[target]))
        assert 1 + (others > scores[target] + rounding).sum() <= rank <= (others > scores[target] - rounding).sum()
        if len(set(others.tolist())) == 1:
            assert rank == (1 + len(others)) / 2
    queries = world.transform_rows([query_of(row) for row in events])
    predicted = scorer.predict_feedback(queries, tf.constant(targets[:, np.newaxis]))
    for name in ("like_probability", "predicted_feedback"):
        if predicted is None:
            assert np.isnan(evaluated[name]).all()
        else:
            value = predicted.like_probability if name == "like_probability" else predicted.feedback
            np.testing.assert_allclose(evaluated[name], value, rtol=1e-5, atol=1e-5)


SERVE_ALONE = """
import json, sys
sys.modules["modules"] = sys.modules["pipeline"] = sys.modules["tensorflow_transform"] = None
import tensorflow as tf
records, *models = sys.argv[1:]
examples = tf.constant(list(tf.data.TFRecordDataset(records).as_numpy_iterator()))
answers = {}
for path in models:
    signatures = tf.saved_model.load(path).signatures
    items = signatures["serving_default"](examples=examples)["item_ids"]
    called = {
        "serving_default": signatures["serving_default"](examples=examples),
        "rank": signatures["rank"](examples=examples, candidate_ids=items),
        "similar": signatures["similar"](item_ids=items[:, 0]),
        "evaluate": signatures["evaluate"](examples=examples),
        "slices": signatures["slices"](examples=examples),
    }
    answers[path] = {
        f"{signature}.{name}": [str(value) for value in tensor.numpy().ravel().tolist()]
        for signature, outputs in called.items() for name, tensor in outputs.items()
    }
print(json.dumps(answers))
"""


@pytest.mark.parametrize(
    "families",
    [
        pytest.param(QUICK_FAMILIES, id="quick"),
        pytest.param(sorted({*FAMILIES} - {*QUICK_FAMILIES}), id="others", marks=pytest.mark.slow),
    ],
)
def test_models_answer_in_a_process_that_has_tensorflow_and_nothing_of_the_project(serve, rows, tmp_path, families):
    records = tmp_path / "examples"
    with tf.io.TFRecordWriter(str(records)) as writer:
        for row in rows:
            writer.write(serialize(row))
    models = {str(serve(family).directory / "model"): serve(family) for family in families}
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "TF_"))}
    command = [sys.executable, "-I", "-c", SERVE_ALONE, str(records), *models]
    finished = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-3000:]
    answers = json.loads(finished.stdout)
    for path, model in models.items():
        items = model.call("serving_default", rows)["item_ids"]
        called = {
            "serving_default": model.call("serving_default", rows),
            "rank": model.call("rank", rows, candidate_ids=items),
            "similar": model.call_raw("similar", item_ids=items[:, 0]),
            "evaluate": model.call("evaluate", rows),
            "slices": model.call("slices", rows),
        }
        for signature, outputs in called.items():
            for name, expected in outputs.items():
                received = answers[path][f"{signature}.{name}"]
                if expected.dtype == object:
                    assert received == [str(value) for value in expected.ravel().tolist()]
                else:
                    np.testing.assert_allclose(np.array(received, float), expected.ravel(), rtol=1e-5, atol=1e-5)
