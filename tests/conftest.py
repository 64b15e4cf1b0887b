"""Shared fixtures: one small simulation for the whole session, and copies of it to damage."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from metalayer.config import DataConfig

if TYPE_CHECKING:
    from metalayer.serving.engine import Engine

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub: tests need no network
_CLUSTER = "cluster"
SHARED = Path(__file__).resolve().parent.parent.parent / "shared"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One process runs a file's tests, which share fixtures, or all of those on the one cluster; these come first."""
    items.sort(key=lambda item: item.get_closest_marker(_CLUSTER) is None)
    for item in items:
        group = _CLUSTER if item.get_closest_marker(_CLUSTER) else item.nodeid.partition("::")[0]
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the checkout; tests that need it skip where it is not there."""
    if not (SHARED / "real").is_dir():
        pytest.skip("no real data beside this checkout")
    return SHARED


@pytest.fixture(scope="session")
def simulation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base layer over 44 simulated genes; read only."""
    from metalayer.workflows.simulate import simulate

    folder = tmp_path_factory.mktemp("simulation") / "data"
    simulate(folder, seed=11, n_genes=44)
    return folder


@pytest.fixture
def base_layer(simulation: Path, tmp_path: Path) -> Path:
    """A copy of the simulation, to damage."""
    folder = tmp_path / "base_layer"
    shutil.copytree(simulation, folder)
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
    from metalayer.serving.engine import Engine

    return Engine(released)
