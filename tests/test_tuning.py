"""`marquee tune` on the command line: what it prints and refuses, and what becomes of tuned settings."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from modules.trials import Search, Trial
from pipeline.cli import app
from pipeline.config import PipelineConfig, load_config
from pipeline.config_files import ConfigError
from pipeline.pipeline import create_pipeline, create_tuning_pipeline
from pipeline.search_results import latest_search
from pipeline.tuning import print_search, tuned_section

SEARCH = Search(
    family="two_stage",
    trials=[
        Trial(number=0, settings={"window_days": None, "inner.rate": 0.004}, validation_ndcg=0.1, seconds=1.25),
        Trial(
            number=1,
            settings={"window_days": 3.0, "inner.rate": 0.5},
            validation_ndcg=None,
            seconds=0.5,
            failure="[no]\nx",
        ),
        Trial(number=2, settings={"window_days": 7.0, "inner.rate": 1e-05}, validation_ndcg=0.25, seconds=2.0),
    ],
)


def _printed(search: Search) -> list[str]:
    output = io.StringIO()
    print_search(search, Console(file=output, width=120))
    return [line.strip() for line in output.getvalue().splitlines() if line.strip()]


def test_trials_are_printed_the_best_first() -> None:
    lines = _printed(SEARCH)
    assert [line.split()[:3] for line in lines[2:5]] == [
        ["2", "0.2500", "2.0"],
        ["0", "0.1000", "1.2"],
        ["1", "failed", "0.5"],
    ]
    assert lines[3].endswith("window_days: null, inner.rate: 0.004  (as configured)")
    assert lines[5:] == [
        "Trial 1 failed: [no]",
        "Validation NDCG@10 +0.1500 against the settings as they are configured.",
    ]
    nothing_better = SEARCH.model_copy(update={"trials": SEARCH.trials[:2]})
    assert _printed(nothing_better)[-1] == "Nothing better than the settings as they are configured was found."


def test_what_is_printed_is_a_section_of_the_configuration(tmp_path: Path) -> None:
    popularity = Search(
        family="popularity",
        trials=[Trial(number=0, settings={"window_days": 14.0}, validation_ndcg=0.1, seconds=1.0)],
    )
    section = tuned_section([SEARCH, popularity])
    shipped = Path("pipeline/configs/synthetic.yaml").read_text(encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(f"{shipped}\n{section}\n", encoding="utf-8")
    config = load_config(tmp_path / "mine.yaml", ["model.family=popularity"])
    assert config.tuned["two_stage"] == {"window_days": 7.0, "inner": {"rate": 1e-05}}
    assert config.settings_of("popularity") == {"window_days": 14.0}


def test_settings_of_the_model_win_over_tuned_ones_of_its_family() -> None:
    config = load_config(
        "synthetic",
        ["tuned.two_tower={dropout: 0.1, dimension: 32}", "model.family=two_tower", "model.settings.dropout=0.2"],
    )
    assert config.settings_of("two_tower") == {"dropout": 0.2, "dimension": 32}
    assert config.settings_of("popularity") == {}
    other = config.model_copy(update={"model": config.model.model_copy(update={"family": "popularity"})})
    assert other.settings_of("two_tower") == {"dropout": 0.1, "dimension": 32}


@pytest.fixture
def workspace(tmp_path: Path) -> str:
    return f"workspace={tmp_path / 'workspace'}"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["tuned.two_tower.dimention=3"], r"tuned\.two_tower\.dimention: no such field; received 3"),
        (["tuned.oracle={}"], r"tuned: received 'oracle'; expected one of \["),
        (
            ["model.use_tuned=true"],
            r"model\.use_tuned: .*no settings of 'two_tower' .*run `marquee tune --family two_tow",
        ),
    ],
)
def test_a_run_refuses_tuned_settings_that_it_cannot_use(workspace: str, overrides: list[str], message: str) -> None:
    config = load_config("synthetic", [workspace, "model.family=two_tower", *overrides])
    with pytest.raises(ConfigError, match=message):
        create_pipeline(config, metadata_path=config.metadata_path)


def test_kubeflow_is_told_to_keep_settings_in_the_configuration(workspace: str) -> None:
    config = load_config("synthetic", [workspace, "model.family=two_tower", "model.use_tuned=true"])
    with pytest.raises(ConfigError, match=r"model\.use_tuned: received true; .* under `tuned\.two_tower`"):
        create_pipeline(config)


@pytest.mark.parametrize(
    ("families", "overrides", "message"),
    [
        (["oracle"], [], r"tuner\.families: received 'oracle'; expected one of \["),
        (
            ["popularity"],
            ["model.family=popularity", "model.settings={window_days: 3}"],
            r"nothing to tune: model\.settings",
        ),
        (["popularity"], ["tuned.popularity.window=3"], r"tuned\.popularity\.window: no such field; received 3"),
    ],
)
def test_a_search_refuses_what_it_cannot_tune(
    workspace: str, families: list[str], overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        create_tuning_pipeline(load_config("synthetic", [workspace, *overrides]), families)


def test_a_search_runs_what_a_run_does_up_to_transform(workspace: str) -> None:
    config: PipelineConfig = load_config("synthetic", [workspace, "model.family=two_tower"])
    run, search = create_pipeline(config), create_tuning_pipeline(config, ["popularity", "two_tower"])
    shared = [component.id for component in run.components]
    shared = shared[: shared.index("Transform") + 1]
    assert {component.id for component in search.components} == {*shared, "Tuner.popularity", "Tuner.two_tower"}
    upstream = {component.id: {node.id for node in component.upstream_nodes} for component in search.components}
    assert upstream["Tuner.two_tower"] == {"Transform", "CatalogueExampleGen", "CuratedSchema"}


def test_there_is_no_search_before_the_first(tmp_path: Path) -> None:
    assert latest_search(str(tmp_path / "metadata.sqlite"), "synthetic", "popularity") is None


def _invoke(*arguments: str):
    return CliRunner().invoke(app, ["tune", *arguments], env={"COLUMNS": "120", "TERM": "dumb", "NO_COLOR": "1"})


def test_help_has_an_example() -> None:
    result = _invoke("--help")
    assert result.exit_code == 0, result.output
    assert "Example: marquee tune --family popularity --family two_tower" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--all", "--family", "popularity"], "--all tunes every family; received --family popularity as well"),
        (["--set", "tuner.trials=0"], "tuner.trials: received 0"),
        (["--set", "data.directory=/no/such/folder"], "data.directory: no such folder '/no/such/folder'"),
    ],
)
def test_errors_are_one_sentence(arguments: list[str], message: str) -> None:
    result = _invoke(*arguments)
    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output
