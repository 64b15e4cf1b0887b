"""What is installed, and what is missing for what."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from metalayer.device import has_torch
from metalayer.environment import state_dir
from metalayer.errors import ConfigError
from metalayer.extras import PROMISES, install, lacking

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
    wrong = lacking(extra)
    if not wrong:
        return Finding(subject, ok=True, text="all there", required=not extra)
    return Finding(
        subject,
        ok=False,
        text=f"{'; '.join(wrong)}. {install(extra)}",
        required=not extra,
    )


def _device() -> Finding:
    """What networks run on; torch is imported only where it may find a device beside the CPU."""
    cpu = f"cpu, {len(os.sched_getaffinity(0))} cores" if hasattr(os, "sched_getaffinity") else "cpu"
    if not has_torch():
        return Finding("device", ok=True, text=f"{cpu}; numpy, as torch is not installed")
    try:
        if _is_for_cpu_alone():
            found = cpu
        else:
            from metalayer.device import resolve_device

            found = resolve_device("auto")
    except (ImportError, OSError) as error:
        return Finding("device", ok=False, text=f"torch cannot be imported: {error}")
    return Finding("device", ok=True, text=f"{found}, torch {metadata.version('torch')}")


def _is_for_cpu_alone() -> bool:
    """Whether the torch that is installed was built for no other device, by what its folder says.

    Raises:
        OSError: its library cannot be loaded.
        ImportError: there is no more than an empty folder.
    """
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        raise ImportError("no file __init__.py")
    folder = Path(spec.origin).parent
    built = folder / "version.py"
    library = folder / "lib" / "libtorch_cpu.so"
    if not library.is_file() or not built.is_file():
        return False
    facts: dict[str, object] = {}
    exec(compile(built.read_text(encoding="utf-8"), built, "exec"), facts)  # noqa: S102  torch's own module
    if any(facts.get(kind) for kind in ("cuda", "hip", "rocm", "xpu")):
        return False
    ctypes.CDLL(str(library))
    return True


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
