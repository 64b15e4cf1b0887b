"""What each extra of the package promises to run: the one list that `metalayer doctor` and messages read.

An extra brings all that it needs, those of other extras by naming them (`metalayer[training]`), so that one of them is
enough for what is promised here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from importlib import metadata
from importlib.util import find_spec

from packaging.requirements import Requirement

PROMISES = {
    "": "metalayer score (--model DIR, --url), evaluate, client, simulate, base run --model pwm, merge, verify, and "
    "import of text, Parquet and npy",
    "formats": "metalayer import of BigWig and HDF5, export to BigWig, evidence from BigWig",
    "variants": "metalayer variants, variant, gene (with networks, beside the extra training)",
    "training": "metalayer train, ablate, init, base run with a network, hyperparameter_search, --device cuda",
    "language": "sequence_encoder hyenadna or huggingface",
    "serving": "metalayer serve, view, registry, models by their registered names",
    "pipeline": "python pipelines/run.py, metalayer register, ui",
    "kubernetes": "python pipelines/run.py --stack kubernetes",
    "kubeflow": "python pipelines/run.py --stack kubeflow",
}
"""Extra to what it is for; "" is the package without extras."""
OF_COMMANDS = {"serve": "serving", "view": "serving", "register": "pipeline", "ui": "pipeline"}
"""Command to its extra, where another one brings some of the same packages."""
_NAMED = 4
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


def lacking(extra: str) -> list[str]:
    """What of the requirements of an extra is not installed in the version asked for, in words: few of many absent."""
    absent, wrong = [], []
    for requirement in requirements(extra):
        try:
            there = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            absent.append(requirement.name)
            continue
        if not requirement.specifier.contains(there, prereleases=True):
            wrong.append(f"{requirement.name} is {there}, needs {requirement.specifier}")
    if absent := list(dict.fromkeys(absent)):
        more = f" and {len(absent) - _NAMED} more" if len(absent) > _NAMED else ""
        are = "is" if len(absent) == 1 else "are"
        wrong.insert(0, f"{', '.join(absent[:_NAMED])}{more} {are} not installed")
    return list(dict.fromkeys(wrong))


def install(extra: str) -> str:
    """The command that installs an extra."""
    name = f"[{extra}]" if extra else ""
    return f"pip install 'metalayer{name}' (in the repository: pip install -c constraints.txt -e '.{name}')"


def require(module: str) -> None:
    """See that a module is there, without the seconds that importing it may take.

    Raises:
        ModuleNotFoundError: it is not; `explained` says what to install.
    """
    if find_spec(module) is None:
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)


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
            return f"{error.name} is not installed: it comes with {needed} ({PROMISES[extra]}). {install(extra)}"
    return None
