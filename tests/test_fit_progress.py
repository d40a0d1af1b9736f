"""Lines on how far a study has come."""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence

from rich.console import Console

from pipeline.fit_progress import FitProgress, describe_duration
from pipeline.study.variants import Variant

VARIANTS = [Variant(family, "ids", ("ids",), seed, {}) for seed in (1, 2) for family in ("popularity", "transformer")]


class Study:
    """A runner that says what the real one says, at times of its own."""

    def __init__(self, variants: Sequence[Variant] = VARIANTS) -> None:
        self.now, self.output = 0.0, io.StringIO()
        self.progress = FitProgress(variants, Console(file=self.output, width=100), clock=lambda: self.now)

    def fit(self, variant: Variant, seconds: float) -> str:
        before = self.output.getvalue()
        self._say(f"Component {variant.trainer_id} is running.")
        self.now += seconds
        self._say(f"Component {variant.trainer_id} is finished.")
        self._say(f"Component {variant.evaluator_id} is running.")
        self._say(f"Component {variant.evaluator_id} is finished.")
        return self.output.getvalue().removeprefix(before).strip()

    def _say(self, message: str) -> None:
        self.progress.emit(logging.LogRecord("absl", logging.INFO, "", 0, message, None, None))


def test_the_rest_is_estimated_by_family():
    study = Study()
    assert study.fit(VARIANTS[0], 10) == "variant 1 of 4, about 30 s to go"
    assert study.fit(VARIANTS[1], 1_000) == "variant 2 of 4, about 17 min to go"
    assert study.fit(VARIANTS[2], 10) == "variant 3 of 4, about 17 min to go"
    assert study.fit(VARIANTS[3], 1_000) == "variant 4 of 4"


def test_what_has_not_run_is_estimated_by_what_the_study_expects():
    variants = [
        Variant("popularity", "ids", ("ids",), 1, {}, expected_seconds=5.0),
        Variant("transformer", "ids", ("ids",), 1, {}, expected_seconds=1_000.0),
        Variant("transformer", "ids", ("ids",), 1, {}, refit=True, expected_seconds=2_000.0),
    ]
    study = Study(variants)
    assert study.fit(variants[0], 10) == "variant 1 of 3, about 50 min to go"
    assert study.fit(variants[1], 500) == "variant 2 of 3, about 33 min to go", "a refit is another matter"


def test_what_was_cached_says_nothing_of_what_is_to_come():
    study = Study()
    assert study.fit(VARIANTS[0], 0.1) == "variant 1 of 4"
    assert study.fit(VARIANTS[1], 100) == "variant 2 of 4, about 3 min to go"


def test_durations_as_people_say_them():
    assert [describe_duration(seconds) for seconds in (4, 600, 9_000)] == ["about 4 s", "about 10 min", "about 2.5 h"]
