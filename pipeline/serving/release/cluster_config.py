r"""Takes a release to servers that find the models elsewhere, as those in a cluster do, through their `models.config`.

    python -m pipeline.serving.release.cluster_config runs/movielens-100k/serving/models.config \
        --base-path gs://marquee-models/recommender --output kubeflow/serving/overlays/gcs/models.config
    kubectl apply --kustomize kubeflow/serving/overlays/gcs

`marquee release` writes the one file; the other becomes a ConfigMap, which servers read again while they run. Copy the
versions that it names to the model store first.

TensorFlow Serving moves labels before it loads versions, and refuses a configuration that moves a label to a version
which it has not loaded. So a release takes two steps. The first file loads the new version beside the old ones and
moves nothing. Once it is available on every server, the same command writes the second, which moves the labels and
drops what no label needs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.serving.messages import model_server_config_pb2
from pipeline.serving.release.errors import ReleaseError
from pipeline.serving.release.model_config_file import labels_of, read_config, with_versions, write_config
from pipeline.serving.release.record import STABLE

_EXAMPLE = (
    "Example: python -m pipeline.serving.release.cluster_config runs/movielens-100k/serving/models.config "
    "--base-path gs://marquee-models/recommender --output kubeflow/serving/overlays/gcs/models.config"
)

app = typer.Typer(add_completion=False)


def with_base_path(
    config: model_server_config_pb2.ModelServerConfig, model_name: str, base_path: str
) -> model_server_config_pb2.ModelServerConfig:
    """Returns a configuration of one model alone, found elsewhere; its versions and labels stay.

    Args:
      config: the configuration to start from.
      model_name: the model.
      base_path: folder or address of its numbered versions.

    Raises:
      ReleaseError: if the model is not there or no version is `stable`, since then no release was made.
    """
    models = {model.name: model for model in config.model_config_list.config}
    if model_name not in models:
        raise ReleaseError(f"expected a model {model_name!r}; received {', '.join(sorted(models)) or 'none'}")
    if STABLE not in models[model_name].version_labels:
        labels = ", ".join(sorted(models[model_name].version_labels)) or "none"
        raise ReleaseError(
            f"version_labels of {model_name!r}: expected {STABLE!r}, see `marquee release`; got {labels}"
        )
    changed = model_server_config_pb2.ModelServerConfig()
    model = changed.model_config_list.config.add()
    model.CopyFrom(models[model_name])
    model.base_path = base_path
    # Requests are logged to a folder of this machine.
    model.ClearField("logging_config")
    return changed


def next_step(
    served: model_server_config_pb2.ModelServerConfig,
    released: model_server_config_pb2.ModelServerConfig,
    model_name: str,
) -> model_server_config_pb2.ModelServerConfig:
    """Returns what servers can take next: `released`, or what loads its versions without moving a label.

    Args:
      served: what the servers have now.
      released: what they are to have in the end.
      model_name: the model.
    """
    before, after = labels_of(served, model_name), labels_of(released, model_name)
    loaded = versions_of(served, model_name)
    if all(before.get(label, version) == version or version in loaded for label, version in after.items()):
        return released
    return with_versions(released, model_name, Path(), loaded | versions_of(released, model_name), before)


def versions_of(config: model_server_config_pb2.ModelServerConfig, model_name: str) -> set[int]:
    """Returns the versions of a model that a configuration names."""
    models = (model for model in config.model_config_list.config if model.name == model_name)
    return {version for model in models for version in model.model_version_policy.specific.versions}


@app.command(epilog=_EXAMPLE)
def convert(
    source: Annotated[Path, typer.Argument(help="The workspace's serving/models.config.")],
    base_path: Annotated[str, typer.Option(help="Where the servers find the versions, e.g. gs://bucket/recommender.")],
    output: Annotated[Path, typer.Option(help="What the servers have, e.g. an overlay's models.config; is replaced.")],
    model_name: Annotated[str, typer.Option(help="The model's name on the servers.")] = "recommender",
    first: Annotated[bool, typer.Option("--first", help="No server runs from the output yet.")] = False,
) -> None:
    """Take a release to the servers of a cluster: write the models.config that they can take next.

    A label moves in two steps: the first run has its version loaded, a second one, when it is, moves the label.
    """
    try:
        if not source.is_file():
            raise ReleaseError(f"{source}: there is no such file; `marquee release` writes it")
        config = read_config(source)
        try:
            released = with_base_path(config, model_name, base_path)
        except ReleaseError as error:
            raise ReleaseError(f"{source}: {error}") from error
        written = released if first else next_step(read_config(output), released, model_name)
        write_config(output, written)
    except (ReleaseError, OSError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from error
    versions = ", ".join(map(str, sorted(versions_of(written, model_name))))
    labels = ", ".join(f"{label} = {version}" for label, version in sorted(labels_of(written, model_name).items()))
    typer.echo(f"{output}: versions {versions}; labels {labels}")
    if written != released:
        typer.echo(
            "No label has moved yet. Apply this, wait until GET /v1/models/"
            f"{model_name} says AVAILABLE of all these versions on every server, and run the same again."
        )


if __name__ == "__main__":
    app()
