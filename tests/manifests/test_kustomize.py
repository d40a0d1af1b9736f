"""The renderer of the other tests: it agrees with Kustomize, and refuses what it does not know."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.manifests.kustomize import KustomizeError, Resource, render

KUBEFLOW = Path(__file__).parents[2] / "kubeflow"
FOLDERS = [*sorted((KUBEFLOW / "serving" / "overlays").iterdir()), KUBEFLOW / "kserve"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resources: []\nnamePrefix: x-\n", "does not know .'namePrefix'"),
        ("resources: []\npatches: [{path: patch.yaml}]\n", "there is no .'Service', 'x'. to patch"),
    ],
)
def test_the_renderer_refuses_what_it_does_not_know(tmp_path: Path, text: str, message: str):
    (tmp_path / "kustomization.yaml").write_text(text)
    (tmp_path / "patch.yaml").write_text("kind: Service\nmetadata: {name: x}\n")
    with pytest.raises(KustomizeError, match=message):
        render(tmp_path)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_renderer_agrees_with_kustomize(folder: Path):
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    rendered = done.stdout
    for resource in (theirs := [*yaml.safe_load_all(rendered)]):
        name = resource["metadata"]["name"]
        if resource["kind"] == "ConfigMap" and name not in {"recommender-models"}:
            # Kustomize's hash of the contents, here and in all references.
            rendered = rendered.replace(name, name.rpartition("-")[0])
    theirs = [*yaml.safe_load_all(rendered)]
    assert sorted(map(canonical, theirs)) == sorted(map(canonical, render(folder)))


def canonical(resource: Resource) -> str:
    def ordered(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: ordered(element) for key, element in value.items()}
        if isinstance(value, list):
            return sorted(map(ordered, value), key=lambda element: json.dumps(element, sort_keys=True))
        return value

    return json.dumps(ordered(resource), sort_keys=True)
