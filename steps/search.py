"""search: the settings of model and training that do best on the validation genes."""

from typing import Annotated, Any

from zenml import step

from metalayer.config import DataConfig, ModelConfig, RunConfig, SearchConfig, SplitConfig, TrainConfig
from metalayer.workflows.search import search_bundle
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
    """Search; the cache answers where data, code and settings are the same."""
    run = RunConfig(data=data, split=split, model=model, train=train, search=config)
    return search_bundle(rows.file, tracks.path, manifest, run, step_dir("search"), variants.path)
