"""A log of impressions through the whole pipeline: clean, weighed, and judged off-policy as NumPy would."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from modules.metrics.off_policy_estimators import ESTIMATORS
from pipeline.config import PipelineConfig
from pipeline.datasets.folder import Table
from tests.end_to_end.small_pipeline import SCHEMA_TEXT, SMALL_WORLD, make_config, run
from tests.metrics.test_off_policy_estimators import slow_estimates

pytestmark = pytest.mark.end_to_end

TITLES, SLOTS, LISTS, CLIP = 25, 3, 3600, 3.0
THETA = (1.0, 0.6, 0.4)
START = 1_710_000_000
SHOWN_COLUMNS = """
feature { name: "propensity" type: FLOAT float_domain { min: 0 max: 1 disallow_nan: true disallow_inf: true }
          presence { min_fraction: 0.5 min_count: 1 } value_count { min: 3 max: 3 } annotation { tag: "propensity" } }
feature { name: "position" type: INT int_domain { min: 1 max: 3 } presence { min_fraction: 0.5 min_count: 1 }
          value_count { min: 1 max: 1 } annotation { tag: "position" } }
"""


def draw_tables() -> dict[str, Table]:
    """Lists of titles drawn evenly, so that every propensity is 1 / TITLES; the first titles are liked best."""
    tables = dict(SMALL_WORLD.generate())
    tables["items"] = {name: list(values)[:TITLES] for name, values in tables["items"].items()}
    titles, users = tables["items"]["item_id"], list(tables["users"]["user_id"])
    generator = np.random.default_rng(5)
    names = ("user_id", "item_id", "timestamp", "rating", "device", "propensity", "position")
    columns: dict[str, list] = {name: [] for name in names}
    for number in range(LISTS):
        user = users[generator.integers(len(users))]
        for position, title in enumerate(generator.permutation(TITLES)[:SLOTS], 1):
            attraction = 0.6 if title < 5 else 0.1
            taken = generator.random() < THETA[position - 1] * attraction
            rating = 1 + int(generator.integers(5)) if taken else ""
            propensities = "|".join([f"{1 / TITLES:.4f}"] * SLOTS)
            row = (user, titles[title], START + 600 * number, rating, "tv", propensities, position)
            for name, value in zip(names, row, strict=True):
                columns[name].append(value)
    return {**tables, "interactions": columns}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> PipelineConfig:
    folder = tmp_path_factory.mktemp("impressions")
    schema = folder / "schema.pbtxt"
    schema.write_text(SCHEMA_TEXT + SHOWN_COLUMNS, encoding="utf-8")
    return make_config(
        folder,
        f"schema_file={schema}",
        "data.interactions.columns.propensity={source: propensity, separator: '|'}",
        "data.interactions.columns.position=position",
        "data.propensity=propensity",
        "data.position=position",
        "data.splits={train: 0.5, validation: 0.2}",
        f"evaluation.policy={{positions: {SLOTS}, clip: {CLIP}, least_effective_sample_size: 30}}",
        "evaluation.slices=[[gender]]",
        "evaluation.gate={rules: [{metric: policy_value_ips, minimum: 0.1, certain: false}]}",
        "model.family=popularity",
        "model.settings={}",
        tables=draw_tables(),
    )


def read_impressions(config: PipelineConfig) -> Iterator[tuple[bytes, tf.train.Example]]:
    (folder,) = glob.glob(f"{config.artifact_root}/InteractionExampleGen/examples/*/Split-impressions_test")
    for serialized in tf.data.TFRecordDataset(glob.glob(f"{folder}/*"), "GZIP").as_numpy_iterator():
        yield serialized, tf.train.Example.FromString(serialized)


def test_a_log_of_impressions_is_ingested_weighed_and_judged(config: PipelineConfig) -> None:
    first = run(config)
    assert first.states["AnomalyGate"] == "COMPLETE" and first.report.pushed is not None
    (folder,) = glob.glob(f"{config.artifact_root}/InteractionExampleGen/examples/*")
    ingested = json.loads(Path(folder, "ingestion_report.json").read_text())
    assert ingested["impressions"] == LISTS * SLOTS == ingested["interactions_rows"]
    assert ingested["impressions"] - ingested["impressions_not_taken"] == ingested["interactions_accepted"]
    verdict = first.report
    assert verdict.example_counts["overall"] == ingested["num_examples_test"]

    # The same from the examples and the exported model.
    model = tf.saved_model.load(glob.glob(f"{config.serving_directory}/*")[0])
    pairs = list(read_impressions(config))
    answer = {
        name: value.numpy()
        for name, value in model.signatures["evaluate"](examples=tf.constant([raw for raw, _ in pairs])).items()
    }
    assert 1.0 == answer["examination"][0, 0] > answer["examination"][0, 1] > answer["examination"][0, 2] > 0.2
    log = []
    for number, (_, example) in enumerate(pairs):
        values = example.features.feature
        log.append(
            (
                values["item_id"].bytes_list.value[0],
                values["position"].int64_list.value[0],
                (list(values["rating"].float_list.value) or [0.0])[0],
                np.array(values["propensity"].float_list.value),
                answer["top_k_item_ids"][number, :SLOTS],
                answer["top_k_reward_estimates"][number, :SLOTS].astype(float),
                float(answer["logged_reward_estimate"][number, 0]),
            )
        )
    expected, mean_weight, *_ = slow_estimates(log, answer["examination"][0].astype(float), SLOTS)
    metrics = verdict.metrics["overall"]
    assert metrics["off_policy_refusal"] == metrics["off_policy_pbm_refusal"] == 0
    for name in ESTIMATORS:
        assert metrics[f"policy_value_{name}"] == pytest.approx(expected[name], rel=1e-5), name
        lower, upper = verdict.intervals["overall"][f"policy_value_{name}"]
        assert lower < expected[name] < upper
    assert metrics["policy_mean_weight"] == pytest.approx(mean_weight, rel=1e-5)
    # The popular titles are worth about this much; what is behind a list of three is worth less.
    truth = 3.0 * 0.6 * sum(THETA)
    assert 0.4 * truth < metrics["policy_value_pbm"] < 1.2 * truth

    # A second model, fitted by inverse propensities, is compared with the first.
    weighed = config.model_copy(
        update={
            "model": type(config.model).model_validate(
                {"family": "ease", "propensity_weighting": {"clip": 50.0, "normalise": True}}
            )
        }
    )
    second = run(weighed)
    assert second.states["InteractionExampleGen"] == "CACHED" and second.states["Transform"] == "CACHED"
    change = second.report.changes["overall"]["policy_value_pbm"]
    received = second.report.metrics["overall"]["policy_value_pbm"]
    assert change.value == pytest.approx(received - metrics["policy_value_pbm"], abs=1e-9)
    assert change.interval is not None and change.interval[0] <= change.value <= change.interval[1]
