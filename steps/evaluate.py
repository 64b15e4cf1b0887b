"""evaluate: base, meta and the current champion on the same test genes."""

from pathlib import Path
from typing import Annotated, Any

from zenml import step

from metalayer.config import RunConfig
from metalayer.errors import MetalayerError, ModelError, RegistryError
from metalayer.workflows.evaluate import GOLDEN, evaluate_bundle
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
) -> tuple[Annotated[dict[str, Any], "evaluation"], Annotated[TableRef, "golden"]]:
    """Compare the model with its base, and with the champion of its base as it stands now.

    Returns:
        The reports, and golden rows with the answers that a server of this model must give.
    """
    from metalayer.serving import registry

    folder = step_dir("evaluate")
    name = registry.registered_name(config.data.base_model)
    standing = registry.find_champion(name, tracking_uri())
    champion: Path | MetalayerError | None = None
    if standing:
        try:
            champion = registry.fetch(name, standing.version, tracking_uri(), folder / "champion").bundle
        except (ModelError, RegistryError) as error:  # the registry answers, its files do not: the gate says so
            champion = error
    evaluation = evaluate_bundle(model.path, rows.file, tracks.path, manifest, config, champion, folder)
    if standing:
        evaluation["champion"] |= {"name": standing.name, "version": standing.version}
    log_evaluation(evaluation, training, config)
    return evaluation, TableRef.of(folder / GOLDEN)
