"""What a world takes from data: three figures that can be computed by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config import load_config
from pipeline.config_files import ConfigError
from pipeline.datasets.folder import write_tables
from pipeline.simulation.grounding import ground_in


def write(directory: Path, users: list[str], items: list[str]) -> None:
    count = len(users)
    tables: dict[str, Any] = {
        "interactions": {
            "user_id": users,
            "item_id": items,
            "timestamp": list(range(1_704_067_200, 1_704_067_200 + count)),
            "click": [1] * count,
            "propensity": ["0.5|0.5"] * count,
            "position": [1] * count,
        },
        "items": {
            "item_id": sorted(set(items)),
            "release_day": [0] * len(set(items)),
            "genres": ["Drama|Comedy", "Drama", "Drama"][: len(set(items))],
        },
    }
    write_tables(directory, tables)


def test_skews_and_shares_are_measured(tmp_path: Path):
    write(tmp_path / "data", ["u1"] * 4 + ["u2"], ["i1", "i1", "i2", "i3", "i1"])
    found = ground_in(load_config("simulated", [f"data.directory={tmp_path / 'data'}"]))
    assert found.source == "simulated"
    assert found.activity_skew == pytest.approx(math.log(4) / 2)
    assert found.popularity_skew == pytest.approx(np.std(np.log([3, 1, 1])))
    assert dict(zip(found.genres, found.genre_shares, strict=True)) == {"Drama": 0.75, "Comedy": 0.25}


def test_a_log_of_one_user_says_nothing(tmp_path: Path):
    write(tmp_path / "data", ["u1"] * 2, ["i1", "i2"])
    with pytest.raises(ConfigError, match="1 values of user_id"):
        ground_in(load_config("simulated", [f"data.directory={tmp_path / 'data'}"]))
