"""What was compared and what has moved, and how it is shown."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.markup import escape
from rich.table import Table


class FeatureSkew(BaseModel):
    """How far one feature of the requests is from training, by one measure."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    feature: str
    """Its name."""
    measure: str
    """`L∞` or `Jensen-Shannon` of its values, `missing` (difference of the shares without any value), or `type`."""
    distance: float
    """From 0 to 1."""
    tolerated: float
    """What may differ, by the schema's `skew_comparator` or the default."""
    chance: float
    """What a sample of so many requests of these users differs by on its own, in 99 of 100 cases."""
    limit: float
    """What the distance must not exceed: tolerance and chance together."""
    moved: bool
    """Whether it does."""
    told: str
    """What has changed most, training → requests; empty if nothing has."""


class SkewReport(BaseModel):
    """All features."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    run_id: str
    """The run whose training split is compared with."""
    training_examples: int
    """Size of that split."""
    served_examples: int
    """Examples in the logged requests."""
    served_users: int
    """Users that they are of."""
    features: list[FeatureSkew]
    """The farthest first, in proportion to their limits."""
    not_compared: dict[str, str]
    """Why not, by feature."""

    @property
    def moved(self) -> bool:
        """Whether any feature has moved."""
        return any(feature.moved for feature in self.features)


def print_skew(report: SkewReport, console: Console) -> None:
    """Prints the features, and what was not compared."""
    console.print(
        f"{report.served_examples:,} served examples of {report.served_users:,} users against the "
        f"{report.training_examples:,} training examples of run {report.run_id}",
        highlight=False,
        soft_wrap=True,
    )
    table = Table(box=None, pad_edge=False)
    for column in ("feature", "measure", "distance", "limit", "", "training → requests"):
        table.add_column(
            column,
            justify="right" if column in ("distance", "limit") else "left",
            no_wrap=column != "training → requests",
        )
    for feature in report.features:
        table.add_row(
            escape(feature.feature),
            feature.measure,
            f"{feature.distance:.4f}",
            f"{feature.limit:.4f}",
            "[red]moved[/red]" if feature.moved else "[green]✓[/green]",
            escape(feature.told),
        )
    console.print(table, highlight=False)
    for reason in dict.fromkeys(report.not_compared.values()):
        names = ", ".join(name for name, why in report.not_compared.items() if why == reason)
        console.print(f"[dim]not compared: {escape(names)} ({escape(reason)})[/dim]", highlight=False, soft_wrap=True)
