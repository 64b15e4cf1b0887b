"""evaluate: base, meta and the champions of its line on the same test genes."""

from typing import Annotated, Any

from zenml import step

from metalayer.settings.run import RunConfig
from steps.materializers import ModelRef, TableRef
from steps.policy import LONG_RETRY, NEVER_CACHED
from steps.tracking import log_evaluation, tracking_uri
from steps.workspace import step_dir


@step(enable_cache=False, cache_policy=NEVER_CACHED, retry=LONG_RETRY, experiment_tracker=True)
def evaluate(
    model: ModelRef,
    rows: TableRef,
    tracks: TableRef,
    manifest: dict[str, Any],
    training: dict[str, Any],
    config: RunConfig,
) -> tuple[Annotated[dict[str, Any], "evaluation"], Annotated[TableRef, "golden"], Annotated[TableRef, "answers"]]:
    """Compare the model with its base, and with the champions of its base as they stand now.

    Returns:
        The reports, golden rows with the answers that a server of this model must give, and what it answered on the
        test genes.
    """
    from metalayer.registry import evidence, versions
    from metalayer.workflows.champions import line_of_champions
    from metalayer.workflows.evaluate import ANSWERS, GOLDEN, evaluate_bundle

    folder, uri = step_dir("evaluate"), tracking_uri()
    name = versions.registered_name(config.data.base_model)
    evaluation = evaluate_bundle(
        model.path,
        rows.file,
        tracks.path,
        manifest,
        config,
        line_of_champions(name, uri, folder),
        folder,
        lambda test_set, digest: evidence.decisions_before(name, test_set, digest, uri),
    )
    log_evaluation(evaluation, training, config)
    return evaluation, TableRef.of(folder / GOLDEN), TableRef.of(folder / ANSWERS)
