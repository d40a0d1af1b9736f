"""Studies as files: what is refused, what is planned, what is left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from modules.features import ColumnTable
from modules.models.registry import FAMILIES
from pipeline.config_checks import read_schema
from pipeline.config_files import ConfigError
from pipeline.study.config import STUDY_DIRECTORY, load_study
from pipeline.study.runner import describe_plan
from pipeline.study.variants import Plan, plan_study

SMALL: dict[str, Any] = {
    "name": "small",
    "title": "Small",
    "config": "synthetic",
    "seeds": [1, 2],
    "steps": [
        {"name": "ids", "title": "ids", "groups": ["ids"]},
        {"name": "user", "title": "with users", "groups": ["ids", "user"]},
    ],
    "families": {
        "popularity": {"kind": "simple", "title": "Popularity", "seeds": [1]},
        "two_tower": {"kind": "deep", "title": "Two towers", "steps": ["ids", "user"], "settings": {"dimension": 4}},
    },
}


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({**SMALL, **changes}), encoding="utf-8")
    return path


def plan(name: str | Path, *overrides: str) -> Plan:
    study, config = load_study(name, overrides)
    return plan_study(study, config, ColumnTable.from_schema(read_schema(config)))


@pytest.mark.parametrize("path", sorted(STUDY_DIRECTORY.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_studies_can_be_planned(path: Path):
    study, _ = load_study(path.stem)
    variants = plan(path.stem).variants
    assert set(study.families) <= set(FAMILIES)
    assert {variant.family for variant in variants} == set(study.families)
    assert len({variant.id for variant in variants}) == len(variants)


def test_the_first_seed_of_everything_comes_first(tmp_path: Path):
    variants = plan(write(tmp_path)).variants
    assert [variant.id for variant in variants] == [
        "popularity.ids.1",
        "two_tower.ids.1",
        "two_tower.user.1",
        "two_tower.ids.2",
        "two_tower.user.2",
    ]
    assert variants[2].groups == ("ids", "user")
    assert variants[2].trainer_id == "Trainer.two_tower.user.1"


def test_settings_are_the_tuned_ones_and_over_them_the_studys(tmp_path: Path):
    overrides = ["tuned.two_tower.dimension=8", "tuned.two_tower.batch_size=64", "model.family=popularity"]
    settings = plan(write(tmp_path), *overrides).variants[1].settings
    assert settings["dimension"] == 4
    assert settings["batch_size"] == 64


def test_a_step_without_columns_is_left_out_and_told():
    result = plan("movielens-100k")
    assert "context" not in {step.name for step in result.steps}
    assert any("the schema has no context column" in reason for reason in result.skipped)
    assert not any(variant.step == "context" for variant in result.variants)


def test_refits_come_last_with_the_first_seed_alone(tmp_path: Path):
    path = write(tmp_path)
    family = "study.families.two_tower"
    variants = plan(path, f"{family}.refitted=[user]", f"{family}.fit_seconds=10").variants
    assert [variant.id for variant in variants][-2:] == ["two_tower.user.2", "two_tower.user.refit.1"]
    assert [variant.refit for variant in variants] == [False] * 5 + [True]
    assert [variant.expected_seconds for variant in variants] == [None, 23.0, 23.0, 23.0, 23.0, 33.0]


def test_the_plan_tells_what_it_takes(tmp_path: Path):
    known = [f"study.families.{name}.fit_seconds=10" for name in ("popularity", "two_tower")]
    assert describe_plan(plan(write(tmp_path))) == "5 fits"
    told = describe_plan(plan(write(tmp_path), *known, "study.families.two_tower.refitted=[ids]"))
    assert told == "6 fits, 1 of them refitted on train + validation: about 2 min if none is cached"


def test_each_synthetic_world_has_a_folder_of_its_own(tmp_path: Path):
    folders = {
        load_study("quick", [f"workspace={tmp_path}", f"study.synthetic.users={users}"])[1].data.directory
        for users in (50, 60)
    }
    assert len(folders) == 2


def test_overrides_of_the_study_and_of_the_pipeline(tmp_path: Path):
    study, config = load_study(write(tmp_path), ["study.seeds=[9]", f"workspace={tmp_path}", "features.text_tokens=3"])
    assert study.seeds == (9,)
    assert config.features.text_tokens == 3
    assert config.workspace == f"{tmp_path}/studies/small"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"families": {"oracle": {"kind": "deep", "title": "?"}}}, r"families: received 'oracle'; expected some of \["),
        (
            {"families": {"popularity": {"kind": "simple", "title": "P", "steps": ["time"]}}},
            r"families\.popularity\.steps: received \['time'\]; expected some of \['ids', 'user'\]",
        ),
        ({"steps": [SMALL["steps"][0]] * 2}, r"the names of the steps must differ; received \['ids', 'ids'\]"),
        (
            {"steps": [{**SMALL["steps"][0], "instead_of": "user"}]},
            r"steps\.0\.instead_of: received 'user'; expected one of \[\]",
        ),
        (
            {"families": {"popularity": {"kind": "simple", "title": "P", "refitted": ["user"]}}},
            r"families\.popularity\.refitted: received \['user'\]; expected some of \['ids'\]",
        ),
        ({"sedes": [1]}, r"sedes: no such field; received \[1\]"),
        ({"config": "nowhere"}, r"no configuration 'nowhere'"),
    ],
)
def test_what_a_study_cannot_say(tmp_path: Path, changes: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        load_study(write(tmp_path, **changes))


def test_unknown_studies_name_the_known_ones():
    with pytest.raises(ConfigError, match=r"no study 'nowhere': .*movielens-100k, quick"):
        load_study("nowhere")
