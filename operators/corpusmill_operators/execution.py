"""Where the tasks of each stage run: executor, queue, pool slots, retry delay and Kubernetes pod, from one YAML file.

The variable ``CORPUSMILL_EXECUTION`` names the file; without it the installation's own defaults hold. DAG files say
what is done, this file says where, so that one DAG runs on a laptop and on a cluster::

    stages:
      "*": {queue: default}
      "refine_*":
        executor: KubernetesExecutor
        pod_override: {image: "corpusmill:worker-gpu", resources: {limits: {nvidia.com/gpu: 1}}}
      score: {queue: gpu, pool_slots: 1}

A key is a stage or a pattern of stages. Every entry that matches applies, in the order of the file: a later one wins,
field by field. What the file says holds against the DAG file. A mistake anywhere in it is an error of every DAG file.
"""

import os
from collections.abc import Mapping
from datetime import timedelta
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

import corpusmill_operators
from corpusmill.config import StageConfig
from corpusmill.errors import ConfigError
from corpusmill.settings_file import read_settings

VARIABLE = "CORPUSMILL_EXECUTION"
"""Names the file."""
IN_POD = "AIRFLOW_IS_K8S_EXECUTOR_POD"
"""Set by the Kubernetes executor in its pods, whose own executor setting differs: there a task is placed already."""
STAGE_OF_MODULE = {
    "assemble_corpus": "assemble",
    "clean_rules": "clean",
    "commit_stage": "commit",
    "ingest_crawl": "ingest",
    "pack_sequences": "pack",
    "plan_run": "plan",
    "publish_corpus": "publish",
    "report_run": "report",
    "score_units": "score",
    "select_units": "select",
    "validate_table": "validate",
}
"""Stages whose name is shorter than that of their operator's file; all others are called like the file."""


class Toleration(StageConfig):
    """A taint of nodes that the pod bears, with the fields of Kubernetes."""

    key: str | None = None
    """Taint; None with ``operator: Exists`` bears all."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """Whether the taint's value counts."""
    value: str | None = None
    """Value, for ``Equal``."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """None bears all effects."""


class PodResources(StageConfig):
    """Resources of the task's container, in Kubernetes' units."""

    requests: Mapping[str, str | int] = {}
    """For instance ``{cpu: 2, memory: 8Gi}``."""
    limits: Mapping[str, str | int] = {}
    """For instance ``{nvidia.com/gpu: 1, memory: 32Gi}``."""


class PodOverride(StageConfig):
    """What differs from the pod template of the Kubernetes executor."""

    image: str | None = None
    """Image of the container ``base``."""
    resources: PodResources = PodResources()
    """Requests and limits of that container."""
    node_selector: Mapping[str, str] = {}
    """Labels that a node must have."""
    tolerations: tuple[Toleration, ...] = ()
    """Taints that the pod bears."""


class StagePlacement(StageConfig):
    """Where a stage's tasks run; what is not given stays as it is."""

    executor: str | None = None
    """One of those that ``AIRFLOW__CORE__EXECUTOR`` lists: its name, alias or module path."""
    queue: str | None = Field(default=None, min_length=1)
    """Queue that workers listen to (``airflow celery worker --queues``)."""
    pool_slots: int | None = Field(default=None, ge=1)
    """Slots of its pool that one task takes."""
    retry_delay_seconds: float | None = Field(default=None, gt=0)
    """Time until a task is tried again whose failure says no time of its own, for instance when its worker was lost."""
    pod_override: PodOverride | None = None
    """Pod of the task, where the executor is Kubernetes'."""


class ExecutionConfig(StageConfig):
    """The whole file."""

    stages: Mapping[str, StagePlacement]
    """Placements by stage or pattern (``*``, ``?``, ``[...]``)."""

    def placement(self, stage: str) -> StagePlacement:
        """Returns what holds for a stage: all entries that match, later ones over earlier ones."""
        values: dict[str, Any] = {}
        for pattern, placement in self.stages.items():
            if fnmatchcase(stage, pattern):
                values |= {name: getattr(placement, name) for name in placement.model_fields_set}
        return StagePlacement(**values)


def task_arguments(operator: type) -> dict[str, Any]:
    """Returns the arguments that place an operator's tasks: executor, queue, pool slots, retry delay, executor config.

    Args:
        operator: Class of the operator, or one derived from it.

    Raises:
        ConfigError: The file is absent or wrong, or names what this installation lacks.
    """
    file = os.environ.get(VARIABLE)
    if not file or os.environ.get(IN_POD):
        return {}
    placement = _read(file, _stamp(file), os.environ.get("AIRFLOW__CORE__EXECUTOR")).placement(stage_of(operator))
    arguments = {name: getattr(placement, name) for name in ("executor", "queue", "pool_slots")}
    if placement.retry_delay_seconds is not None:
        arguments["retry_delay"] = timedelta(seconds=placement.retry_delay_seconds)
    if placement.pod_override is not None:
        arguments["executor_config"] = {"pod_override": pod_of(placement.pod_override)}
    return {name: value for name, value in arguments.items() if value is not None}


def stage_of(operator: type) -> str:
    """Returns the stage of an operator's class; a class derived from ours belongs to the same stage."""
    names = [c.__module__.rpartition(".")[2] for c in operator.__mro__ if c.__module__.startswith(f"{__package__}.")]
    module = next((name for name in names if name in _operator_modules()), operator.__module__.rpartition(".")[2])
    return STAGE_OF_MODULE.get(module, module)


def known_stages() -> list[str]:
    """Returns the names of all stages, sorted."""
    return sorted(STAGE_OF_MODULE.get(module, module) for module in _operator_modules())


def pod_of(override: PodOverride) -> Any:
    """Returns the override as a ``V1Pod``; loads Kubernetes' client."""
    from kubernetes.client import models as k8s  # type: ignore[import-untyped]

    resources = {k: {n: str(v) for n, v in of.items()} for k, of in override.resources.model_dump().items() if of}
    container = k8s.V1Container(
        name="base",  # the name by which Airflow finds the task's container
        image=override.image,
        resources=k8s.V1ResourceRequirements(**resources) if resources else None,
    )
    spec = k8s.V1PodSpec(
        containers=[container],
        node_selector=dict(override.node_selector) or None,
        tolerations=[k8s.V1Toleration(**t.model_dump()) for t in override.tolerations] or None,
    )
    return k8s.V1Pod(spec=spec)


def _operator_modules() -> set[str]:
    index = corpusmill_operators._MODULE_OF
    return {module for name, module in index.items() if name.endswith("Operator")}


def _stamp(file: str) -> int:
    try:
        return Path(file).stat().st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=4)
def _read(file: str, _modified: int, _executor: str | None) -> ExecutionConfig:
    """Reads and checks the file; once for each of its versions, since every task of every DAG asks."""
    try:
        config = ExecutionConfig.load(read_settings(Path(file), VARIABLE))
        for pattern, placement in config.stages.items():
            _check_stage(pattern)
            _check_executor(pattern, placement.executor)
        for stage in known_stages():
            placement = config.placement(stage)
            if placement.pod_override is not None:
                _check_pod(stage, placement.executor)
    except ConfigError as error:
        raise ConfigError(f"{VARIABLE}={file}: {error}") from error
    return config


def _check_stage(pattern: str) -> None:
    if not any(fnmatchcase(stage, pattern) for stage in known_stages()):
        raise ConfigError(f"stages.{pattern}: there is no such stage; expected one of {known_stages()} or a pattern")


def _executors() -> dict[str, str]:
    """Returns the module paths of the executors that Airflow is configured with, by every name they go by."""
    from airflow.executors.executor_loader import ExecutorLoader

    found: dict[str, str] = {}
    for executor in ExecutorLoader.get_executor_names(validate_teams=False):
        path = executor.module_path
        for name in (executor.alias, path.rpartition(".")[2], path):
            if name:
                found.setdefault(name, path)
    return found


def _check_executor(pattern: str, executor: str | None) -> None:
    if executor is None:
        return
    configured = _executors()
    if executor not in configured:
        names = sorted(name for name in configured if "." not in name)
        raise ConfigError(
            f"stages.{pattern}.executor={executor!r} is not configured; AIRFLOW__CORE__EXECUTOR lists {names}: add it "
            "there, or choose one of these"
        )
    path = configured[executor]
    if not _is_installed(path.rpartition(".")[0]):
        raise ConfigError(
            f"stages.{pattern}.executor={executor!r} is configured but {path!r} is not installed; "
            "install corpusmill[celery], corpusmill[kubernetes], or the package that carries it"
        )


def _check_pod(stage: str, executor: str | None) -> None:
    configured = _executors()
    path = configured[executor] if executor else next(iter(configured.values()))
    if not path.endswith("KubernetesExecutor"):
        raise ConfigError(
            f"stage {stage!r} has a pod_override, but its tasks go to {path.rpartition('.')[2]}, which makes no pods; "
            "name executor: KubernetesExecutor beside it, or leave it out"
        )
    if not _is_installed("kubernetes.client"):
        raise ConfigError(
            f"stage {stage!r} has a pod_override, but Kubernetes' client is not installed; install "
            "corpusmill[kubernetes]"
        )


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
