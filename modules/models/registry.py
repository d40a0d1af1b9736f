"""The families of recommenders by name. Adding one is a file beside this one and a line here."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modules.models.base import Recommender

FAMILIES = {
    "autoencoder": "modules.models.autoencoder:Autoencoder",
    "cascade": "modules.models.cascade:Cascade",
    "gru": "modules.models.gru:Gru",
    "ease": "modules.models.ease:Ease",
    "hybrid": "modules.models.hybrid:Hybrid",
    "item_knn": "modules.models.item_knn:ItemKnn",
    "markov": "modules.models.markov:Markov",
    "matrix_factorization": "modules.models.matrix_factorization:MatrixFactorization",
    "popularity": "modules.models.popularity:Popularity",
    "ranker": "modules.models.ranker:Ranker",
    "transformer": "modules.models.transformer:Transformer",
    "two_tower": "modules.models.two_tower:TwoTower",
}


def create_recommender(family: str, settings: Mapping[str, Any]) -> Recommender:
    """Creates a recommender from the name of its family and the fields of its config.

    Raises:
      ValueError: if there is no such family.
      pydantic.ValidationError: if the settings do not fit the family's config; kinds are not converted.
    """
    if family not in FAMILIES:
        raise ValueError(f"model.family: received {family!r}; expected one of {sorted(FAMILIES)}")
    module_name, class_name = FAMILIES[family].split(":")
    recommender_class: type[Recommender] = getattr(importlib.import_module(module_name), class_name)
    # By way of JSON, whose strict reading takes lists for tuples but no text for numbers, as everywhere in the
    # configuration.
    document = json.dumps(dict(settings), default=str)
    return recommender_class(recommender_class.config_class.model_validate_json(document, strict=True))
