"""What a run in MLflow carries beside parameters and metrics: description, files, and the data it is of.

MLflow's own data sets hash no more than the first 10,000 rows of a pandas frame, and of a polars frame neither names of
columns nor the order of rows (3.17.2), so that other data may have the same digest. Ours are of all of the content.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow.data.dataset import Dataset
from mlflow.data.sources import LocalArtifactDatasetSource
from mlflow.entities import DatasetInput, InputTag
from mlflow.types import ColSpec, Schema

from metalayer.registry.tracking import default_tracking_uri, service
from metalayer.schema import ROW_SCORES

NOTE_TAG = "mlflow.note.content"
_CONTEXT = "mlflow.data.context"
_DIGEST_LENGTH = 36  # what MLflow keeps of a digest
_PROFILE_LENGTH = 16_000
GROUPS = {"base_": "base/", "meta_": "meta/", "difference_": "difference/", "rows_": "rows/"} | {
    "train_": "training/",
    "val_": "validation/",
}
"""Beginning of a metric's name to the group in which MLflow's page draws it."""


@dataclass(frozen=True)
class DataSet:
    """Data of a run.

    Attributes:
        name: as MLflow lists it.
        digest: SHA-256 of all of its content, in hex.
        source: where it was read.
        use: `training` or `test`.
        profile: how much there is of it, JSON-ready.
    """

    name: str
    digest: str
    source: str
    use: str
    profile: Mapping[str, Any]


class _Described(Dataset):  # type: ignore[misc]
    """A data set that is described, not held, whose digest is given."""

    def __init__(self, data: DataSet) -> None:
        self._profile = data.profile
        super().__init__(LocalArtifactDatasetSource(data.source), data.name, data.digest[:_DIGEST_LENGTH])

    @property
    def profile(self) -> Any:
        """How much there is of it."""
        return dict(self._profile)

    @property
    def schema(self) -> Any:
        """What a network reads of a position, and the label."""
        columns = [ColSpec("string", "sequence"), *(ColSpec("double", name) for name in ROW_SCORES)]
        return Schema([*columns, ColSpec("string", "splice_type")])

    def to_dict(self) -> dict[str, str]:
        """As MLflow keeps it."""
        schema = json.dumps({"mlflow_colspec": self.schema.to_dict()})
        return {**super().to_dict(), "schema": schema, "profile": json.dumps(self.profile)[:_PROFILE_LENGTH]}


def grouped(metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics, each also by the name that puts it into a group: `meta_ap_donor` is also `meta/ap_donor`.

    Ends of intervals have a group of their own, as in `meta/interval/ap_donor_low`.
    """
    found = dict(metrics)
    for name, value in metrics.items():
        for beginning, group in GROUPS.items():
            if name.startswith(beginning):
                bound = "interval/" if name.endswith(("_low", "_high")) else ""
                found[group + bound + name.removeprefix(beginning)] = value
    return found


def log_contents(
    run_id: str,
    note: str,
    files: Mapping[str, str],
    data: Sequence[DataSet],
    tracking_uri: str | None = None,
) -> None:
    """Put description, files and data on a run; a second time they are replaced.

    Args:
        run_id: of MLflow.
        note: the description, in Markdown.
        files: path among the artifacts of the run to the text of the file.
        data: what the run is of.
        tracking_uri: of the service; None takes its default.

    Raises:
        RegistryError: the service cannot be reached or refuses.
    """
    with service(tracking_uri or default_tracking_uri()) as client:
        client.set_tag(run_id, NOTE_TAG, note)
        for path, text in files.items():
            client.log_text(run_id, text, path)
        client.log_inputs(
            run_id,
            [DatasetInput(_Described(one)._to_mlflow_entity(), [InputTag(_CONTEXT, one.use)]) for one in data],
        )
