"""The benchmark of training: both learn the same positions with networks of one size, and the table tells the ratio.

No time is asserted: how long something takes depends on what else the machine does.
"""

import io

import numpy as np
import pytest
from rich.console import Console

from modules.sequences import UserSequences
from modules.training_inputs import TrainingInputs
from pipeline.benchmark_inputs import read_inputs_of_run
from pipeline.config import load_config
from pipeline.plain_transformer import FIRST_SEEN, PREVIOUS_FEEDBACK, PREVIOUS_ITEMS, STARTS, pad_sequences
from pipeline.runs import NoRunError
from pipeline.training_benchmark import (
    Contestant,
    TrainingBenchmark,
    measure_training,
    print_training,
)
from tests.modules.small_world import LIKE_THRESHOLD

SETTINGS = {"dimension": 16, "hidden_units": 32, "batch_size": 128, "chunk_length": 16, "learning_rate": 0.01}


@pytest.fixture(scope="module")
def benchmark(world):
    features = world.fit_context().inputs
    inputs = TrainingInputs(world.columns, world.transform, world.data, world.catalogue, features, LIKE_THRESHOLD)
    return measure_training(inputs, SETTINGS, seed=3, rounds=3)


@pytest.mark.slow
def test_both_learn_the_same_positions_with_networks_of_one_size(benchmark):
    assert benchmark.marquee.positions == benchmark.plain.positions > 1500
    assert benchmark.plain.parameters == pytest.approx(benchmark.marquee.parameters, rel=0.05)
    for contestant in (benchmark.marquee, benchmark.plain):
        assert len(contestant.seconds) == 3
        assert min(contestant.seconds) > 0
        assert len(contestant.losses) == 4
        assert contestant.losses[-1] < contestant.losses[0] - 0.1


@pytest.mark.slow
def test_figures_survive_json(benchmark):
    assert TrainingBenchmark.from_json(benchmark.to_json()) == benchmark


def test_the_table_tells_the_ratio_of_rounds_measured_side_by_side():
    marquee = Contestant(100, 4000, [2.0, 4.0, 1.0], [3.0, 2.0, 1.5, 1.25])
    plain = Contestant(104, 4000, [3.0, 4.0, 4.0], [3.5, 2.0, 1.5, 1.0])
    output = io.StringIO()
    print_training(TrainingBenchmark(marquee, plain), Console(file=output, width=200))
    assert "Ratio Marquee : plain 1.50 (1.00 to 4.00 over 3 passes of each, in turn)." in output.getvalue()
    rows = {line.split("  ")[0]: line.split() for line in output.getvalue().splitlines()}
    assert rows["Marquee"][1:] == ["2,000", "2.00", "4,000", "100", "3.00", "to", "1.25"]
    assert rows["plain Keras loop"][3:] == ["1,000", "4.00", "4,000", "104", "3.50", "to", "1.00"]


def test_rows_are_padded_and_mask_what_was_seen_before_the_instant():
    # User 0 takes 1, then 2 and 3 at once, then 4; user 1 takes 3, the unknown id 6, and 3 again.
    sequences = UserSequences(
        item_ids=np.array([1, 2, 3, 4, 3, 6, 3]),
        feedback=np.array([5, 6, 7, 8, 1, 2, 3]),
        timestamps=np.array([0, 9, 9, 12, 1, 2, 3]),
        query_of_event=np.array([0, 1, 1, 2, 3, 4, 5]),
        first_event=np.array([0, 1, 3, 4, 5, 6]),
        query_features={"day": np.arange(6.0)},
        user_bounds=np.array([0, 4, 7]),
    )
    rows = pad_sequences(sequences, length=3, vocabulary_size=7)
    assert rows.targets.tolist() == [[1, 2, 3], [4, 0, 0], [3, 6, 3]]
    assert rows.weights.tolist() == [[1, 1, 1], [1, 0, 0], [1, 0, 1]]
    assert rows.num_positions == 6
    assert rows.features[PREVIOUS_ITEMS].tolist() == [[0, 1, 2], [3, 0, 0], [0, 3, 6]]
    assert rows.features[PREVIOUS_FEEDBACK].tolist() == [[0, 5, 6], [7, 0, 0], [0, 1, 2]]
    assert rows.features["day"].tolist() == [[0, 1, 1], [2, 0, 0], [3, 4, 5]]
    seen = rows.features[FIRST_SEEN][:, np.newaxis] < rows.features[STARTS][:, :, np.newaxis]
    masked = [[set(np.flatnonzero(place).tolist()) - {0, 6} for place in row] for row in seen]
    assert masked[0] == [set(), {1}, {1}]
    assert masked[1][0] == {1, 2, 3}
    assert masked[2] == [set(), set(), set()]  # 3, which is taken again, must be learnable
    assert seen[:, :, [0, 6]].all()


def test_a_workspace_without_a_run_is_refused(tmp_path):
    config = load_config("movielens-100k", [f"workspace={tmp_path}"])
    with pytest.raises(NoRunError):
        read_inputs_of_run(config)
