"""package: a Bento of the version that passed the gate, and of nothing else."""

from typing import Annotated, Any

from zenml import step

from metalayer.workflows import gated
from steps.policy import NEVER_CACHED, SERVICE_RETRY
from steps.tracking import tracking_uri


@step(enable_cache=False, cache_policy=NEVER_CACHED, retry=SERVICE_RETRY)
def package(registration: dict[str, Any], decision: dict[str, Any]) -> Annotated[dict[str, Any], "bento"]:
    """Build the Bento from what the registry holds; else `tag` is None, with the reason."""
    return gated.package(registration, decision, tracking_uri())
