"""What torch's ONNX exporter knows of operators, collected once a process, and not once an export.

That takes a third of an export: it infers the signatures of all its functions, always to the same end.
"""

from __future__ import annotations

import functools
from typing import Any


def collect_once() -> None:
    """From now on; this imports torch and its exporter."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    if hasattr(ONNXRegistry.from_torchlib, "collect"):
        return
    collect = functools.cache(ONNXRegistry.from_torchlib)

    def collected(opset_version: int) -> Any:
        """A registry of its own: an export adds functions to it."""
        registry = ONNXRegistry()
        registry._opset_version = opset_version
        registry.functions = {name: list(found) for name, found in collect(opset_version).functions.items()}
        return registry

    collected.collect = collect  # type: ignore[attr-defined]
    ONNXRegistry.from_torchlib = staticmethod(collected)  # type: ignore[method-assign]
