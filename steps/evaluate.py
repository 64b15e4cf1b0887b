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
) -> tuple[
    Annotated[dict[str, Any], "evaluation"],
    Annotated[TableRef, "golden"],
    Annotated[TableRef, "answers"],
    Annotated[TableRef, "errors"],
]:
    """Compare the model with its base, and with the champions of its base as they stand now.

    Returns:
        The reports, golden rows with the answers that a server of this model must give, what it answered on the test
        genes, and every error there, where whole genes were scored.
    """
    from metalayer.evaluation.error_file import ERRORS
    from metalayer.workflows.evaluate import ANSWERS, GOLDEN
    from metalayer.workflows.gated import judge

    folder = step_dir("evaluate")
    evaluation = judge(model.path, rows.file, tracks.path, manifest, config, folder, tracking_uri())
    log_evaluation(evaluation, training, config)
    golden, answers, errors = (TableRef.of(folder / name) for name in (GOLDEN, ANSWERS, ERRORS))
    return evaluation, golden, answers, errors
