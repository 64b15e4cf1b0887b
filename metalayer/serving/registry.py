"""The model registry: MLflow runs, registered versions and the aliases `champion` and `challenger`.

One registered name per base model. A version is the model directory with its golden rows as an
MLflow pyfunc model, without pickle, with signature and input example. `line.py` keeps which versions were
champion, and `promotion.py` moves the alias.
A server that follows a registry needs mlflow-skinny only, MLflow's client of its servers; registering, and
a registry in a SQLite file, need all of mlflow. Beside `line.py` and `lease.py`, which write by its client, and
`mlflow_model.py`, which MLflow itself runs, the only file of the library that imports it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import polars as pl
from google.protobuf.json_format import Error as UnreadableAnswer
from mlflow.entities import LifecycleStage, Metric, Run
from mlflow.entities.model_registry import ModelVersion as MlflowVersion
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INVALID_PARAMETER_VALUE,
    RESOURCE_ALREADY_EXISTS,
    RESOURCE_DOES_NOT_EXIST,
    ErrorCode,
)

from metalayer import environment, moved, network, storage, yaml12
from metalayer.environment import state_dir, without_password
from metalayer.errors import ConfigError, InputError, ModelError, RegistryError
from metalayer.files import publish_directory, sha256
from metalayer.migrations import check_version
from metalayer.models.bundle import DESCRIPTION, WEIGHTS, content_of, digest, read_description
from metalayer.schema import CLASSES, ROW_SCORES
from metalayer.serving import onnx_rows, release
from metalayer.serving.engine import GOLDEN_TOLERANCE
from metalayer.serving.mlflow_pages import pages
from metalayer.serving.schemas import INDEX, SEQUENCE

CHAMPION, CHALLENGER = "champion", "challenger"
EXPERIMENT = "metalayer"
BENTO_TAG, DECISION_TAG, METRICS_TAG = "bento_tag", "decision", "metrics"
DIGEST_TAG, CONTENT_TAG = "digest", "content"
"""Of all that was registered, with where it comes from; and of what its answers depend on (`bundle.content_of`)."""
ANSWERS, ANSWERS_TAG = "answers.parquet", "answers_sha256"
PROMOTED, REJECTED = "promoted", "rejected"
NAME_PREFIX = "metalayer-"
EXAMPLE_ROWS = 3
_BUNDLE, _GOLDEN = "bundle", "golden"
_SQLITE = "sqlite:///"
_ORIGIN_TAGS = ("data_hash", "code_hash", "git_commit", "pipeline_run")
_TAG_LENGTH = 100_000  # what MLflow takes of a tag
_DATABASE_ERRORS: tuple[type[Exception], ...] = ()
with contextlib.suppress(ImportError):  # mlflow-skinny comes without, and knows no databases
    from sqlalchemy.exc import SQLAlchemyError

    _DATABASE_ERRORS = (SQLAlchemyError,)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelVersion:
    """A registered version."""

    name: str
    version: int
    run_id: str | None
    tags: dict[str, str] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Of all that was registered; empty of a version that something else registered."""
        return self.tags.get(DIGEST_TAG, "")


@dataclass(frozen=True)
class LocalModel(ModelVersion):
    """A registered version with its files on this machine: the model directory and the golden rows."""

    bundle: Path = Path()
    golden: Path = Path()


@dataclass(frozen=True)
class Registration:
    """What `register` did.

    Attributes:
        name: registered name.
        version: of the model.
        alias: of that version; None where it passed the gate and is to become champion.
        run_id: MLflow run that it was logged to.
        model_uri: where MLflow has it.
        champion_again: whether the model is the champion's own, so that nothing was registered.
    """

    name: str
    version: int
    alias: str | None
    run_id: str
    model_uri: str
    champion_again: bool = False


def registered_name(base_model: str) -> str:
    """The registered name of the models over a base model."""
    return f"{NAME_PREFIX}{base_model}"


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
        return _experiment(client, name, uri)


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


def register(
    bundle: Path,
    golden: Path,
    *,
    base_model: str,
    promoted: bool,
    reasons: Sequence[str] = (),
    metrics: Mapping[str, float | None] | None = None,
    tags: Mapping[str, str] | None = None,
    run_id: str | None = None,
    answers: Path | None = None,
    tracking_uri: str | None = None,
) -> Registration:
    """Register a model: log it, check that the logged model scores, and register it.

    A version that the gate rejected becomes `challenger`. One that it promoted gets no alias here: that is moved
    by `promotion.promote`, once the version is packaged. The same model of the same run is registered once,
    however often this is tried.

    Args:
        bundle: the model directory.
        golden: Parquet of rows with the probabilities expected of them.
        base_model: whose scores it recalibrates.
        promoted: what the gate decided.
        reasons: of the decision, one line each.
        metrics: at promotion; logged to the run too. Those that are not numbers are left out.
        tags: further tags of the version (data_hash, git_commit, run ids ...).
        run_id: MLflow run to log to; None makes one.
        answers: what it answered on its evaluation genes (`evaluation.answers`), kept for later comparisons.
        tracking_uri: of the service; None takes `default_tracking_uri`.

    Raises:
        RegistryError: the service cannot be reached or refuses, or the logged model does not score its
            golden rows as expected.
        ModelError: a damaged model directory, or ONNX Runtime's answers differ from torch's.
    """
    bundle, golden = Path(bundle), Path(golden)
    uri, name = tracking_uri or default_tracking_uri(), registered_name(base_model)
    info = read_description(bundle)
    numbers = {
        key: float(value) for key, value in (metrics or {}).items() if value is not None and math.isfinite(value)
    }
    all_tags = {
        **(tags or {}),
        "base_model": base_model,
        "schema_hash": info["schema_hash"],
        CONTENT_TAG: content_of(bundle),
        DECISION_TAG: PROMOTED if promoted else REJECTED,
        METRICS_TAG: json.dumps(numbers),
        "reasons": json.dumps(list(reasons)),
    }
    if answers is not None:
        all_tags[ANSWERS_TAG] = sha256(answers)
    for key in _ORIGIN_TAGS:
        if info.get(key) is not None:
            all_tags.setdefault(key, str(info[key]))
    with service(uri) as client:
        version = _registered_before(client, name, run_id, all_tags) if run_id else None
        if version is None:
            run = client.get_run(run_id) if run_id else client.create_run(_experiment(client, EXPERIMENT, uri))
            with tempfile.TemporaryDirectory() as scratch:
                prepared = Path(shutil.copytree(bundle, Path(scratch) / _BUNDLE))
                onnx_rows.prepare(prepared)  # servers that follow the champion take it from here
                origin = {key: all_tags[key] for key in _ORIGIN_TAGS if key in all_tags}
                release.write_facts(prepared, {"metrics": numbers, **origin})
                all_tags[DIGEST_TAG] = release.release_digest(prepared, golden)
                model_uri = _log_model(client, run, prepared, golden, answers, numbers)
            _create_name(client, name, base_model)
            version = client.create_model_version(
                name,
                model_uri,
                run_id=run.info.run_id,
                tags={key: str(value)[:_TAG_LENGTH] for key, value in all_tags.items()},
                model_id=model_uri.removeprefix("models:/"),
            )
        if not promoted:
            client.set_registered_model_alias(name, CHALLENGER, version.version)
    alias = None if promoted else CHALLENGER
    logger.info("registered %s version %s%s", name, version.version, f" as {alias}" if alias else "")
    return Registration(name, int(version.version), alias, version.run_id, version.source)


def champion_again(bundle: Path, base_model: str, tracking_uri: str | None = None) -> Registration | None:
    """The champion, where a model is its own again by what its answers depend on (`bundle.content_of`).

    Such a model is not to be registered: it would be one more version that answers the same.

    Raises:
        RegistryError: the service cannot be reached or refuses.
        ModelError, SchemaError: a damaged model directory, or one of another feature schema.
    """
    name, content = registered_name(base_model), content_of(bundle)
    champion = find_champion(name, tracking_uri)
    if champion is None or champion.tags.get(CONTENT_TAG) != content:
        return None
    with service(tracking_uri or default_tracking_uri()) as client:
        stored = client.get_model_version(name, str(champion.version))
    logger.info("the model is that of %s version %d, the champion: it is not registered again", name, champion.version)
    return Registration(name, champion.version, CHAMPION, stored.run_id, stored.source, champion_again=True)


def find_champion(name: str, tracking_uri: str | None = None) -> ModelVersion | None:
    """The version that carries the alias `champion`, or None.

    Raises:
        RegistryError: the service cannot be reached or refuses.
    """
    uri = tracking_uri or default_tracking_uri()
    if _not_made_yet(uri):
        return None
    with service(uri) as client:
        return by_alias(client, name, CHAMPION)


def find_version(name: str, version: str, tracking_uri: str | None = None) -> ModelVersion | None:
    """A registered version, or None where it was deleted or never registered.

    Raises:
        RegistryError: the service cannot be reached or refuses.
    """
    with service(tracking_uri or default_tracking_uri()) as client:
        try:
            return _model_version(client.get_model_version(name, version))
        except MlflowException as error:
            if error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                return None
            raise


def champions(tracking_uri: str | None = None) -> list[ModelVersion]:
    """The champion of every model of ours that has one, by name.

    Raises:
        RegistryError: the service cannot be reached or refuses.
    """
    return [version for version in versions(tracking_uri) if CHAMPION in version.aliases]


def versions(tracking_uri: str | None = None) -> list[ModelVersion]:
    """Every version of every model of ours, by name and then number; a name is ours where one of its versions is.

    Raises:
        RegistryError: the service cannot be reached or refuses.
    """
    uri = tracking_uri or default_tracking_uri()
    if _not_made_yet(uri):
        return []
    found: list[ModelVersion] = []
    with service(uri) as client:
        ours = f"name LIKE '{NAME_PREFIX}%'"
        aliases: dict[tuple[str, int], list[str]] = {}
        for model in pages(client.search_registered_models, filter_string=ours):
            for alias, number in sorted(model.aliases.items()):
                aliases.setdefault((model.name, int(number)), []).append(alias)
        for one in pages(client.search_model_versions, filter_string=ours, order_by=["name ASC", "version_number ASC"]):
            version = _model_version(one)
            found.append(replace(version, aliases=tuple(aliases.get((version.name, version.version), ()))))
    ours_by_name = {version.name for version in found if version.digest}
    return sorted(
        (version for version in found if version.name in ours_by_name),
        key=lambda version: (version.name, version.version),
    )


def only_name(wanted: str | None = None, tracking_uri: str | None = None) -> str:
    """The registered name that is meant: the one given, with or without prefix, or the only one there is.

    Raises:
        InputError: none there, several and none given, or one that is not there.
        RegistryError: the service cannot be reached or refuses.
    """
    names = sorted({version.name for version in versions(tracking_uri)})
    if not names:
        raise InputError(
            f"no registered model in {shown_uri(tracking_uri)}; name the state folder of another run in METALAYER_HOME"
        )
    listed = ", ".join(names)
    if wanted is None:
        if len(names) != 1:
            raise InputError(f"registered models: {listed}; name one with --model")
        return names[0]
    for name in (wanted, registered_name(wanted)):
        if name in names:
            return name
    raise InputError(f"--model {wanted}: no registered model of that name; there are: {listed}")


def known_version(name: str, version: int, tracking_uri: str | None = None) -> ModelVersion:
    """A registered version.

    Raises:
        InputError: there is none of that name and number.
        RegistryError: the service cannot be reached or refuses.
    """
    found = [one for one in versions(tracking_uri) if one.name == name]
    for one in found:
        if one.version == version:
            return one
    there = ", ".join(str(one.version) for one in found) or "none"
    raise InputError(f"{name} has no version {version}; there are: {there}")


def fetch_release(version: ModelVersion, tracking_uri: str | None, folder: Path) -> Path:
    """The release directory of a version, made in `folder`.

    Raises:
        RegistryError: the service cannot be reached or refuses.
        ModelError: the stored model is damaged.
    """
    local = fetch(version.name, version.version, tracking_uri, folder)
    directory = local.bundle.with_name("release")
    directory.mkdir(exist_ok=True)
    facts = {"name": version.name, "version": str(version.version), "alias": CHAMPION, "run_id": version.run_id}
    release.write_release(directory, local.bundle, local.golden, facts, version.digest)
    return directory


def fetch(name: str, version: int, tracking_uri: str | None, download_to: Path) -> LocalModel:
    """A version with its files.

    Args:
        name: registered name.
        version: of it.
        tracking_uri: of the service; None takes `default_tracking_uri`.
        download_to: keeps one directory a version, and is asked first.

    Raises:
        RegistryError: the service cannot be reached or refuses.
        ModelError: the stored model is damaged.
    """
    uri = tracking_uri or default_tracking_uri()
    directory = _inside(Path(download_to), name, "the registry") / str(version)
    with service(uri) as client:
        found = _model_version(client.get_model_version(name, str(version)))
        damaged = ModelError(
            f"{name} version {version} of {without_password(uri)}: its files are not those that were registered; "
            "restore the artifact store, or move the alias to a version that is whole"
        )
        if not _is(directory, found.digest):
            with tempfile.TemporaryDirectory() as scratch:
                root = Path(mlflow.artifacts.download_artifacts(f"models:/{name}/{version}", dst_path=scratch))
                try:
                    described = yaml12.read(root / "MLmodel")  # mlflow-skinny cannot load it
                    artifacts = described["flavors"]["python_function"]["artifacts"]
                    its_mlmodel = f"{name} version {version}: its MLmodel"
                    files = {one: _inside(root, artifacts[one]["path"], its_mlmodel) for one in (_BUNDLE, _GOLDEN)}
                    with publish_directory(directory) as draft:
                        shutil.copytree(files[_BUNDLE], draft / _BUNDLE)
                        shutil.copyfile(files[_GOLDEN], draft / release.GOLDEN)
                except (KeyError, TypeError, ValueError, FileNotFoundError):
                    raise damaged from None
    if not _is(directory, found.digest):
        raise damaged
    return LocalModel(**vars(found), bundle=directory / _BUNDLE, golden=directory / release.GOLDEN)


def set_bento_tag(name: str, version: int, tag: str, tracking_uri: str | None = None) -> None:
    """Note on a version which Bento was built from it.

    Raises:
        RegistryError: the service cannot be reached or refuses.
    """
    with service(tracking_uri or default_tracking_uri()) as client:
        client.set_model_version_tag(name, str(version), BENTO_TAG, tag)


def _is(directory: Path, expected: str) -> bool:
    """Whether a download is there, complete, and of this digest.

    Versions registered by earlier versions have that of the model alone, or with its golden rows.
    """
    bundle, golden = directory / _BUNDLE, directory / release.GOLDEN
    complete = all(path.is_file() for path in (bundle / WEIGHTS, bundle / DESCRIPTION, golden))
    if (bundle / release.FACTS).is_file():
        return complete and expected == release.release_digest(bundle, golden)
    return complete and expected in (digest(bundle, golden), digest(bundle))


def _log_model(
    client: mlflow.MlflowClient,
    run: Run,
    bundle: Path,
    golden: Path,
    answers: Path | None,
    metrics: Mapping[str, float],
) -> str:
    """Log model and metrics to the run; returns the URI of the logged model, which was seen to score."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    client.log_batch(run.info.run_id, metrics=[Metric(name, value, 0, 0) for name, value in metrics.items()])
    table = pl.read_parquet(golden)
    example = table.select(SEQUENCE, *ROW_SCORES, INDEX).cast({INDEX: pl.Int64}).to_pandas()
    signature = ModelSignature(
        Schema(
            [ColSpec("string", SEQUENCE)]
            + [ColSpec("double", name) for name in ROW_SCORES]
            + [ColSpec("long", INDEX, required=False)]
        ),
        Schema([ColSpec("double", name) for name in CLASSES]),
    )
    with tempfile.TemporaryDirectory() as scratch, _in_run(run):
        kept = {} if answers is None else {"answers": str(shutil.copyfile(answers, Path(scratch) / ANSWERS))}
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(Path(__file__).with_name("mlflow_model.py")),
            artifacts={_BUNDLE: str(bundle), _GOLDEN: str(golden), **kept},
            code_paths=[str(release.copy_source(Path(scratch)))],
            signature=signature,
            input_example=example.head(EXAMPLE_ROWS),
            pip_requirements=release.pinned(*release.runtime(bundle), "mlflow", "pandas"),
        )
    answered = mlflow.pyfunc.load_model(logged.model_uri).predict(example)
    difference = float(np.abs(answered.to_numpy() - table.select(CLASSES).to_numpy()).max())
    if not difference <= GOLDEN_TOLERANCE:
        raise RegistryError(
            f"the logged model differs by {difference:.2g} from the evaluated one on the golden rows, allowed is "
            f"{GOLDEN_TOLERANCE:g}; not registered. Evaluate and register in one environment"
        )
    return str(logged.model_uri)


@contextlib.contextmanager
def _in_run(run: Run) -> Iterator[None]:
    """Make the run MLflow's active one; a run that was active already stays so."""
    active = mlflow.active_run()
    if active is not None and active.info.run_id == run.info.run_id:
        yield
        return
    with mlflow.start_run(run_id=run.info.run_id, nested=active is not None):
        yield


def _not_made_yet(uri: str) -> bool:
    """Whether this is a SQLite file that asking would create."""
    return uri.startswith(_SQLITE) and not Path(uri.removeprefix(_SQLITE)).exists()


def _create_name(client: mlflow.MlflowClient, name: str, base_model: str) -> None:
    try:
        client.create_registered_model(name, tags={"base_model": base_model})
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise


def _registered_before(
    client: mlflow.MlflowClient, name: str, run_id: str, tags: Mapping[str, str]
) -> MlflowVersion | None:
    """The version that an earlier attempt of the same run registered, with the same model and decision."""
    found = pages(client.search_model_versions, filter_string=f"run_id = '{run_id}'", order_by=["version_number ASC"])
    for one in found:
        if one.name == name and all(one.tags.get(key) == tags[key] for key in (CONTENT_TAG, DECISION_TAG)):
            return one
    return None


def _experiment(client: mlflow.MlflowClient, name: str, uri: str) -> str:
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
    return str(client.create_experiment(name, artifact_location=location))


def name_tags(client: mlflow.MlflowClient, name: str) -> dict[str, str]:
    """Tags of a registered name; none where it is not registered."""
    try:
        return dict(client.get_registered_model(name).tags)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            raise
        return {}


def by_alias(client: mlflow.MlflowClient, name: str, alias: str) -> ModelVersion | None:
    """The version of a registered name that carries an alias; None where none does."""
    try:
        return _model_version(client.get_model_version_by_alias(name, alias))
    except MlflowException as error:
        absent = (ErrorCode.Name(RESOURCE_DOES_NOT_EXIST), ErrorCode.Name(INVALID_PARAMETER_VALUE))
        if error.error_code in absent and re.search(r"not found", str(error), re.IGNORECASE):
            return None
        raise


def _inside(folder: Path, name: str, who: str) -> Path:
    """The path of what the registry names in a folder of ours; `who` names it, for the message.

    Raises:
        ModelError: it lies elsewhere, whether by an absolute path, `..` or a symbolic link.
    """
    path = folder / name
    if path.resolve() == folder.resolve() or not path.resolve().is_relative_to(folder.resolve()):
        raise ModelError(
            f"{who} names {name!r}, which is not inside its own folder; nothing was copied. Restore the registry, or "
            "register the model again"
        )
    return path


def _model_version(found: Any) -> ModelVersion:
    if not str(found.version).isdecimal():
        raise MlflowException(f"a version of {found.name!r} has no number, but {found.version!r}")
    return ModelVersion(found.name, int(found.version), found.run_id or None, dict(found.tags))


def _without_traceback(record: logging.LogRecord) -> bool:
    """MLflow logs an error of its database before it raises it, and what is raised is reported here."""
    return not record.exc_info


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
        if not _DATABASE_ERRORS:
            raise RegistryError(
                f"model registry {uri}: a file needs all of mlflow, and only mlflow-skinny is here; name an MLflow "
                "server in MLFLOW_TRACKING_URI, or serve a package: metalayer serve --bento TAG"
            )
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
    logging.getLogger("mlflow.store.db.utils").addFilter(_without_traceback)
    # Setting either also sets its environment variable, which is asked where it is not set.
    before = {name: os.environ.get(name) for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")}
    path = list(sys.path)
    try:
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        yield mlflow.MlflowClient(uri, uri)
    except (MlflowException, OSError, UnreadableAnswer, *_DATABASE_ERRORS) as error:
        shown = without_password(uri)
        if told := storage.explained(error):
            kind = RegistryError if told.exit_code == 1 else InputError
            raise kind(f"model registry {shown}: {told}") from None
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
