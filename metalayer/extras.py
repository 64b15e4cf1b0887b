"""What each extra of the package promises to run: the one list that `metalayer doctor` and messages read.

An extra brings all that it needs, those of other extras by naming them (`metalayer[training]`), so that one of them is
enough for what is promised here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from importlib import metadata

from packaging.requirements import Requirement

PROMISES = {
    "": "the library: metalayer simulate, base run, score --model, evaluate, verify",
    "language": "sequence_encoder hyenadna or huggingface",
    "training": "metalayer train, ablate, hyperparameter_search",
    "serving": "metalayer serve, registry (which packages), client, score --url",
    "pipeline": "python pipelines/run.py",
    "kubeflow": "python pipelines/run.py --stack kubeflow",
}
"""Extra to what it is for; "" is the package without extras."""
_OTHER_NAMES = re.compile(r"-(skinny|binary)$")
"""Ends of distributions whose module has the name without it."""


def requirements(extra: str) -> Iterator[Requirement]:
    """What an extra adds to the package, with what it adds by naming other extras."""
    for text in metadata.requires("metalayer") or []:
        requirement = Requirement(text)
        in_extra = requirement.marker is not None and "extra" in str(requirement.marker)
        if in_extra != bool(extra) or (requirement.marker and not requirement.marker.evaluate({"extra": extra})):
            continue
        if requirement.name != "metalayer":
            yield requirement
        for other in sorted(requirement.extras) if requirement.name == "metalayer" else ():
            yield from requirements(other)


def install(extra: str) -> str:
    """The command that installs an extra."""
    return f"pip install -c constraints.txt -e '.[{extra}]'" if extra else "pip install -c constraints.txt -e ."


def explained(error: ModuleNotFoundError, extras: Iterable[str] = PROMISES) -> str | None:
    """What to install where a module is missing; None where no extra brings it.

    Args:
        error: what was raised.
        extras: those that may be named; the first that brings the module is.
    """
    module = (error.name or "").split(".", 1)[0].replace("_", "-").lower()
    for extra in extras:
        if module in {_OTHER_NAMES.sub("", one.name.lower().replace("_", "-")) for one in requirements(extra)}:
            needed = f"the extra {extra}" if extra else "the package's own requirements"
            return (
                f"{error.name} is not installed: it comes with {needed} ({PROMISES[extra]}). In the repository: "
                f"{install(extra)}"
            )
    return None
