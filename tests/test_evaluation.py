"""The real Evaluator on models that honour the contract: metrics equal NumPy's, the gate decides as configured."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_model_analysis.proto import metrics_for_slice_pb2
from tfx.types import standard_artifacts
from tfx.utils import json_utils, proto_utils

from modules.artifact_files import VERDICT_FILE
from modules.models.list_statistics import ListStatistics
from modules.tasks import BECAUSE_YOU_WATCHED, CONTINUE_WATCHING, NEXT_TITLE, RANK
from pipeline import gate
from pipeline.components.recommender_evaluator import GATE_KEY, RecommenderEvaluatorExecutor
from pipeline.config import EvaluationConfig, GateConfig, ProtectedSlicesConfig, RuleConfig
from pipeline.config_files import ConfigError
from pipeline.evaluation import build_eval_config
from pipeline.evaluation_results import EvaluationError, read_evaluation, read_user_sums

CATALOGUE = 12
TOP_K = (1, 5, 20)
SLICES = (("gender",), ("genres",), ("user_activity",), ("gender", "user_activity"))


@dataclasses.dataclass(frozen=True)
class Event:
    """One labelled example; `hint` is a feature that gives the item away in two cases out of three.

    The title is a repeat if it is one of those seen, of which the largest is taken for the latest.
    """

    user: int
    time: int
    rating: float
    item: int
    hint: int
    gender: str
    genres: tuple[str, ...]
    seen: tuple[int, ...]

    def serialized(self) -> bytes:
        def strings(*values: object) -> tf.train.Feature:
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[str(value).encode() for value in values]))

        features = {"user_id": strings(self.user), "item_id": strings(self.item), "hint": strings(self.hint)}
        features["timestamp"] = tf.train.Feature(int64_list=tf.train.Int64List(value=[self.time]))
        features["rating"] = tf.train.Feature(float_list=tf.train.FloatList(value=[self.rating]))
        optional = {"gender": (self.gender,), "genres": self.genres, "seen_item_ids": self.seen}
        features |= {name: strings(*values) for name, values in optional.items() if any(values) or name == "genres"}
        return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()

    def slice_names(self) -> list[str]:
        activity = f"user_activity={'active' if any(self.seen) else 'new'}"
        names = ["overall", activity, *(f"genres={genre}" for genre in self.genres)]
        return names + ([f"gender={self.gender}", f"gender={self.gender}, {activity}"] if self.gender else [])


def _make_events() -> list[Event]:
    random = np.random.default_rng(3)
    events = []
    for index in range(90):
        item = int(random.integers(CATALOGUE))
        events.append(
            Event(
                user=int(random.integers(15)),
                time=index % 3 * 86_400 + index,
                rating=float(1 + (index * 7 + item) % 5),
                item=item,
                hint=item if index % 3 else int(random.integers(CATALOGUE)),
                gender=("F", "M", "")[index % 7 % 3],
                genres=tuple(random.choice(["Drama", "Comedy", "War"], size=random.integers(0, 3), replace=False)),
                seen=tuple(int(value) for value in random.choice(np.arange(1, 12), size=index % 4, replace=False)),
            )
        )
    return events


EVENTS = _make_events()


class TinyRecommender(tf.Module):
    """Scores items by a coarse formula with many ties, plus a bonus for the hinted item."""

    def __init__(self, bonus: float) -> None:
        super().__init__()
        self.bonus = tf.Variable(bonus)
        self.list_statistics = ListStatistics(np.arange(CATALOGUE), None)

    def _parse(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        one = tf.io.FixedLenFeature([], tf.string)
        parsed = tf.io.parse_example(
            examples, {"user_id": one, "item_id": one, "hint": one, "seen_item_ids": tf.io.VarLenFeature(tf.string)}
        )
        parsed["seen_item_ids"] = tf.sparse.to_dense(parsed["seen_item_ids"], default_value="-1")
        return {name: tf.strings.to_number(value, tf.int32) for name, value in parsed.items()}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def evaluate(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        columns = self._parse(examples)
        items = tf.range(CATALOGUE)
        scores = tf.cast((7 * items + 3 * columns["user_id"][:, tf.newaxis]) % 5, tf.float32)
        scores += self.bonus * tf.cast(items == columns["hint"][:, tf.newaxis], tf.float32)
        is_seen = tf.reduce_any(columns["seen_item_ids"][:, :, tf.newaxis] == items, axis=1)
        unmasked, scores = scores, tf.where(is_seen, -np.inf, scores)
        target = columns["item_id"][:, tf.newaxis]
        of_item = tf.gather(unmasked, target, batch_dims=1)
        repeat = tf.gather(is_seen, target, batch_dims=1)
        best, places = tf.math.top_k(scores, CATALOGUE)
        size = tf.fill([tf.shape(scores)[0], 1], tf.constant(CATALOGUE, tf.int64))
        latest = tf.reduce_max(tf.where(columns["seen_item_ids"] < 0, -1, columns["seen_item_ids"]), axis=1)
        likeness = tf.cast((5 * items + latest[:, tf.newaxis]) % 7, tf.float32)
        no_anchor = repeat | (latest[:, tf.newaxis] < 0)

        def rank(values: tf.Tensor, candidates: tf.Tensor) -> tf.Tensor:
            own = tf.gather(values, target, batch_dims=1)
            better = tf.reduce_sum(tf.cast(candidates & (values > own), tf.float32), axis=1, keepdims=True)
            equal = tf.reduce_sum(tf.cast(candidates & (values == own), tf.float32), axis=1, keepdims=True)
            return better + (equal + 1.0) / 2.0

        return {
            "rank": tf.where(repeat, np.nan, rank(unmasked, ~is_seen)),
            "repeat_rank": tf.where(repeat, rank(unmasked, is_seen), np.nan),
            "similar_rank": tf.where(no_anchor, np.nan, rank(likeness, ~is_seen)),
            "target_score": of_item,
            "like_probability": of_item / 20.0,
            "predicted_feedback": 1.0 + of_item / 4.0,
            "num_candidates": size - tf.reduce_sum(tf.cast(is_seen, tf.int64), axis=1, keepdims=True),
            "catalogue_size": size,
            "top_k_item_ids": tf.where(tf.math.is_inf(best), "", tf.strings.as_string(places)),
            **self.list_statistics.compute(tf.where(tf.math.is_inf(best), CATALOGUE, places), is_seen),
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def slices(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        seen = self._parse(examples)["seen_item_ids"]
        return {"user_activity": tf.where(tf.reduce_any(seen >= 0, axis=1, keepdims=True), "active", "new")}


def _scores(event: Event, bonus: float) -> dict[int, float]:
    return {item: (7 * item + 3 * event.user) % 5 + bonus * (item == event.hint) for item in range(CATALOGUE)}


def _mean_place(item: int, values: dict[int, float], candidates: list[int]) -> float:
    order = sorted(candidates, key=lambda candidate: -values[candidate])
    return float(np.mean([place for place, other in enumerate(order, start=1) if values[other] == values[item]]))


def _reference_ranks(events: list[Event], bonus: float) -> dict[str, list[float]]:
    """Returns the ranks of the events that each task counts, by the prefix of its metrics, in plain Python."""
    ranks: dict[str, list[float]] = {"": [], "continue_watching_": [], "because_you_watched_": []}
    for event in events:
        scores, unseen = _scores(event, bonus), [item for item in range(CATALOGUE) if item not in event.seen]
        if event.item in event.seen:
            ranks["continue_watching_"].append(_mean_place(event.item, scores, list(event.seen)))
            continue
        ranks[""].append(_mean_place(event.item, scores, unseen))
        if event.seen:
            likeness = {item: float((5 * item + max(event.seen)) % 7) for item in range(CATALOGUE)}
            ranks["because_you_watched_"].append(_mean_place(event.item, likeness, unseen))
    return ranks


def _reference_metrics(events: list[Event], bonus: float) -> dict[str, float]:
    result = {}
    for k in TOP_K:
        for prefix, of_task in _reference_ranks(events, bonus).items():
            hit_ranks = np.array([rank for rank in of_task if rank <= k])
            if of_task:
                result[f"{prefix}recall@{k}"] = len(hit_ranks) / len(of_task)
                result[f"{prefix}ndcg@{k}"] = np.sum(1 / np.log2(1 + hit_ranks)) / len(of_task)
                result[f"{prefix}mrr@{k}"] = np.sum(1 / hit_ranks) / len(of_task)
    return result | _reference_list_metrics(events, bonus) | _reference_user_metrics(events, bonus)


def _reference_list_metrics(events: list[Event], bonus: float) -> dict[str, float]:
    """What the first ten places are like in a world where item i was taken i times."""
    counts, surprises = np.zeros(CATALOGUE), []
    popularities: dict[int, list[tuple[float, float]]] = {}
    for event in events:
        scores = _scores(event, bonus)
        unseen = [item for _, item in sorted((-scores[item], item) for item in {*range(CATALOGUE)} - {*event.seen})]
        counts[unseen[:10]] += 1
        surprises.append(-np.mean(np.log2((np.array(unseen[:10]) + 1) / (sum(range(CATALOGUE)) + CATALOGUE))))
        if event.seen:
            popularities.setdefault(event.user, []).append((float(np.mean(unseen[:10])), float(np.mean(event.seen))))
    result = {
        "coverage@10": np.count_nonzero(counts) / CATALOGUE,
        "gini@10": np.abs(counts[:, np.newaxis] - counts).sum() / (2 * CATALOGUE * (CATALOGUE - 1) * counts.mean()),
        "novelty@10": np.mean(surprises),
    }
    if popularities:
        listed, had = np.mean([np.mean(of_user, axis=0) for of_user in popularities.values()], axis=0)
        result["popularity_lift@10"] = listed / had - 1
    return result


def _reference_user_metrics(events: list[Event], bonus: float) -> dict[str, float]:
    """MAP, which is MRR as no two events share an instant, and means over users."""
    users = {event.user for event in events}
    by_user = [_reference_ranks([event for event in events if event.user == user], bonus)[""] for user in users]
    by_user = [ranks for ranks in by_user if ranks]
    result = {}
    for k in (1, 5) if by_user else ():
        hits = [np.array([rank if rank <= k else np.inf for rank in ranks]) for ranks in by_user]
        result[f"map@{k}"] = np.mean(1 / np.concatenate(hits))
        result[f"user_map@{k}"] = result[f"user_mrr@{k}"] = np.mean([np.mean(1 / ranks) for ranks in hits])
        result[f"user_recall@{k}"] = np.mean([np.mean(ranks <= k) for ranks in hits])
        result[f"user_ndcg@{k}"] = np.mean([np.mean(1 / np.log2(1 + ranks)) for ranks in hits])
    return result


GOOD, POOR = 10.0, 0.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with both models and the examples, the latter in two files."""
    root = tmp_path_factory.mktemp("evaluation")
    for name, bonus in (("good", GOOD), ("poor", POOR)):
        model = TinyRecommender(bonus)
        signatures = {"serving_default": model.evaluate, "evaluate": model.evaluate, "slices": model.slices}
        tf.saved_model.save(model, str(root / name / "Format-Serving"), signatures=signatures)
    (root / "examples/Split-test").mkdir(parents=True)
    for part in range(2):
        path = root / f"examples/Split-test/part-{part}.gz"
        with tf.io.TFRecordWriter(str(path), "GZIP") as writer:
            for event in EVENTS[part::2]:
                writer.write(event.serialized())
    return root


def _evaluate(
    folder: Path,
    name: str,
    config: EvaluationConfig,
    model: str,
    baseline: str | None = None,
    feedback: str | None = None,
    like_threshold: float | None = None,
):
    """Runs the Evaluator; returns the folder of the results, whether the model is blessed, and why it is not."""

    def artifact(kind: type, uri: str):
        result = kind()
        result.uri = str(folder / uri)
        return result

    examples = artifact(standard_artifacts.Examples, "examples")
    examples.split_names = json.dumps(["test"])
    inputs = {"examples": [examples], "model": [artifact(standard_artifacts.Model, model)]}
    if baseline:
        inputs["baseline_model"] = [artifact(standard_artifacts.Model, baseline)]
    evaluation = artifact(standard_artifacts.ModelEvaluation, f"{name}/evaluation")
    blessing = artifact(standard_artifacts.ModelBlessing, f"{name}/blessing")
    context = RecommenderEvaluatorExecutor.Context(
        beam_pipeline_args=["--direct_running_mode=in_memory", "--direct_num_workers=1"],
        tmp_dir=str(folder / name / "tmp"),
    )
    RecommenderEvaluatorExecutor(context).Do(
        inputs,
        {"evaluation": [evaluation], "blessing": [blessing]},
        {
            "eval_config": proto_utils.proto_to_json(build_eval_config(config, feedback, like_threshold)),
            "example_splits": json_utils.dumps(["test"]),
            GATE_KEY: config.gate.model_dump_json(),
        },
    )
    verdict = json.loads((Path(evaluation.uri) / VERDICT_FILE).read_text(encoding="utf-8"))
    assert json.loads(blessing.get_string_custom_property(GATE_KEY)) == verdict["gate"]
    (file,) = [path.name for path in Path(blessing.uri).glob("*")]
    blessed = {"BLESSED": True, "NOT_BLESSED": False}[file]
    assert blessing.get_int_custom_property("blessed") == int(blessed)
    return evaluation.uri, blessed, verdict["failures"]


def _config(*rules: RuleConfig, protected: tuple[ProtectedSlicesConfig, ...] = (), **settings) -> EvaluationConfig:
    return EvaluationConfig(top_k=TOP_K, gate=GateConfig(rules=rules, protected=protected), **settings)


def test_first_model_equals_numpy_on_every_slice_and_passes_a_rule_about_changes_only(folder):
    config = _config(RuleConfig(metric="ndcg@5", minimum_change=0.9), slices=SLICES)
    uri, blessed, failures = _evaluate(folder, "first", config, "good")
    result = read_evaluation(uri)
    slices = sorted({name for event in EVENTS for name in event.slice_names()})
    assert sorted(result.slices) == slices and next(iter(result.slices)) == "overall"
    assert "gender=F, user_activity=new" in slices and "genres=Drama" in slices
    for name in slices:
        events = [event for event in EVENTS if name in event.slice_names()]
        assert result.example_counts[name] == len(events)
        assert result.user_counts[name] == len({event.user for event in events})
        expected = _reference_metrics(events, GOOD)
        assert set(result.slices[name]) == set(expected)
        for metric, value in expected.items():
            assert result.slices[name][metric].value == pytest.approx(value, abs=1e-6), (name, metric)
    overall = result.slices["overall"]["ndcg@5"]
    assert overall.lower is not None and overall.upper is not None and overall.lower < overall.value < overall.upper
    assert overall.change is None and not result.has_baseline
    assert blessed is True and failures == []


def test_first_model_is_held_to_the_absolute_rules(folder):
    config = _config(
        RuleConfig(metric="mrr@20", minimum=0.99, minimum_change=-0.002),
        RuleConfig(metric="recall@1", slice={"user_id": "3"}, minimum=0.0),
        RuleConfig(metric="recall@1", slice={"user_id": "4"}, minimum=0.9, least_users=2),
        RuleConfig(metric="coverage@10", minimum=0.5),
    )
    uri, blessed, failures = _evaluate(folder, "absolute", config, "good")
    assert blessed is False
    mrr = read_evaluation(uri).slices["overall"]["mrr@20"]
    own = read_evaluation(uri).slices["user_id=3"]["recall@1"]
    assert sorted(failures) == [
        f"mrr@20 overall is {mrr.value:.4g} (95 %: {mrr.lower:.4g} to {mrr.upper:.4g}); "
        "the gate asks for at least 0.99 with 95 % confidence",
        f"recall@1 on user_id=3 is {own.value:.4g} (no interval: too few users); "
        "the gate asks for at least 0 with 95 % confidence",
    ]


def test_a_worse_model_is_stopped_by_change_slice_and_absolute_rules_in_plain_words(folder):
    config = _config(
        RuleConfig(metric="ndcg@5", minimum=0.0, minimum_change=-0.002),
        RuleConfig(metric="recall@5", slice={"gender": "F"}, minimum=0.9, minimum_change=-0.9, certain=False),
        RuleConfig(metric="recall@1", minimum=0.2),
        RuleConfig(metric="mrr@1", slice={"gender": "X"}, minimum=0.0),
        RuleConfig(metric="coverage@10", minimum=0.0, minimum_change=-1.0),
    )
    uri, blessed, failures = _evaluate(folder, "worse", config, "poor", baseline="good")
    result = read_evaluation(uri)
    poor, good = _reference_metrics(EVENTS, POOR), _reference_metrics(EVENTS, GOOD)
    for metric, value in result.slices["overall"].items():
        assert value.value == pytest.approx(poor[metric], abs=1e-6)
        assert value.baseline == pytest.approx(good[metric], abs=1e-6)
        assert value.change == pytest.approx(poor[metric] - good[metric], abs=1e-6)
    ndcg = result.slices["overall"]["ndcg@5"]
    assert ndcg.change is not None and ndcg.change_lower is not None and ndcg.change_upper is not None
    assert result.has_baseline and ndcg.change_lower < ndcg.change < ndcg.change_upper
    women = result.slices["gender=F"]["recall@5"].value
    recall = result.slices["overall"]["recall@1"]
    assert blessed is False
    assert sorted(failures) == [
        f"ndcg@5 overall changed by {ndcg.change:+.4g} (95 %: {ndcg.change_lower:+.4g} to {ndcg.change_upper:+.4g}) "
        "against the last blessed model; the gate asks for a change of more than -0.002 with 95 % confidence",
        "no test example falls into the slice that the gate names: gender=X",
        f"recall@1 overall is {recall.value:.4g} (95 %: {recall.lower:.4g} to {recall.upper:.4g}); "
        "the gate asks for at least 0.2 with 95 % confidence",
        f"recall@5 on gender=F is {women:.4g}; the gate asks for at least 0.9",
    ]


def test_a_better_model_passes_even_by_the_lower_bound_of_its_gain(folder):
    config = _config(RuleConfig(metric="ndcg@5", minimum=0.1, minimum_change=0.05))
    uri, blessed, failures = _evaluate(folder, "better", config, "good", baseline="poor")
    lower = read_evaluation(uri).slices["overall"]["ndcg@5"].change_lower
    assert lower is not None and lower > 0.05
    assert blessed is True and failures == []


def test_user_sums_of_every_task_and_model_give_the_reported_estimates(folder):
    config = _config(
        RuleConfig(metric="continue_watching_ndcg@5", minimum=0.0),
        RuleConfig(metric="rank_user_auc", minimum=0.0, minimum_change=-1.0),
        slices=(("gender",),),
    )
    uri, blessed, failures = _evaluate(
        folder, "tasks", config, "good", baseline="poor", feedback="rating", like_threshold=4.0
    )
    assert blessed is True and failures == []
    overall = read_evaluation(uri).slices["overall"]
    liked, scores = [event.rating >= 4 for event in EVENTS], [_scores(event, GOOD)[event.item] for event in EVENTS]
    pairs = [
        (a, b)
        for a, like in zip(scores, liked, strict=True)
        if like
        for b, c in zip(scores, liked, strict=True)
        if not c
    ]
    auc = overall["rank_auc"]
    assert auc.value == pytest.approx(np.mean([(a > b) + (a == b) / 2 for a, b in pairs]))
    errors = [1 + score / 4 - event.rating for score, event in zip(scores, EVENTS, strict=True)]
    assert overall["rank_feedback_rmse"].value == pytest.approx(np.sqrt(np.mean(np.square(errors))))
    assert auc.lower is not None and auc.lower < auc.value and auc.change_lower is not None
    counted = {NEXT_TITLE: "", CONTINUE_WATCHING: "continue_watching_", BECAUSE_YOU_WATCHED: "because_you_watched_"}
    for task in (*counted, RANK):
        of_models = {model: read_user_sums(uri, task, model) for model in ("candidate", "baseline")}
        for model, sums in of_models.items():
            assert sums.task == task and len(sums.group_ids) <= 15 and (np.diff(sums.group_ids) > 0).all()
            estimates = sums.sums.sum(axis=0) / sums.counts.sum(axis=0)
            for name, estimate in zip(sums.metric_names, estimates, strict=True):
                metric = overall[name]
                assert estimate == pytest.approx(metric.value if model == "candidate" else metric.baseline, rel=1e-12)
            if task in counted:
                assert (sums.counts.sum(axis=0) == len(_reference_ranks(EVENTS, GOOD)[counted[task]])).all()
        np.testing.assert_array_equal(of_models["candidate"].group_ids, of_models["baseline"].group_ids)
    with pytest.raises(EvaluationError, match="no user sums of task 'rank' and model 'other'"):
        read_user_sums(uri, RANK, "other")


def test_only_the_tasks_asked_for_are_judged(folder):
    uri, _, _ = _evaluate(folder, "one-task", _config(tasks=(CONTINUE_WATCHING,)), "good", feedback="rating")
    metrics = read_evaluation(uri).slices["overall"]
    assert {name.split("@")[0] for name in metrics} == {
        *(f"continue_watching_{measure}" for measure in ("recall", "ndcg", "mrr")),
        "coverage",
        "gini",
        "novelty",
        "popularity_lift",
    }
    with pytest.raises(
        EvaluationError, match=r"no user sums of task 'next_title'.*\('continue_watching', 'candidate'\)"
    ):
        read_user_sums(uri, NEXT_TITLE)


def test_a_gate_without_rules_blesses_nothing(folder):
    uri, blessed, failures = _evaluate(folder, "unjudged", _config(confidence_intervals=False), "good")
    assert read_evaluation(uri).slices["overall"]["ndcg@5"].lower is None
    assert blessed is False and failures == [gate.NO_RULE]


@pytest.mark.parametrize("metric", ["ndcg@10", "ndcg", "coverage@7"])
def test_refuses_a_rule_on_a_metric_that_is_not_computed(metric):
    with pytest.raises(ConfigError, match=rf"gate\.rules\.0\.metric: received '{metric}'; expected one of .*recall@1"):
        build_eval_config(_config(RuleConfig(metric=metric, minimum=0.1)))
    protected = ProtectedSlicesConfig(slices=(("gender",),), metric=metric)
    with pytest.raises(ConfigError, match=rf"gate\.protected\.0\.metric: received '{metric}'"):
        build_eval_config(_config(protected=(protected,)))


def test_metrics_of_the_task_rank_need_a_like_threshold():
    config = _config(RuleConfig(metric="rank_log_loss", maximum=0.1))
    assert build_eval_config(config, "rating", 4.0).metrics_specs
    with pytest.raises(ConfigError, match="received 'rank_log_loss'"):
        build_eval_config(config, "rating")
    with pytest.raises(ConfigError, match="received 'ndcg@5'"):
        build_eval_config(_config(RuleConfig(metric="ndcg@5", minimum=0.1), tasks=(RANK,)), "rating", 4.0)


def test_slices_that_only_the_gate_names_are_computed():
    protected = (ProtectedSlicesConfig(slices=(("gender",), ("genres", "gender")), metric="ndcg@5"),)
    config = build_eval_config(
        _config(RuleConfig(metric="ndcg@5", minimum=0, slice={"hour": "1"}), protected=protected)
    )
    assert [set(spec.feature_keys) for spec in config.slicing_specs] == [
        set(), {"hour"}, {"gender"}, {"genres", "gender"}
    ]  # fmt: skip


def test_a_folder_without_results_is_named(tmp_path):
    for read in (read_evaluation, lambda uri: read_user_sums(uri, NEXT_TITLE)):
        with pytest.raises(EvaluationError, match=str(tmp_path)):
            read(str(tmp_path))


def test_a_metric_that_the_baseline_alone_has_is_undefined_for_the_candidate(tmp_path):
    message = metrics_for_slice_pb2.MetricsForSlice()
    for name, model, value in (("rank_log_loss", "baseline", 0.5), ("example_count", "", 7.0)):
        item = message.metric_keys_and_values.add()
        item.key.name, item.key.model_name, item.value.double_value.value = name, model, value
    with tf.io.TFRecordWriter(str(tmp_path / "metrics-00000-of-00001.tfrecord")) as writer:
        writer.write(message.SerializeToString())
    result = read_evaluation(str(tmp_path))
    metric = result.slices["overall"]["rank_log_loss"]
    assert np.isnan(metric.value) and metric.baseline == 0.5 and metric.change is None
    assert result.example_counts["overall"] == 7
