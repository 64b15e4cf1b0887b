"""`--annotation grch38`: the gene table of another tool that is installed here, found by its name and not imported."""

from __future__ import annotations

import logging
from importlib import metadata
from pathlib import Path

from metalayer.errors import InputError
from metalayer.genome import normalise_build

logger = logging.getLogger(__name__)

TOOLS = {"spliceai": ".txt", "openspliceai": ".txt", "cispliceai": ".csv"}
"""Distributions that bring tables, in the order in which they are looked for, and how their tables' names end. The
tables of the first two are the same, byte for byte; the third has other genes, and junctions of all isoforms."""
_BUILDS = {"GRCh37": "grch37", "GRCh38": "grch38"}


def annotation_file(given: Path) -> Path:
    """The file that an annotation's name means: itself, or a table by its build, as in `grch38` or `cispliceai:grch38`.

    Args:
        given: a path; a build where there is no such file, perhaps after the name of one of `TOOLS`.

    Raises:
        InputError: a build of which no installed tool has a table.
    """
    tool, _, build = given.name.rpartition(":")
    name = _BUILDS.get(normalise_build(build))
    is_bare = given.parent in (Path(), Path.cwd())  # pipelines make paths of settings absolute
    if given.exists() or name is None or tool not in ("", *TOOLS) or not is_bare:
        return given
    for one in [tool] if tool else TOOLS:
        if found := _table(one, name + TOOLS[one]):
            return found
    raise InputError(
        f"annotation {given}: no such file, and no gene table of {build}: "
        f"{tool if tool else 'none of ' + ', '.join(TOOLS)} is installed here with one. Install the tool beside "
        "metalayer, or give a file: GTF, GFF3, or such a table"
    )


def _table(tool: str, name: str) -> Path | None:
    try:
        package = metadata.distribution(tool)
    except metadata.PackageNotFoundError:
        return None
    for file in package.files or ():
        path = Path(str(package.locate_file(file)))
        if file.name == name and path.is_file():
            stated = [package.metadata[key] for key in ("License-Expression", "License") if key in package.metadata]
            licence = stated[0] if stated else "not stated"
            logger.info("annotation: %s of %s %s (licence: %s)", path, tool, package.version, licence)
            return path
    return None
