"""What pipelines in shards share: the names of their steps, and the model that these read."""

from __future__ import annotations

import shutil
from uuid import UUID

import zenml

from metalayer.models.description import DESCRIPTION, WEIGHTS
from metalayer.settings.sections import ScoreConfig, VariantsConfig
from metalayer.workflows.score_genome import ScoringModel
from steps.materializers import ModelMaterializer, ModelRef
from steps.workspace import step_dir


def steps_of(config: ScoreConfig | VariantsConfig, step: str) -> tuple[str, ...]:
    """Names of the steps that score, in the order of the shards."""
    assert config.shards is not None  # that of the plan
    return tuple(f"{step}_{number}" for number in range(1, config.shards + 1))


def on_a_gpu(config: ScoreConfig | VariantsConfig, step: str) -> tuple[str, ...]:
    """Those that are sent to the stack's step operator, where it has one: none, unless a GPU is asked for."""
    return steps_of(config, step) if config.device.startswith("cuda") else ()


def put_model(scorer: ScoringModel, name: str) -> UUID:
    """Put a model into the artifact store under a name; returns the artifact."""
    folder = step_dir(name)
    for file in (WEIGHTS, DESCRIPTION):  # a registered one has more beside them, which are not of its digest
        shutil.copyfile(scorer.directory / file, folder / file)
    artifact: UUID = zenml.save_artifact(ModelRef.of(folder), name, materializer=ModelMaterializer).id
    return artifact
