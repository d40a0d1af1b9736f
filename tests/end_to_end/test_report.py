"""`marquee report` on real runs: complete, and of a run that failed."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.local import PipelineFailedError
from pipeline.report.writer import write_report
from pipeline.runs import NoRunError
from tests.end_to_end.conftest import FirstRuns
from tests.end_to_end.small_pipeline import make_config, run

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]


def text_of(path: Path) -> str:
    page = path.read_text(encoding="utf-8")
    body = page[page.index("<body>") : page.index('<script type="application/json"')]
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def test_the_report_of_a_run_has_every_section(first_runs: FirstRuns):
    report, config = first_runs.first.report, first_runs.first.config
    path = write_report(config, report.run_id)
    assert path == Path(config.workspace) / "reports" / f"{report.run_id}.html"
    assert [file.name for file in path.parent.iterdir()] == [path.name], "nothing is left beside it"
    assert path.stat().st_size < 6_000_000
    text = text_of(path)
    assert report.pushed is not None
    low, high = report.intervals["overall"]["ndcg@10"]
    for told in (
        f"pushed as version {report.pushed.version}",
        f"ndcg@10 {report.metrics['overall']['ndcg@10']:.4f} 95 %: {low:.4f} – {high:.4f}",
        "ndcg@10: at least 0.001",
        "validation_ndcg@10 by epoch",
        f"Interactions, train: {report.data['num_examples_train']:,} examples",
        f"Catalogue: {report.data['num_examples_catalogue']:,} examples",
        "No earlier data",
        "user: age, gender",
        "seed 17",
        "10 users of the test split",
        "Took next:",
    ):
        assert told in text, told
    assert text.count("Recommended to user") == 10


def test_a_cached_run_shows_the_same_evaluation(first_runs: FirstRuns, tmp_path: Path):
    config = first_runs.second.config
    first = text_of(write_report(config, first_runs.first.report.run_id, tmp_path / "first.html"))
    second = text_of(write_report(config, first_runs.second.report.run_id, tmp_path / "second.html"))
    begin, end = (first.index(heading) for heading in ("Metrics by slice", "Example users"))
    assert first[begin:end] in second


def test_a_failed_run_is_reported_as_far_as_it_got(first_runs: FirstRuns, tmp_path: Path):
    # More rows than may be rejected: the latest day that is accepted lies before all events.
    config = make_config(first_runs.folder, f"workspace={tmp_path / 'workspace'}", "data.latest=1990-01-01")
    with pytest.raises(PipelineFailedError) as failure:
        run(config)
    text = text_of(write_report(config))
    assert " ".join(str(failure.value).split()) in text
    assert "did not get to the gate" in text
    assert "There is no model to ask." in text


def test_the_command_prints_the_path_or_which_runs_there_are(first_runs: FirstRuns, tmp_path: Path):
    config, output = first_runs.first.config, tmp_path / "report.html"
    options = ["--config", "synthetic", "--set", f"workspace={config.workspace}"]
    result = CliRunner().invoke(app, ["report", first_runs.first.report.run_id, "--output", str(output), *options])
    assert (result.exit_code, result.output) == (0, f"{output}\n")
    assert "Recommended to user" in text_of(output)
    result = CliRunner().invoke(app, ["report", "yesterday", *options])
    assert result.exit_code == 1
    assert "no run yesterday in ML Metadata" in result.output
    assert first_runs.first.report.run_id in result.output
    with pytest.raises(NoRunError, match="no run yesterday"):
        write_report(config, "yesterday")
