"""promote: a packaged version becomes champion, which servers follow."""

from typing import Annotated, Any

from zenml import step
from zenml.client import Client

from metalayer.settings.run import RunConfig
from metalayer.workflows import gated
from steps import checkpoints
from steps.policy import NEVER_CACHED, SERVICE_RETRY
from steps.tracking import log_promotion, run_facts, tracking_uri


@step(enable_cache=False, cache_policy=NEVER_CACHED, retry=SERVICE_RETRY)
def promote(
    registration: dict[str, Any], bento: dict[str, Any], evaluation: dict[str, Any], config: RunConfig
) -> Annotated[dict[str, Any], "promotion"]:
    """Move the alias to the version that has a Bento; one without stays what `register` made it.

    Then the checkpoints of the training go: until here a run that fails is run again, and where the cache does not
    answer for the training, that goes on from them.

    Raises:
        InputError: another champion by now than the evaluation compared with.
    """
    promoted = gated.promote(registration, bento, evaluation, tracking_uri())
    if bento["tag"] is not None:
        log_promotion()
    facts = run_facts()
    key = checkpoints.key(config, facts["data_hash"], facts["code_hash"])
    checkpoints.drop(Client().active_stack.artifact_store, key)
    return promoted
