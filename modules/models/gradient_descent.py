"""Training with early stopping on what matters: by default NDCG@10 over the full catalogue, seen titles masked."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs
from pydantic import Field

from modules.catalogue import Catalogue
from modules.distribution import share_of_worker
from modules.models.base import EpochReport, FitContext, FitReport, RecommenderConfig
from modules.models.base_model import TrainedModel
from modules.models.validation import CatalogueScorer, Validator
from modules.training_data import TRAIN, TrainingData

_WARM_UP_SHARE = 0.05
_CLIP_NORM = 1.0
_SCALAR = tf.compat.v1.SummaryMetadata(
    plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars"), data_class="DATA_CLASS_SCALAR"
)


class RefreshableScorer(CatalogueScorer, Protocol):
    """A scorer that can take over the weights of the model in training."""

    def refresh(self) -> None:
        """Recomputes what was derived from the model's weights."""

    def trained_models(self) -> Mapping[str, tuple[str, TrainedModel]]:
        """Returns family and model in training, by the attribute that keeps it."""


@dataclasses.dataclass(frozen=True)
class ValidationMetric:
    """What early stopping watches.

    Attributes:
      name: what users are told, e.g. `NDCG@10`; in reports `validation_ndcg@10`.
      compute: returns the metric of the scorer's present state on the validation split.
      higher_is_better: whether it should rise.
    """

    name: str
    compute: Callable[[], float]
    higher_is_better: bool = True


class GradientDescentConfig(RecommenderConfig):
    """Settings of every family that is trained by gradient descent.

    The defaults were chosen for `two_tower`, on the validation split of MovieLens-100K.
    """

    batch_size: int = Field(default=512, ge=2)
    """Examples per step."""
    learning_rate: float = Field(default=4e-3, gt=0)
    """Peak of AdamW's learning rate, reached after a short warm-up and followed by a cosine decay."""
    weight_decay: float = Field(default=0.15, ge=0)
    """AdamW's decoupled weight decay."""
    max_epochs: int = Field(default=6, ge=1)
    """Passes over the training split at most; also the length of the learning-rate schedule."""
    patience: int = Field(default=2, ge=1)
    """Passes without a better value of the validation metric after which training stops."""
    weight_average: float = Field(default=0.0, ge=0, lt=1)
    """Momentum of an exponential moving average of the weights, which is what is validated and kept. 0: no average."""


def fit_with_early_stopping(
    model: tfrs.Model,
    scorer: RefreshableScorer,
    config: GradientDescentConfig,
    data: TrainingData,
    catalogue: Catalogue,
    context: FitContext,
    num_examples: int,
    metric: ValidationMetric | None = None,
    batches: tf.data.Dataset | None = None,
    steps: int | None = None,
) -> FitReport:
    """Trains a model and leaves it with the weights of its best pass.

    With a base model it begins with that one's weights, as far as they fit, at a lower learning rate.

    Args:
      model: a model whose `compute_loss` takes a batch of transformed examples; its variables exist.
      scorer: scores the catalogue with the model's weights.
      config: batch size, learning rate and when to stop.
      data: the transformed splits.
      catalogue: the titles to rank.
      context: features, seed, log folder, base model and where to report progress.
      num_examples: number of training examples, which sets the length of the learning-rate schedule.
      metric: what to stop on; by default NDCG@10 over the full catalogue.
      batches: one pass over the training split, in a new order every time; by default batches of its examples.
      steps: number of batches of a pass, where `batches` are given.

    Returns:
      The learning curve.

    Raises:
      ValueError: if the training split holds less than a batch, or the loss stops being a finite number.
    """
    if batches is None or steps is None:
        batches = data.batches(TRAIN, config.batch_size, shuffle_seed=context.seed)
        steps = num_examples // config.batch_size
    if steps == 0:
        raise ValueError(
            f"the train split holds {num_examples} examples, less than one batch; "
            f"received model.settings.batch_size {config.batch_size}"
        )
    strategy = tf.distribute.get_strategy()
    batches, steps = share_of_worker(batches, steps, strategy)
    continues = _continue_base_model(scorer, context)
    learning_rate = config.learning_rate
    if continues and context.base_model is not None:
        learning_rate *= context.base_model.learning_rate_factor
    total_steps = steps * config.max_epochs
    warm_up_steps = max(1, round(_WARM_UP_SHARE * total_steps))
    schedule = tf.keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0,
        decay_steps=max(1, total_steps - warm_up_steps),
        warmup_target=learning_rate,
        warmup_steps=warm_up_steps,
    )
    # The optimizer stays outside of the model, which would be exported with it.
    optimizer = tf.keras.optimizers.AdamW(schedule, weight_decay=config.weight_decay, clipnorm=_CLIP_NORM)
    optimizer.build(model.trainable_variables)

    averages = [
        tf.Variable(v, trainable=False, aggregation=tf.VariableAggregation.MEAN)
        for v in (model.trainable_variables if config.weight_average else [])
    ]

    def learn(batch: dict[str, tf.Tensor]) -> tf.Tensor:
        with tf.GradientTape() as tape:
            # The optimizer adds up the gradients of all workers.
            loss = model.compute_loss(batch, training=True) / strategy.num_replicas_in_sync
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        for average, variable in zip(averages, model.trainable_variables if averages else [], strict=True):
            # From the first step on an unbiased mean, however short the training.
            momentum = tf.minimum(config.weight_average, 1.0 - 1.0 / tf.cast(optimizer.iterations, tf.float32))
            average.assign(momentum * average + (1.0 - momentum) * variable)
        return loss

    # Traced once, without AutoGraph, which would take most of the first pass.
    @tf.function(input_signature=[batches.element_spec], autograph=False)
    def train_step(batch: dict[str, tf.Tensor]) -> tf.Tensor:
        return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(learn, args=(batch,)), axis=None)

    metric = metric or ValidationMetric(
        "NDCG@10", Validator(scorer, data, catalogue, context.inputs.item_vocabulary_size).ndcg
    )
    writer = tf.summary.create_file_writer(os.path.join(context.log_directory, "train"))

    if continues and context.base_model is not None and context.epochs is None:
        before = metric.compute()
        for name in scorer.trained_models():
            context.base_model.note_validation(name, before)
        context.report_progress(f"before the first epoch: validation {metric.name} {before:.4f}")

    reports: list[EpochReport] = []
    best_value, best_epoch, best_weights = -np.inf, 0, model.get_weights()
    last_weights = best_weights
    for epoch in range(1, (context.epochs or config.max_epochs) + 1):
        started = time.monotonic()
        loss = float(np.mean([train_step(batch).numpy() for batch in batches]))
        if not np.isfinite(loss):
            raise ValueError(f"training diverged in epoch {epoch}: the loss is {loss}; try a lower learning rate")
        if context.epochs is not None:
            context.report_progress(f"epoch {epoch}/{context.epochs}: loss {loss:.4f}")
            continue
        if averages:
            last_weights = _exchange(model, averages)
        scorer.refresh()
        validated = metric.compute()
        reports.append(
            EpochReport(epoch, {"loss": loss, f"validation_{metric.name.lower().replace(' ', '_')}": validated})
        )
        with writer.as_default(step=epoch):
            for name, value in reports[-1].metrics.items():
                # Not tf.summary.scalar, which needs the TensorBoard package: TensorFlow no longer brings it.
                tf.summary.write(name, tf.constant(value, tf.float32), metadata=_SCALAR)
        context.report_progress(
            f"epoch {epoch}/{config.max_epochs}: loss {loss:.4f}, validation {metric.name} {validated:.4f} "
            f"({time.monotonic() - started:.1f} s)"
        )
        if (signed := validated if metric.higher_is_better else -validated) > best_value:
            best_value, best_epoch, best_weights = signed, epoch, model.get_weights()
        elif epoch - best_epoch >= config.patience:
            break
        if averages:
            model.set_weights(last_weights)
    writer.close()
    if context.epochs is None:
        model.set_weights(best_weights)
    elif averages:
        _exchange(model, averages)
    scorer.refresh()
    return FitReport(tuple(reports), best_epoch)


def _continue_base_model(scorer: RefreshableScorer, context: FitContext) -> bool:
    """Begins with the weights of the base model, if there is one; returns whether any was carried over."""
    if context.base_model is None:
        return False
    starts = [
        context.base_model.continue_into(model, name, family)
        for name, (family, model) in scorer.trained_models().items()
    ]
    for start in starts:
        context.report_progress(start.told())
    scorer.refresh()
    return any(start.carried_weights for start in starts)


def _exchange(model: tfrs.Model, averages: Sequence[tf.Variable]) -> list[np.ndarray]:
    """Puts the averaged weights into the model; returns those it had."""
    weights = model.get_weights()
    for variable, average in zip(model.trainable_variables, averages, strict=True):
        variable.assign(average)
    return weights
