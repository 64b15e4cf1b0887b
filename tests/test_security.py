"""What no file of the checkout holds, and what no step hands on: secrets, and pickles."""

import importlib
import pkgutil
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SECRETS = {
    "a private key": r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----",
    "a key of AWS": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a token of GitHub": r"\b(?:gh[pousr]_[0-9A-Za-z]{36}|github_pat_[0-9A-Za-z_]{50,})",
    "a token of GitLab": r"\bglpat-[0-9A-Za-z_-]{20}",
    "a token of Slack": r"\bxox[abprs]-[0-9A-Za-z-]{10,}",
    "a token of PyPI": r"\bpypi-[0-9A-Za-z_-]{80,}",
    "a token of Hugging Face": r"\bhf_[0-9A-Za-z]{34}\b",
    "a signed web token": r"\beyJ[0-9A-Za-z_-]{10,}\.eyJ[0-9A-Za-z_-]{10,}\.[0-9A-Za-z_-]{10,}",
    "a password in an address": r"\b[a-z]+://[^\s:/@'\"{}<>$]+:(?!PASSWORD\b)[^\s:/@'\"{}<>$]{8,}@(?!127\.0\.0\.1|localhost)",
}
"""Forms in which services give out what lets one in."""
MADE_UP = {"tests/test_security.py"}


def held(text: str) -> list[str]:
    """Kinds of secrets in a text."""
    return [kind for kind, form in SECRETS.items() if re.search(form, text)]


def test_no_file_holds_a_secret() -> None:
    asked = ["git", "-C", str(ROOT), "ls-files", "-z"]
    names = subprocess.run(asked, capture_output=True, check=True).stdout.decode().split("\0")
    read = 0
    for name in filter(None, names):
        path = ROOT / name
        if name in MADE_UP or path.is_symlink() or not path.is_file():
            continue
        assert held(path.read_text("utf-8", "replace")) == [], name
        read += 1
    assert read > 400


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("a private key", "-----BEGIN EC PRIVATE KEY-----\n"),
        ("a key of AWS", "aws_access_key_id = AKIA" + "A7" * 8),
        ("a token of GitHub", "token: ghp_" + "a1B2" * 9),
        ("a token of Hugging Face", "HF_TOKEN=hf_" + "aB" * 17),
        ("a password in an address", "url: postgresql://someone:correcthorse@db.example/ml"),
    ],
)
def test_a_secret_would_be_found(kind: str, text: str) -> None:
    assert held(text) == [kind]


def test_no_step_hands_on_a_pickle() -> None:
    """ZenML pickles what it has no materializer for, and loads it again without a word."""
    from zenml.materializers.cloudpickle_materializer import CloudpickleMaterializer
    from zenml.materializers.materializer_registry import materializer_registry
    from zenml.steps import BaseStep

    import steps

    seen = 0
    for module in pkgutil.iter_modules(steps.__path__):
        found = vars(importlib.import_module(f"steps.{module.name}")).values()
        for step in (one for one in found if isinstance(one, BaseStep)):
            for name, output in step.entrypoint_definition.outputs.items():
                made_by = materializer_registry[output.resolved_annotation]
                assert not issubclass(made_by, CloudpickleMaterializer), (module.name, name)
                seen += 1
    assert seen > 20


def test_tests_that_the_security_page_names_are_there() -> None:
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", (ROOT / "docs" / "security.md").read_text("utf-8"))
    assert len(named) > 12
    for file, name in named:
        assert f"def {name}(" in (ROOT / "tests" / file).read_text("utf-8"), (file, name)
