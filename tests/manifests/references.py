"""Checks what resources say of each other, which no schema does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tests.manifests.kustomize import Resource


def find_problems(resources: Sequence[Resource]) -> list[str]:
    """Returns in words each reference that leads nowhere, and each selector that selects nothing."""
    return [problem for check in _CHECKS for problem in check(resources)]


def of_kind(resources: Sequence[Resource], kind: str) -> list[Resource]:
    """Returns the resources of one kind."""
    return [resource for resource in resources if resource["kind"] == kind]


def _names(resources: Sequence[Resource], kind: str) -> set[str]:
    return {resource["metadata"]["name"] for resource in of_kind(resources, kind)}


def _pods(resources: Sequence[Resource]) -> list[Resource]:
    return [deployment["spec"]["template"] for deployment in of_kind(resources, "Deployment")]


def _containers(pod: Resource) -> list[dict[str, Any]]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def _ports(pod: Resource) -> dict[str | int, int]:
    ports = [port for container in _containers(pod) for port in container.get("ports", [])]
    return {key: port["containerPort"] for port in ports for key in (port["name"], port["containerPort"])}


def _selects(selector: Mapping[str, str], pod: Resource) -> bool:
    return bool(selector) and selector.items() <= pod["metadata"]["labels"].items()


def _volumes_and_accounts(resources: Sequence[Resource]) -> Iterator[str]:
    for pod in _pods(resources):
        references = [("ServiceAccount", pod["spec"]["serviceAccountName"])]
        for volume in pod["spec"]["volumes"]:
            if "configMap" in volume:
                references.append(("ConfigMap", volume["configMap"]["name"]))
            if "persistentVolumeClaim" in volume:
                references.append(("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]))
        for container in _containers(pod):
            for source in container.get("envFrom", []):
                if "configMapRef" in source:
                    references.append(("ConfigMap", source["configMapRef"]["name"]))
                elif not source["secretRef"].get("optional"):
                    references.append(("Secret", source["secretRef"]["name"]))
        for kind, name in references:
            if name not in _names(resources, kind):
                yield f"there is no {kind} {name!r}"


def _mounts(resources: Sequence[Resource]) -> Iterator[str]:
    for pod in _pods(resources):
        volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
        mounted = set()
        for container in _containers(pod):
            for mount in container["volumeMounts"]:
                mounted.add(mount["name"])
                if mount["name"] not in volumes:
                    yield f"{container['name']} mounts {mount['name']!r}, which is no volume"
                if "subPath" in mount:
                    yield f"{container['name']} mounts {mount['name']!r} by subPath, which is never refreshed"
        for name in sorted(volumes - mounted):
            yield f"nothing mounts the volume {name!r}"


def _files(resources: Sequence[Resource]) -> Iterator[str]:
    """Files that arguments and commands name are in the ConfigMap that is mounted there."""
    maps = {resource["metadata"]["name"]: resource["data"] for resource in of_kind(resources, "ConfigMap")}
    for pod in _pods(resources):
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        for container in _containers(pod):
            mounts = {mount["mountPath"]: volumes.get(mount["name"], {}) for mount in container["volumeMounts"]}
            for argument in [*container.get("command", []), *container.get("args", [])]:
                path = argument.partition("=")[2] or argument
                if not path.startswith("/etc/"):
                    continue
                folder, _, name = path.rpartition("/")
                if name not in maps.get(mounts.get(folder, {}).get("configMap", {}).get("name"), {}):
                    yield f"{container['name']}: no ConfigMap mounted at {folder} holds {name}"


def _probes(resources: Sequence[Resource]) -> Iterator[str]:
    for pod in _pods(resources):
        ports = _ports(pod)
        for container in pod["spec"]["containers"]:
            for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
                probe = container.get(kind, {})
                target = next((probe[way] for way in ("httpGet", "tcpSocket", "grpc") if way in probe), None)
                if target is None:
                    yield f"{container['name']} has no {kind}"
                elif target["port"] not in ports:
                    yield f"{container['name']}: {kind} asks the port {target['port']!r}, which is not declared"


def _listening(resources: Sequence[Resource]) -> Iterator[str]:
    for pod in _pods(resources):
        for container in pod["spec"]["containers"]:
            flags = dict(argument.partition("=")[::2] for argument in container["args"])
            for name, flag in (("grpc", "--port"), ("http", "--rest_api_port")):
                if flags.get(flag) != str(_ports(pod).get(name)):
                    yield f"{container['name']} listens on {flag}={flags.get(flag)}, not on the port {name!r}"
        annotations = pod["metadata"].get("annotations", {})
        if annotations.get("prometheus.io/port") != str(_ports(pod).get("http")):
            yield f"Prometheus asks the port {annotations.get('prometheus.io/port')}, where the server does not answer"


def _selectors(resources: Sequence[Resource]) -> Iterator[str]:
    selectors = [("Service", resource, resource["spec"]["selector"]) for resource in of_kind(resources, "Service")]
    for kind, field in (
        ("Deployment", "selector"),
        ("PodDisruptionBudget", "selector"),
        ("NetworkPolicy", "podSelector"),
    ):
        for resource in of_kind(resources, kind):
            selectors.append((kind, resource, resource["spec"][field].get("matchLabels", {})))
            for constraint in resource["spec"].get("template", {}).get("spec", {}).get("topologySpreadConstraints", []):
                selectors.append((f"{kind}'s spread", resource, constraint["labelSelector"]["matchLabels"]))
    for kind, resource, selector in selectors:
        if not any(_selects(selector, pod) for pod in _pods(resources)):
            yield f"{kind} {resource['metadata']['name']!r} selects no pod: {selector}"


def _service_ports(resources: Sequence[Resource]) -> Iterator[str]:
    ports = {key: number for pod in _pods(resources) for key, number in _ports(pod).items()}
    for service in of_kind(resources, "Service"):
        for port in service["spec"]["ports"]:
            if port["targetPort"] not in ports:
                yield f"Service {service['metadata']['name']!r} leads to the port {port['targetPort']!r}: not declared"
    for policy in of_kind(resources, "NetworkPolicy"):
        for rule in policy["spec"]["ingress"]:
            for port in rule["ports"]:
                if port["port"] not in ports:
                    yield f"NetworkPolicy lets in to the port {port['port']!r}, which is not declared"


def _scaled(resources: Sequence[Resource]) -> Iterator[str]:
    for scaler in of_kind(resources, "HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        if target["name"] not in _names(resources, target["kind"]):
            yield f"HorizontalPodAutoscaler: there is no {target['kind']} {target['name']!r}"
    for deployment in of_kind(resources, "Deployment"):
        if "replicas" in deployment["spec"]:
            yield "replicas of the Deployment would undo what the HorizontalPodAutoscaler decided"


def _hardening(resources: Sequence[Resource]) -> Iterator[str]:
    for pod in _pods(resources):
        security = pod["spec"].get("securityContext", {})
        if not (security.get("runAsNonRoot") and security.get("runAsUser")):
            yield "the pod may run as root"
        if security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield "the pod has no seccomp profile"
        for container in _containers(pod):
            security = container.get("securityContext", {})
            if security.get("allowPrivilegeEscalation") is not False:
                yield f"{container['name']} may gain privileges"
            if not security.get("readOnlyRootFilesystem"):
                yield f"{container['name']} may write to its root"
            if security.get("capabilities", {}).get("drop") != ["ALL"]:
                yield f"{container['name']} keeps capabilities"
            if not container.get("resources", {}).get("limits", {}).get("memory"):
                yield f"{container['name']} may take all memory"
            if ":" not in container["image"] or container["image"].endswith(":latest"):
                yield f"{container['name']}: the image {container['image']} is not pinned"


def _ending(resources: Sequence[Resource]) -> Iterator[str]:
    for pod in _pods(resources):
        for container in pod["spec"]["containers"]:
            command = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [""])
            if command[0] != "sleep":
                yield f"{container['name']} does not wait until its pod has left the endpoints"
            elif int(command[1]) >= pod["spec"].get("terminationGracePeriodSeconds", 30):
                yield f"{container['name']} is killed before its preStop hook has ended"


_CHECKS: tuple[Callable[[Sequence[Resource]], Iterator[str]], ...] = (
    _volumes_and_accounts,
    _mounts,
    _files,
    _probes,
    _listening,
    _selectors,
    _service_ports,
    _scaled,
    _hardening,
    _ending,
)
