"""What a command on this machine needs before it starts; what is missing is told in one message."""

from __future__ import annotations

from pathlib import Path

from pipeline.components.source_storage import DataQualityError
from pipeline.components.spans import source_directory
from pipeline.config import PipelineConfig
from pipeline.options import fail


def require_local_workspace(settings: PipelineConfig) -> None:
    """Checks that the workspace is a local folder.

    Raises:
      typer.Exit: if it is not; the message is printed.
    """
    if "://" in settings.workspace:
        raise fail(f"workspace: a run on this machine needs a local folder; received {settings.workspace!r}")


def require_data(settings: PipelineConfig) -> None:
    """Checks that the folder of the data is there, if it is a local one.

    Raises:
      typer.Exit: if it is not; the message is printed.
    """
    if "://" in settings.data.directory:
        return
    try:
        directory = source_directory(settings.data)
    except DataQualityError as error:
        raise fail(str(error)) from error
    if not Path(directory).is_dir():
        raise fail(
            f"data.directory: no such folder {settings.data.directory!r}; "
            f"`marquee data movielens-100k` and `marquee data synthetic` make one, your own data go anywhere"
        )
