"""Which commit the code of a run is of: asked of this checkout alone, with the reason where it is not known."""

from __future__ import annotations

import subprocess
from pathlib import Path

from metalayer import environment
from pipelines.environment import ROOT

UNKNOWN = "unknown"
_TIMEOUT_S = 30


def git_commit(root: Path = ROOT) -> str:
    """Commit of the checkout, with `-dirty` where tracked files differ from it; else `unknown: ` and the reason.

    An image has no repository: there `$METALAYER_GIT_COMMIT` is the commit that it was built from.
    """
    if given := environment.get("METALAYER_GIT_COMMIT"):
        return given
    try:
        above = Path(_git(root, "rev-parse", "--show-toplevel"))
        if above.resolve() != root.resolve():
            return f"{UNKNOWN}: {root} is no checkout of its own, but a folder in that of {above}"
        commit = _git(root, "rev-parse", "HEAD")
        dirty = _git(root, "status", "--porcelain", "--untracked-files=no")
    except FileNotFoundError:
        return f"{UNKNOWN}: git is not installed"
    except subprocess.TimeoutExpired:
        return f"{UNKNOWN}: git did not answer within {_TIMEOUT_S} s"
    except subprocess.CalledProcessError as error:
        return f"{UNKNOWN}: {_reason(error.stderr or '')}"
    except (OSError, subprocess.SubprocessError) as error:
        return f"{UNKNOWN}: {error}"
    return f"{commit}-dirty" if dirty else commit


def _reason(said: str) -> str:
    """The line in which git says what is wrong, and the command that it gives against it."""
    lines = [line.strip().removeprefix("fatal: ") for line in said.splitlines() if line.strip()]
    fixes = [line for line in lines if line.startswith("git config")]
    return "; allow it with: ".join([*lines[:1], *fixes[:1]]) or "git failed without a word"


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(root), *arguments],
        env=environment.git(),
        check=True,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_TIMEOUT_S,
    ).stdout.strip()
