"""What the registry keeps for later comparisons: a version's own answers, and which test set decided on which model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import mlflow
from mlflow.entities import Metric, ViewType

from metalayer.errors import ModelError, RegistryError
from metalayer.evaluation.answers import Answers, read_answers
from metalayer.registry import tracking, versions
from metalayer.registry.run_contents import grouped
from metalayer.registry.tracking import pages
from metalayer.registry.versions import ANSWERS, ANSWERS_TAG, ModelVersion

TEST_SET_TAG, MODEL_TAG = "test_set", "model_digest"
"""On runs and versions: the test genes, and the model that they judged, by what its answers depend on."""


def fetch_answers(version: ModelVersion, tracking_uri: str | None, folder: Path) -> Answers:
    """The answers that were kept with a version.

    Args:
        version: of the registry.
        tracking_uri: of it; None takes its default.
        folder: for the download.

    Raises:
        ModelError: none were kept, as by a version before there were such, or they are damaged.
        RegistryError: the service cannot be reached or refuses.
    """
    expected = version.tags.get(ANSWERS_TAG)
    who = f"{version.name} version {version.version}"
    if not expected:
        raise ModelError(f"{who}: no answers were kept with it")
    address = f"models:/{version.name}/{version.version}/artifacts/{ANSWERS}"
    try:
        with tracking.service(tracking_uri or tracking.default_tracking_uri()):
            path = Path(mlflow.artifacts.download_artifacts(address, dst_path=str(folder)))
    except RegistryError as error:
        raise ModelError(f"{who}: the answers kept with it cannot be read: {error}") from None
    return read_answers(path, expected)


@contextlib.contextmanager
def logged_run(
    run_name: str, tags: Mapping[str, str], metrics: Mapping[str, float], tracking_uri: str | None = None
) -> Iterator[str]:
    """A run of our experiment that ends with this block, and fails where it does; gives its id.

    Args:
        run_name: shown in MLflow.
        tags: of the run.
        metrics: of the run.
        tracking_uri: of the service; None takes its default.

    Raises:
        RegistryError: the service cannot be reached or refuses.
    """
    uri = tracking_uri or tracking.default_tracking_uri()
    with tracking.service(uri) as client:
        where = tracking.experiment(client, tracking.EXPERIMENT, uri)
        run_id = str(client.create_run(where, tags=dict(tags), run_name=run_name).info.run_id)
        numbers = [Metric(name, value, 0, 0) for name, value in grouped(metrics).items()]
        client.log_batch(run_id, metrics=numbers)
    ended = "FAILED"
    try:
        yield run_id
        ended = "FINISHED"
    finally:
        with tracking.service(uri) as client:
            client.set_terminated(run_id, ended)


def decisions_before(name: str, test_set: str, digest: str, tracking_uri: str | None = None) -> int:
    """How many other models were judged on a test set: by versions of a registered name, and by runs, deleted ones too.

    The same model, judged again, counts once, and `digest` itself not at all: trying again is no further look.

    Args:
        name: registered name.
        test_set: of `answers.test_set_digest`.
        digest: of the model that is judged now, by `bundle.content_of`.
        tracking_uri: of the service; None takes its default.

    Raises:
        RegistryError: the service cannot be reached or refuses.
    """
    uri = tracking_uri or tracking.default_tracking_uri()
    wanted = f"tags.{TEST_SET_TAG} = '{test_set}'"
    with tracking.service(uri) as client:
        judged = {
            version.tags.get(MODEL_TAG)
            for version in pages(
                client.search_model_versions, filter_string=wanted, order_by=["name ASC", "version_number ASC"]
            )
            if version.name == name
        }
        experiment = client.get_experiment_by_name(tracking.EXPERIMENT)
        if experiment is not None:
            judged |= {
                run.data.tags.get(MODEL_TAG)
                for run in pages(
                    client.search_runs,
                    experiment_ids=[experiment.experiment_id],
                    filter_string=wanted,
                    run_view_type=ViewType.ALL,
                    order_by=["attributes.start_time ASC"],
                )
                if versions.registered_name(run.data.tags.get("base_model", "")) == name
            }
    return len(judged - {None, digest})
