"""`tuner_fn`: TFX Tuner's entry point. A search over a family's settings, judged as early stopping judges a pass.

Every trial fits a recommender, in closed form or by gradient descent, on the training split and is judged by NDCG@10
over the full catalogue on the validation split. The first trial has the settings as they are configured, so what is
found is never worse on that split. A Gaussian process proposes the later ones (Snoek et al., "Practical Bayesian
Optimization of Machine Learning Algorithms", NeurIPS 2012); a space of no more settings than trials is tried whole.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import textwrap
import time
from collections.abc import Iterator, Mapping
from typing import Any

import keras_tuner
import numpy as np
from keras_tuner.engine import hyperparameters as kinds
from keras_tuner.engine import trial as trials
from keras_tuner.engine.base_tuner import BaseTuner
from tfx.components.trainer.fn_args_utils import FnArgs
from tfx.components.tuner.component import TunerFnResult

from modules.hyperparameters import read_settings, search_space
from modules.models.registry import create_recommender
from modules.models.validation import Validator
from modules.settings import merge_settings, nest_settings
from modules.training_inputs import TrainingInputs, read_training_inputs
from modules.trials import Search, Trial

OBJECTIVE = "validation_ndcg@10"

_SIGNIFICANT_DIGITS = 3
_DRAWS = 1_000
_LINE_WIDTH = 70
# With KerasTuner's own, 1e-4 and 2.6, a dozen trials only explore: they never come back to what was good.
_NOISE = 0.01
"""Variance of the noise of a trial's outcome; that of all outcomes is 1."""
_EXPLORATION = 0.5
"""Standard deviations that not knowing is worth."""
_MAX_SEED = 2**31 - 1

logger = logging.getLogger("marquee.tuner")


def tuner_fn(fn_args: FnArgs) -> TunerFnResult:
    """Prepares the search.

    Args:
      fn_args: TFX's arguments. `custom_config` holds what `read_training_inputs` needs and `search`: `family`,
        `settings` (as configured, nested), `fixed` (those of them that are not searched), `seed` and `trials`.
    """
    search = fn_args.custom_config["search"]
    space = search_space(search["family"], search["settings"], search["fixed"])
    tuner = RecommenderTuner(
        SettingsOracle(space, search["trials"], search["seed"]),
        search["family"],
        search["settings"],
        read_training_inputs(fn_args),
        search["seed"],
        fn_args.working_dir,
    )
    return TunerFnResult(tuner=tuner, fit_kwargs={"verbose": 0})


class SettingsOracle(keras_tuner.oracles.BayesianOptimizationOracle):
    """Decides what to try: the configured settings, then all of a small space or what looks promising in a large one.

    Nothing is tried twice. Numbers are tried with three significant digits, so that they can be copied by hand.

    Args:
      space: what may be tried; its defaults are tried first.
      trials: number of trials at most.
      seed: seed of all draws.
    """

    def __init__(self, space: keras_tuner.HyperParameters, trials: int, seed: int):
        size = _size(space)
        super().__init__(
            objective=keras_tuner.Objective(OBJECTIVE, "max"),
            max_trials=trials if size is None else min(trials, size),
            num_initial_points=len(space.space) + 2,
            alpha=_NOISE,
            beta=_EXPLORATION,
            hyperparameters=space,
            allow_new_entries=False,
            seed=seed % _MAX_SEED + 1,  # KerasTuner takes 0 for "no seed".
            max_consecutive_failed_trials=trials + 1,  # However many fail, the others are tried.
        )
        self._whole_space = size is not None and size <= trials
        self._draws = np.random.default_rng(seed % _MAX_SEED)

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Returns the next settings to try; see the base class."""
        if not self.trials:
            candidates = iter([{dimension.name: dimension.default for dimension in self.hyperparameters.space}])
        elif self._whole_space:
            candidates = _combinations(self.hyperparameters)
        else:
            candidates = self._proposals(trial_id)
        tried = [trial.hyperparameters.values for trial in self.trials.values()]
        for values in candidates:
            if values not in tried:
                return {"status": trials.TrialStatus.RUNNING, "values": values}
        return {"status": trials.TrialStatus.STOPPED, "values": None}

    def _proposals(self, trial_id: str) -> Iterator[dict[str, Any]]:
        """Yields what the Gaussian process proposes, and then draws at random."""
        space = self.hyperparameters.space
        proposed = super().populate_space(trial_id)["values"]
        if proposed is not None:
            yield {dimension.name: _tidy(dimension, proposed[dimension.name]) for dimension in space}
        for _ in range(_DRAWS):
            yield {
                dimension.name: _tidy(dimension, dimension.random_sample(int(self._draws.integers(_MAX_SEED))))
                for dimension in space
            }


class RecommenderTuner(BaseTuner):
    """Fits and judges one recommender per trial.

    A trial that fails, because training diverges, say, is noted as failed and the search goes on.

    Args:
      oracle: decides what to try.
      family: name in the registry.
      settings: settings of the family as configured, nested; those of a trial win over them.
      inputs: what recommenders are fitted on.
      seed: seed of every fit.
      directory: folder for logs and KerasTuner's own files.
    """

    def __init__(
        self,
        oracle: keras_tuner.Oracle,
        family: str,
        settings: Mapping[str, Any],
        inputs: TrainingInputs,
        seed: int,
        directory: str,
    ):
        super().__init__(oracle=oracle, directory=directory, project_name=family, overwrite=True)
        self._family, self._settings = family, settings
        self._inputs, self._seed = inputs, seed
        self._done: list[Trial] = []

    @property
    def search_record(self) -> Search:
        """What was tried so far."""
        return Search(family=self._family, trials=self._done)

    def run_trial(self, trial: trials.Trial, *fit_args: Any, **fit_kwargs: Any) -> dict[str, float]:
        """Fits and validates a recommender.

        Raises:
          keras_tuner.errors.FailedTrialError: if that was not possible.
        """
        settings = read_settings(trial.hyperparameters)
        started = time.monotonic()
        ndcg, failure = None, None
        try:
            ndcg = self._validate(settings, self.get_trial_dir(trial.trial_id))
        except Exception as error:  # Whatever stops one fit says nothing of the others.
            logger.debug("Trial %s failed.", trial.trial_id, exc_info=True)
            failure = str(error) or type(error).__name__
        done = Trial(
            number=len(self._done),
            settings=settings,
            validation_ndcg=ndcg,
            seconds=round(time.monotonic() - started, 3),
            failure=failure,
        )
        is_best = ndcg is not None and ndcg > max((one.validation_ndcg or 0.0 for one in self._done), default=-1.0)
        self._done.append(done)
        result = f"failed: {failure}" if ndcg is None else f"NDCG@10 {ndcg:.4f}"
        logger.info(
            "trial %d/%d of %s: %s (%.1f s)%s",
            done.number + 1,
            self.oracle.max_trials,
            self._family,
            result,
            done.seconds,
            ", best so far" if is_best else "",
        )
        if is_best:
            told = ", ".join(f"{path} {json.dumps(value)}" for path, value in settings.items())
            for line in textwrap.wrap(told, _LINE_WIDTH):
                logger.info("  %s", line)
        if ndcg is None:
            raise keras_tuner.errors.FailedTrialError(failure)
        return {OBJECTIVE: ndcg}

    def on_search_end(self) -> None:
        """Checks that there is something to choose from.

        Raises:
          ValueError: if every trial failed.
        """
        if all(trial.validation_ndcg is None for trial in self._done):
            raise ValueError(f"tuning {self._family}: every trial failed, the first with: {self._done[0].failure}")

    def _validate(self, settings: Mapping[str, Any], log_directory: str) -> float:
        recommender = create_recommender(self._family, merge_settings(self._settings, nest_settings(settings)))
        context = self._inputs.fit_context(self._seed, log_directory, logger.debug)
        scorer, _ = recommender.fit(self._inputs.data, self._inputs.catalogue, context)
        vocabulary_size = self._inputs.features.item_vocabulary_size
        ndcg = Validator(scorer, self._inputs.data, self._inputs.catalogue, vocabulary_size).ndcg()
        if not math.isfinite(ndcg):
            raise ValueError(f"the validation NDCG@10 is {ndcg}")
        return ndcg


def _size(space: keras_tuner.HyperParameters) -> int | None:
    """Returns the number of different settings in a space; None where there is no end of them."""
    if any(isinstance(dimension, kinds.Float) for dimension in space.space):
        return None
    return math.prod(len(_values(dimension)) for dimension in space.space)


def _combinations(space: keras_tuner.HyperParameters) -> Iterator[dict[str, Any]]:
    names = [dimension.name for dimension in space.space]
    for values in itertools.product(*map(_values, space.space)):
        yield dict(zip(names, values, strict=True))


def _values(dimension: Any) -> list[Any]:
    if isinstance(dimension, kinds.Int):
        return list(range(dimension.min_value, dimension.max_value + 1))
    return list(dimension.values)


def _tidy(dimension: Any, value: Any) -> Any:
    """Rounds a proposed number and keeps it within its range, which KerasTuner's logarithmic integers may leave."""
    if isinstance(dimension, kinds.Choice):
        return value
    rounded = float(f"{value:.{_SIGNIFICANT_DIGITS}g}") if isinstance(dimension, kinds.Float) else value
    return min(max(rounded, dimension.min_value), dimension.max_value)
