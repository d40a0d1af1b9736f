r"""Turns a workspace's `models.config` into that of servers which find the models elsewhere, as those in a cluster do.

    python -m pipeline.serving.release.cluster_config runs/movielens-100k/serving/models.config \
        --base-path gs://marquee-models/recommender --output kubeflow/serving/overlays/gcs/models.config
    kubectl apply --kustomize kubeflow/serving/overlays/gcs

`marquee release` writes the one; the other becomes a ConfigMap, which servers read again while they run. Copy the
versions that it names to the model store first: labels move once their versions are loaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.serving.messages import model_server_config_pb2
from pipeline.serving.release.errors import ReleaseError
from pipeline.serving.release.model_config_file import read_config, write_config

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
      ReleaseError: if the model is not there or has no labels, since then no release was made.
    """
    models = {model.name: model for model in config.model_config_list.config}
    if model_name not in models:
        raise ReleaseError(f"expected a model {model_name!r}; received {sorted(models) or 'none'}")
    if not models[model_name].version_labels:
        raise ReleaseError(f"model {model_name!r} has no version_labels; make a release first: marquee release --help")
    changed = model_server_config_pb2.ModelServerConfig()
    model = changed.model_config_list.config.add()
    model.CopyFrom(models[model_name])
    model.base_path = base_path
    # Requests are logged to a folder of this machine.
    model.ClearField("logging_config")
    return changed


@app.command(
    epilog="Example: python -m pipeline.serving.release.cluster_config runs/movielens-100k/serving/models.config "
    "--base-path gs://marquee-models/recommender --output kubeflow/serving/overlays/gcs/models.config"
)
def convert(
    source: Annotated[Path, typer.Argument(help="The workspace's serving/models.config.")],
    base_path: Annotated[str, typer.Option(help="Where the servers find the versions, e.g. gs://bucket/recommender.")],
    output: Annotated[Path, typer.Option(help="The file to write, e.g. an overlay's models.config.")],
    model_name: Annotated[str, typer.Option(help="The model's name on the servers.")] = "recommender",
) -> None:
    """Write models.config for the servers of a cluster: the same versions and labels, found elsewhere."""
    try:
        if not source.is_file():
            raise ReleaseError(f"{source}: there is no such file; `marquee release` writes it")
        config = read_config(source)
        try:
            changed = with_base_path(config, model_name, base_path)
        except ReleaseError as error:
            raise ReleaseError(f"{source}: {error}") from error
        write_config(output, changed)
    except (ReleaseError, OSError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from error
    labels = dict(changed.model_config_list.config[0].version_labels)
    named = ", ".join(f"{label} = {version}" for label, version in sorted(labels.items()))
    typer.echo(f"{output}: {named}")


if __name__ == "__main__":
    app()
