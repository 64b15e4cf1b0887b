"""Stacks: where the steps run. One YAML file a stack; applying it twice changes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metalayer.config import read_yaml
from metalayer.errors import ConfigError

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """The stacks there are."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read(name: str, places: dict[str, str]) -> dict[str, Any]:
    """A stack's `components` by type and, optional in the file, its `steps` (options of single steps).

    Args:
        name: one of `names()`.
        places: what `{state}` and the like in the file stand for.

    Raises:
        ConfigError: no such stack.
    """
    if name not in names():
        raise ConfigError(f"--stack: given {name!r}; there are {', '.join(names())}")
    definition = read_yaml(FOLDER / f"{name}.yaml")
    components = {
        kind: {key: value.format(**places) if isinstance(value, str) else value for key, value in given.items()}
        for kind, given in definition["components"].items()
    }
    return {"components": components, "steps": definition.get("steps") or {}}


def step_options(definition: dict[str, Any], gpu_steps: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Options of single steps: those of the file, and the step operator, where the stack has one, for GPU steps."""
    options = {name: dict(given) for name, given in definition["steps"].items()}
    if "step_operator" in definition["components"]:
        for name in gpu_steps:
            options.setdefault(name, {})["step_operator"] = True
    return options


def apply(name: str, definition: dict[str, Any], more: Mapping[str, Mapping[str, Any]]) -> None:
    """Register the stack and its components with ZenML, or bring them up to date, and make it active.

    Args:
        name: of the stack and of each of its components.
        definition: as of `read`.
        more: further settings by type of component; None removes one.
    """
    from zenml.client import Client
    from zenml.enums import StackComponentType

    client = Client()
    ids = {}
    for kind, given in definition["components"].items():
        settings = {**given, **more.get(kind, {})}
        flavor = settings.pop("flavor")
        component_type = StackComponentType(kind)
        found = client.list_stack_components(name=name, type=component_type).items
        if not found:
            ids[component_type] = client.create_stack_component(
                name=name,
                flavor=flavor,
                component_type=component_type,
                configuration={key: value for key, value in settings.items() if value is not None},
            ).id
            continue
        ids[component_type] = found[0].id
        there = found[0].configuration
        if any(there.get(key) != value for key, value in settings.items()):
            client.update_stack_component(found[0].id, component_type=component_type, configuration=settings)
    stacks = client.list_stacks(name=name).items
    if not stacks:
        client.create_stack(name=name, components=ids)
    elif {kind: [item.id for item in items] for kind, items in stacks[0].components.items()} != {
        kind: [value] for kind, value in ids.items()
    }:
        client.update_stack(stacks[0].id, component_updates=ids)
    client.activate_stack(name)
