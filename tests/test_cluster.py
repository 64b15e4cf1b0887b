"""On the test bed's Kubernetes, where it is up: the manifests are taken, and the Role allows what it should."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipelines import stack_check
from pipelines.cluster import Cluster
from tests.bed import bed_environment, kubectl
from tests.manifests import K8S

ACCOUNT = "system:serviceaccount:metalayer:metalayer-pipeline"

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def bed() -> Iterator[None]:
    """The bed's kubeconfig in the environment, and the overlay for it applied; removed at the end."""
    with bed_environment():
        done = kubectl("apply", "--validate=false", "-k", str(K8S / "overlays" / "bed"))
        assert done.returncode == 0, done.stderr
        yield
        kubectl("delete", "namespace", "metalayer", "--wait=false")


@pytest.mark.usefixtures("bed")
def test_manifests_are_taken() -> None:
    found = kubectl("-n", "metalayer", "get", "deployments,services,networkpolicies,roles", "-o", "name").stdout
    for name in ("deployment.apps/metalayer-serving", "deployment.apps/metalayer-mlflow", "service/metalayer-mlflow"):
        assert name in found.split()
    assert kubectl("-n", "metalayer", "get", "networkpolicy", "metalayer-mlflow").returncode == 0


@pytest.mark.usefixtures("bed")
@pytest.mark.parametrize(
    ("verb", "resource", "namespace", "allowed"),
    [
        ("create", "jobs.batch", "metalayer", True),
        ("delete", "jobs.batch", "metalayer", True),
        ("get", "pods/log", "metalayer", True),
        ("create", "secrets", "metalayer", True),
        ("get", "secrets", "metalayer", False),
        ("create", "pods", "metalayer", False),
        ("create", "rolebindings.rbac.authorization.k8s.io", "metalayer", False),
        ("create", "jobs.batch", "default", False),
    ],
)
def test_rights_of_runs(verb: str, resource: str, namespace: str, allowed: bool) -> None:
    answer = kubectl("auth", "can-i", verb, resource, "-n", namespace, "--as", ACCOUNT).stdout.strip()
    assert answer == ("yes" if allowed else "no")


@pytest.mark.usefixtures("bed")
def test_rights_as_the_check_sees_them() -> None:
    cluster = Cluster("metalayer")
    assert stack_check._denied(cluster, "metalayer", "metalayer-pipeline") == []
    (finding,) = stack_check._denied(cluster, "metalayer", "metalayer-gpu-step")
    assert "create jobs" in finding.text
