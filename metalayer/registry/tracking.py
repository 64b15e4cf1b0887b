"""The MLflow service: its address, how it is asked, its errors in our words, and the runs of our experiment.

A server that follows a registry needs mlflow-skinny only, MLflow's client of its servers; registering, and a registry
in a SQLite file, need all of mlflow. Filters name what they look for by its beginning (`name LIKE 'metalayer-%'`) or by
an id of MLflow, never by a name that somebody else chose: MLflow 3.17 has no way to write a quote within quotes, so a
name with both kinds cannot be asked for at all.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metalayer import environment, moved, network, storage
from metalayer.environment import state_dir, without_password
from metalayer.errors import ConfigError, InputError, RegistryError
from metalayer.migrations import check_version

if TYPE_CHECKING:
    import mlflow

EXPERIMENT = "metalayer"
_KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Tag of an experiment of models, not of generative AI. MLflow 3.17 keeps it, but opens what the browser last showed or
the address says (`workflows/ui.py`)."""
_SQLITE = "sqlite:///"


def default_tracking_uri() -> str:
    """`$MLFLOW_TRACKING_URI`, else a SQLite file in the state directory; errors as in `environment.tracking_uri`."""
    return environment.tracking_uri() or f"{_SQLITE}{state_dir() / 'mlflow.db'}"


def shown_uri(tracking_uri: str | None = None) -> str:
    """A tracking URI as messages show it, without credentials; None takes `default_tracking_uri`."""
    return without_password(tracking_uri or default_tracking_uri())


def ensure_experiment(name: str = EXPERIMENT, tracking_uri: str | None = None) -> str:
    """Get or create an experiment; returns its id.

    With SQLite its artifacts are kept in `mlartifacts` beside the database. Call this before anything
    else creates the experiment: MLflow's own default is `./mlruns` of whatever directory it is in.

    Raises:
        RegistryError: the service cannot be reached or refuses.
    """
    uri = tracking_uri or default_tracking_uri()
    with service(uri) as client:
        return experiment(client, name, uri)


def end_runs(names: Collection[str], tracking_uri: str) -> None:
    """Mark runs of our experiment that MLflow shows as running as killed.

    Args:
        names: of runs whose processes are known to have ended.
        tracking_uri: of the service.

    Raises:
        RegistryError: the service cannot be reached or refuses.
    """
    with service(tracking_uri) as client:
        found = client.get_experiment_by_name(EXPERIMENT)
        where = [found.experiment_id] if found else []
        running = "attributes.status = 'RUNNING'"
        for run in list(pages(client.search_runs, experiment_ids=where, filter_string=running)):
            if run.info.run_name in names:
                client.set_terminated(run.info.run_id, "KILLED")


def require_store(uri: str) -> None:
    """Whether what is installed can keep and follow a registry there.

    Raises:
        ConfigError: a database, and no MLflow that knows any.
    """
    if uri.startswith(_SQLITE) and importlib.util.find_spec("sqlalchemy") is None:
        # mlflow-skinny comes without, and knows no databases
        raise ConfigError(
            f"model registry {uri}: a file needs all of mlflow, and only mlflow-skinny is here; name an MLflow "
            "server in MLFLOW_TRACKING_URI, or serve a package: metalayer serve --bento TAG"
        )


@contextlib.contextmanager
def service(uri: str) -> Iterator[mlflow.MlflowClient]:
    """A client of the service; MLflow's global URIs and `sys.path` are put back afterwards.

    Raises:
        ConfigError: variables of a proxy or of certificates that cannot be used for it, or a file in a folder that
            cannot be made.
        InputError: a SQLite file that a later version of MLflow has changed.
        RegistryError: whatever the service or its database raises; a database, and no MLflow that knows any.
    """
    way = network.check_way(uri, network.REQUESTS) if uri.startswith("http") else ""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # MLflow's own default tries for minutes before it says that nobody answers.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    if uri.startswith(_SQLITE):
        require_store(uri)
        bring_up_to_date(uri)
    import mlflow
    from google.protobuf.json_format import Error as UnreadableAnswer
    from mlflow.exceptions import MlflowException

    errors: tuple[type[Exception], ...] = (MlflowException, OSError, UnreadableAnswer)
    with contextlib.suppress(ImportError):
        from sqlalchemy.exc import SQLAlchemyError

        errors = (*errors, SQLAlchemyError)
    logging.getLogger("mlflow.store.db.utils").addFilter(_without_traceback)
    logging.getLogger("alembic").setLevel(logging.WARNING)  # which says what database it has, each time
    # Setting either also sets its environment variable, which is asked where it is not set.
    before = {name: os.environ.get(name) for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")}
    path = list(sys.path)
    try:
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        yield mlflow.MlflowClient(uri, uri)
    except errors as error:
        shown = without_password(uri)
        if cause := storage.explained(error):
            kind = RegistryError if cause.exit_code == 1 else InputError
            raise kind(f"model registry {shown}: {cause}") from None
        message = without_password(str(error).replace(uri, shown))
        raise RegistryError(
            f"model registry {shown}{way}: {message}. Check that the service runs and that MLFLOW_TRACKING_URI names it"
        ) from None
    finally:
        mlflow.set_tracking_uri(None)
        mlflow.set_registry_uri(None)
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        sys.path[:] = path  # loading a model puts its copy of this package there


def bring_up_to_date(uri: str) -> None:
    """Before a SQLite file is read: its folder exists, its version is known, and its locations are where it lies now.

    Raises:
        ConfigError: a folder that cannot be made.
        InputError: a file that a later version of MLflow has changed.
    """
    database = Path(uri.removeprefix(_SQLITE).partition("?")[0]).resolve()
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"model registry {uri}: {database.parent}: {error.strerror or error}; set METALAYER_HOME to a folder "
            "that can be written, or MLFLOW_TRACKING_URI to a file in one"
        ) from None
    check_version(database, "MLflow")
    moved.follow_mlflow(database, own=database.resolve().parent == state_dir().resolve())


def pages(search: Callable[..., Any], **arguments: Any) -> Iterator[Any]:
    """What a search finds, page after page.

    Args:
        search: of a client, as in `search_model_versions`, in an order that writing does not change.
        **arguments: of it.
    """
    token = None
    while True:
        page = search(page_token=token, **arguments)
        yield from page
        token = page.token
        if not token:
            return


def experiment(client: mlflow.MlflowClient, name: str, uri: str) -> str:
    """As `ensure_experiment`, of a client."""
    from mlflow.entities import LifecycleStage

    found = client.get_experiment_by_name(name)
    if found is not None and found.lifecycle_stage == LifecycleStage.DELETED:
        shown = without_password(uri)
        raise RegistryError(
            f"model registry {shown}: the experiment {name} was deleted in MLflow; restore it, as by "
            f"MLFLOW_TRACKING_URI={shown} mlflow experiments restore --experiment-id {found.experiment_id}"
        )
    if found is not None:
        return str(found.experiment_id)
    location = None
    if uri.startswith(_SQLITE):
        location = (Path(uri.removeprefix(_SQLITE)).resolve().parent / moved.MLFLOW_ARTIFACTS).as_uri()
    return str(client.create_experiment(name, artifact_location=location, tags=_KIND))


def not_made_yet(uri: str) -> bool:
    """Whether this is a SQLite file that asking would create."""
    return uri.startswith(_SQLITE) and not Path(uri.removeprefix(_SQLITE)).exists()


def _without_traceback(record: logging.LogRecord) -> bool:
    """MLflow logs an error of its database before it raises it, and what is raised is reported here."""
    return not record.exc_info
