"""Training on several workers: synchronous data parallelism, where `TF_CONFIG` names a cluster.

Every worker reads its share of the batches; gradients are averaged over all. What orchestrates the workers (a training
operator on Kubernetes, say) starts the same Trainer on each with its own `TF_CONFIG`; see
https://www.tensorflow.org/guide/distributed_training#TF_CONFIG.
"""

from __future__ import annotations

import json
import os

import tensorflow as tf


class ClusterError(ValueError):
    """A `TF_CONFIG` that cannot be used."""


def training_strategy() -> tf.distribute.Strategy:
    """Returns a `MultiWorkerMirroredStrategy` if `TF_CONFIG` names several workers, else the present strategy.

    Must be called before the process runs any TensorFlow operation.

    Raises:
      ClusterError: for a `TF_CONFIG` that is no JSON, or names other tasks than workers.
    """
    text = os.environ.get("TF_CONFIG", "")
    if not text:
        return tf.distribute.get_strategy()
    try:
        cluster = json.loads(text).get("cluster", {})
    except (json.JSONDecodeError, AttributeError) as error:
        raise ClusterError(f"TF_CONFIG must be a JSON object; received {text!r}") from error
    unknown = sorted(set(cluster) - {"worker", "chief"})
    if unknown:
        raise ClusterError(f"TF_CONFIG: expected the tasks chief and worker; received {unknown}")
    if sum(map(len, cluster.values())) < 2:
        return tf.distribute.get_strategy()
    return tf.distribute.MultiWorkerMirroredStrategy()


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether this process is the one that exports."""
    resolver = strategy.cluster_resolver
    return resolver is None or resolver.task_type == "chief" or (resolver.task_type, resolver.task_id) == ("worker", 0)


def share_of_worker(
    batches: tf.data.Dataset, steps: int, strategy: tf.distribute.Strategy
) -> tuple[tf.data.Dataset, int]:
    """Returns this worker's share of the batches of a pass, and their number, which is the same for all workers.

    Args:
      batches: the same in every worker.
      steps: their number.
      strategy: names the workers.

    Raises:
      ValueError: if there are fewer batches than workers.
    """
    workers = strategy.num_replicas_in_sync
    if workers == 1:
        return batches, steps
    if steps < workers:
        raise ValueError(
            f"{steps} batches are too few for {workers} workers; choose a smaller model.settings.batch_size"
        )
    resolver = strategy.cluster_resolver
    chiefs = len(resolver.cluster_spec().as_dict().get("chief", ()))
    index = resolver.task_id + (chiefs if resolver.task_type == "worker" else 0)
    # In each step the workers wait for each other, so none may have one more.
    share = steps // workers
    return batches.take(share * workers).shard(workers, index), share
