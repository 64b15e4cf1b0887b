"""package: a Bento of the version that passed the gate, and of nothing else."""

from typing import Annotated, Any

from zenml import step

from steps.policy import NEVER_CACHED, SERVICE_RETRY
from steps.tracking import tracking_uri


@step(enable_cache=False, cache_policy=NEVER_CACHED, retry=SERVICE_RETRY)
def package(registration: dict[str, Any], decision: dict[str, Any]) -> Annotated[dict[str, Any], "bento"]:
    """Build the Bento from what the registry holds; else `tag` is None, with the reason."""
    if not decision["promoted"]:
        return {"tag": None, "reason": "not packaged: the gate rejected the model"}
    if registration["champion_again"]:
        return {"tag": None, "reason": "not packaged: the model is the champion's own"}
    from metalayer.registry import versions
    from metalayer.registry.bento import package_version

    uri = tracking_uri()
    version = versions.known_version(registration["name"], registration["version"], uri)
    return {"tag": package_version(version, uri), "reason": "packaged from the registered version"}
