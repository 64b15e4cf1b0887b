"""Shared fixtures: one small simulation for the whole session, and copies of it to damage."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock

from metalayer.settings.sections import DataConfig
from tests.databases import copy_migrated

if TYPE_CHECKING:
    from metalayer.release.engine import Engine

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub: tests need no network
# As `pipelines/environment.py` does, before anything imports zenml: the main program of xdist's processes is no file.
os.environ.setdefault("ZENML_CUSTOM_SOURCE_ROOT", str(Path(__file__).resolve().parents[1]))
pytest_plugins = ["tests.tiers"]
SHARED = Path(__file__).resolve().parent.parent.parent / "shared"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """One process runs a file's tests, which share fixtures; and one all `test_cluster*.py`: there is one cluster."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "cluster" if Path(file).name.startswith("test_cluster") else file

    return Scheduling(config, log)


@pytest.fixture(scope="session")
def _databases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("databases")


@pytest.fixture(autouse=True)
def _migrated_once(_databases: Path) -> None:
    copy_migrated(_databases)


@pytest.fixture(autouse=True)
def _leaves_nothing() -> Iterator[None]:
    """What a command sets for its whole process, which is also that of the next test."""
    root, environment = logging.getLogger(), dict(os.environ)
    level, handlers = root.level, list(root.handlers)
    yield
    os.environ.clear()
    os.environ.update(environment)
    root.setLevel(level)
    root.handlers[:] = [handler for handler in root.handlers if handler in handlers]


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup() -> Generator[None, object, object]:
    """Likewise of a fixture: a command of ours run in it says for the whole process how Python finds modules."""
    before = os.environ.get("PYTHONSAFEPATH")
    try:
        return (yield)
    finally:
        if before is None:
            os.environ.pop("PYTHONSAFEPATH", None)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the checkout; tests that need it skip where it is not there."""
    if not (SHARED / "real").is_dir():
        pytest.skip("no real data beside this checkout")
    return SHARED


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], None]], Path]:
    """A folder by its name, which one of xdist's processes makes, the first that asks, for all of them."""
    here = tmp_path_factory.getbasetemp()
    place = here.parent if "PYTEST_XDIST_WORKER" in os.environ else here

    def once(name: str, make: Callable[[Path], None]) -> Path:
        folder, made = place / name, place / f"{name}.made"
        with FileLock(place / f"{name}.lock"):
            if not made.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                made.touch()
        return folder

    return once


@pytest.fixture(scope="session")
def simulation(made_once: Callable[[str, Callable[[Path], None]], Path]) -> Path:
    """A base layer over 44 simulated genes; read only."""
    from metalayer.workflows.simulate import simulate

    return made_once("simulation", lambda folder: simulate(folder / "data", seed=11, n_genes=44)) / "data"


@pytest.fixture
def base_layer(simulation: Path, tmp_path: Path) -> Path:
    """A copy of the simulation, to damage, as of files that somebody brought: no manifest says what they must be."""
    folder = tmp_path / "base_layer"
    shutil.copytree(simulation, folder)
    (folder / "manifest.json").unlink()
    return folder


@pytest.fixture
def data_config() -> Callable[..., DataConfig]:
    """A configuration of the simulation in a folder."""

    def make(folder: Path, **changes: object) -> DataConfig:
        return DataConfig(**{"base_model": "pwm", "data_root": folder, **changes})

    return make


def artifact_files(folder: Path) -> list[Path]:
    """The artifact chunks of a base layer."""
    return sorted(folder.glob("data/*/*/*/meta_models/analysis_sequences_*.tsv"))


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release to serve."""
    from tests.releases import make_release

    return make_release(tmp_path_factory.mktemp("released"))


@pytest.fixture(scope="module")
def engine(released: Path) -> Engine:
    """Its engine."""
    from metalayer.release.engine import Engine

    return Engine(released)
