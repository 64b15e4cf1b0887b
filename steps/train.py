"""train: a model directory from the training and validation genes.

On a stack with a GPU step operator the pipeline sends this step there; else it runs in process.
"""

from typing import Annotated, Any

from zenml import step
from zenml.client import Client

from metalayer.settings.network import ModelConfig
from metalayer.settings.run import RunConfig
from metalayer.settings.sections import DataConfig, SplitConfig, TrainConfig
from steps import checkpoints
from steps.materializers import ModelRef, TableRef
from steps.tracking import run_facts
from steps.workspace import step_dir


@step(enable_cache=True)
def train(
    rows: TableRef,
    tracks: TableRef,
    variants: TableRef,
    manifest: dict[str, Any],
    data: DataConfig,
    split: SplitConfig,
    model: ModelConfig,
    config: TrainConfig,
    data_hash: str,
    code_hash: str,
) -> tuple[Annotated[ModelRef, "model"], Annotated[dict[str, Any], "training"]]:
    """Train, calibrate and publish a model; only what shapes it is a parameter, so that nothing else retrains it."""
    from metalayer.workflows.launch import train_on_machine

    run = RunConfig(data=data, split=split, model=model, train=config)
    folder = step_dir("train")
    facts = {**run_facts(), "data_hash": data_hash}
    key = checkpoints.key(run, data_hash, code_hash)
    with checkpoints.kept(Client().active_stack.artifact_store, key, folder / "checkpoints") as kept:
        history = train_on_machine(rows.file, tracks.path, manifest, run, folder / "model", facts, kept, variants.path)
    return ModelRef.of(folder / "model"), history
