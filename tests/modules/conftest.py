"""The small world, made once for all tests of this folder."""

from __future__ import annotations

import pytest

from tests.modules.small_world import SmallWorld, make_small_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> SmallWorld:
    return make_small_world(tmp_path_factory.mktemp("small_world"))
