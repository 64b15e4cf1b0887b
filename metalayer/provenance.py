"""What results depend on beside data and settings: the code that computes them.

Everything that is kept to be taken up again (training sets, half-done base passes, runs of an ablation, states of
language models, checkpoints, steps of a pipeline) is of one code, by `code_hash`. The version of metalayer does not
tell: it stays the same while the source changes.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Collection
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from metalayer.files import sha256

COMPUTING = (
    *("huggingface_hub", "numpy", "polars", "pyarrow", "pydantic", "safetensors", "scipy", "torch", "transformers"),
)
"""Distributions that results depend on; some may be absent."""
_ROOT = Path(__file__).parent
_WITHOUT_EFFECT = ("annotation", "returns", "type_comment", "type_params", "ctx", "kind")
"""Fields of a syntax tree that change no value."""


@functools.cache
def code_hash() -> str:
    """SHA-256 over metalayer's source and the versions of what computes, in hex: other code, other results."""
    total = hashlib.sha256(source_hash(_ROOT).encode())
    for name in COMPUTING:
        total.update(f"{name}=={_version(name)}\n".encode())
    return total.hexdigest()


def source_hash(folder: Path) -> str:
    """SHA-256 over the Python files below a folder, by path and content, in hex: alike wherever the folder lies."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        total.update(f"{path.relative_to(folder).as_posix()}\0{sha256(path)}\n".encode())
    return total.hexdigest()


def meaning_hash(source: str, names: Collection[str]) -> str:
    """SHA-256 over what some functions and constants of a source compute, in hex.

    Comments, docstrings, type annotations and layout do not count, and the version of Python does not either.

    Args:
        source: of a module.
        names: of functions and constants at its top level.

    Raises:
        KeyError: one that is not there.
    """
    found = {}
    for node in ast.parse(source).body:
        targets: list[ast.AST] = [node]
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = [*node.targets] if isinstance(node, ast.Assign) else [node.target]
        for target in targets:
            given = target.elts if isinstance(target, ast.Tuple) else [target]
            for one in given:
                name = getattr(one, "id", None) or getattr(one, "name", None)
                if name in names:
                    found[name] = _meaning(node)
    return hashlib.sha256(repr([(name, found[name]) for name in sorted(names)]).encode()).hexdigest()


def _meaning(node: Any) -> Any:
    """A syntax tree as nested lists, without what changes no value."""
    if isinstance(node, list):
        return [_meaning(one) for one in node if not _is_docstring(one)]
    if not isinstance(node, ast.AST):
        return node
    fields = ((name, value) for name, value in ast.iter_fields(node) if name not in _WITHOUT_EFFECT)
    return [type(node).__name__, *([name, _meaning(value)] for name, value in fields if value not in (None, []))]


def _is_docstring(node: Any) -> bool:
    """A text that stands alone."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"
