"""k8s/: every overlay against the schemas, and what the schemas do not know."""

from __future__ import annotations

import itertools
import re
import shutil
import uuid
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.utils.quantity import parse_quantity

from metalayer.serving.settings import ServingSettings
from pipelines import stack_check
from tests.manifests import K8S, VERSIONS, assert_restricted, kustomize, pod_specs, validate

OVERLAYS = ("local", "production", "bed")
SECRETS = {
    "metalayer-serving": {"metalayer-api-keys", "metalayer-metrics", "metalayer-mlflow-reader"},
    "metalayer-mlflow": {"metalayer-mlflow", "metalayer-mlflow-auth", "metalayer-mlflow-database", "metalayer-s3"},
    "metalayer-postgres": {"metalayer-mlflow-database"},
}
"""What docs/kubernetes.md says to make, by the pods that may see it."""
SERVED_BY_1_20 = {"v1", "apps/v1", "rbac.authorization.k8s.io/v1", "networking.k8s.io/v1"}


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return kustomize(K8S / "overlays" / request.param)


def of_kind(documents: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    return {document["metadata"]["name"]: document for document in documents if document["kind"] == kind}


@pytest.mark.parametrize("version", VERSIONS)
def test_schema(overlay: list[dict[str, Any]], version: str) -> None:
    for document in overlay:
        validate(document, version)


def test_a_wrong_field_is_found() -> None:
    from kubernetes_validate import ValidationError

    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"prots": []}}
    with pytest.raises(ValidationError, match="prots"):
        validate(service, VERSIONS[0])


def test_pods_are_restricted(overlay: list[dict[str, Any]]) -> None:
    specs = pod_specs(overlay)
    assert {"metalayer-serving", "metalayer-mlflow"} <= set(specs)
    for spec in specs.values():
        assert_restricted(spec)
        assert spec["automountServiceAccountToken"] is False
        for container in spec["containers"]:
            assert container["resources"]["limits"]["memory"]
            assert container["resources"]["requests"]["cpu"]
    assert specs["metalayer-serving"]["securityContext"]["runAsUser"] == 10001


def test_no_secret_is_in_them_and_no_registry(overlay: list[dict[str, Any]]) -> None:
    """A pod that serves has no login that may write to MLflow."""
    assert not of_kind(overlay, "Secret")
    asks = "--app-name" in pod_specs(overlay)["metalayer-mlflow"]["containers"][0]["command"]
    for pod, spec in pod_specs(overlay).items():
        named = set()
        for volume in spec["volumes"]:
            named |= {volume["secret"]["secretName"]} if "secret" in volume else set()
        for container in spec["containers"]:
            assert "/" not in container["image"]
            named |= (
                {source["secretRef"]["name"] for source in container["envFrom"] if "secretRef" in source}
                if ("envFrom" in container)
                else set()
            )
            for variable in container.get("env", []):
                if "valueFrom" in variable:
                    named.add(variable["valueFrom"]["secretKeyRef"]["name"])
                else:
                    assert "PASSWORD" not in variable["name"]
        assert named == SECRETS[pod] - (set() if asks else {"metalayer-mlflow", "metalayer-mlflow-auth"})


def test_mlflow_asks_who_they_are() -> None:
    """With the login of runs as its administrator; but for the test bed, whose kind of network is its own."""
    for name in ("local", "production"):
        (container,) = pod_specs(kustomize(K8S / "overlays" / name))["metalayer-mlflow"]["containers"]
        assert container["command"][-2:] == ["--app-name", "basic-auth"]
        given = {one["name"]: one.get("value") or one["valueFrom"]["secretKeyRef"] for one in container["env"]}
        (folder,) = (one["mountPath"] for one in container["volumeMounts"] if one["name"] == "auth")
        assert given["MLFLOW_AUTH_CONFIG_PATH"] == f"{folder}/basic_auth.ini"
        for one in ("USERNAME", "PASSWORD"):
            login = {"name": "metalayer-mlflow", "key": f"MLFLOW_TRACKING_{one}"}
            assert given[f"MLFLOW_AUTH_ADMIN_{one}"] == login


def test_every_pod_asks_only_whom_it_needs(overlay: list[dict[str, Any]]) -> None:
    policies = {name: one["spec"] for name, one in of_kind(overlay, "NetworkPolicy").items()}
    assert set(policies) == {*pod_specs(overlay), "metalayer-pipeline"}
    for spec in policies.values():
        assert spec["policyTypes"] == ["Ingress", "Egress"]
        for rule in spec.get("egress", []):
            assert rule["ports"]
    ((asked_by,),) = (rule["from"] for rule in policies["metalayer-mlflow"]["ingress"])
    assert asked_by["podSelector"]["matchExpressions"] == [
        {"key": "app.kubernetes.io/name", "operator": "In", "values": ["metalayer-serving", "metalayer-pipeline"]}
    ]
    assert policies["metalayer-serving"]["ingress"] == [
        {
            "from": [{"namespaceSelector": {"matchLabels": {label: "true"}}}],
            "ports": [{"protocol": "TCP", "port": port}],
        }
        for label, port in (("metalayer-client", 3000), ("metalayer-metrics", 3001))
    ]
    to = [peer for rule in policies["metalayer-serving"]["egress"] for peer in rule["to"]]
    assert [peer["podSelector"]["matchLabels"] for peer in to] == [
        {"app.kubernetes.io/name": "metalayer-mlflow"},
        {"k8s-app": "kube-dns"},
    ]


def test_images_by_digest(tmp_path: Path) -> None:
    """As the head of the overlay for production says."""
    shutil.copytree(K8S, tmp_path / "k8s")
    overlay, digest = tmp_path / "k8s" / "overlays" / "production", f"sha256:{'0' * 64}"
    chosen = yaml.safe_load((overlay / "kustomization.yaml").read_text())
    names = ("metalayer-serving", "metalayer-pipeline")
    chosen["images"] = [{"name": name, "newName": f"registry/{name}", "digest": digest} for name in names]
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(chosen))
    images = {one["image"] for spec in pod_specs(kustomize(overlay)).values() for one in spec["containers"]}
    assert images == {f"registry/{name}@{digest}" for name in names}


def test_selectors_find_what_they_select(overlay: list[dict[str, Any]]) -> None:
    templates = [document["spec"]["template"] for document in overlay if "template" in document.get("spec", {})]

    def selected(labels: dict[str, str]) -> list[dict[str, Any]]:
        return [template for template in templates if labels.items() <= template["metadata"]["labels"].items()]

    services = of_kind(overlay, "Service")
    for service in services.values():
        (template,) = selected(service["spec"]["selector"])
        names = {port["name"] for container in template["spec"]["containers"] for port in container["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= names
    for document in overlay:
        if document["kind"] in ("Deployment", "StatefulSet"):
            assert selected(document["spec"]["selector"]["matchLabels"]) == [document["spec"]["template"]]
        if document["kind"] == "NetworkPolicy" and document["metadata"]["name"] != "metalayer-pipeline":
            assert len(selected(document["spec"]["podSelector"]["matchLabels"])) == 1
    for name, spec in pod_specs(overlay).items():
        for constraint in spec.get("topologySpreadConstraints", []):
            assert constraint["labelSelector"]["matchLabels"] == {"app.kubernetes.io/name": name}


def test_serving_settings_and_drain(overlay: list[dict[str, Any]]) -> None:
    spec = pod_specs(overlay)["metalayer-serving"]
    (container,) = spec["containers"]
    (config,) = (item for name, item in of_kind(overlay, "ConfigMap").items() if name.startswith("metalayer-serving"))
    login = {"secretRef": {"name": "metalayer-mlflow-reader", "optional": True}}
    assert container["envFrom"] == [{"configMapRef": {"name": config["metadata"]["name"]}}, login]
    settings = ServingSettings.from_environment(config["data"])
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert str(settings.api_keys_file.parent) in mounts
    assert config["data"]["METALAYER_HOME"] in mounts
    # A Service of the namespace would be a variable METALAYER_SERVE_..., an unknown setting, but for this:
    assert spec["enableServiceLinks"] is False
    pre_stop = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert spec["terminationGracePeriodSeconds"] >= pre_stop + settings.drain_s + settings.deadline_s + 10
    readiness = container["readinessProbe"]
    assert settings.drain_s > readiness["periodSeconds"] * readiness["failureThreshold"]
    assert {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")} == {
        "startup": "/healthz",
        "liveness": "/livez",
        "readiness": "/readyz",
    }
    assert container["ports"] == [
        {"name": "http", "containerPort": 3000},
        {"name": "metrics", "containerPort": settings.metrics_port},
    ]
    assert settings.metrics_host == "0.0.0.0"  # of the pod's own network


@pytest.mark.parametrize("name", ["local", "production"])
def test_the_memory_limit_of_serving_follows_from_its_settings(name: str) -> None:
    overlay = kustomize(K8S / "overlays" / name)
    (container,) = pod_specs(overlay)["metalayer-serving"]["containers"]
    (config,) = (item for name, item in of_kind(overlay, "ConfigMap").items() if name.startswith("metalayer-serving"))
    settings = ServingSettings.from_environment(config["data"])
    assert settings.workers is not None  # else one a core of the node
    needed = settings.memory_bytes(settings.workers)
    limit = int(parse_quantity(container["resources"]["limits"]["memory"]))
    assert needed <= limit <= 1.25 * needed
    larger = settings.model_copy(update={"max_body_bytes": 2 * settings.max_body_bytes})
    assert larger.memory_bytes(settings.workers) > limit


def test_role_is_worked_out(overlay: list[dict[str, Any]]) -> None:
    (role,) = of_kind(overlay, "Role").values()
    (binding,) = of_kind(overlay, "RoleBinding").values()
    assert not of_kind(overlay, "ClusterRoleBinding")
    assert [(subject["name"], subject["namespace"]) for subject in binding["subjects"]] == [
        ("metalayer-pipeline", "metalayer")
    ]
    allowed = {(resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}
    assert not any("*" in pair for pair in allowed)
    assert {verb for resource, verb in allowed if resource == "secrets"} == {"create", "delete"}
    assert ("pods", "create") not in allowed
    assert {(resource, verb) for _, resource, verbs in stack_check._RIGHTS for verb in verbs} <= allowed


@pytest.mark.parametrize("version", ["1.33", "1.37"])
def test_admission_schema(version: str) -> None:
    for document in kustomize(K8S / "admission"):
        validate(document, version)


def test_runs_may_touch_the_secrets_of_zenml_alone(overlay: list[dict[str, Any]]) -> None:
    """The pattern is tried here; its CEL, which no cluster of ours evaluates, was once, with cel-python."""
    from zenml.integrations.kubernetes.orchestrators import KubernetesOrchestrator

    documents = kustomize(K8S / "admission")
    assert all("namespace" not in document["metadata"] for document in documents)  # they are of the cluster
    policy = of_kind(documents, "ValidatingAdmissionPolicy")["metalayer-pipeline-secrets"]["spec"]
    binding = of_kind(documents, "ValidatingAdmissionPolicyBinding")["metalayer-pipeline-secrets"]["spec"]
    assert (binding["policyName"], binding["validationActions"]) == ("metalayer-pipeline-secrets", ["Deny"])
    (subject,) = next(iter(of_kind(overlay, "RoleBinding").values()))["subjects"]
    user = f"system:serviceaccount:{subject['namespace']}:{subject['name']}"
    assert [one["expression"] for one in policy["matchConditions"]] == [f"request.userInfo.username == '{user}'"]
    assert binding["matchResources"]["namespaceSelector"]["matchLabels"] == {
        "kubernetes.io/metadata.name": subject["namespace"]
    }
    (rule,) = policy["matchConstraints"]["resourceRules"]
    assert (policy["failurePolicy"], rule["resources"]) == ("Fail", ["secrets"])
    assert set(rule["operations"]) == {"CREATE", "UPDATE", "DELETE"}
    named, typed = (one["expression"] for one in policy["validations"])
    assert typed == "variables.secret.type == 'Opaque'"
    (pattern,) = re.fullmatch(r"variables\.secret\.metadata\.name\.matches\('(\^.+\$)'\)", named).groups()
    made = KubernetesOrchestrator.get_token_secret_name(None, uuid.uuid4())
    assert re.search(pattern, made)
    for name in (*itertools.chain(*SECRETS.values()), "metalayer-zenml", f"x{made}", f"{made}x", "zenml-token-"):
        assert not re.search(pattern, name)


def test_local_has_a_database_and_production_scales() -> None:
    local, production = (kustomize(K8S / "overlays" / name) for name in ("local", "production"))
    assert "metalayer-postgres" in of_kind(local, "StatefulSet")
    assert not of_kind(production, "StatefulSet")
    deployment = of_kind(production, "Deployment")["metalayer-serving"]
    assert "replicas" not in deployment["spec"]
    target = of_kind(production, "HorizontalPodAutoscaler")["metalayer-serving"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", "metalayer-serving")
    budget = of_kind(production, "PodDisruptionBudget")["metalayer-serving"]["spec"]["selector"]["matchLabels"]
    assert budget == deployment["spec"]["selector"]["matchLabels"]


def test_bed_has_only_kinds_of_1_20() -> None:
    documents = kustomize(K8S / "overlays" / "bed")
    assert {document["apiVersion"] for document in documents} <= SERVED_BY_1_20


def test_optional_components(tmp_path: Path) -> None:
    shutil.copytree(K8S, tmp_path / "k8s")
    overlay = tmp_path / "k8s" / "overlays" / "production"
    chosen = yaml.safe_load((overlay / "kustomization.yaml").read_text())
    chosen["components"] += ["../../components/ingress", "../../components/monitoring"]
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(chosen))
    documents = kustomize(overlay)
    ingress = of_kind(documents, "Ingress")["metalayer-serving"]
    for version in VERSIONS:
        validate(ingress, version)
    assert [one["secretName"] for one in ingress["spec"]["tls"]] == ["metalayer-serving-tls"]
    assert [path["path"] for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]] == ["/v1/"]
    service = of_kind(documents, "Service")["metalayer-serving"]
    backend = ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
    ports = {port["name"] for port in service["spec"]["ports"]}
    assert backend == {"name": "metalayer-serving", "port": {"name": "http"}}
    # A kind of an operator: no schema ships with Kubernetes.
    monitor = of_kind(documents, "ServiceMonitor")["metalayer-serving"]["spec"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert {endpoint["port"] for endpoint in monitor["endpoints"]} == {"metrics"} < ports
