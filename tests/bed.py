"""The test bed's cluster (`../shared/cluster`), for the tests that need it."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

BED = Path(__file__).resolve().parents[2] / "shared" / "cluster"
_ZENML = "ZENML_STORE_"


def kubectl(*arguments: str, timeout: int = 120, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """What kubectl says; `text` is its standard input."""
    return subprocess.run(
        ["kubectl", *arguments], capture_output=True, text=True, timeout=timeout, check=False, input=text
    )


@contextmanager
def bed_environment() -> Iterator[dict[str, str]]:
    """The bed's variables, ZenML's left out, set for as long as this lasts; skips where the bed is not up."""
    if not (BED / "env").is_file() or shutil.which("kubectl") is None:
        pytest.skip("no test bed beside this checkout, or no kubectl")
    lines = subprocess.run([str(BED / "env")], capture_output=True, text=True, check=True).stdout.splitlines()
    words = [shlex.split(line)[1] for line in lines if line.startswith("export ") and "export PATH=" not in line]
    values = {name: value for name, _, value in (word.partition("=") for word in words) if not name.startswith(_ZENML)}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, value)
        if kubectl("--request-timeout=5s", "get", "--raw", "/readyz").returncode:
            pytest.skip(f"the test bed is not up: {BED}/up k8s")
        yield values
