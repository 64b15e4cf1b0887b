"""Pipelines on Kubeflow: ZenML's orchestrator with a compilation of its own.

ZenML 0.98 cannot compile for Kubeflow Pipelines (kfp) 2.17: it calls `.after()` with components instead of tasks,
gives memory as a number, takes a node label's value for the type of the accelerator, and leaves out tolerations,
volumes and secrets. `submit_pipeline` here replaces that part; run ids, clients and steps stay ZenML's.

A task is a lightweight Python component: the one kind that both Kubeflow and kfp's SubprocessRunner execute. It
becomes ZenML's own step entrypoint, by exec, in the image of the step. kfp reads its annotations as objects, so this
file goes without `from __future__ import annotations`.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from kfp import compiler, dsl, kubernetes
from kfp_server_api.exceptions import ApiException
from urllib3.exceptions import HTTPError
from zenml.entrypoints import StepEntrypointConfiguration
from zenml.enums import StackComponentType
from zenml.integrations.kubeflow.flavors.kubeflow_orchestrator_flavor import (
    KubeflowOrchestratorConfig,
    KubeflowOrchestratorFlavor,
    KubeflowOrchestratorSettings,
)
from zenml.integrations.kubeflow.orchestrators.kubeflow_orchestrator import KubeflowOrchestrator
from zenml.integrations.kubernetes.pod_settings import KubernetesPodSettings
from zenml.orchestrators import SubmissionResult
from zenml.stack import StackValidator

from metalayer.environment import state_dir
from metalayer.errors import ConfigError, MetalayerError
from metalayer.files import publish_file

_SECRET_VARIABLES = frozenset(f"ZENML_STORE_{name}" for name in ("API_KEY", "API_TOKEN", "USERNAME", "PASSWORD"))
"""Never written to a file: pods have theirs from a Secret."""
_TOLD = (
    *("labels", "annotations", "node_selectors", "tolerations", "resources", "env", "volumes", "volume_mounts"),
    *("container_security_context", "image_pull_secrets"),
)
"""Settings of a pod that are passed on."""
_IDENTITY = {"runAsUser": "run_as_user", "runAsGroup": "run_as_group", "runAsNonRoot": "run_as_non_root"}
_AMOUNTS = frozenset({("requests", "cpu"), ("requests", "memory"), ("limits", "cpu"), ("limits", "memory")})


class PodSettings(KubeflowOrchestratorSettings):
    """ZenML's settings, whose `pod_settings` keep nothing but node selectors and affinity.

    Attributes:
        pod: of a step.
    """

    pod: KubernetesPodSettings = KubernetesPodSettings()


class PodConfig(KubeflowOrchestratorConfig, PodSettings):
    """ZenML's configuration with the same settings."""


class Orchestrator(KubeflowOrchestrator):
    """Compiles a pipeline, and submits it where an address of Kubeflow is given."""

    @property
    def settings_class(self) -> type[PodSettings]:
        """Of pipelines and steps."""
        return PodSettings

    @property
    def validator(self) -> StackValidator:
        """Images and where they are; no address, as a file can be compiled without one."""
        return StackValidator(
            required_components={StackComponentType.CONTAINER_REGISTRY, StackComponentType.IMAGE_BUILDER}
        )

    def submit_pipeline(
        self,
        snapshot: Any,
        stack: Any,
        base_environment: dict[str, str],
        step_environments: dict[str, dict[str, str]],
        placeholder_run: Any = None,
    ) -> SubmissionResult | None:
        """Compile to `package_file`; with an address, submit that and wait.

        Raises:
            ConfigError: pod settings that are not passed on.
            MetalayerError: Kubeflow refuses, or does not answer.
        """
        name = snapshot.run_name_template
        path = package_file(name)
        pods = {step: cast(PodSettings, self.get_settings(it)).pod for step, it in snapshot.step_configurations.items()}
        _check_pods(pods)
        images = {step: self.get_image(snapshot, step) for step in pods}

        def tasks() -> None:
            made: dict[str, Any] = {}
            for step, config in snapshot.step_configurations.items():
                task = _task(step, str(snapshot.id), images[step])
                task.after(*(made[upstream] for upstream in config.spec.upstream_steps))
                _set_environment(task, step_environments[step])
                _set_pod(task, pods[step])
                made[step] = task

        with TemporaryDirectory() as folder, publish_file(path) as draft:
            package = Path(folder) / "package.yaml"  # kfp writes to no other ending
            compiler.Compiler().compile(dsl.pipeline(tasks, name=name), str(package))
            shutil.copyfile(package, draft)
        return self._submit(name, path) if self.config.kubeflow_hostname else None

    def _submit(self, name: str, path: Path) -> SubmissionResult:
        settings = cast(PodSettings, self.config)
        host = self.config.kubeflow_hostname
        try:
            client = self._get_kfp_client(settings)
            run_id = client.create_run_from_pipeline_package(
                str(path), run_name=name, enable_caching=False, namespace=settings.user_namespace
            ).run_id
        except (ApiException, HTTPError, OSError) as error:
            said = getattr(error, "body", None) or error
            raise MetalayerError(f"Kubeflow at {host} takes no run: {said}. {path} can be submitted later") from None

        def wait() -> None:
            state = client.wait_for_run_completion(run_id, settings.timeout).state
            if state != "SUCCEEDED":
                raise MetalayerError(f"Kubeflow's run {run_id} ended as {state}; its pods' logs say why")

        return SubmissionResult(wait_for_completion=wait if settings.synchronous else None)


class Flavor(KubeflowOrchestratorFlavor):
    """As `pipelines/stacks/kubeflow.yaml` names it."""

    @property
    def name(self) -> str:
        """Beside ZenML's `kubeflow`."""
        return "kubeflow-metalayer"

    @property
    def config_class(self) -> type[PodConfig]:
        """Of the component."""
        return PodConfig

    @property
    def implementation_class(self) -> type[Orchestrator]:
        """Of the component."""
        return Orchestrator


def package_file(run_name: str) -> Path:
    """Where the compiled pipeline of a run is."""
    return state_dir() / "kubeflow" / f"{run_name}.yaml"


def zenml_step(arguments: list, run_id: str) -> None:  # type: ignore[type-arg]
    """Become ZenML's step entrypoint."""
    import os
    import sys

    environment = {**os.environ, "KFP_RUN_ID": run_id}
    del environment["_KFP_RUNTIME"]  # under it kfp hides its client, which ZenML's orchestrator imports
    os.execve(sys.executable, [sys.executable, "-m", "zenml.entrypoints.entrypoint", *arguments], environment)  # noqa: S606


def _check_pods(pods: Mapping[str, KubernetesPodSettings]) -> None:
    for step, pod in pods.items():
        if untold := _untold(pod):
            raise ConfigError(
                f"pod of step {step}: given {', '.join(untold)}, which does not reach Kubeflow; it is told "
                f"{', '.join(_TOLD)}: cpu, memory and one resource with a / in its name, variables with a value or a "
                f"secretKeyRef, volumes that are emptyDir, {', '.join(_IDENTITY)}"
            )


def _untold(pod: KubernetesPodSettings) -> list[str]:
    amounts = [(kind, name) for kind, given in pod.resources.items() for name in given]
    return [
        *(name for name, value in pod if value and name not in _TOLD),
        *(f"resources.{kind}.{name}" for kind, name in amounts if "/" not in name and (kind, name) not in _AMOUNTS),
        *(f"resources.{kind}.{name}" for kind, name in [pair for pair in amounts if "/" in pair[1]][1:]),
        *(f"env.{it['name']}" for it in pod.env if "value" not in it and "secretKeyRef" not in it.get("valueFrom", {})),
        *(f"volumes.{volume['name']}" for volume in pod.volumes if "emptyDir" not in volume),
        *(f"volume_mounts.{key}" for mount in pod.volume_mounts for key in mount if key not in ("name", "mountPath")),
        *(f"container_security_context.{key}" for key in pod.container_security_context if key not in _IDENTITY),
    ]


def _task(step: str, snapshot_id: str, image: str) -> Any:
    component = dsl.component(zenml_step, base_image=image, install_kfp_package=False)
    component.component_spec.name = step.replace("_", "-")
    arguments = StepEntrypointConfiguration.get_entrypoint_arguments(step_name=step, snapshot_id=snapshot_id)
    task = component(arguments=arguments, run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER)
    return task.set_display_name(step).set_caching_options(enable_caching=False)


def _set_environment(task: Any, environment: Mapping[str, str]) -> None:
    for name, value in environment.items():
        if name not in _SECRET_VARIABLES:
            task.set_env_variable(name, value)


def _set_pod(task: Any, pod: KubernetesPodSettings) -> None:
    for name, value in pod.labels.items():
        kubernetes.add_pod_label(task, name, value)
    for name, value in pod.annotations.items():
        kubernetes.add_pod_annotation(task, name, value)
    for name, value in pod.node_selectors.items():
        kubernetes.add_node_selector(task, name, value)
    kubernetes.add_toleration_json(task, pod.tolerations)
    kubernetes.set_image_pull_secrets(task, pod.image_pull_secrets)
    _set_resources(task, pod.resources)
    for variable in pod.env:
        if "value" in variable:
            task.set_env_variable(variable["name"], variable["value"])
        else:
            secret = variable["valueFrom"]["secretKeyRef"]
            kubernetes.use_secret_as_env(task, secret["name"], {secret["key"]: variable["name"]})
    mounts = {mount["name"]: mount["mountPath"] for mount in pod.volume_mounts}
    for volume in pod.volumes:
        kind = volume["emptyDir"]
        kubernetes.empty_dir_mount(
            task, volume["name"], mounts[volume["name"]], kind.get("medium"), kind.get("sizeLimit")
        )
    if identity := {_IDENTITY[key]: value for key, value in pod.container_security_context.items()}:
        kubernetes.set_security_context(task, **identity)


def _set_resources(task: Any, resources: Mapping[str, Mapping[str, str]]) -> None:
    setters = {
        ("requests", "cpu"): task.set_cpu_request,
        ("requests", "memory"): task.set_memory_request,
        ("limits", "cpu"): task.set_cpu_limit,
        ("limits", "memory"): task.set_memory_limit,
    }
    for kind, amounts in resources.items():
        for name, amount in amounts.items():
            if "/" in name:
                task.set_accelerator_type(name).set_accelerator_limit(amount)
            else:
                setters[kind, name](amount)
