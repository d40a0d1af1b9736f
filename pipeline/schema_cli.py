"""`marquee schema ...`: proposes schemas."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.atomic_files import write_text_atomically
from pipeline.options import ConfigOption, SetOption, fail, load_config_or_fail

schema_app = typer.Typer(no_args_is_help=True, help="Propose the schema of a new data set.")


@schema_app.callback()
def _group() -> None:
    """Keeps `infer` a subcommand although it is the only one."""


@schema_app.command()
def infer(
    config: ConfigOption,
    output: Annotated[
        Path, typer.Option(help="File to write the proposal to. Example: --output schemas/mine/schema.pbtxt")
    ],
    overrides: SetOption = [],  # noqa: B006
    max_rows: Annotated[
        int,
        typer.Option(min=1, help="Rows to read of each table, from its start. Example: --max-rows 50000"),
    ] = 1_000_000,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite the output file. Example: --output schema.pbtxt --force")
    ] = False,
) -> None:
    """Propose a tagged schema for the tables of a configuration, to be reviewed by you.

    Types, domains, ranges and presence come from the data; roles come from the table that a column is in, kinds are
    guessed from its values. Each guess stands with its reason in a comment above the feature. The configuration says
    which columns there are; its schema_file need not exist yet.

    Example: marquee schema infer --config movielens-100k --output schemas/mine/schema.pbtxt
    """
    from modules.features import SchemaError

    if output.exists() and not force:
        raise fail(f"{output} exists; give another --output, or --force to overwrite it")
    settings = load_config_or_fail(config, overrides)

    from pipeline.column_profile import profile_tables
    from pipeline.components.source_storage import DataQualityError
    from pipeline.schema_inference import propose_schema, render_proposal

    try:
        tables = profile_tables(settings.data, max_rows)
        guesses = propose_schema(settings.data, tables)
        write_text_atomically(output, render_proposal(settings.name, guesses, tables))
    except (DataQualityError, SchemaError, OSError) as error:
        raise fail(str(error)) from error

    from tensorflow_metadata.proto.v0 import schema_pb2

    proposal = Table("Feature", "Type", "Present", "Values", "Guess")
    for guess in guesses:
        feature = guess.feature
        most = feature.value_count.max or "any number"
        cells = [
            feature.name,
            schema_pb2.FeatureType.Name(feature.type),
            f">= {feature.presence.min_fraction:.0%}",
            "1" if most == 1 else f"1 to {most}",
            guess.reason,
        ]
        proposal.add_row(*map(Text, cells))
    console = Console()
    console.print(proposal)
    for name, profile in tables.items():
        if not profile.is_complete:
            console.print(f"Only the first {profile.rows:,} rows of {name} were read: later values may differ.")
        if profile.malformed:
            console.print(f"{profile.malformed:,} of {profile.rows:,} rows of {name} are malformed and did not count.")
    console.print(f"Wrote {output}. Review it, then set schema_file to it.", markup=False, soft_wrap=True)
