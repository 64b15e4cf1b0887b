"""search: the settings of model and training that do best on the validation genes."""

from typing import Annotated, Any

from zenml import step
from zenml.client import Client

from metalayer.settings.network import ModelConfig
from metalayer.settings.run import RunConfig
from metalayer.settings.search import SearchConfig
from metalayer.settings.sections import DataConfig, SplitConfig, TrainConfig
from steps import checkpoints
from steps.materializers import TableRef
from steps.workspace import step_dir


@step(enable_cache=True)
def search(
    rows: TableRef,
    tracks: TableRef,
    variants: TableRef,
    manifest: dict[str, Any],
    data: DataConfig,
    split: SplitConfig,
    model: ModelConfig,
    train: TrainConfig,
    config: SearchConfig,
    data_hash: str,
    code_hash: str,
) -> Annotated[dict[str, Any], "search"]:
    """Search, or go on with a search that was cut off; the cache answers where data, code and settings are the same."""
    from metalayer.training.search import STORAGE
    from metalayer.workflows.search import search_bundle

    run = RunConfig(data=data, split=split, model=model, train=train, search=config)
    store, folder = Client().active_stack.artifact_store, step_dir("search")
    key = checkpoints.key(run, data_hash, code_hash, searched=True)
    with checkpoints.kept(store, key, folder / "study", STORAGE) as study:
        found = search_bundle(rows.file, tracks.path, manifest, run, folder, study, variants.path)
    checkpoints.drop(store, key)
    return found
