"""Renders a page from a package's templates, with styles, scripts, data and the chart library inside."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

MINUS = "\N{MINUS SIGN}"


def page_environment(package: str) -> jinja2.Environment:
    """Returns the environment of a package's `templates` folder, over the templates that pages share.

    Whatever is put into a page is escaped, and what a template asks for must be there. Filters: `score`, `signed`,
    `whole`.
    """
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(package), jinja2.PackageLoader("pipeline.pages")]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(score=score, signed=signed, whole=whole)
    return environment


def inline_assets(environment: jinja2.Environment, styles: Sequence[str], scripts: Sequence[str]) -> dict[str, Markup]:
    """Returns `styles`, `script` and `plotly`, ready to stand inside their elements, from templates by name."""

    def joined(names: Sequence[str]) -> Markup:
        return Markup("\n".join(environment.get_template(name).render() for name in names))

    return {"styles": joined(styles), "script": joined(scripts), "plotly": Markup(get_plotlyjs())}


def json_island(value: object) -> Markup:
    """Returns JSON that may stand inside a script element: nothing in it can end it. What is not finite is null."""
    return Markup(json.dumps(_finite(value), allow_nan=False).replace("<", "\\u003c"))


def score(value: float) -> str:
    """Returns a number to four decimals, e.g. `0.1095`."""
    return f"{value:.4f}".replace("-", MINUS)


def signed(value: float) -> str:
    """Returns a number to four decimals with its sign, e.g. `+0.0032`."""
    return f"{value:+.4f}".replace("-", MINUS)


def whole(value: float) -> str:
    """Returns a number without decimals, e.g. `1,682`."""
    return f"{value:,.0f}"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
