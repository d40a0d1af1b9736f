"""Renders the subset of Kustomize that kubeflow/ uses, so that tests need no binary; anything else is refused.

It knows `resources`, `patches` (strategic merges, by file) and `configMapGenerator` (files, literals). The hash that
Kustomize appends to the names of generated ConfigMaps, and to references to them, is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

Resource = dict[str, Any]

# What identifies an element of a list that is merged; other lists are replaced as a whole.
_MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "volumeMounts": "mountPath",
}
_REPLACED = {"egress"}
_KNOWN = {"apiVersion", "kind", "resources", "patches", "configMapGenerator"}


class KustomizeError(ValueError):
    """Something that this renderer does not know, or that Kustomize would refuse."""


def render(folder: Path) -> list[Resource]:
    """Returns the resources of a kustomization."""
    path = folder / "kustomization.yaml"
    described = yaml.safe_load(path.read_text(encoding="utf-8"))
    if unknown := described.keys() - _KNOWN:
        raise KustomizeError(f"{path}: this renderer does not know {sorted(unknown)}")
    resources: list[Resource] = []
    for name in described["resources"]:
        entry = folder / name
        resources.extend(render(entry.resolve()) if entry.is_dir() else read_resources(entry))
    for generator in described.get("configMapGenerator", []):
        resources.append(_config_map(generator, folder))
    identities = [(resource["kind"], resource["metadata"]["name"]) for resource in resources]
    if len(set(identities)) != len(identities):
        raise KustomizeError(f"{path}: the same resource twice: {sorted(identities)}")
    for entry in described.get("patches", []):
        if entry.keys() != {"path"}:
            raise KustomizeError(f"{path}: expected patches by path; received {sorted(entry)}")
        for patch in read_resources(folder / entry["path"]):
            identity = (patch["kind"], patch["metadata"]["name"])
            if identity not in identities:
                raise KustomizeError(f"{folder / entry['path']}: there is no {identity} to patch")
            index = identities.index(identity)
            resources[index] = _merge(resources[index], patch)
    return resources


def read_resources(path: Path) -> list[Resource]:
    """Returns the documents of a file."""
    return [document for document in yaml.safe_load_all(path.read_text(encoding="utf-8")) if document is not None]


def _config_map(generator: Mapping[str, Any], folder: Path) -> Resource:
    if unknown := generator.keys() - {"name", "files", "literals", "options"}:
        raise KustomizeError(f"{folder}: this renderer does not know {sorted(unknown)} of a configMapGenerator")
    data = {name: (folder / name).read_text(encoding="utf-8") for name in generator.get("files", [])}
    data |= dict(literal.split("=", 1) for literal in generator.get("literals", []))
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": generator["name"]}, "data": data}


def _merge(original: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(original)
    for key, value in patch.items():
        before = original.get(key)
        if isinstance(before, dict) and isinstance(value, dict):
            merged[key] = _merge(before, value)
        elif isinstance(before, list) and isinstance(value, list):
            merged[key] = _merge_lists(key, before, value)
        else:
            merged[key] = value
    return merged


def _merge_lists(key: str, original: Sequence[Any], patch: Sequence[Any]) -> list[Any]:
    if key in _REPLACED:
        return list(patch)
    if key not in _MERGE_KEYS:
        raise KustomizeError(f"this renderer does not know how the lists {key!r} are merged")
    identity = _MERGE_KEYS[key]
    patched = {element[identity]: element for element in patch}
    kept = {element[identity] for element in original}
    merged = [_merge(element, patched.get(element[identity], {})) for element in original]
    # Kustomize puts what is new first; order means nothing but for init containers, which the base has none of.
    return [element for element in patch if element[identity] not in kept] + merged
