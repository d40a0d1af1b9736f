"""TensorFlow Serving and KServe on Kubernetes: what kubeflow/ describes is valid, and hangs together."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import jsonschema
import kubernetes_validate
import pytest

from pipeline.serving.messages import health_pb2, health_pb2_grpc
from pipeline.serving.release.model_config_file import labels_of, write_config
from pipeline.serving.release.record import STABLE
from pipeline.serving.server.config_files import (
    read_batching_parameters,
    read_model_server_config,
    read_monitoring_config,
)
from pipeline.serving.server.options import parse_command_line
from pipeline.serving.server.server import ModelServer
from tests.manifests.kustomize import Resource, render
from tests.manifests.references import find_problems, of_kind
from tests.serving.saved_models import export_recommender, publish

KUBEFLOW = Path(__file__).parents[2] / "kubeflow"
OVERLAYS = sorted((KUBEFLOW / "serving" / "overlays").iterdir())
KSERVE = KUBEFLOW / "kserve"
INFERENCE_SERVICE = json.loads((Path(__file__).parent / "inference_service.schema.json").read_text(encoding="utf-8"))
# The oldest with sidecars, and the newest that the package knows.
KUBERNETES = ("1.29", kubernetes_validate.latest_version())


@pytest.fixture(params=OVERLAYS, ids=lambda folder: folder.name)
def overlay(request: pytest.FixtureRequest) -> Path:
    return request.param


def validate(resource: Resource, version: str) -> None:
    if resource["kind"] == "InferenceService":
        jsonschema.validate(resource, INFERENCE_SERVICE)
    else:
        kubernetes_validate.validate(resource, version, strict=True)


def server_of(resources: list[Resource]) -> dict[str, Any]:
    return of_kind(resources, "Deployment")[0]["spec"]["template"]["spec"]["containers"][-1]


def test_there_is_an_overlay_for_each_kind_of_model_store():
    assert [folder.name for folder in OVERLAYS] == ["gcs", "pvc", "s3"]


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("folder", [*OVERLAYS, KSERVE], ids=lambda folder: folder.name)
def test_resources_are_valid(folder: Path, version: str):
    for resource in render(folder):
        validate(resource, version)


def test_resources_refer_to_what_is_there(overlay: Path):
    assert find_problems(render(overlay)) == []


def test_the_models_are_mounted_where_the_model_config_looks(overlay: Path, tmp_path: Path):
    resources = render(overlay)
    base_path = model_config_of(resources, tmp_path).model_config_list.config[0].base_path
    mounts = {mount["mountPath"] for mount in server_of(resources)["volumeMounts"]}
    assert ("/models" in mounts) == base_path.startswith("/models/")
    assert base_path.startswith("gs://" if overlay.name == "gcs" else "/models/")


def model_config_of(resources: list[Resource], folder: Path):
    path = folder / "models.config"
    path.write_text(config_map(resources, "recommender-models")["models.config"], encoding="utf-8")
    return read_model_server_config(path)


def config_map(resources: list[Resource], name: str) -> dict[str, str]:
    return next(map_["data"] for map_ in of_kind(resources, "ConfigMap") if map_["metadata"]["name"] == name)


def test_the_model_config_is_as_a_release_writes_it(overlay: Path, tmp_path: Path):
    resources = render(overlay)
    config = model_config_of(resources, tmp_path)
    labels = labels_of(config, "recommender")
    assert STABLE in labels
    loaded = config.model_config_list.config[0].model_version_policy.specific.versions
    assert set(labels.values()) <= set(loaded)
    write_config(tmp_path / "written", config)
    assert (tmp_path / "written").read_text() == config_map(resources, "recommender-models")["models.config"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_recommender(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


@pytest.fixture
def server(tmp_path: Path, store: Path) -> Iterator[ModelServer]:
    """A server started with the pod's own arguments and configuration, over a store without versions."""
    resources = render(KUBEFLOW / "serving" / "overlays" / "pvc")
    settings = config_map(resources, "recommender-settings")
    for name, text in settings.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    config = model_config_of(resources, tmp_path)
    config.model_config_list.config[0].base_path = str(store)
    write_config(tmp_path / "models.config", config)
    arguments = [
        argument.replace("/etc/recommender/models", str(tmp_path)).replace("/etc/recommender/settings", str(tmp_path))
        for argument in server_of(resources)["args"]
    ]
    changed = ["--port=0", "--rest_api_port=0", "--start_wait_seconds=0", "--file_system_poll_wait_seconds=1"]
    with ModelServer(parse_command_line([*arguments, *changed])) as running:
        yield running


def test_the_probes_tell_a_server_that_answers_from_one_that_does_not_yet(
    server: ModelServer, store: Path, model: Path
):
    container = server_of(render(KUBEFLOW / "serving" / "overlays" / "pvc"))
    paths = {container[kind]["httpGet"]["path"] for kind in ("startupProbe", "readinessProbe")}
    urls = [f"http://{server.rest_address}{path}" for path in paths]
    assert [httpx.get(url, timeout=5).status_code in {400, 404} for url in urls] == [True]
    publish(model, store, 1795552318)
    deadline = time.monotonic() + 20
    while [httpx.get(url, timeout=5).status_code for url in urls] != [200]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert "grpc" in container["livenessProbe"]
    with grpc.insecure_channel(server.address) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_metrics_are_where_prometheus_looks_and_batches_can_be_run(tmp_path: Path):
    resources = render(KUBEFLOW / "serving" / "overlays" / "gcs")
    settings = config_map(resources, "recommender-settings")
    for name, text in settings.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    annotations = of_kind(resources, "Deployment")[0]["spec"]["template"]["metadata"]["annotations"]
    monitoring = read_monitoring_config(tmp_path / "monitoring.config")
    assert monitoring.enabled
    assert monitoring.path == annotations["prometheus.io/path"]
    batching = read_batching_parameters(tmp_path / "batching.config")
    assert batching.max_enqueued_batches >= batching.num_batch_threads > 1


def test_versions_are_there_before_the_server_starts_and_keep_coming():
    pod = of_kind(render(KUBEFLOW / "serving" / "overlays" / "s3"), "Deployment")[0]["spec"]["template"]["spec"]
    first, second = pod["initContainers"]
    assert (first["command"][-1], first.get("restartPolicy")) == ("once", None)
    assert (second["command"][-1], second["restartPolicy"]) == ("keep", "Always")


Mutation = Callable[[dict[str, Any], dict[str, Any]], object]
MUTATIONS: dict[str, tuple[str, Mutation, str]] = {
    "port name": ("Service", lambda spec, _: spec["ports"][0].update(targetPort="rpc"), "'rpc': not declared"),
    "selector": ("Service", lambda spec, _: spec.update(selector={"app": "other"}), "selects no pod"),
    "budget": ("PodDisruptionBudget", lambda spec, _: spec["selector"]["matchLabels"].clear(), "selects no pod"),
    "policy port": ("NetworkPolicy", lambda spec, _: spec["ingress"][0]["ports"][0].update(port=1), "lets in to"),
    "scaled": ("HorizontalPodAutoscaler", lambda spec, _: spec["scaleTargetRef"].update(name="x"), "no Deployment 'x'"),
    "replicas": ("Deployment", lambda spec, _: spec.update(replicas=1), "undo"),
    "account": ("Deployment", lambda _, pod: pod.update(serviceAccountName="x"), "no ServiceAccount 'x'"),
    "claim": (
        "Deployment",
        lambda _, pod: named(pod["volumes"], "model-store")["persistentVolumeClaim"].update(claimName="x"),
        "no PersistentVolumeClaim 'x'",
    ),
    "map": (
        "Deployment",
        lambda _, pod: named(pod["volumes"], "settings")["configMap"].update(name="x"),
        "no ConfigMap 'x'",
    ),
    "mount": ("Deployment", lambda _, pod: pod["volumes"].pop(), "which is no volume"),
    "unmounted": (
        "Deployment",
        lambda _, pod: pod["volumes"].append({"name": "x", "emptyDir": {}}),
        "nothing mounts the volume 'x'",
    ),
    "file": (
        "Deployment",
        lambda _, pod: pod["containers"][0]["args"].append("--ssl_config_file=/etc/recommender/settings/ssl.config"),
        "holds ssl.config",
    ),
    "probe": (
        "Deployment",
        lambda _, pod: pod["containers"][0]["livenessProbe"]["grpc"].update(port=9000),
        "livenessProbe asks the port 9000",
    ),
    "no probe": ("Deployment", lambda _, pod: pod["containers"][0].pop("readinessProbe"), "has no readinessProbe"),
    "listens": (
        "Deployment",
        lambda _, pod: pod["containers"][0]["args"].remove("--port=8500"),
        "not on the port 'grpc'",
    ),
    "root": ("Deployment", lambda _, pod: pod["securityContext"].update(runAsNonRoot=False), "as root"),
    "writable": (
        "Deployment",
        lambda _, pod: pod["containers"][0]["securityContext"].update(readOnlyRootFilesystem=False),
        "may write",
    ),
    "image": ("Deployment", lambda _, pod: pod["containers"][0].update(image="tensorflow/serving"), "not pinned"),
    "grace": ("Deployment", lambda _, pod: pod.update(terminationGracePeriodSeconds=20), "is killed before"),
}


def named(elements: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(element for element in elements if element["name"] == name)


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_reference_that_leads_nowhere_is_found(mutation: str):
    kind, mutate, expected = MUTATIONS[mutation]
    resources = copy.deepcopy(render(KUBEFLOW / "serving" / "overlays" / "pvc"))
    spec = of_kind(resources, kind)[0]["spec"]
    mutate(spec, spec["template"]["spec"] if kind == "Deployment" else {})
    assert any(expected in problem for problem in find_problems(resources)), find_problems(resources)


@pytest.mark.parametrize(
    ("folder", "kind", "path", "value"),
    [
        ("pvc", "Deployment", ["spec", "template", "spec", "containers", 0, "readynessProbe"], {}),
        ("pvc", "Deployment", ["spec", "template", "spec", "containers", 0, "ports", 0, "containerPort"], "grpc"),
        ("pvc", "HorizontalPodAutoscaler", ["spec", "maxReplicas"], "ten"),
        ("pvc", "PersistentVolumeClaim", ["spec", "accessModes"], "ReadWriteMany"),
        ("gcs", "NetworkPolicy", ["spec", "egres"], []),
        ("s3", "Deployment", ["spec", "template", "spec", "initContainers", 0, "envFrom", 0, "configMapRef"], "x"),
        ("kserve", "InferenceService", ["spec", "predictor", "model", "storageURI"], "gs://x"),
        ("kserve", "InferenceService", ["spec", "predictor", "minReplicas"], "2"),
        ("kserve", "InferenceService", ["spec", "predictor", "scaleMetric"], "latency"),
    ],
)
def test_a_resource_that_breaks_its_schema_is_refused(folder: str, kind: str, path: list[Any], value: object):
    where = KSERVE if folder == "kserve" else KUBEFLOW / "serving" / "overlays" / folder
    resource = copy.deepcopy(of_kind(render(where), kind)[0])
    parent: Any = resource
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    with pytest.raises((kubernetes_validate.ValidationError, jsonschema.ValidationError)):
        validate(resource, KUBERNETES[-1])


def test_kserve_serves_under_the_model_name_as_often_as_the_deployment_does():
    service = of_kind(render(KSERVE), "InferenceService")[0]
    scaler = of_kind(render(OVERLAYS[0]), "HorizontalPodAutoscaler")[0]["spec"]
    predictor = service["spec"]["predictor"]
    assert service["metadata"]["name"] == "recommender"
    assert (predictor["minReplicas"], predictor["maxReplicas"]) == (scaler["minReplicas"], scaler["maxReplicas"])
    accounts = [account["metadata"]["name"] for account in of_kind(render(KSERVE), "ServiceAccount")]
    assert accounts == [predictor["serviceAccountName"]]
    image = server_of(render(OVERLAYS[0]))["image"]
    assert image == f"tensorflow/serving:{predictor['model']['runtimeVersion']}"
