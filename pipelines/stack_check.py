"""What a run on a stack would miss, component by component, found in seconds instead of by a pod that never starts.

Each check asks the real service, with the credentials that the run will use, and says what to do. What cannot be
seen from here, as nodes without the right to list them, is said to be unchecked and stops no run.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from metalayer import environment as door
from metalayer import extras
from metalayer.errors import ConfigError, MetalayerError
from pipelines import checkout, stacks
from pipelines.cluster import Cluster, ClusterError
from pipelines.stacks import Stack

_TIMEOUT_S = 5
_APPLY = "kubectl apply -k k8s/overlays/production, or local"
_RIGHTS = (
    ("batch", "jobs", ("create", "get", "list", "patch", "delete")),
    ("", "pods", ("get", "list")),
    ("", "secrets", ("create", "delete")),
)
"""What ZenML's orchestrator and step operator call with the account of the pods."""
_MANIFESTS = (
    "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
)
_REVISION = "org.opencontainers.image.revision"
_DOCKER_HUB = ("docker.io", "index.docker.io")
_UNITS = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50, "Ei": 2.0**60}
_SET_BY_EACH_POD = ("cpu", "memory")
"""Where a quota is on one of these, the API refuses a pod that sets none; of GPUs and others it asks no such thing."""


@dataclass(frozen=True)
class Finding:
    """One answer.

    Attributes:
        component: of the stack.
        state: `ok`, `missing` (a run would fail) or `unchecked`.
        text: what was found.
        fix: what to do.
    """

    component: str
    state: Literal["ok", "missing", "unchecked"]
    text: str
    fix: str = ""


def check(stack: Stack) -> list[Finding]:
    """All findings, in the order in which a run would meet them; what cannot be looked at is one of them.

    Raises:
        MetalayerError: amounts that Kubernetes would not take, in the stack's file.
    """
    local = stack.components["orchestrator"]["flavor"] == "local"
    extra = "pipeline" if local else stack.name
    if wrong := extras.lacking(extra):
        return [Finding("packages", "missing", "; ".join(wrong), extras.install(extra))]
    if local:
        return [_local(stack)]
    findings = [_zenml_server()]
    kubeflow = stack.components["orchestrator"].get("kubeflow_hostname") is not None
    findings += [_kubeflow(stack)] if kubeflow else _cluster(stack)
    findings += [_artifact_store(stack), *_images(stack), _tracker(stack)]
    return findings


def require(stack: Stack) -> None:
    """Go on only where nothing is missing.

    Raises:
        ConfigError: what is missing.
    """
    findings = check(stack)
    if exit_code(findings):
        missing = [finding for finding in findings if finding.state == "missing"]
        raise ConfigError(f"the stack {stack.name} is not ready:\n" + "\n".join(lines(missing)))


def unset_variables(name: str) -> list[Finding]:
    """A finding for each environment variable of a stack that is not set: before them nothing can be looked at."""
    return [
        Finding("environment", "missing", f"{variable} is not set", f"export it: {meaning}")
        for variable, meaning in stacks.missing(name).items()
    ]


def lines(findings: Sequence[Finding]) -> list[str]:
    """What to print: a line for each finding, and one for what to do."""
    text = []
    for finding in findings:
        text.append(f"{finding.state:<9} {finding.component:<18} {finding.text}")
        if finding.fix:
            text.append(f"{'':<9} {'':<18} -> {finding.fix}")
    return text


def exit_code(findings: Sequence[Finding]) -> int:
    """0 where a run may start, else 2."""
    return 2 if any(finding.state == "missing" for finding in findings) else 0


def _local(stack: Stack) -> Finding:
    place = Path(stack.components["artifact_store"]["path"]).parent
    place.mkdir(parents=True, exist_ok=True)
    if os.access(place, os.W_OK):
        return Finding("orchestrator", "ok", f"this machine, files in {place}")
    return Finding("orchestrator", "missing", f"{place} cannot be written", "set METALAYER_HOME to another folder")


def _zenml_server() -> Finding:
    url = (door.get("ZENML_STORE_URL") or "").rstrip("/")
    status, body, _ = _http(f"{url}/api/v1/info")
    version = _json(body).get("version")
    if status != 200 or not version:
        said = "no ZenML server answers there" if status == 200 else _said(status)
        return Finding("zenml server", "missing", f"{url}: {said}", "start it, or fix ZENML_STORE_URL")
    credentials = {
        "username": door.get("ZENML_STORE_USERNAME") or "",
        "password": door.get("ZENML_STORE_PASSWORD") or "",
    }
    if key := door.get("ZENML_STORE_API_KEY"):
        credentials = {"grant_type": "zenml-api-key", "password": key}
    status, _, _ = _http(f"{url}/api/v1/login", urllib.parse.urlencode(credentials).encode())
    if status != 200:
        return Finding(
            "zenml server",
            "missing",
            f"{url} does not let us in: {_said(status)}",
            "set ZENML_STORE_API_KEY (or ZENML_STORE_USERNAME and ZENML_STORE_PASSWORD)",
        )
    return Finding("zenml server", "ok", f"{url}, version {version}")


def _kubeflow(stack: Stack) -> Finding:
    host = stack.components["orchestrator"]["kubeflow_hostname"].rstrip("/")
    if not host:
        text = "KF_PIPELINES_ENDPOINT is not set: a run is compiled to a file, and not submitted"
        return Finding("orchestrator", "unchecked", text)
    status = _http(f"{host}/apis/v2beta1/healthz")[0]
    if status != 200:
        fix = "kubectl -n kubeflow port-forward service/ml-pipeline 8888, or fix KF_PIPELINES_ENDPOINT"
        return Finding("orchestrator", "missing", f"no Kubeflow Pipelines at {host}: {_said(status)}", fix)
    return Finding("orchestrator", "ok", f"Kubeflow Pipelines at {host}")


def _cluster(stack: Stack) -> list[Finding]:
    orchestrator, operator = stack.components["orchestrator"], stack.components["step_operator"]
    namespace, account = orchestrator["kubernetes_namespace"], orchestrator["service_account_name"]
    try:
        cluster = Cluster(orchestrator["kubernetes_context"])
        version = cluster.ask("GET", "/version")["gitVersion"]
        rights = [*_denied(cluster, namespace, None), *_denied(cluster, namespace, account)]
    except ConfigError as error:
        return [Finding("orchestrator", "missing", str(error))]
    except ClusterError as error:
        fix = "start the cluster, or choose another context" if not error.status else "log in to the cluster again"
        return [Finding("orchestrator", "missing", str(error), fix)]
    findings = [Finding("orchestrator", "ok", f"Kubernetes {version} at {cluster.host}")]
    try:
        for name in (account, operator["service_account_name"]):
            cluster.ask("GET", f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}")
    except ClusterError as error:
        if error.status == 404:
            text = f"namespace {namespace} is not there, or not complete: {error}"
            return [*findings, Finding("orchestrator", "missing", text, _APPLY)]
        findings.append(Finding("orchestrator", "unchecked", f"service accounts: {error}"))
    findings += rights or [Finding("orchestrator", "ok", f"may run Jobs in namespace {namespace}")]
    step, gpu_step = orchestrator["pod_settings"], operator["pod_settings"]
    together = [orchestrator["orchestrator_pod_settings"], step, gpu_step]  # while a step on the operator runs
    pods = {"orchestrator": step, "step_operator": gpu_step}
    try:
        nodes = cluster.ask("GET", "/api/v1/nodes")["items"]
        placed = [_placed(component, pod, nodes) for component, pod in pods.items()]
        findings += [_awaited(finding) for finding in placed] if stack.nodes_on_demand else placed
    except ClusterError as error:
        findings.append(Finding("orchestrator", "unchecked", str(error)))
    try:
        ranges, quotas = (
            cluster.ask("GET", f"/api/v1/namespaces/{namespace}/{kind}")["items"]
            for kind in ("limitranges", "resourcequotas")
        )
        findings += _quotas(quotas, [_completed(pod.get("resources", {}), ranges) for pod in together])
    except ClusterError as error:
        findings.append(Finding("orchestrator", "unchecked", str(error)))
    return findings


def _denied(cluster: Cluster, namespace: str, account: str | None) -> list[Finding]:
    """What we, or a service account, may not do; a service account's rights are not always ours to see."""
    kind = "SubjectAccessReview" if account else "SelfSubjectAccessReview"
    refused = []
    for group, resource, verbs in _RIGHTS:
        for verb in verbs:
            attributes = {"namespace": namespace, "group": group, "resource": resource, "verb": verb}
            spec: dict[str, Any] = {"resourceAttributes": attributes}
            if account:
                spec["user"] = f"system:serviceaccount:{namespace}:{account}"
            review = {"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec}
            try:
                answer = cluster.ask("POST", f"/apis/authorization.k8s.io/v1/{kind.lower()}s", review)
            except ClusterError as error:
                if account and error.status == 403:
                    return [Finding("orchestrator", "unchecked", f"rights of service account {account}: {error}")]
                raise
            if not answer["status"]["allowed"]:
                refused.append(f"{verb} {resource}")
    if not refused:
        return []
    text = f"{f'service account {account}' if account else 'you'} may not {', '.join(refused)} in namespace {namespace}"
    fix = _APPLY if account else "ask for a role like that of k8s/base/pipeline.yaml"
    return [Finding("orchestrator", "missing", text, fix)]


def _placed(component: str, settings: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]]) -> Finding:
    """Whether some node could ever take a pod of a component."""
    selector, tolerations, needs = settings.get("node_selectors", {}), settings.get("tolerations", []), _needs(settings)
    ready = [node for node in nodes if _is_ready(node)]
    chosen = [node for node in ready if selector.items() <= node["metadata"].get("labels", {}).items()]
    open_ = [node for node in chosen if not _untolerated(node, tolerations)]
    large = [node for node in open_ if not _short(needs, node["status"]["allocatable"])]
    if large:
        names = ", ".join(node["metadata"]["name"] for node in large[:3])
        return Finding(component, "ok", f"{len(large)} of {len(nodes)} nodes can take its pods, {names}")
    if not ready:
        return Finding(component, "missing", "no node is ready and schedulable", "start or uncordon one")
    if not chosen:
        wanted = ", ".join(f"{key}={value}" for key, value in selector.items())
        text = f"no ready node has the label {wanted}"
        fix = f"kubectl label node NAME {wanted}; nodes_on_demand in the stack's file where an autoscaler makes nodes"
        return Finding(component, "missing", text, fix)
    if not open_:
        taints = ", ".join(sorted({taint for node in chosen for taint in _untolerated(node, tolerations)}))
        text = f"every node it may use has a taint it does not tolerate: {taints}"
        return Finding(component, "missing", text, "tolerate it in the stack's pod settings, or add a node without it")
    lacking = sorted({name for node in open_ for name in _short(needs, node["status"]["allocatable"])})
    text = "no node has enough " + ", ".join(f"{name} ({needs[name]:g} asked for)" for name in lacking)
    fix = "ask for less in the stack's pod settings, or add a larger node"
    if any(name.endswith("/gpu") for name in lacking):
        fix = "add a GPU node; where there is one, see that its device plugin runs"
    return Finding(component, "missing", text, fix)


def _awaited(placed: Finding) -> Finding:
    """The same where nodes are made when pods wait for them: what none can take now, one to come may."""
    if placed.state == "ok":
        return placed
    text = f"{placed.text}; nodes_on_demand is set, and whether the autoscaler makes one that fits shows in the run"
    return Finding(placed.component, "unchecked", text)


def _is_ready(node: Mapping[str, Any]) -> bool:
    ready = any(item["type"] == "Ready" and item["status"] == "True" for item in node["status"]["conditions"])
    return ready and not node["spec"].get("unschedulable")


def _untolerated(node: Mapping[str, Any], tolerations: Sequence[Mapping[str, Any]]) -> list[str]:
    def tolerated(taint: Mapping[str, Any], toleration: Mapping[str, Any]) -> bool:
        if toleration.get("effect") not in (None, taint["effect"]):
            return False
        if toleration.get("key") not in (None, taint["key"]):
            return False
        return toleration.get("operator") == "Exists" or toleration.get("value", "") == taint.get("value", "")

    return [
        f"{taint['key']}={taint.get('value', '')}:{taint['effect']}"
        for taint in node["spec"].get("taints", [])
        if taint["effect"] != "PreferNoSchedule" and not any(tolerated(taint, one) for one in tolerations)
    ]


def _needs(settings: Mapping[str, Any]) -> dict[str, float]:
    """What the scheduler reserves for a pod."""
    return {name: amount(value) for name, value in _requests(settings.get("resources", {})).items()}


def _requests(resources: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Of a pod: what it requests, and its limits where it does not say."""
    return {**resources.get("limits", {}), **resources.get("requests", {})}


def _short(needs: Mapping[str, float], allocatable: Mapping[str, str]) -> list[str]:
    return [name for name, wanted in needs.items() if amount(allocatable.get(name, "0")) < wanted]


def _completed(resources: Mapping[str, Any], ranges: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Requests and limits of a pod as the API keeps them: what it leaves open, the namespace's LimitRanges set."""
    limits, requests = dict(resources.get("limits", {})), _requests(resources)
    for item in (item for found in ranges for item in found["spec"]["limits"] if item["type"] == "Container"):
        limits = {**item.get("default", {}), **limits}
        requests = {**item.get("defaultRequest", {}), **requests}
    return {"limits": limits, "requests": requests}


def _quotas(quotas: Sequence[Mapping[str, Any]], standing: Sequence[Mapping[str, Mapping[str, str]]]) -> list[Finding]:
    """Whether the namespace's quotas let in, and leave room for, pods that stand at the same time.

    Args:
        quotas: as the API has them.
        standing: limits and requests of each pod.
    """
    asked: dict[str, float] = {"pods": len(standing), "count/jobs.batch": len(standing)}
    for resources in standing:
        for kind, amounts in resources.items():
            for name, value in amounts.items():
                asked[f"{kind}.{name}"] = asked.get(f"{kind}.{name}", 0.0) + amount(value)
    unset = {
        f"{kind}.{name}"
        for resources in standing
        for kind, amounts in resources.items()
        for name in _SET_BY_EACH_POD
        if name not in amounts
    }
    findings = []
    for quota in quotas:
        title = f"quota {quota['metadata']['name']}"
        if quota.get("spec", {}).keys() & {"scopes", "scopeSelector"}:
            findings.append(Finding("orchestrator", "unchecked", f"{title} is for some pods only"))
            continue
        hard, used = quota["status"].get("hard", {}), quota["status"].get("used", {})
        for name, value in hard.items():
            full_name = f"requests.{name}" if name in _SET_BY_EACH_POD else name
            if full_name in unset:
                text = f"{title} is on {name}: the API refuses pods that set no {full_name}, as do some of a run"
                fix = f"set {full_name} in all pod settings of the stack's file, or a default by a LimitRange"
                findings.append(Finding("orchestrator", "missing", text, fix))
            elif full_name in asked and (left := amount(value) - amount(used.get(name, "0"))) < asked[full_name]:
                text = f"{title}: {left:g} of {name} left, a run needs {asked[full_name]:g}"
                fix = "wait for other runs, or ask for a larger quota"
                findings.append(Finding("orchestrator", "missing", text, fix))
    return findings


def amount(text: str) -> float:
    """A Kubernetes quantity: `500m` is 0.5, `2Gi` is 2147483648.

    Raises:
        MetalayerError: text that is none.
    """
    match = re.fullmatch(r"([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?([KMGTPE]i|[numkMGTPE]?)", str(text))
    if not match:
        raise MetalayerError(f"{text!r} is not a Kubernetes quantity such as 500m or 2Gi")
    return float(match[1] + (match[2] or "")) * {**_UNITS, **_BINARY}[match[3]]


def _artifact_store(stack: Stack) -> Finding:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    store = stack.components["artifact_store"]
    bucket, _, folder = store["path"].removeprefix("s3://").partition("/")
    endpoint = store["client_kwargs"]["endpoint_url"]
    keys = stack.secrets[store["authentication_secret"]]
    probe = f"{folder}/stack-check" if folder else "stack-check"
    try:
        client = boto3.client(
            "s3",
            endpoint_url=endpoint,
            config=Config(connect_timeout=_TIMEOUT_S, read_timeout=_TIMEOUT_S, retries={"max_attempts": 1}),
            region_name=door.get("AWS_DEFAULT_REGION") or "us-east-1",
            **keys,
        )
        client.put_object(Bucket=bucket, Key=probe, Body=b"")
        client.delete_object(Bucket=bucket, Key=probe)
    except ClientError as error:
        code = error.response["Error"]["Code"]
        text = f"{store['path']} at {endpoint} cannot be written: {code}"
        fix = "see that AWS_ACCESS_KEY_ID may write there"
        if code in ("NoSuchBucket", "404"):
            fix = "make the bucket, or fix METALAYER_BUCKET or AWS_ENDPOINT_URL_S3"
        return Finding("artifact_store", "missing", text, fix)
    except (BotoCoreError, ValueError) as error:
        text = f"no S3 service at {endpoint} ({type(error).__name__})"
        return Finding("artifact_store", "missing", text, "start it, or fix AWS_ENDPOINT_URL_S3")
    return Finding("artifact_store", "ok", f"{store['path']} at {endpoint} can be written")


def _api_of(registry: str) -> str:
    """The host that serves the API of a registry: Docker Hub's name is that of a web site."""
    return "registry-1.docker.io" if registry in _DOCKER_HUB else registry


def _images(stack: Stack) -> list[Finding]:
    registry = stack.components["container_registry"]["uri"]
    images = [stack.settings["docker"]["parent_image"]]
    if stack.gpu_step:
        images.append(stack.gpu_step["settings"]["docker"]["parent_image"])
    host = registry.partition("/")[0]
    # TLS first; plain HTTP is what a registry on this machine or of a test speaks.
    api = _api_of(host)
    base = next((url for url in (f"https://{api}", f"http://{api}") if _http(f"{url}/v2/")[0]), None)
    if base is None:
        text = f"no registry at {host}"
        if door.get("KUBERNETES_SERVICE_HOST"):  # this is a pod; images are fetched by nodes
            return [Finding("container_registry", "unchecked", f"{text}, as this pod sees it")]
        return [Finding("container_registry", "missing", text, "start it, or fix METALAYER_REGISTRY")]
    return [_image(base, host, image) for image in images]


def _image(base: str, host: str, image: str) -> Finding:
    """Whether an image is there, and of the code that starts the run: its pods would compute with other."""
    name, _, tag = image.removeprefix(f"{host}/").rpartition(":")

    def ask(path: str) -> tuple[int, dict[str, Any]]:
        url = f"{base}/v2/{name}/{path}"
        status, body, headers = _http(url, accept=_MANIFESTS)
        if status == 401 and base.startswith("https:"):
            status, body, _ = _http(url, accept=_MANIFESTS, authorization=_login(host, headers))
        return status, _json(body)

    status, manifest = ask(f"manifests/{tag}")
    if status == 404:
        fix = "make images, and push them under this name; or fix METALAYER_IMAGE_TAG"
        return Finding("container_registry", "missing", f"{image} is not in the registry", fix)
    if status != 200:
        text, fix = f"{image}: {_said(status)}", "docker login, to have it checked"
        return Finding("container_registry", "unchecked", text, fix)
    for one in manifest.get("manifests", []):  # of several platforms, whose labels are the same
        if one.get("platform", {}).get("os") == "linux":
            manifest = ask(f"manifests/{one['digest']}")[1]
            break
    config = ask(f"blobs/{manifest['config']['digest']}")[1] if "config" in manifest else {}
    there, here = ((config.get("config") or {}).get("Labels") or {}).get(_REVISION), checkout.git_commit()
    if there is None or here.startswith(checkout.UNKNOWN) or there == here.removesuffix("-dirty") + "-dirty":
        text = f"{image} is there; whether it has the code that is here is not known"
        return Finding("container_registry", "unchecked", text, "make images from a commit, and run from the same")
    if there != here:
        text = f"{image} was built from commit {there}, and this is {here}: its pods would compute with other code"
        fix = "make images here, and push them; or check out the commit of the image"
        return Finding("container_registry", "missing", text, fix)
    return Finding("container_registry", "ok", f"{image} is there, of this commit")


def _login(host: str, headers: Mapping[str, str]) -> str:
    """An Authorization header by the answer of a registry that wants one, with what `docker login` has kept."""
    file = (door.path("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
    kept = _json(file.read_bytes()).get("auths", {}) if file.is_file() else {}
    basic = kept.get("https://index.docker.io/v1/" if host in _DOCKER_HUB else host, {}).get("auth")
    wanted = headers.get("www-authenticate", "")
    basic_header = f"Basic {basic}" if basic else ""
    if not wanted.lower().startswith("bearer"):
        return basic_header
    parts = dict(re.findall(r'(\w+)="([^"]*)"', wanted))
    if not parts.get("realm", "").startswith("https://"):  # no password goes there
        return ""
    query = urllib.parse.urlencode({key: parts[key] for key in ("service", "scope") if key in parts})
    answer = _json(_http(f"{parts.get('realm')}?{query}", authorization=basic_header)[1])
    token = answer.get("token") or answer.get("access_token")
    return f"Bearer {token}" if token else ""


def _tracker(stack: Stack) -> Finding:
    from metalayer.errors import RegistryError
    from metalayer.registry import tracking
    from pipelines import mlflow_service

    uri = stack.components["experiment_tracker"]["tracking_uri"]
    if not mlflow_service.is_server(uri):
        text = f"MLFLOW_TRACKING_URI is {uri}, which pods cannot reach"
        return Finding("experiment_tracker", "missing", text, "give the URL of an MLflow server")
    status = _http(f"{uri.rstrip('/')}/version")[0]
    if not status:
        return Finding("experiment_tracker", "missing", f"no MLflow server at {uri}", "start it, or fix the URL")
    try:
        tracking.ensure_experiment(tracking_uri=uri)
    except RegistryError as error:
        return Finding("experiment_tracker", "missing", str(error), "see MLFLOW_TRACKING_TOKEN, or user and password")
    return Finding("experiment_tracker", "ok", f"MLflow at {uri}")


def _http(
    url: str, data: bytes | None = None, *, accept: str = "*/*", authorization: str = ""
) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers (names in lower case); status 0 where nobody answers, or not by HTTP."""
    try:
        request = urllib.request.Request(url, data=data, headers={"Accept": accept})  # noqa: S310
        if authorization:
            request.add_unredirected_header("Authorization", authorization)  # a registry's storage has no use for it
        try:
            response = urllib.request.urlopen(request, timeout=_TIMEOUT_S)  # noqa: S310
        except urllib.error.HTTPError as error:
            response = error
        with response:
            return response.status, response.read(), {key.lower(): value for key, value in response.headers.items()}
    except (OSError, ValueError, http.client.HTTPException):
        return 0, b"", {}


def _json(body: bytes) -> dict[str, Any]:
    """An object; empty where the body is something else, as a web page."""
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _said(status: int) -> str:
    return f"HTTP {status}" if status else "nobody answers by HTTP"
