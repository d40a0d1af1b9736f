"""What is made once for all tests of this folder: the small world, and a served model of each family."""

from __future__ import annotations

import fcntl
import functools
import os
from collections.abc import Callable
from typing import Any

import pytest

from modules.models.registry import FAMILIES
from tests.modules.served_model import ServedModel
from tests.modules.small_world import SmallWorld, make_small_world

SMALL = {"dimension": 8, "hidden_units": 16}
QUICK_FAMILIES = ("ease", "popularity", "transformer", "two_tower")
"""One of each kind; the contract of the others is left out where only the fast tests run."""

SETTINGS: dict[str, dict[str, Any]] = {
    "autoencoder": {"dimension": 4, "hidden_units": 8, "max_epochs": 2, "batch_size": 64, "variational": True},
    "cascade": {
        "candidates": 12,
        "retrieval": {"family": "ease", "settings": {"regularisation": 20.0}},
        "ranker": {"family": "ranker", "settings": {"dimension": 4, "negatives": 4, "max_epochs": 1}},
    },
    "ease": {"regularisation": 20.0},
    "hybrid": {"members": [{"family": "ease"}, {"family": "markov"}], "candidates": 30},
    "item_knn": {"neighbours": 10},
    "markov": {},
    "matrix_factorization": {"dimension": 4, "sweeps": 2},
    "popularity": {},
    "ranker": {
        "objective": "watch",
        "dimension": 8,
        "cross_rank": 4,
        "hidden_units": 8,
        "negatives": 8,
        "max_epochs": 2,
        "batch_size": 64,
    },
    "transformer": {**SMALL, "batch_size": 64, "max_epochs": 3, "learning_rate": 0.01, "weight_average": 0.5},
    "gru": {**SMALL, "batch_size": 64, "max_epochs": 3, "learning_rate": 0.01, "weight_average": 0.5},
    "two_tower": {"dimension": 8, "hidden_units": 16, "max_epochs": 2, "batch_size": 64},
}


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> SmallWorld:
    return make_small_world(tmp_path_factory.mktemp("small_world"))


@pytest.fixture(scope="session")
def serve(world: SmallWorld, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ServedModel]:
    """Trains a family with the Trainer's entry point, and loads what it wrote; once for each, in any of the workers."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    @functools.cache
    def train_and_load(family: str) -> ServedModel:
        trained = shared / f"served-{family}"
        with open(f"{trained}.lock", "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not trained.exists():
                trained.symlink_to(world.train(family, family, SETTINGS[family]))
        return ServedModel(family, SETTINGS[family], trained.resolve())

    return train_and_load


@pytest.fixture(
    scope="session",
    params=[
        pytest.param(family, marks=() if family in QUICK_FAMILIES else pytest.mark.slow) for family in sorted(FAMILIES)
    ],
)
def served(request: pytest.FixtureRequest, serve: Callable[[str], ServedModel]) -> ServedModel:
    return serve(request.param)
