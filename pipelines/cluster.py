"""The Kubernetes API as a stack names it: inside the cluster by the pod's account, else by a context."""

from __future__ import annotations

import json
from typing import Any

from metalayer import environment
from metalayer.errors import ConfigError, MetalayerError

_TIMEOUT_S = 10


class ClusterError(MetalayerError):
    """The API refuses, or does not answer.

    Attributes:
        status: HTTP status; 0 where nobody answers.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Cluster:
    """One request at a time, tried once."""

    def __init__(self, context: str) -> None:
        """Nothing is asked before `ask`.

        Args:
            context: of the kubeconfig; not looked at in a pod of the cluster.

        Raises:
            ConfigError: no kubeconfig, or no such context in it.
        """
        from kubernetes import client, config
        from kubernetes.config.config_exception import ConfigException

        settings = client.Configuration()
        try:
            config.load_incluster_config(client_configuration=settings)
        except ConfigException:  # not in a pod
            try:
                config.load_kube_config(environment.get("KUBECONFIG"), context, settings)
            except (ConfigException, OSError) as error:
                raise ConfigError(
                    f"context {context!r} cannot be used: {error}. Set KUBECONFIG to the file of the cluster, and "
                    "METALAYER_KUBE_CONTEXT to one of `kubectl config get-contexts`"
                ) from None
        settings.retries = False
        self.host = str(settings.host)
        self._client = client.ApiClient(settings)

    def ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """One request; the answer.

        Args:
            method: HTTP method; PATCH merges.
            path: with its query.
            body: JSON-ready.

        Raises:
            ClusterError: an error status, or no answer.
        """
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        header = {"Accept": "application/json"}
        if body is not None:
            header["Content-Type"] = "application/merge-patch+json" if method == "PATCH" else "application/json"
        try:
            answer: dict[str, Any] = self._client.call_api(
                path,
                method,
                header_params=header,
                body=body,
                auth_settings=["BearerToken"],
                response_type="object",
                _return_http_data_only=True,
                _request_timeout=_TIMEOUT_S,
            )
        except ApiException as error:
            raise ClusterError(_reason(error.body) or f"{error.status} {error.reason}", error.status or 0) from None
        except HTTPError as error:
            raise ClusterError(f"no API server at {self.host} ({type(error).__name__})", 0) from None
        return answer or {}


def _reason(body: Any) -> str:
    """What the API says of a refusal."""
    try:
        return str(json.loads(body)["message"])
    except (TypeError, ValueError, KeyError):
        return ""
