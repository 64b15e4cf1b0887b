"""register: the model whatever the gate said, unless it is the champion's own again; a rejected one is `challenger`."""

from dataclasses import asdict
from typing import Annotated, Any

from zenml import step

from steps.materializers import ModelRef, TableRef
from steps.policy import NEVER_CACHED, SERVICE_RETRY
from steps.tracking import active_run_id, log_registration, run_facts, tracking_uri


@step(enable_cache=False, cache_policy=NEVER_CACHED, retry=SERVICE_RETRY, experiment_tracker=True)
def register(
    model: ModelRef,
    golden: TableRef,
    answers: TableRef,
    evaluation: dict[str, Any],
    decision: dict[str, Any],
    base_model: str,
) -> Annotated[dict[str, Any], "registration"]:
    """Register with the decision and its reasons; the champion stays for now."""
    from metalayer.workflows.gated import enter

    registration = enter(
        model.path,
        golden.file,
        answers.file,
        evaluation,
        decision,
        base_model,
        run_facts(),
        tracking_uri(),
        run_id=active_run_id(),
    )
    log_registration(asdict(registration))
    return asdict(registration)
