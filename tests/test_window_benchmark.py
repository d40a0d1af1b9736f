"""The benchmark of continuous training: its arithmetic, its spans, and one small run of the command."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from rich.console import Console
from typer.testing import CliRunner

from pipeline.benchmark import BenchmarkError
from pipeline.cli import app
from pipeline.config import load_config
from pipeline.datasets.expand import expand
from pipeline.datasets.folder import write_tables
from pipeline.datasets.synthetic import SyntheticWorld
from pipeline.window_benchmark import (
    Fit,
    KeptFigures,
    WarmStartFigures,
    print_windows,
    read_fit,
    shortest,
    split_by_time,
)

WORLD = SyntheticWorld(users=60, items=40, interactions=1500)


def _training(*curve: float, kind: str = "warm") -> dict[str, Any]:
    epochs = [{"validation_ndcg@10": value} for value in curve]
    return {"epochs": epochs, "start": {"kind": kind}, "fit_seconds": 7.5}


def test_a_fit_is_as_good_as_its_best_pass():
    assert read_fit("gru", _training(0.1, 0.3, 0.2, kind="cold")) == Fit(3, 0.3, 7.5)
    assert read_fit("gru", _training(0.1, 0.3), warm=True) == Fit(2, 0.3, 7.5)


def test_the_shortest_fit_that_is_good_enough_is_found_and_no_longer_one_made():
    made: list[int] = []

    def fit(passes: int) -> Fit:
        made.append(passes)
        return Fit(passes, passes / 8, 1.0)

    assert shortest(Fit(5, 0.375, 9.0), fit) == Fit(3, 0.375, 1.0)
    assert made == [1, 2, 3]
    assert shortest(Fit(2, 0.375, 9.0), fit) is None


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(BenchmarkError, match="ease is not fitted in passes"):
        read_fit("ease", _training())
    with pytest.raises(BenchmarkError, match="two_tower did not begin with the weights"):
        read_fit("two_tower", _training(0.1, kind="cold"), warm=True)


def test_the_tables_tell_ratios_and_passes():
    output = io.StringIO()
    full, cold, warm = Fit(6, 0.3, 60.0), Fit(5, 0.298, 50.0), Fit(2, 0.299, 20.0)
    fits = [WarmStartFigures("gru", 3, full, cold, warm), WarmStartFigures("gru", 4, full, full, None)]
    print_windows([KeptFigures("Transform", 30.0, 20.0)], fits, Console(file=output, width=120))
    lines = [line.split() for line in output.getvalue().splitlines() if line.strip()]
    assert ["Transform", "30.0", "20.0", "1.50"] in lines
    assert ["gru", "3", "0.3000", "5", "2", "50", "20"] in lines
    assert ["gru", "4", "0.3000", "6", "never", "60"] in lines


def test_spans_are_equally_large_in_order_of_time_and_lose_nothing(tmp_path: Path):
    write_tables(tmp_path / "data", WORLD.generate())
    data = load_config("synthetic", [f"data.directory={tmp_path / 'data'}"]).data
    expand(data, tmp_path / "whole", 2000, item_copies=1, seed=0, console=Console(quiet=True))
    split_by_time(tmp_path / "whole", tmp_path / "spans", data)

    logs = [
        pyarrow.parquet.read_table(tmp_path / "spans" / f"span-{span}" / "interactions-00000-of-00001.parquet")
        for span in (1, 2, 3)
    ]
    assert max(log.num_rows for log in logs) - min(log.num_rows for log in logs) <= 1
    together = pyarrow.concat_tables(logs)
    times = together["timestamp"].to_pylist()
    assert times == sorted(times)
    whole = pyarrow.concat_tables(map(pyarrow.parquet.read_table, sorted((tmp_path / "whole").glob("interactions-*"))))
    key = sorted(whole.column_names)
    assert sorted(map(str, together.select(key).to_pylist())) == sorted(map(str, whole.select(key).to_pylist()))
    for span in (1, 2, 3):
        for table in ("items.parquet", "users.parquet"):
            copied = tmp_path / "spans" / f"span-{span}" / table
            assert copied.read_bytes() == (tmp_path / "whole" / table).read_bytes()


def _run(folder: Path, *arguments: str) -> Any:
    write_tables(folder / "data", WORLD.generate())
    options = ["--config", "synthetic", "--set", f"data.directory={folder / 'data'}"]
    return CliRunner().invoke(app, ["bench-windows", *options, *arguments])


def test_wrong_arguments(tmp_path: Path):
    result = _run(tmp_path, "--seeds", "one,two")
    assert result.exit_code == 1
    assert "--seeds: expected whole numbers with commas between; received 'one,two'" in result.stderr


@pytest.mark.slow
def test_the_command_measures_both_runs(tmp_path: Path):
    settings = "model.settings={max_epochs: 1, batch_size: 256}"
    output = tmp_path / "figures.json"
    result = _run(tmp_path, "--interactions", "3000", "--seeds", "5", "--set", settings, "--output", str(output))
    assert result.exit_code == 0, result.output
    figures = json.loads(output.read_text())
    assert [one["component"] for one in figures["kept"]] == ["InteractionExampleGen", "Transform"]
    assert all(one["fresh_seconds"] > 0 < one["kept_seconds"] for one in figures["kept"])
    (fit,) = figures["warm_starts"]
    assert (fit["family"], fit["seed"]) == ("two_tower", 5)
    assert fit["cold"]["passes"] == fit["full"]["passes"] == 1
    assert 0 < fit["full"]["best"] <= 1
