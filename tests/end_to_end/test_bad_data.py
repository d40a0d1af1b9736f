"""Bad data end a run before anything is learnt from them, with a message that names the column or the line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.datasets.synthetic import SyntheticWorld
from pipeline.local import PipelineFailedError
from pipeline.runs import RunStore
from tests.end_to_end.small_pipeline import COMPONENTS, execution_states, make_config, run, served

pytestmark = pytest.mark.end_to_end

BEFORE_THE_GATE = COMPONENTS[: COMPONENTS.index("AnomalyGate")]

Tables = dict[str, dict[str, list[Any]]]


@pytest.fixture
def tables() -> Tables:
    world = SyntheticWorld(users=60, items=50, interactions=1_000)
    return {name: {column: list(cells) for column, cells in table.items()} for name, table in world.generate().items()}


def test_bad_columns_stop_at_the_gate(tmp_path: Path, tables: Tables):
    users, interactions, items = tables["users"], tables["interactions"], tables["items"]
    users["age"] = [f"{age} years" for age in users["age"]]  # Another type.
    interactions["device"] = ["watch" if row % 2 else cell for row, cell in enumerate(interactions["device"])]
    users["occupation"] = ["" if row % 2 else cell for row, cell in enumerate(users["occupation"])]
    items["release_year"] = [year + 100 for year in items["release_year"]]
    config = make_config(tmp_path, tables=tables)
    with pytest.raises(PipelineFailedError) as failure:
        run(config)

    headline, *problems = str(failure.value).splitlines()
    assert headline == "the data does not match the schema:"
    for table, column, detail in (
        ("interactions", "age", "INT"),
        ("interactions", "device", "watch"),
        ("interactions", "occupation", "% of the examples"),
        ("catalogue", "release_year", "2020"),
    ):
        assert any(table in line and column in line and detail in line for line in problems), (column, problems)
    assert execution_states(config) == {**dict.fromkeys(BEFORE_THE_GATE, "COMPLETE"), "AnomalyGate": "FAILED"}
    report = RunStore(config.metadata_path).report()
    assert (report.state, report.failure, report.anomalies) == ("failed", str(failure.value), str(failure.value))
    assert served(config) == []


def test_malformed_rows_are_named_by_file_and_line(tmp_path: Path, tables: Tables):
    # A value that looks like the terminal library's markup must not be taken for it.
    tables["interactions"]["timestamp"][4] = tables["interactions"]["timestamp"][9] = "[/yesterday]"
    config = make_config(tmp_path, tables=tables)
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json")), encoding="utf-8")
    result = CliRunner().invoke(app, ["run", "--config", str(file)], env={"COLUMNS": "500"})

    assert result.exit_code == 1
    lines = [line.strip() for line in result.stdout.splitlines()]
    start = lines.index(next(line for line in lines if line.startswith("The run failed:")))
    headline, first, second, rest, where, page, _, *next_steps = lines[start:]
    assert any(line.startswith("InteractionExampleGen") and "failed" in line for line in lines[:start])
    assert page.startswith("Report: ") and Path(page.removeprefix("Report: ")).is_file()
    assert next_steps[0] == "Next:"
    assert next_steps[-1].endswith(f"marquee status --json --config {file}")
    assert headline.startswith("The run failed: interactions: 2 of 1000 rows (0.20%) were rejected")
    assert first == f"{tmp_path}/data/interactions.tsv:6: timestamp: '[/yesterday]' is not a number of seconds"
    assert "interactions.tsv:11: " in second
    rejected = Path(rest.removeprefix("All of them: "))
    assert len(rejected.read_text(encoding="utf-8").splitlines()) == 2
    assert Path(where.removeprefix("The whole story is in ")).parent == Path(config.log_directory)
    states = execution_states(config)
    assert states.pop("InteractionExampleGen") == "FAILED"
    assert states == dict.fromkeys({"CatalogueExampleGen", "CuratedSchema"}, "COMPLETE")
