"""`run_fn`: TFX Trainer's entry point. Thin: reads the inputs, lets a recommender fit, exports what serving needs."""

from __future__ import annotations

import dataclasses
import gc
import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import keras_tuner
import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from tfx.components.trainer.fn_args_utils import FnArgs

from modules.artifact_files import TRAINING_REPORT
from modules.distribution import is_chief, training_strategy
from modules.features import ColumnTable, Role
from modules.hyperparameters import read_settings
from modules.memory import watch_memory
from modules.models.approximate_retrieval import ScannRetrieval
from modules.models.base import FitReport
from modules.models.base_model import BaseModel, read_base_model, write_description
from modules.models.export import ServingModule, export_saved_model
from modules.models.list_statistics import ListStatistics
from modules.models.registry import create_recommender
from modules.models.validation import Validator
from modules.reward_model import read_reward_model
from modules.settings import WARM_START_LEARNING_RATE_FACTOR, flatten_settings, merge_settings, nest_settings
from modules.slices import SliceKeys
from modules.training_data import TRAIN, VALIDATION, TrainingData
from modules.training_inputs import read_training_inputs
from modules.warm_up import write_warm_up_requests

_COUNT_BATCH_SIZE = 8192

logger = logging.getLogger("marquee.trainer")


def run_fn(fn_args: FnArgs) -> None:
    """Fits a recommender and exports it.

    Args:
      fn_args: TFX's arguments. `custom_config` holds what `read_training_inputs` needs, `model` (`family`, `settings`,
        `seed`, `refit`), `bands`, `top_k` and, if there are any, `retrieval` (`exact`, unless it is `scann`),
        `genre_feature`: the item column that list statistics are made of, and `tuned`: settings that count where
        `settings` say nothing. `hyperparameters`, if given, are what a search found; they stand between the two.
        `base_model`, if given, is the folder of an exported model whose weights the fit begins with; `warm_start` may
        hold the `learning_rate_factor` that then applies.
    """
    try:
        _fit_and_export(fn_args)
    finally:
        # One process may fit dozens of models, and Keras and reference cycles would keep each of them alive.
        tf.keras.backend.clear_session()
        gc.collect()


def _fit_and_export(fn_args: FnArgs) -> None:
    strategy = training_strategy()
    config = fn_args.custom_config
    inputs = read_training_inputs(fn_args)
    columns, transform, data, catalogue = inputs.columns, inputs.transform, inputs.data, inputs.catalogue
    user_counts, item_counts = _training_counts(
        data, transform, [columns.names(role)[0] for role in (Role.USER_ID, Role.ITEM_ID)]
    )
    splits = (TRAIN, VALIDATION) if config["model"]["refit"] else (TRAIN,)
    slice_keys = SliceKeys(columns, config["bands"], user_counts, item_counts, _latest_time(data, columns, splits))
    genre_feature = config.get("genre_feature")
    list_statistics = ListStatistics(
        np.array([item_counts.get(item_id, 0) for item_id in catalogue.item_ids], np.int64),
        catalogue.features[genre_feature] if genre_feature else None,
    )

    settings, sources = _effective_settings(fn_args)
    recommender = create_recommender(config["model"]["family"], settings)
    base_model, no_base_model = read_base_model(
        fn_args.base_model,
        transform.vocabulary_by_name,
        config.get("warm_start", {}).get("learning_rate_factor", WARM_START_LEARNING_RATE_FACTOR),
    )
    if fn_args.base_model and base_model is None:
        logger.info("cold start: %s", no_base_model)
    context = inputs.fit_context(config["model"]["seed"], fn_args.model_run_dir, logger.info, base_model)
    with watch_memory() as memory, strategy.scope():
        started = time.monotonic()
        scorer, report = recommender.fit(data, catalogue, context)
        fit_seconds = time.monotonic() - started
        ndcg = Validator(scorer, data, catalogue, inputs.features.item_vocabulary_size).ndcg()
        if config["model"]["refit"]:
            started = time.monotonic()
            scorer = recommender.refit(data, catalogue, context, scorer, report)
            fit_seconds += time.monotonic() - started

    if not is_chief(strategy):
        logger.info("The chief exports the model.")
        return
    reward_model = read_reward_model(
        data, columns, inputs.features.item_vocabulary_size, config.get("policy_positions", 1)
    )
    retrieval = ScannRetrieval(scorer, config["top_k"]) if config.get("retrieval") == "scann" else None
    module = ServingModule(
        scorer, transform, columns, catalogue, slice_keys, list_statistics, config["top_k"], reward_model, retrieval
    )
    export_saved_model(module, fn_args.serving_model_dir)
    write_description(fn_args.serving_model_dir, scorer.trained_models())
    write_warm_up_requests(fn_args.serving_model_dir, columns, catalogue)
    model = {**config["model"], "settings": settings}
    start = _describe_start(base_model, no_base_model)
    _write_report(fn_args.model_run_dir, model, sources, report, ndcg, fit_seconds, memory.mebibytes, start)


def _describe_start(base_model: BaseModel | None, no_base_model: str) -> dict[str, Any]:
    """Returns what the training report says of the weights that the fit began with."""
    if base_model is None:
        return {"kind": "cold", "reason": no_base_model}
    warm = any(start.carried_weights for start in base_model.starts.values())
    reason = "" if base_model.starts else "this family is fitted in closed form, from the data alone"
    if not base_model.starts:
        logger.info("The base model is not used: %s.", reason)
    return {
        "kind": "warm" if warm else "cold",
        **({"reason": reason} if reason else {}),
        "base_model": base_model.path,
        "learning_rate_factor": base_model.learning_rate_factor if warm else 1.0,
        "models": {
            path: {**dataclasses.asdict(start), "told": start.told()} for path, start in base_model.starts.items()
        },
    }


def _effective_settings(fn_args: FnArgs) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns the nested settings to fit with, and by dotted path where each of them comes from."""
    found = fn_args.hyperparameters
    layers = {
        "tuned": fn_args.custom_config.get("tuned", {}),
        "marquee tune": nest_settings(read_settings(keras_tuner.HyperParameters.from_config(found))) if found else {},
        "model.settings": fn_args.custom_config["model"]["settings"],
    }
    settings = merge_settings(*layers.values())
    sources = {path: source for source, layer in layers.items() for path in flatten_settings(layer)}
    return settings, {path: sources[path] for path in flatten_settings(settings)}


def _training_counts(
    data: TrainingData, transform: tft.TFTransformOutput, names: Sequence[str]
) -> list[dict[bytes, int]]:
    """Counts the training events of each raw id, for each of the id features."""
    vocabularies = [transform.vocabulary_by_name(name) for name in names]
    counts = [np.zeros(len(vocabulary) + 2, np.int64) for vocabulary in vocabularies]
    for batch in data.batches(TRAIN, _COUNT_BATCH_SIZE):
        for name, count in zip(names, counts, strict=True):
            count += np.bincount(batch[name].numpy(), minlength=len(count))
    # The first id stands for "none", the last for every unknown one.
    return [
        {bytes(raw): int(events) for raw, events in zip(vocabulary, count[1:-1], strict=True)}
        for vocabulary, count in zip(vocabularies, counts, strict=True)
    ]


def _latest_time(data: TrainingData, columns: ColumnTable, splits: Sequence[str]) -> int:
    """Returns the time of the latest interaction of these splits, seconds since the epoch."""
    (name,) = columns.names(Role.TIMESTAMP)
    return max(int(data.read(split, [name])[name].max(initial=0)) for split in splits)


def _write_report(
    directory: str,
    model: Mapping[str, Any],
    settings_from: Mapping[str, str],
    report: FitReport,
    validation_ndcg: float,
    fit_seconds: float,
    peak_memory_mebibytes: float | None,
    start: Mapping[str, Any],
) -> None:
    document = {
        "model": dict(model),
        "settings_from": dict(settings_from),
        "validation_ndcg@10": validation_ndcg,
        "final_fit_splits": [TRAIN, VALIDATION] if model["refit"] else [TRAIN],
        "fit_seconds": round(fit_seconds, 3),
        "peak_memory_mebibytes": peak_memory_mebibytes,
        "start": dict(start),
        "best_epoch": report.best_epoch,
        "epochs": [{"epoch": epoch.epoch, **epoch.metrics} for epoch in report.epochs],
    }
    tf.io.gfile.makedirs(directory)
    with tf.io.gfile.GFile(os.path.join(directory, TRAINING_REPORT), "w") as file:
        file.write(json.dumps(document, indent=2))
