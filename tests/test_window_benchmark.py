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
from pipeline.window_benchmark import KeptFigures, WarmStartFigures, compare, print_windows, split_by_time

WORLD = SyntheticWorld(users=60, items=40, interactions=1500)


def _report(*curve: float, kind: str = "warm") -> dict[str, Any]:
    return {"epochs": [{"validation_ndcg@10": value} for value in curve], "start": {"kind": kind}}


def test_passes_are_counted_until_the_best_of_the_fit_from_nothing():
    figures = compare("gru", 3, _report(0.1, 0.3, 0.2, kind="cold"), _report(0.2, 0.3, 0.4))
    assert figures == WarmStartFigures("gru", 3, cold_best=0.3, cold_passes=2, warm_best=0.4, warm_passes=2)
    assert compare("gru", 3, _report(0.1, 0.3), _report(0.2, 0.25)).warm_passes is None


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(BenchmarkError, match="ease is not fitted in passes"):
        compare("ease", 1, _report(), _report())
    with pytest.raises(BenchmarkError, match="two_tower did not begin with the weights"):
        compare("two_tower", 1, _report(0.1), _report(0.1, kind="cold"))


def test_the_tables_tell_ratios_and_passes():
    output = io.StringIO()
    fits = [WarmStartFigures("gru", 3, 0.3, 5, 0.4, 2), WarmStartFigures("gru", 4, 0.3, 5, 0.2, None)]
    print_windows([KeptFigures("Transform", 30.0, 20.0)], fits, Console(file=output, width=120))
    lines = [line.split() for line in output.getvalue().splitlines() if line.strip()]
    assert ["Transform", "30.0", "20.0", "1.50"] in lines
    assert ["gru", "3", "5", "2", "0.3000", "0.4000"] in lines
    assert ["gru", "4", "5", "never", "0.3000", "0.2000"] in lines


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
    settings = "model.settings={max_epochs: 2, batch_size: 256}"
    output = tmp_path / "figures.json"
    result = _run(tmp_path, "--interactions", "3000", "--seeds", "5", "--set", settings, "--output", str(output))
    assert result.exit_code == 0, result.output
    figures = json.loads(output.read_text())
    assert [one["component"] for one in figures["kept"]] == ["InteractionExampleGen", "Transform"]
    assert all(one["fresh_seconds"] > 0 < one["kept_seconds"] for one in figures["kept"])
    (fit,) = figures["warm_starts"]
    assert (fit["family"], fit["seed"]) == ("two_tower", 5)
    assert 1 <= fit["cold_passes"] <= 2
    assert 0 < fit["cold_best"] <= 1
