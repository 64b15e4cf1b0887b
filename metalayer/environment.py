"""The one door to the environment: what is read from it, and what processes that we start get of it.

A shell carries what other projects, launchers and manifests left in it. Here values are stripped, an empty one
counts as not set, paths and addresses are made absolute, and what belongs to another project is dropped and named.
Processes that we start do not search the current folder for modules: a file `queue.py` there is no module of ours.
"""

from __future__ import annotations

import logging
import os
import re
import string
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from metalayer.errors import ConfigError

TRACKING_URI = "MLFLOW_TRACKING_URI"
SERVER_URL = "a URL as in http://127.0.0.1:3000"
_SQLITE = "sqlite:///"
_SAFE_PATH = "PYTHONSAFEPATH"
_WAITING = {"OMP_WAIT_POLICY": "passive", "OPENBLAS_THREAD_TIMEOUT": "4"}
"""Of torch's threads and of numpy's: the latter sleep after 2 ** 4 turns of waiting, not after 2 ** 26."""
logger = logging.getLogger(__name__)

_OURS = (
    *("METALAYER_", "MLFLOW_TRACKING_", "ZENML_STORE_", "KF_PIPELINES_ENDPOINT"),
    *("BENTOML_HOME", "BENTOML_HOST", "BENTOML_PORT"),
    *("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION"),
)
"""Beginnings of the names of addresses, keys and settings that we read, or that libraries read for us."""
_SERVER = "METALAYER_SERVE_"
"""Settings of the server, which reads them whole: of keys, blanks are not the same as nothing."""
_MLFLOW = (
    *("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_REGISTRY_URI", "MLFLOW_RUN_CONTEXT"),
    *("MLFLOW_ACTIVE_MODEL_ID", "MLFLOW_TRACKING_DIR", "MLFLOW_REGISTRY_DIR", "MLFLOW_ENABLE_ASYNC_LOGGING"),
    *("MLFLOW_BACKEND_STORE_URI", "MLFLOW_READ_REPLICA_BACKEND_STORE_URI", "MLFLOW_DEFAULT_ARTIFACT_ROOT"),
    *("MLFLOW_DFS_TMP", "MLFLOW_ARTIFACT_URI", "MLFLOW_LOG_MODEL_COMPRESSION", "MLFLOW_LOCK_MODEL_DEPENDENCIES"),
)
"""Each would send what is logged to another run, experiment or store, or log it in another way."""
_GIT = (
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_IMPLICIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_PREFIX"),
    *("GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_NAMESPACE", "GIT_CONFIG", "GIT_GRAFT_FILE"),
    *("GIT_REPLACE_REF_BASE", "GIT_NO_REPLACE_OBJECTS", "GIT_SHALLOW_FILE", "GIT_CEILING_DIRECTORIES"),
)
"""Each names a repository or a part of one, as in hooks of git."""
_BENTOML_KEPT = ("BENTOML_HOME", "BENTOML_HOST", "BENTOML_PORT", "BENTOML_DO_NOT_TRACK")
_ZENML_KEPT = ("ZENML_STORE_", "ZENML_ACTIVE_PROJECT_ID", "ZENML_CONTAINER", "ZENML_DISABLE_", "ZENML_LOGS_")
"""Of a run on a ZenML server."""


_PATH_MARKS = " /._-+=@,~()"
"""MLflow and ZenML write the state folder into addresses, where others mean something, as `%2F` and `?` do."""


def get(name: str, environment: Mapping[str, str] | None = None) -> str | None:
    """A variable without line ends and blanks around it; None where it is not set, or empty.

    Blanks of a password stay: they may be part of it.
    """
    value = (os.environ if environment is None else environment).get(name, "")
    return (value.strip("\r\n") if name.endswith("_PASSWORD") else value.strip()) or None


def path(name: str, environment: Mapping[str, str] | None = None) -> Path | None:
    """A path, absolute, with `~` as the home folder; None where it is not set.

    Raises:
        ConfigError: `~` of a user that this machine does not know.
    """
    given = get(name, environment)
    return None if given is None else absolute(given, name)


def state_dir() -> Path:
    """Where metalayer keeps runs, registry and packages: `$METALAYER_HOME`, else `./.metalayer`.

    Raises:
        ConfigError: a path with characters that the programs which use it take for something else, or of a file.
    """
    folder = path("METALAYER_HOME") or Path(".metalayer").resolve()
    wrong = {one for one in str(folder) if one not in _PATH_MARKS and unicodedata.category(one)[0] not in "LMN"}
    if wrong:
        raise ConfigError(
            f"state folder: given {str(folder)!r}, which holds {' '.join(sorted(map(repr, wrong)))}; set "
            f"METALAYER_HOME to a path of letters, digits, blanks and {' '.join(_PATH_MARKS.strip())}"
        )
    if file := next((part for part in (folder, *folder.parents) if os.path.isfile(part)), None):  # noqa: PTH113
        raise ConfigError(
            f"state folder {folder}: {file} is a file; set METALAYER_HOME to a folder that can be written"
        )
    return folder


def absolute(given: str | Path, name: str) -> Path:
    """A path that means the same in every process; errors as in `path`."""
    return home(given, name).resolve()


def home(given: str | Path, name: str) -> Path:
    """A path with `~` as the home folder; errors as in `path`."""
    try:
        return Path(given).expanduser()
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"{name}: given {str(given)!r}: {error}; give a path, as in /data/metalayer") from None


def key(name: str) -> str | None:
    """A key that goes into a header of HTTP; None where it is not set.

    Raises:
        ConfigError: a key that cannot be sent; the message does not show it.
    """
    given = get(name)
    if given is not None and (mistake := unsendable(given)):
        raise ConfigError(f"{name}: {mistake}")
    return given


def unsendable(key: str) -> str:
    """What is wrong with a key; empty where it can be sent."""
    allowed = set(string.ascii_letters + string.digits + string.punctuation)
    odd = [position for position, letter in enumerate(key, 1) if letter not in allowed]
    if not odd:
        return ""
    return (
        f"character {odd[0]} of {len(key)} cannot be sent; a key has letters, digits and punctuation of ASCII, "
        "without blanks or line ends"
    )


def url(given: str, name: str, schemes: Iterable[str] = ("http", "https"), needed: str = SERVER_URL) -> str:
    """An address, stripped.

    Args:
        given: the address.
        name: of the variable or option it was given in.
        schemes: what it may begin with.
        needed: what to write, for the message.

    Raises:
        ConfigError: no scheme, another one, no host, or no such port; a password in it is not shown.
    """
    text = given.strip()
    try:
        parts = urlsplit(text)
        good = parts.scheme.lower() in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or any(letter.isspace() or not letter.isprintable() for letter in text):
        raise ConfigError(f"{name}: given {without_password(text)!r}; needed is {needed}")
    scheme, mark, rest = text.partition("://")
    return f"{scheme.lower()}{mark}{rest}"


def without_password(text: str) -> str:
    """Text without user and password: of each URL in it, its query too, and of an address alone that has no scheme."""
    shown = re.sub(r"(\w+://)\S+@|^\S+@(?=\S+$)", lambda found: f"{found[1] or ''}***@", text)
    return re.sub(r"([?&](?:password|passwd|pwd|token)=)[^&\s]+", r"\1***", shown, flags=re.IGNORECASE)


def tracking_uri() -> str | None:
    """Where MLflow is, as `MLFLOW_TRACKING_URI` says; None where it is not set.

    A relative SQLite file is made absolute here, where it is given: each process would look for it in its own folder.

    Raises:
        ConfigError: an address that MLflow would take for a folder's name, or that has no host.
    """
    given = get(TRACKING_URI)
    return None if given is None else mlflow_uri(given, TRACKING_URI)


def mlflow_uri(given: str, name: str) -> str:
    """The address of an MLflow server or database, absolute; errors as in `tracking_uri`."""
    needed = "http://HOST:5000 of an MLflow server, or sqlite:////FOLDER/mlflow.db"
    text = given.strip()
    if text.lower().startswith("sqlite:"):
        file, mark, options = text.removeprefix(_SQLITE).partition("?")
        if not text.startswith(_SQLITE) or not file or file == ":memory:" or file.startswith("file:"):
            raise ConfigError(f"{name}: given {text!r}; needed is {needed}")
        return f"{_SQLITE}{absolute(file, name)}{mark}{options}"
    if text.partition(":")[0].partition("+")[0] in ("postgresql", "mysql", "mssql", "databricks", "file"):
        return text  # MLflow's own business
    return url(text, name, needed=needed)


def enter() -> None:
    """Begin a program of ours, before it imports torch.

    Processes that it starts do not search the current folder for modules. Threads of torch and numpy that wait for
    each other sleep, unless the variables say other: on a machine with other work they would take its cores to wait.
    """
    os.environ[_SAFE_PATH] = "1"
    os.environ.setdefault("MLFLOW_CONFIGURE_LOGGING", "false")  # else it adds lines of its own to what we print
    for name, value in _WAITING.items():
        os.environ.setdefault(name, value)


def clean() -> None:
    """Strip the addresses, keys and settings of this process that we or libraries read; empty ones go.

    Raises:
        ConfigError: an address of MLflow that is none, or a token for it that cannot be sent.
    """
    for name in [name for name in os.environ if name.startswith(_OURS) and not name.startswith(_SERVER)]:
        value = get(name)
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value
    key("MLFLOW_TRACKING_TOKEN")
    if uri := tracking_uri():
        os.environ[TRACKING_URI] = uri


def drop_foreign(*, zenml: bool = False, zenml_server: bool = False, ours: Mapping[str, str] | None = None) -> None:
    """Take out of this process's environment what another project left there, and log its names in one line.

    Args:
        zenml: whether ZenML's variables and git's go too: of a pipeline run.
        zenml_server: whether those that name a ZenML server stay.
        ours: variables that are set instead.
    """
    ours = ours or {}
    dropped = [
        name
        for name, value in sorted(os.environ.items())
        if (ours[name] != value if name in ours else _is_foreign(name, zenml=zenml, zenml_server=zenml_server))
    ]
    for name in dropped:
        del os.environ[name]
    os.environ.update(ours)
    if dropped:
        logger.warning("not used, as another project or program may have left it: %s", ", ".join(dropped))


def _is_foreign(name: str, *, zenml: bool, zenml_server: bool) -> bool:
    if name.startswith("BENTOML_"):  # in a pod, the address of a Kubernetes Service of that name
        return name not in _BENTOML_KEPT or (name == "BENTOML_PORT" and os.environ[name].startswith("tcp://"))
    if name.startswith("ZENML_"):
        return zenml and not (zenml_server and name.startswith(_ZENML_KEPT))
    return name in _MLFLOW or (zenml and name in _GIT)


def child(**more: str) -> dict[str, str]:
    """The environment of a process that we start: this one's, without what another project left.

    Args:
        more: variables to set.

    Raises:
        ConfigError: an address of MLflow that is none.
    """
    kept = {name: value for name, value in os.environ.items() if not _is_foreign(name, zenml=False, zenml_server=True)}
    if uri := tracking_uri():
        kept[TRACKING_URI] = uri
    return {**kept, _SAFE_PATH: "1", **more}


def git() -> dict[str, str]:
    """The environment in which to ask git of one folder: without variables of another repository, as hooks have them.

    Those that name files with settings of git stay.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or "_CONFIG_" in name}
    return {**kept, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
