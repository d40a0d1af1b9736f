"""The benchmark of growth: its arithmetic, and one small run of the command. No time is asserted."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.datasets.folder import write_tables
from pipeline.datasets.synthetic import SyntheticWorld
from pipeline.scale_benchmark import ComponentFigures, growth_exponents, print_scale

FIGURES = [
    ComponentFigures("Transform", 1000, 2.0, 900.0),
    ComponentFigures("Trainer", 1000, 4.0, 950.0),
    ComponentFigures("Transform", 10_000, 20.0, 910.0),
    ComponentFigures("Trainer", 4000, 64.0, 990.0),
]


def test_exponents_are_of_the_power_law() -> None:
    exponents = growth_exponents(FIGURES)
    assert exponents == {"Transform": [pytest.approx(1.0)], "Trainer": [pytest.approx(2.0)]}


def test_the_table_tells_each_size() -> None:
    output = io.StringIO()
    print_scale(FIGURES, Console(file=output, width=120))
    lines = [line.split() for line in output.getvalue().splitlines() if line.strip()]
    assert ["Transform", "1,000", "2.0", "500", "900"] in lines
    assert ["10,000", "20.0", "500", "910", "1.00"] in lines
    assert ["4,000", "64.0", "62", "990", "2.00"] in lines


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sizes", "10,many"], "expected whole numbers with commas between; received '10,many'"),
        (["--sizes", "1000,100"], "expected ascending numbers; received '1000,100'"),
        (["--until", "Pusher"], "expected one of InteractionExampleGen, "),
    ],
)
def test_wrong_arguments(tmp_path: Path, arguments: list[str], message: str) -> None:
    data = tmp_path / "data"
    write_tables(data, SyntheticWorld(users=20, items=30, interactions=300).generate())
    result = CliRunner().invoke(
        app, ["bench-scale", "--config", "synthetic", "--set", f"data.directory={data}", *arguments]
    )
    assert result.exit_code == 1
    assert message in result.stderr


@pytest.mark.slow
def test_a_component_is_measured_in_its_own_process(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_tables(data, SyntheticWorld(users=40, items=30, interactions=800).generate())
    arguments = ["--sizes", "2000", "--until", "InteractionExampleGen", "--output", str(tmp_path / "figures.json")]
    result = CliRunner().invoke(
        app, ["bench-scale", "--config", "synthetic", "--set", f"data.directory={data}", *arguments]
    )
    assert result.exit_code == 0, result.output
    (figures,) = json.loads((tmp_path / "figures.json").read_text())
    assert figures["component"] == "InteractionExampleGen"
    assert abs(figures["interactions"] - 2000) < 250
    assert 0 < figures["seconds"] < 600
    assert figures["peak_mebibytes"] > 100
