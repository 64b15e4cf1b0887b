"""gate: promoted or rejected, with every reason."""

from typing import Annotated, Any

from zenml import step

from metalayer.evaluation.gate import decide
from metalayer.settings.sections import GateConfig
from steps.policy import NEVER_CACHED, SERVICE_RETRY
from steps.tracking import log_decision


@step(enable_cache=False, cache_policy=NEVER_CACHED, retry=SERVICE_RETRY, experiment_tracker=True)
def gate(evaluation: dict[str, Any], policy: GateConfig) -> Annotated[dict[str, Any], "decision"]:
    """Decide from the evaluation and the policy alone."""
    decision = decide(evaluation, policy).to_dict()
    log_decision(decision)
    return decision
