"""What must be set before ZenML, MLflow and BentoML are imported, so that the user sets nothing.

Everything a run leaves behind lies in one state folder: `$METALAYER_HOME`, else `.metalayer` in the
repository, whatever the current directory is.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

from metalayer import environment as door
from metalayer import provenance
from metalayer.environment import state_dir
from metalayer.errors import ConfigError
from metalayer.files import publish_file
from metalayer.migrations import check_version

ROOT = Path(__file__).resolve().parents[1]
"""The repository: the source root of every step."""
_READY = "ready"
_QUIET = {
    "ZENML_ANALYTICS_OPT_IN": "false",
    "AUTO_OPEN_DASHBOARD": "false",
    "ZENML_LOGGING_VERBOSITY": "INFO",
    "ZENML_LOGGING_COLORS_DISABLED": "true",
    "ZENML_ENABLE_RICH_TRACEBACK": "false",
    "ZENML_ENABLE_REPO_INIT_WARNINGS": "false",
    "ZENML_DISABLE_INTERACTIVE_INPUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_CONFIGURE_LOGGING": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
    "DO_NOT_TRACK": "1",
    "BENTOML_DO_NOT_TRACK": "True",
}


def prepare(*, local: bool = True) -> Path:
    """Set the environment of this process and of those it starts; returns the state folder.

    Args:
        local: keep ZenML's own database in the state folder; a stack on a ZenML server (ZENML_STORE_URL)
            leaves that address alone.

    Raises:
        ConfigError: a state folder that cannot be written, or an address of MLflow that is none.
        InputError: a state folder of a later version of ZenML.
    """
    door.enter()
    door.clean()
    os.environ.setdefault("METALAYER_HOME", str(ROOT / ".metalayer"))
    state = state_dir()
    _require_writable(state)
    places = {
        "METALAYER_HOME": str(state),
        "BENTOML_HOME": str(door.path("BENTOML_HOME") or state / "bentoml"),
    }
    os.environ.update(_QUIET | places)
    zenml = state / "zenml"
    door.drop_foreign(
        zenml=True,
        zenml_server=not local,
        ours={name: value for name, value in _QUIET.items() if name.startswith("ZENML_")}
        | {
            "ZENML_CONFIG_PATH": str(zenml),
            "ZENML_LOCAL_STORES_PATH": str(zenml / "stores"),
            "ZENML_CUSTOM_SOURCE_ROOT": str(ROOT),
            # Else ZenML takes the next `.zen` from the current folder upwards, and writes our stack into it.
            "ZENML_REPOSITORY_PATH": str(zenml),
        },
    )
    if local and (zenml / _READY).exists():
        check_version(zenml / "stores" / "default_zen_store" / "zenml.db", "ZenML")
    # Steps are found as `steps.<name>`, here and in the processes that a step starts.
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    return state


def _require_writable(state: Path) -> None:
    try:
        state.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=state):
            pass
    except OSError as error:
        raise ConfigError(
            f"state folder {state}: {error.strerror or error}; set METALAYER_HOME to a folder that can be written"
        ) from None


def drop_half_made(state: Path) -> None:
    """Remove databases whose first creation was cut off; before that point they hold nothing."""
    if not (state / "zenml" / _READY).exists():
        shutil.rmtree(state / "zenml", ignore_errors=True)


def mark_made(state: Path) -> None:
    """Say that the databases are complete, and in which folder they are used."""
    with publish_file(state / "zenml" / _READY) as draft:
        draft.write_text(_identity(state), encoding="ascii")


def is_own(state: Path) -> bool:
    """Whether the last run in this state folder was in this very folder, and not in one that it is a copy of."""
    ready = state / "zenml" / _READY
    return ready.exists() and ready.read_text(encoding="ascii") == _identity(state)


def _identity(state: Path) -> str:
    return str(state.stat().st_ino)  # a copy has another; one that was moved, or is mounted elsewhere, the same


def code_hash() -> str:
    """SHA-256 over the library as it computes, and over the steps, in hex: other code, other results."""
    return hashlib.sha256(f"{provenance.code_hash()} {provenance.source_hash(ROOT / 'steps')}".encode()).hexdigest()


def leave_out_integrations() -> None:
    """Have ZenML, now imported, not import these two packages for each run: no step gives or takes anything of theirs.

    It activates every integration whose package is installed, for two to three seconds of a run's twelve.
    """
    from zenml.integrations.bentoml import BentoMLIntegration
    from zenml.integrations.sklearn import SklearnIntegration

    for integration in (BentoMLIntegration, SklearnIntegration):
        integration.activate = classmethod(lambda _: None)
