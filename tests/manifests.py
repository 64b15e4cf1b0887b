"""Kubernetes manifests as kustomize prints them, and the schemas of the versions that they must hold for."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

K8S = Path(__file__).resolve().parents[1] / "k8s"
VERSIONS = ("1.29", "1.33", "1.37")
"""Kubernetes versions whose schemas, as kubernetes-validate ships them, every manifest is checked against."""


def kustomize(folder: Path) -> list[dict[str, Any]]:
    """The objects of an overlay; skips where no kubectl knows components."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("no kubectl")
    known = subprocess.run([kubectl, "version", "--client"], capture_output=True, text=True, check=False).stdout
    if not re.search(r"Kustomize Version: v5", known):
        pytest.skip(f"kubectl without kustomize 5: {known.strip()}")
    done = subprocess.run([kubectl, "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def validate(document: dict[str, Any], version: str) -> None:
    """Unknown fields and wrong types are errors."""
    kubernetes_validate.validate(document, version, strict=True)


def pod_specs(documents: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Pod templates' specs by name of what holds them."""
    return {
        document["metadata"]["name"]: document["spec"]["template"]["spec"]
        for document in documents
        if "template" in document.get("spec", {})
    }


def assert_restricted(spec: dict[str, Any]) -> None:
    """The pod passes the `restricted` Pod Security Standard, and its root file system is read-only."""
    pod = spec["securityContext"]
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["runAsNonRoot"] is True
    assert pod["runAsUser"] > 0
    assert not {"hostNetwork", "hostPID", "hostIPC"} & {key for key, value in spec.items() if value}
    for container in spec["containers"]:
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert not context.get("privileged")
    for volume in spec.get("volumes", []):
        assert set(volume) - {"name"} <= {"emptyDir", "secret", "configMap", "persistentVolumeClaim"}, volume
