"""Settings of every test; pytest imports this before any test module, and so before TensorFlow."""

import os
from collections.abc import Iterator

import hypothesis
import pytest
from absl import logging

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")  # TensorFlow Recommenders needs Keras 2.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# The same examples on every run; no deadline, since the first call of a TensorFlow function traces it.
hypothesis.settings.register_profile("marquee", deadline=None, derandomize=True)
hypothesis.settings.load_profile("marquee")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts whole pipelines first, lest one process be left with a long file while the other has nothing to do."""
    items.sort(key=lambda item: item.get_closest_marker("end_to_end") is None)


_VERBOSITY = logging.get_verbosity()


@pytest.fixture(autouse=True)
def _keep_verbosity() -> Iterator[None]:
    """Commands, also those that other fixtures run, set how much absl logs in this process: no test must notice."""
    logging.set_verbosity(_VERBOSITY)
    yield
    logging.set_verbosity(_VERBOSITY)
