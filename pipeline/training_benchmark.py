"""How fast the transformer trains: beside a plain Keras loop, on the same machine and data, in turn.

What is measured on our side is `fit` itself, input pipeline and weight average included. Between two of its passes
over the data the plain loop makes one of its own, so that whatever else the machine does slows down both.
"""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
import tempfile
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from pipeline.benchmark_inputs import read_inputs_of_run
from pipeline.benchmark_process import run_as_process

if TYPE_CHECKING:
    import tensorflow as tf

    from modules.training_inputs import TrainingInputs

ROUNDS = 5
FAMILY = "transformer"
DIFFERENCES = (
    "Same blocks, heads, widths, features, tied item vectors and full softmax over unseen titles. The plain loop pads "
    "every row to the chunk length, asks one query for each event instead of each instant, lets simultaneous events "
    "see each other, starts every chunk without the one before, and knows of time between events only what the query "
    "tells; Marquee also averages its weights and hides some title ids."
)


@dataclasses.dataclass(frozen=True)
class Contestant:
    """One of the two that train.

    Attributes:
      parameters: trained numbers.
      positions: interactions learned from in a pass.
      seconds: of each measured pass; the first one, which traces, is left out.
      losses: mean loss of each pass, the first one included.
    """

    parameters: int
    positions: int
    seconds: list[float]
    losses: list[float]

    @property
    def positions_per_second(self) -> float:
        """Median over the passes."""
        return self.positions / statistics.median(self.seconds)


@dataclasses.dataclass(frozen=True)
class TrainingBenchmark:
    """Both, measured in turn."""

    marquee: Contestant
    plain: Contestant

    @property
    def ratios(self) -> list[float]:
        """Positions per second of Marquee by those of the plain loop, round by round."""
        per_pass = self.marquee.positions / self.plain.positions
        return [
            per_pass * plain / marquee for marquee, plain in zip(self.marquee.seconds, self.plain.seconds, strict=True)
        ]

    def to_json(self) -> str:
        """Returns what `from_json` reads."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> TrainingBenchmark:
        """Reads what `to_json` wrote."""
        return cls(**{name: Contestant(**fields) for name, fields in json.loads(text).items()})


def measure_training(
    inputs: TrainingInputs, settings: Mapping[str, Any], seed: int, rounds: int = ROUNDS
) -> TrainingBenchmark:
    """Trains both for one pass, and then in turn for one pass each, `rounds` times.

    Args:
      inputs: what to train on.
      settings: fields of `TransformerConfig`.
      seed: seed of both.
      rounds: measured passes of each.
    """
    import tensorflow as tf

    from modules.models.registry import create_recommender
    from modules.models.transformer import Transformer
    from modules.sequences import read_sequences
    from modules.training_data import TRAIN
    from pipeline.plain_transformer import PlainTransformer, pad_sequences

    recommender = create_recommender(FAMILY, settings)
    assert isinstance(recommender, Transformer)
    config, features = recommender.config, inputs.features
    log = read_sequences(inputs.data, TRAIN, [part.name for part in features.query], features.feedback)
    rows = pad_sequences(log, config.chunk_length, features.item_vocabulary_size)
    known = int(((log.item_ids > 0) & (log.item_ids < features.item_vocabulary_size - 1)).sum())
    tf.keras.utils.set_random_seed(seed)
    plain = PlainTransformer(config, features, inputs.catalogue)
    batches = rows.batches(config.batch_size, seed)

    plain_seconds: list[float] = []
    plain_losses: list[float] = []
    seconds: list[float] = []
    losses: list[float] = []
    started = 0.0

    def train_plain() -> None:
        watch = _PassTimer()
        history = plain.fit(batches, verbose=0, callbacks=[watch]).history["loss"]
        plain_seconds.append(watch.seconds)
        # Keras takes the mean over padding as well.
        plain_losses.append(history[0] * rows.weights.size / rows.num_positions)

    def after_pass(line: str) -> None:
        nonlocal started
        seconds.append(time.monotonic() - started)
        losses.append(float(line.rsplit("loss ", 1)[1]))
        train_plain()
        started = time.monotonic()

    class _PassTimer(tf.keras.callbacks.Callback):
        """Times a pass without what `fit` does before and after it."""

        seconds = 0.0

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self._started = time.monotonic()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.seconds = time.monotonic() - self._started

    with tempfile.TemporaryDirectory(prefix="marquee-bench-logs-") as logs:
        context = dataclasses.replace(inputs.fit_context(seed, logs, after_pass), epochs=rounds + 1)
        scorer, _ = recommender.fit(inputs.data, inputs.catalogue, context)
    return TrainingBenchmark(
        Contestant(_parameters(scorer.trainable_variables), known, seconds[1:], losses),
        Contestant(_parameters(plain.trainable_variables), rows.num_positions, plain_seconds[1:], plain_losses),
    )


def print_training(benchmark: TrainingBenchmark, console: Console) -> None:
    """Prints the figures for a person."""
    table = Table(title="Training the transformer", title_justify="left", box=None, pad_edge=False)
    table.add_column("")
    for name in ("positions/s", "seconds a pass", "positions", "parameters", "loss, first to last pass"):
        table.add_column(name, justify="right")
    for name, one in (("Marquee", benchmark.marquee), ("plain Keras loop", benchmark.plain)):
        table.add_row(
            name,
            f"{one.positions_per_second:,.0f}",
            f"{statistics.median(one.seconds):.2f}",
            f"{one.positions:,}",
            f"{one.parameters:,}",
            f"{one.losses[0]:.2f} to {one.losses[-1]:.2f}",
        )
    console.print(table)
    ratios = benchmark.ratios
    console.print(
        f"Ratio Marquee : plain {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f} over "
        f"{len(ratios)} passes of each, in turn).\n{DIFFERENCES}",
        highlight=False,
    )


def _parameters(variables: Iterable[tf.Variable]) -> int:
    return sum(math.prod(variable.shape) for variable in variables)


def main() -> None:
    """Measures on the artifacts of a workspace, in a process of its own, and writes the figures as JSON."""
    run_as_process(
        main.__doc__,
        lambda config: measure_training(
            read_inputs_of_run(config), config.settings_of(FAMILY), config.model.seed
        ).to_json(),
    )


if __name__ == "__main__":
    main()
