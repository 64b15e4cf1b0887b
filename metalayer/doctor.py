"""What is installed, and what is missing for what."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata

from metalayer.environment import state_dir
from metalayer.errors import ConfigError
from metalayer.extras import PROMISES, install, requirements

MIN_FREE_GB = 1.0


@dataclass(frozen=True)
class Finding:
    """One line of the examination; `required` is whether the library itself needs it."""

    subject: str
    ok: bool
    text: str
    required: bool = True


def examine() -> list[Finding]:
    """Examine interpreter, packages of each extra, device and state folder."""
    version = ".".join(map(str, sys.version_info[:3]))
    findings = [Finding("python", sys.version_info >= (3, 11), f"{version} (3.11 or later)")]
    findings += [_packages(extra, use) for extra, use in PROMISES.items()]
    findings.append(_device())
    findings.append(_state())
    return findings


def _packages(extra: str, use: str) -> Finding:
    """Whether the requirements of an extra are installed in the versions asked for."""
    subject = f"packages for {use}"
    wrong = []
    for requirement in requirements(extra):
        try:
            there = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is not installed")
            continue
        if not requirement.specifier.contains(there, prereleases=True):
            wrong.append(f"{requirement.name} is {there}, needs {requirement.specifier}")
    if not wrong:
        return Finding(subject, ok=True, text="all there", required=not extra)
    return Finding(
        subject,
        ok=False,
        text=f"{'; '.join(dict.fromkeys(wrong))}. In the repository: {install(extra)}",
        required=not extra,
    )


def _device() -> Finding:
    try:
        import torch

        from metalayer.device import resolve_device
    except ImportError as error:
        return Finding("device", ok=False, text=f"torch cannot be imported: {error}")
    return Finding(
        "device",
        ok=True,
        text=f"{resolve_device('auto')}, {torch.get_num_threads()} threads, torch {torch.__version__}",
    )


def _state() -> Finding:
    try:
        folder = state_dir()
    except ConfigError as error:
        return Finding("state folder", ok=False, text=str(error))
    existing = folder
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free / 1e9
    if not os.access(existing, os.W_OK):
        return Finding("state folder", ok=False, text=f"{folder} cannot be written; set METALAYER_HOME to one that can")
    return Finding(
        "state folder",
        ok=free >= MIN_FREE_GB,
        text=f"{folder}, {free:.1f} GB free (a demo run needs less than {MIN_FREE_GB:g})",
    )
