"""`marquee data ...`: puts data sets on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipeline.options import DEFAULT_CONFIG, ConfigOption, SetOption, fail, load_config_or_fail

data_app = typer.Typer(no_args_is_help=True, help="Get or make a data set.")


@data_app.command("movielens-100k", epilog="Example: marquee data movielens-100k --directory data/movielens-100k")
def movielens_100k(
    directory: Annotated[Path, typer.Option(help="Folder to put it in.")] = Path("data/movielens-100k"),
) -> None:
    """Get MovieLens-100K: 943 users, 1,682 titles, 100,000 ratings."""
    from pipeline.datasets.download import DownloadError
    from pipeline.datasets.folder import FolderError
    from pipeline.datasets.movielens import fetch_movielens_100k

    try:
        fetch_movielens_100k(directory, Console())
    except (DownloadError, FolderError, OSError) as error:
        raise fail(str(error)) from error


@data_app.command(
    "synthetic", epilog="Example: marquee data synthetic --users 400 --items 300 --interactions 20000 --seed 7"
)
def synthetic(
    directory: Annotated[Path, typer.Option(help="Folder to put it in.")] = Path("data/synthetic"),
    users: Annotated[int, typer.Option(help="People.")] = 400,
    items: Annotated[int, typer.Option(help="Titles.")] = 300,
    interactions: Annotated[int, typer.Option(help="Events.")] = 20_000,
    seed: Annotated[int, typer.Option(help="The same arguments write the same files.")] = 7,
    resume_share: Annotated[
        float, typer.Option(help="Share of the events that resume a title; with 0 nobody takes a title twice.")
    ] = 0.0,
) -> None:
    """Make a synthetic data set with known effects, and say how well its best possible ranking does."""
    from pipeline.datasets.folder import FolderError, write_tables
    from pipeline.datasets.oracle import measure_ranking, measure_resumes, popularity_scorer
    from pipeline.datasets.synthetic import SyntheticWorld

    console = Console()
    try:
        world = SyntheticWorld(
            users=users, items=items, interactions=interactions, seed=seed, resume_share=resume_share
        )
        write_tables(directory, world.generate())
    except (ValueError, FolderError, OSError) as error:
        raise fail(str(error)) from error
    first_event = int(0.9 * interactions)
    popularity = popularity_scorer(world.events.first(first_event), items)
    best = measure_ranking(world, world.log_probabilities, first_event)
    simple = measure_ranking(world, popularity, first_event)
    console.print(
        f"{directory}: {interactions:,} interactions, {items:,} items, {users:,} users.\n"
        f"NDCG@10 on the last tenth of the events: {best.ndcg:.4f} is the best that any model can reach on average; "
        f"popularity reaches {simple.ndcg:.4f}.",
        markup=False,
    )
    if resume_share:
        resumes = measure_resumes(world, world.resume_log_probabilities, first_event)
        console.print(f"Among the titles seen, for the events that resume one: {resumes.ndcg:.4f}.", markup=False)


@data_app.command(
    "expand", epilog="Example: marquee data expand --interactions 1000000 --directory data/movielens-1m-expanded"
)
def expand_data(
    directory: Annotated[Path, typer.Option(help="Folder to put it in.")],
    interactions: Annotated[int, typer.Option(min=1, help="Events, about.")],
    config: ConfigOption = DEFAULT_CONFIG,
    overrides: SetOption = [],  # noqa: B006
    item_copies: Annotated[int, typer.Option(min=1, help="Copies of the catalogue.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="The same arguments write the same files.")] = 0,
) -> None:
    """Multiply a data set by fractal expansion, to see how a pipeline grows: the shape stays, the size does not."""
    from pipeline.components.source_storage import DataQualityError
    from pipeline.datasets.expand import ExpandError, expand
    from pipeline.datasets.expand import overrides as expanded_overrides
    from pipeline.datasets.folder import FolderError

    data = load_config_or_fail(config, overrides).data
    try:
        made = expand(data, directory, interactions, item_copies, seed, Console(stderr=True))
    except (ExpandError, DataQualityError, FolderError, OSError) as error:
        raise fail(str(error)) from error
    assignments = " ".join(f"--set '{assignment}'" for assignment in expanded_overrides(data, directory))
    typer.echo(
        f"{directory}: {made.interactions:,} interactions, {made.items:,} items, {made.users:,} users.\n"
        f"marquee run --config {config} {assignments}"
    )
