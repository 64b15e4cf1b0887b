"""What must be set before ZenML, MLflow and BentoML are imported, so that the user sets nothing.

Everything a run leaves behind lies in one state folder: `$METALAYER_HOME`, else `.metalayer` in the
repository, whatever the current directory is.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path

from metalayer import provenance
from metalayer.config import state_dir

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
# Left over from another project or server: each would send this run elsewhere.
_FOREIGN = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "ZENML_DEBUG")


def prepare(*, local: bool = True) -> Path:
    """Set the environment of this process and of those it starts; returns the state folder.

    Args:
        local: keep ZenML's own database in the state folder; a stack on a ZenML server (ZENML_STORE_URL)
            leaves that address alone.
    """
    os.environ.setdefault("METALAYER_HOME", str(ROOT / ".metalayer"))
    state = state_dir()
    os.environ["METALAYER_HOME"] = str(state)
    os.environ.update(_QUIET)
    os.environ["ZENML_CONFIG_PATH"] = str(state / "zenml")
    os.environ["ZENML_LOCAL_STORES_PATH"] = str(state / "zenml" / "stores")
    os.environ["ZENML_CUSTOM_SOURCE_ROOT"] = str(ROOT)
    os.environ.setdefault("BENTOML_HOME", str(state / "bentoml"))
    unset = [name for name in os.environ if local and name.startswith("ZENML_STORE_")]
    for name in (*_FOREIGN, *unset):
        os.environ.pop(name, None)
    # Steps are found as `steps.<name>`, here and in the processes that a step starts.
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    return state


def drop_half_made(state: Path) -> None:
    """Remove databases whose first creation was cut off; before that point they hold nothing."""
    if not (state / "zenml" / _READY).exists():
        shutil.rmtree(state / "zenml", ignore_errors=True)


def mark_made(state: Path) -> None:
    """Say that the databases are complete."""
    (state / "zenml" / _READY).touch()


def code_hash() -> str:
    """SHA-256 over the library as it computes, and over the steps, in hex: other code, other results."""
    return hashlib.sha256(f"{provenance.code_hash()} {provenance.source_hash(ROOT / 'steps')}".encode()).hexdigest()
