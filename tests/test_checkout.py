"""The commit of a run is that of its own checkout, or says why it is not known."""

import os
import subprocess
from pathlib import Path

import pytest

from pipelines import checkout


def git(folder: Path, *arguments: str) -> str:
    who = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, env={**os.environ, **who}, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def repository(folder: Path) -> str:
    folder.mkdir()
    git(folder, "init", "--quiet")
    (folder / "file").write_text(folder.name)
    git(folder, "add", "file")
    git(folder, "commit", "--quiet", "--message", folder.name)
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture(autouse=True)
def _of_no_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("METALAYER_GIT_COMMIT", raising=False)


def test_of_this_checkout_whatever_the_shell_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, other = repository(tmp_path / "ours"), repository(tmp_path / "other")
    assert ours != other
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path / "other"))
    assert checkout.git_commit(tmp_path / "ours") == ours
    (tmp_path / "ours" / "file").write_text("changed")
    assert checkout.git_commit(tmp_path / "ours") == f"{ours}-dirty"


def test_a_folder_below_another_repository_is_not_of_its_commit(tmp_path: Path) -> None:
    repository(tmp_path / "other")
    (tmp_path / "other" / "installed").mkdir()
    said = checkout.git_commit(tmp_path / "other" / "installed")
    assert said == (
        f"unknown: {tmp_path}/other/installed is no checkout of its own, but a folder in that of {tmp_path}/other"
    )


def test_no_repository_and_no_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert checkout.git_commit(tmp_path).startswith("unknown: not a git repository")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert checkout.git_commit(tmp_path) == "unknown: git is not installed"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_of_another_owner_with_gits_own_fix(tmp_path: Path) -> None:
    place = tmp_path / "ours"
    repository(place)
    for path in (place, place / ".git"):
        os.chown(path, 12345, 12345)
    said = checkout.git_commit(place)
    assert said.startswith("unknown: detected dubious ownership in repository at ")
    assert said.endswith(f"; allow it with: git config --global --add safe.directory {place}")
    assert "\n" not in said


def test_runs_of_one_second_have_names_of_their_own() -> None:
    from pipelines.run import new_run_name

    names = {new_run_name("c" * 100, "base_layer-") for _ in range(1000)}
    assert len(names) == 1000
    assert max(len(name) for name in names) <= 63
