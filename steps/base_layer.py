"""base_layer: a reference and an annotation to base-layer files."""

from typing import Annotated, Any

from zenml import step

from metalayer.settings.sections import BaseConfig
from metalayer.workflows.base_run import base_run
from steps.materializers import JsonMaterializer


@step(enable_cache=True, output_materializers=JsonMaterializer)
def base_layer(config: BaseConfig, data_hash: str, code_hash: str) -> Annotated[dict[str, Any], "manifest"]:
    """Score every position of every gene into `config.output`; returns the manifest.

    The cache answers where data, code and settings are the same and the files are as the pass wrote them.
    """
    return base_run(config)
