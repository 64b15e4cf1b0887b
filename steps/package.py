"""package: a Bento of the promoted version, and of nothing else."""

from typing import Annotated, Any

from zenml import step

from metalayer.serving.packaging import build_bento
from steps.policy import NEVER_CACHED, SERVICE_RETRY
from steps.tracking import run_facts, tracking_uri
from steps.workspace import step_dir


@step(enable_cache=False, cache_policy=NEVER_CACHED, retry=SERVICE_RETRY)
def package(
    registration: dict[str, Any], evaluation: dict[str, Any], decision: dict[str, Any]
) -> Annotated[dict[str, Any], "bento"]:
    """Build the Bento from what the registry holds; a rejected model gives `tag` None and says so."""
    from metalayer.serving import registry

    if not decision["promoted"]:
        return {"tag": None, "reason": "not packaged: the gate rejected the model"}
    name, version = registration["name"], registration["version"]
    registered = registry.fetch(name, version, tracking_uri(), step_dir("package"))
    facts = {
        **run_facts(),
        "alias": registration["alias"],
        "metrics": evaluation[evaluation["primary"]]["meta"],
        "run_id": registration["run_id"],
    }
    tag = build_bento(registered.bundle, registered.golden, name=name, version=version, facts=facts)
    registry.set_bento_tag(name, version, tag, tracking_uri())
    return {"tag": tag, "reason": "packaged from the promoted version"}
