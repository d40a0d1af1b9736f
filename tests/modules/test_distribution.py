"""Training on two workers: processes of their own that talk over sockets, as on two machines."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from modules.distribution import ClusterError, is_chief, share_of_worker, training_strategy
from tests.free_ports import free_ports
from tests.modules.conftest import SETTINGS
from tests.modules.small_world import SmallWorld

PATIENCE_SECONDS = 400

# A linear model and two passes over 16 batches, of which two workers take half each, or one takes pairs as one batch.
FIT = """
import sys

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs

from modules.distribution import training_strategy
from modules.models.base import FitContext
from modules.models.gradient_descent import GradientDescentConfig, ValidationMetric, fit_with_early_stopping

strategy = training_strategy()
rows, output = int(sys.argv[1]), sys.argv[2]
rng = np.random.default_rng(3)
x = rng.normal(size=(64, 5)).astype(np.float32)
columns = {"x": x, "y": (x @ np.arange(5) + 1).astype(np.float32)}


class Linear(tfrs.Model):
    def __init__(self):
        super().__init__()
        self.dense = tf.keras.layers.Dense(1, kernel_initializer="zeros")
        self.dense.build([None, 5])

    def compute_loss(self, batch, training=False):
        return tf.reduce_mean((self.dense(batch["x"])[:, 0] - batch["y"]) ** 2)


class Scorer:
    def refresh(self):
        pass

    def trained_models(self):
        return {}


with strategy.scope():
    model = Linear()
    told = []
    fit_with_early_stopping(
        model, Scorer(), GradientDescentConfig(batch_size=rows, learning_rate=0.1, weight_average=0.5, max_epochs=2),
        None, None, FitContext(None, 1, output + ".logs", told.append, epochs=2), 64,
        metric=ValidationMetric("loss", lambda: 0.0),
        batches=tf.data.Dataset.from_tensor_slices(columns).batch(rows, drop_remainder=True), steps=64 // rows,
    )
np.savez(output, *model.get_weights(), loss=float(told[-1].split("loss ")[1]))
"""

TRAIN = """
import pickle
import sys

from modules.trainer import run_fn

with open(sys.argv[1], "rb") as file:
    run_fn(pickle.load(file))
"""


def run_workers(code: str, arguments: list[list[str]]) -> None:
    """Runs a program once for each list of arguments: by itself if there is one, else as the workers of a cluster."""
    workers = [f"localhost:{port}" for port in free_ports(len(arguments))]
    processes = []
    for index, given in enumerate(arguments):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "CUDA_VISIBLE_DEVICES": ""}
        if len(arguments) > 1:
            task = {"type": "worker", "index": index}
            environment["TF_CONFIG"] = json.dumps({"cluster": {"worker": workers}, "task": task})
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", code, *given],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    try:
        outputs = [process.communicate(timeout=PATIENCE_SECONDS)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output[-3000:]


@pytest.mark.slow
def test_two_workers_learn_what_one_learns_from_both_their_batches(tmp_path: Path) -> None:
    run_workers(FIT, [["4", str(tmp_path / "first.npz")], ["4", str(tmp_path / "second.npz")]])
    run_workers(FIT, [["8", str(tmp_path / "alone.npz")]])
    first, second, alone = (dict(np.load(tmp_path / f"{name}.npz")) for name in ("first", "second", "alone"))
    assert set(first) == set(second) == set(alone) == {"arr_0", "arr_1", "loss"}
    for name, value in alone.items():
        np.testing.assert_array_equal(first[name], second[name])
        np.testing.assert_allclose(first[name], value, rtol=1e-4, err_msg=name)
    assert np.abs(alone["arr_0"]).max() > 0.1, "it learned something"


@pytest.mark.slow
def test_the_trainer_exports_once_what_both_have_learned(world: SmallWorld, tmp_path: Path) -> None:
    settings = {**SETTINGS["two_tower"], "batch_size": 32}
    for name in ("first", "second"):
        (tmp_path / name).write_bytes(pickle.dumps(world.fn_args(name, "two_tower", settings)))
    run_workers(TRAIN, [[str(tmp_path / "first")], [str(tmp_path / "second")]])
    exported = world.directory / "first" / "model"
    assert not (world.directory / "second" / "model").exists()
    signature = tf.saved_model.load(str(exported)).signatures["serving_default"]
    assert "item_ids" in signature.structured_outputs
    report = json.loads((world.directory / "first" / "run" / "training.json").read_text())
    losses = [epoch["loss"] for epoch in report["epochs"]]
    assert losses[-1] < losses[0]
    alone = world.train("alone", "two_tower", settings)
    expected = json.loads((alone / "run" / "training.json").read_text())["validation_ndcg@10"]
    assert report["validation_ndcg@10"] > expected / 2


@pytest.mark.parametrize("text", ["", "{}", json.dumps({"cluster": {"worker": ["localhost:1"]}})])
def test_one_worker_needs_no_strategy(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("TF_CONFIG", text)
    strategy = training_strategy()
    assert strategy is tf.distribute.get_strategy() and is_chief(strategy)
    batches = tf.data.Dataset.range(6)
    assert share_of_worker(batches, 6, strategy) == (batches, 6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", r"TF_CONFIG must be a JSON object; received '\[1\]'"),
        ("{", "TF_CONFIG must be a JSON object; received '{'"),
        (
            json.dumps({"cluster": {"ps": ["a:1"], "worker": ["b:1"]}}),
            r"expected the tasks chief and worker; .*\['ps'\]",
        ),
    ],
)
def test_a_cluster_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch, text: str, message: str) -> None:
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ClusterError, match=message):
        training_strategy()


class _Resolver:
    def __init__(self, task_type: str, task_id: int) -> None:
        self.task_type, self.task_id = task_type, task_id

    def cluster_spec(self) -> tf.train.ClusterSpec:
        return tf.train.ClusterSpec({"chief": ["a:1"], "worker": ["b:1", "c:1"]})


class _ThreeWorkers:
    num_replicas_in_sync = 3

    def __init__(self, task_type: str, task_id: int) -> None:
        self.cluster_resolver = _Resolver(task_type, task_id)


def test_shares_are_equally_long_and_disjoint() -> None:
    batches_seen: list[int] = []
    for task in (("chief", 0), ("worker", 0), ("worker", 1)):
        batches, steps = share_of_worker(tf.data.Dataset.range(11), 11, _ThreeWorkers(*task))  # type: ignore[arg-type]
        share = list(batches.as_numpy_iterator())
        assert steps == 3 == len(share)
        batches_seen += share
    assert sorted(batches_seen) == list(range(9))
    with pytest.raises(ValueError, match="2 batches are too few for 3 workers"):
        share_of_worker(tf.data.Dataset.range(2), 2, _ThreeWorkers("chief", 0))  # type: ignore[arg-type]
