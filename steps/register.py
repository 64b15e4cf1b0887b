"""register: the model whatever the gate said, unless it is the champion's own again; a rejected one is `challenger`."""

from dataclasses import asdict
from typing import Annotated, Any

from zenml import step

from steps.materializers import ModelRef, TableRef
from steps.policy import NEVER_CACHED, SERVICE_RETRY
from steps.tracking import active_run_id, judged_tags, log_registration, run_facts, served_metrics, tracking_uri


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
    from metalayer.registry.registration import champion_again, register

    registration = champion_again(model.path, base_model, tracking_uri()) or register(
        model.path,
        golden.file,
        base_model=base_model,
        promoted=decision["promoted"],
        reasons=[reason["text"] for reason in decision["reasons"]],
        metrics=served_metrics(evaluation),
        tags={**run_facts(), **judged_tags(evaluation)},
        run_id=active_run_id(),
        answers=answers.file,
        tracking_uri=tracking_uri(),
    )
    log_registration(asdict(registration))
    return asdict(registration)
