"""Stacks: where the steps run. One YAML file a stack; applying it twice changes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metalayer import environment
from metalayer.errors import ConfigError
from metalayer.yaml12 import read_mapping

FOLDER = Path(__file__).parent
_POD_SETTINGS = {"pod_settings", "orchestrator_pod_settings"}
"""Given with each run, not kept with a component: ZenML's server would need Kubernetes' library to take them."""
_WEB = ("http://", "https://")
_BEGINNINGS = {
    "METALAYER_BUCKET": ("s3://",),
    "AWS_ENDPOINT_URL_S3": _WEB,
    "KF_PIPELINES_ENDPOINT": _WEB,
    "ZENML_STORE_URL": (*_WEB, "sqlite://"),
    "MLFLOW_TRACKING_URI": (),
    "METALAYER_REGISTRY": (),
}
"""Addresses, and how each begins; whether pods reach it is for the check of the stack."""


@dataclass(frozen=True)
class Stack:
    """A stack's file with its `{NAME}`s filled in.

    Attributes:
        name: of the stack and of each of its components.
        components: settings by type of component, with the component's flavor.
        environment: what its plain environment variables are set to.
        secrets: secrets that ZenML's server keeps, by name.
        settings: of every pipeline (`docker`), and of its pods.
        steps: options of single steps.
        gpu_step: options of the steps that train: their image, and their pods where no step operator has them.
        nodes_on_demand: whether an autoscaler makes nodes when pods wait for them.
    """

    name: str
    components: dict[str, dict[str, Any]]
    environment: dict[str, str]
    secrets: dict[str, dict[str, str]]
    settings: dict[str, Any]
    steps: dict[str, dict[str, Any]]
    gpu_step: dict[str, Any]
    nodes_on_demand: bool

    @property
    def longest_s(self) -> int:
        """Seconds after which a run is stopped, or no longer waited for."""
        orchestrator = self.components["orchestrator"]
        return int(orchestrator.get("active_deadline_seconds") or orchestrator["timeout"])

    @property
    def only_compiles(self) -> bool:
        """Whether a run ends with a file for Kubeflow, as there is no address to submit it to."""
        return self.components["orchestrator"].get("kubeflow_hostname") == ""

    def step_options(self, gpu_steps: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Options of single steps: those of the file, and the step operator, where there is one, for GPU steps."""
        options = {name: dict(given) for name, given in self.steps.items()}
        on_gpu = self.gpu_step | ({"step_operator": True} if "step_operator" in self.components else {})
        if on_gpu:
            for name in gpu_steps:
                options.setdefault(name, {}).update(on_gpu)
        return options


def names() -> list[str]:
    """The stacks there are."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def variables(name: str) -> dict[str, str]:
    """The environment variables that a stack needs, and what each is.

    Raises:
        ConfigError: no such stack.
    """
    definition = _file(name)
    return {**(definition.get("environment") or {}), **(definition.get("secret_environment") or {})}


def missing(name: str) -> dict[str, str]:
    """Those of them that are not set."""
    return {variable: meaning for variable, meaning in variables(name).items() if not environment.get(variable)}


def read(name: str, places: Mapping[str, str]) -> Stack:
    """A stack as its file and the environment make it.

    Args:
        name: one of `names()`.
        places: what `{state}` and `{tracking_uri}` in the file stand for.

    Raises:
        ConfigError: no such stack, or variables that are not set or cannot be right, all of them.
    """
    definition = _file(name)
    if unset := missing(name):
        listed = "\n".join(f"{variable}: {meaning}" for variable, meaning in unset.items())
        raise ConfigError(f"--stack {name}: set these environment variables\n{listed}")
    values = {**places, **{variable: environment.get(variable) or "" for variable in variables(name)}}
    values |= {variable: environment.get(variable) or "" for variable in definition.get("optional_environment") or {}}
    if wrong := [
        f"{variable}: {mistake}" for variable, value in values.items() if (mistake := _mistake(variable, value))
    ]:
        raise ConfigError("\n".join([f"--stack {name}: fix these environment variables", *wrong]))
    filled = _filled({key: value for key, value in definition.items() if not key.endswith("environment")}, values)
    return Stack(
        name=name,
        components=filled["components"],
        environment={variable: values[variable] for variable in definition.get("environment") or {}},
        secrets=filled.get("secrets", {}),
        settings=filled.get("settings", {}) | _pod_settings(filled["components"]),
        steps=filled.get("steps", {}),
        gpu_step=filled.get("gpu_step", {}),
        nodes_on_demand=filled.get("nodes_on_demand", False),
    )


def apply(stack: Stack, more: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Register the stack, its secrets and components with ZenML, or bring them up to date, and make it active.

    Args:
        stack: as in `read`.
        more: further settings by type of component; None removes one.

    Returns:
        What was made or changed; nothing where all was as it should be.
    """
    from zenml.client import Client
    from zenml.enums import StackComponentType

    client = Client()
    changes = [f"secret {name}" for name, values in stack.secrets.items() if keep_secret(name, values)]
    ids = {}
    for kind, given in stack.components.items():
        settings = {**given, **dict.fromkeys(_POD_SETTINGS & given.keys()), **more.get(kind, {})}
        flavor = settings.pop("flavor")
        component_type = StackComponentType(kind)
        found = client.list_stack_components(name=stack.name, type=component_type).items
        if not found:
            ids[component_type] = client.create_stack_component(
                name=stack.name,
                flavor=_flavor(flavor, component_type),
                component_type=component_type,
                configuration={key: value for key, value in settings.items() if value is not None},
            ).id
            changes.append(f"{kind} created")
            continue
        ids[component_type] = found[0].id
        there = found[0].configuration
        if any(there.get(key) != value for key, value in settings.items()):
            client.update_stack_component(found[0].id, component_type=component_type, configuration=settings)
            changes.append(f"{kind} updated")
    stacks = client.list_stacks(name=stack.name).items
    if not stacks:
        client.create_stack(name=stack.name, components=ids)
        changes.append("stack created")
    elif {kind: [item.id for item in items] for kind, items in stacks[0].components.items()} != {
        kind: [value] for kind, value in ids.items()
    }:
        client.update_stack(stacks[0].id, component_updates=ids)
        changes.append("stack updated")
    client.activate_stack(stack.name)
    return changes


def _flavor(flavor: str, component_type: Any) -> str:
    """The name of a flavor; one of ours, given as its class, is made known to ZenML first."""
    if "." not in flavor:
        return flavor
    from zenml.client import Client
    from zenml.stack.flavor import validate_flavor_source

    name = str(validate_flavor_source(flavor, component_type)[1].name)
    if not Client().list_flavors(name=name).items:
        Client().create_flavor(flavor, component_type)
    return name


def keep_secret(name: str, values: dict[str, str]) -> bool:
    """Have ZenML's secret hold these values and no others; whether it had to be made or changed."""
    from zenml.client import Client

    client = Client()
    if not client.list_secrets(name=name).items:
        client.create_secret(name, values)
        return True
    held = client.get_secret(name).secret_values
    if held == values:
        return False
    client.update_secret(name, add_or_update_values=values, remove_values=[key for key in held if key not in values])
    return True


def _pod_settings(components: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of the components that have them, by type of component."""
    found = {kind: {key: given[key] for key in _POD_SETTINGS & given.keys()} for kind, given in components.items()}
    return {kind: given for kind, given in found.items() if given}


def _mistake(variable: str, value: str) -> str:
    """What is wrong with a variable's value; empty where nothing is, or it is not set."""
    beginnings = _BEGINNINGS.get(variable, ())
    if variable in _BEGINNINGS and "@" in value:  # not shown: it holds a password
        return "carries a user or password, which would be stored with the stack; docs/kubernetes.md says where they go"
    if not value or not beginnings or any(value.startswith(one) and value != one for one in beginnings):
        return ""
    return f"given {value!r}; expected {' or '.join(f'{one}...' for one in beginnings)}"


def _file(name: str) -> dict[str, Any]:
    if name not in names():
        raise ConfigError(f"--stack: given {name!r}; there are {', '.join(names())}")
    return read_mapping(FOLDER / f"{name}.yaml")


def _filled(value: Any, values: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return value.format(**values)
    if isinstance(value, dict):
        return {key: _filled(item, values) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, values) for item in value]
    return value
