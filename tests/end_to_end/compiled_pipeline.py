"""Executes a compiled pipeline as Kubeflow Pipelines would: each step by its own command, in a process of its own.

The parts of the cluster that are stood in for are its driver, which makes the `ExecutorInput` of a step, and its
launcher, which fills that into the container's command. What runs is what would run in the container.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
import venv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]


def install(folder: Path) -> Path:
    """Installs this package into a new environment, not editable; its dependencies are those of this environment.

    Returns:
      The environment's Python.
    """
    wheels = folder / "wheels"
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    source = folder / "source"
    files = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, files.stdout.decode().split("\0")):
        if (
            name.split("/")[0] in ("modules", "pipeline", "schemas", "setup.py", "pyproject.toml")
            and (ROOT / name).is_file()
        ):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run([*pip, str(wheels), str(source)], check=True, env=environment)
    venv.create(folder / "environment", with_pip=False)
    python = folder / "environment" / "bin" / "python"
    (packages,) = (folder / "environment" / "lib").glob("python*/site-packages")
    (wheel,) = wheels.iterdir()
    install_wheel = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(packages),
        str(wheel),
    ]
    subprocess.run(install_wheel, check=True, env=environment)
    # A path in such a file is searched, but the .pth files there, by which an editable install works, are not read.
    dependencies = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "dependencies.pth").write_text("\n".join(dependencies), encoding="utf-8")
    return python


class StepError(Exception):
    """A step whose command failed.

    Attributes:
      name: of the task.
      log: what it said.
    """

    def __init__(self, name: str, log: str):
        super().__init__(f"{name} failed:\n{log[-6000:]}")
        self.name, self.log = name, log


@dataclasses.dataclass
class CompiledPipeline:
    """A compiled pipeline that is executed here.

    Attributes:
      spec: the specification.
      python: what stands for `python` in the container.
      root: the pipeline root, a local folder.
      folder: the containers' working directory; must not hold the package's source.
      outputs: artifacts of each task that has run, by its name and theirs.
      found: output parameters of each task that has run, by its name and theirs.
      states: how each task ended, in the order in which they ran.
    """

    spec: Mapping[str, Any]
    python: Path
    root: Path
    folder: Path
    outputs: dict[str, dict[str, list[dict[str, Any]]]] = dataclasses.field(default_factory=dict)
    found: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    states: dict[str, str] = dataclasses.field(default_factory=dict)

    @staticmethod
    def load(file: Path, python: Path, folder: Path) -> CompiledPipeline:
        """Reads a specification."""
        spec = next(iter(yaml.safe_load_all(file.read_text(encoding="utf-8"))))
        (folder / "work").mkdir(parents=True)
        return CompiledPipeline(spec, python, folder / "root", folder / "work")

    def run(self, parameters: Mapping[str, Any]) -> None:
        """Executes all steps.

        Args:
          parameters: those that are not to have their defaults.

        Raises:
          StepError: if a step fails; exit handlers have run by then.
        """
        definitions = self.spec["root"].get("inputDefinitions", {}).get("parameters", {})
        assert parameters.keys() <= definitions.keys()
        values = {name: definition["defaultValue"] for name, definition in definitions.items()}
        failure: StepError | None = None
        tasks = self.spec["root"]["dag"]["tasks"]
        for name in _order(tasks):
            if (
                failure is not None
                and tasks[name].get("triggerPolicy", {}).get("strategy") != "ALL_UPSTREAM_TASKS_COMPLETED"
            ):
                continue
            try:
                self._run_task(name, tasks[name], {**values, **parameters})
            except StepError as error:
                failure = error
        if failure is not None:
            raise failure

    def run_again(self, names: Sequence[str], parameters: Mapping[str, Any], root: Path) -> None:
        """Executes some steps of the DAG once more, as the next run would if it found the others in the cache.

        Args:
          names: the steps, each after those that it depends on.
          parameters: those that are not to have their defaults.
          root: pipeline root of what they write.
        """
        self.root = root
        definitions = self.spec["root"]["inputDefinitions"]["parameters"]
        values = {name: definition["defaultValue"] for name, definition in definitions.items()}
        for name in names:
            self._run_task(name, self._task(name), {**values, **parameters})

    def _task(self, name: str) -> Mapping[str, Any]:
        """Returns a task of any of the DAGs."""
        dags = (component["dag"] for component in self.spec["components"].values() if "dag" in component)
        return next(dag["tasks"][name] for dag in dags if name in dag["tasks"])

    def _run_task(self, name: str, task: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        component = self.spec["components"][task["componentRef"]["name"]]
        inner = self._parameters(task, values)
        condition = task.get("triggerPolicy", {}).get("condition")
        if condition is not None and not _holds(condition, inner):
            self.states[name] = "SKIPPED"
            return
        if "dag" in component:
            self.states[name] = "FAILED"
            for child in _order(component["dag"]["tasks"]):
                self._run_task(child, component["dag"]["tasks"][child], inner)
            self.states[name] = "SUCCEEDED"
            return
        executor = self.spec["deploymentSpec"]["executors"][component["executorLabel"]]
        self.states[name] = "FAILED"
        self._run_container(name, task, component, executor["container"], values)
        self.states[name] = "SUCCEEDED"

    def _run_container(
        self,
        name: str,
        task: Mapping[str, Any],
        component: Mapping[str, Any],
        container: Mapping[str, Any],
        values: Mapping[str, Any],
    ) -> None:
        output_file = self.root / name / "executor_output.json"
        outputs = {
            key: {
                "artifacts": [
                    {"name": f"{name}-{key}", "type": spec["artifactType"], "uri": str(self.root / name / key)}
                ]
            }
            for key, spec in component.get("outputDefinitions", {}).get("artifacts", {}).items()
        }
        kinds = component.get("outputDefinitions", {}).get("parameters", {})
        parameter_files = {key: self.root / name / "parameters" / key for key in kinds}
        inputs = {
            key: {"artifacts": self.outputs[source["producerTask"]][source["outputArtifactKey"]]}
            for key, source in (
                (key, given["taskOutputArtifact"]) for key, given in task.get("inputs", {}).get("artifacts", {}).items()
            )
        }
        executor_input = {
            "inputs": {"parameterValues": self._parameters(task, values), "artifacts": inputs},
            "outputs": {
                "artifacts": outputs,
                "parameters": {key: {"outputFile": str(file)} for key, file in parameter_files.items()},
                "outputFile": str(output_file),
            },
        }
        filled = [
            part.replace("{{$}}", json.dumps(executor_input)) for part in [*container["command"], *container["args"]]
        ]
        assert filled[0] in ("python", "python3")
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), "TF_USE_LEGACY_KERAS": "1"}
        finished = subprocess.run(
            [str(self.python), *filled[1:]],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        if finished.returncode:
            raise StepError(name, finished.stdout)
        texts = {key: file.read_text(encoding="utf-8") for key, file in parameter_files.items()}
        self.found[name] = {
            key: text if kinds[key]["parameterType"] == "STRING" else json.loads(text) for key, text in texts.items()
        }
        written = json.loads(output_file.read_text(encoding="utf-8")) if output_file.exists() else {}
        # As the launcher does: what the step said of its artifacts, over what the driver had given it.
        self.outputs[name] = {
            key: [{**outputs[key]["artifacts"][0], **artifact} for artifact in made["artifacts"]]
            for key, made in {**outputs, **written.get("artifacts", {})}.items()
        }

    def _parameters(self, task: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
        return dict(self._resolve_parameters(task, values))

    def _resolve_parameters(self, task: Mapping[str, Any], values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        for name, given in task.get("inputs", {}).get("parameters", {}).items():
            if "componentInputParameter" in given:
                yield name, values[given["componentInputParameter"]]
            elif "taskOutputParameter" in given:
                output = given["taskOutputParameter"]
                yield name, self.found[output["producerTask"]][output["outputParameterKey"]]
            elif "taskFinalStatus" in given:
                producer = given["taskFinalStatus"]["producerTask"]
                state = self.states[producer]
                error = {} if state == "SUCCEEDED" else {"error": {"code": 9, "message": "a step failed"}}
                yield name, json.dumps({"state": state, "pipelineJobResourceName": "jobs/run-1", **error})
            else:
                yield name, given["runtimeValue"]["constant"]


def _order(tasks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns the tasks, each after those that it depends on."""
    ordered: list[str] = []
    while len(ordered) < len(tasks):
        ready = [name for name, task in tasks.items() if name not in ordered and set(_needs(task)) <= set(ordered)]
        assert ready, f"a cycle among {sorted(set(tasks) - set(ordered))}"
        ordered.extend(sorted(ready))
    return ordered


def _needs(task: Mapping[str, Any]) -> Iterator[str]:
    yield from task.get("dependentTasks", [])
    for given in task.get("inputs", {}).get("artifacts", {}).values():
        yield given["taskOutputArtifact"]["producerTask"]
    for given in task.get("inputs", {}).get("parameters", {}).values():
        for kind in ("taskFinalStatus", "taskOutputParameter"):
            if kind in given:
                yield given[kind]["producerTask"]


def _holds(condition: str, parameters: Mapping[str, Any]) -> bool:
    """Evaluates the one kind of condition that there is."""
    match = re.fullmatch(r"inputs\.parameter_values\['(\w+)'\] == true", condition)
    assert match is not None, condition
    value = parameters[match[1]]
    assert isinstance(value, bool), value
    return value
