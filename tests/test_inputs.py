"""Input files by way of a remote artifact store: the same files, or an error that says what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import pytest

from metalayer.core import ArtifactLoader
from metalayer.errors import ArtifactError
from metalayer.files import sha256
from metalayer.settings.sections import DataConfig
from steps.inputs import fetch, local_files, local_inputs, put_files, stage


class Store:
    """An object store whose objects are files of a folder."""

    path = "s3://bucket"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.written: list[str] = []

    def place(self, path: str) -> Path:
        return self.folder / path.removeprefix("s3://bucket/")

    def exists(self, path: str) -> bool:
        return self.place(path).exists()

    def makedirs(self, path: str) -> None:
        """Nothing to do: keys have no folders."""

    def open(self, path: str, mode: str) -> IO[Any]:
        if "w" in mode:
            self.place(path).parent.mkdir(parents=True, exist_ok=True)
            self.written.append(Path(path).name)
        return self.place(path).open(mode)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """That of the active stack."""
    from zenml.client import Client

    made = Store(tmp_path / "store")
    monkeypatch.setattr(Client, "active_stack", SimpleNamespace(artifact_store=made))
    return made


@pytest.mark.parametrize("variants", [None, "splicevardb"])
def test_the_same_files(
    base_layer: Path, tmp_path: Path, store: Store, data_config: Callable[..., DataConfig], variants: str | None
) -> None:
    (base_layer / "aliases.tsv").write_text("chr1\tNC_000001.11\n")
    evidence = {name: base_layer / "evidence" / f"{name}.parquet" for name in ("junctions", "conservation")}
    both = {"plus": evidence["conservation"], "minus": evidence["conservation"]}
    data = data_config(
        base_layer,
        variant_source=variants,
        aliases=variants and base_layer / "aliases.tsv",
        evidence={**evidence, "both": both, "no": "none"} if variants else {},
    )
    data_hash = ArtifactLoader(data).fingerprint()
    report = ArtifactLoader(data).load(tmp_path / "here")
    count = len(ArtifactLoader(data).files().all_paths())
    assert stage(data, data_hash, store) == count
    assert store.written[-1] == "files.json"
    assert stage(data, data_hash, store) == 0
    found = local_inputs(data, data_hash, tmp_path / "fetched")
    files = ArtifactLoader(found).files()
    assert all(path.is_relative_to(tmp_path / "fetched") for path in files.all_paths())
    assert bool(files.aliases) == bool(variants)
    assert len(files.evidence) == (4 if variants else 0)
    assert list(found.evidence) == list(data.evidence)
    assert (files.genome_build, files.annotation_source) == ("GRCh38", report["annotation_source"])
    ArtifactLoader(found).load(tmp_path / "there")
    for name in sorted(path.name for path in (tmp_path / "here").iterdir()):
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes()


def test_files_that_are_not_there_or_changed(
    base_layer: Path, tmp_path: Path, store: Store, data_config: Callable[..., DataConfig]
) -> None:
    data = data_config(base_layer)
    data_hash = ArtifactLoader(data).fingerprint()
    with pytest.raises(ArtifactError, match="start the run again"):
        fetch(data, data_hash, tmp_path / "a", store)
    stage(data, data_hash, store)
    (table,) = (tmp_path / "store" / "inputs" / data_hash / "gene_table").iterdir()
    table.write_text(table.read_text() + "\n")
    with pytest.raises(ArtifactError, match="is not what the run was started with"):
        fetch(data, data_hash, tmp_path / "b", store)


def test_files_by_their_content(simulation: Path, tmp_path: Path, store: Store) -> None:
    source = simulation / "nucleotide_scores"
    files = {path: sha256(path) for path in sorted(source.iterdir())}
    (first, content), *others = files.items()
    assert put_files(dict(others), store) == len(others)
    assert put_files(files, store) == 1
    assert put_files(files, store) == 0
    # A folder of the same name in a pod is another machine's.
    assert local_files({first.name: content}, source, tmp_path) == [tmp_path / first.name]
    assert [path.name for path in tmp_path.glob("*.parquet")] == [first.name]
    assert sha256(tmp_path / first.name) == content
    with pytest.raises(ArtifactError, match=r"other.parquet is not in the store; start the run again"):
        local_files({"other.parquet": content}, source, tmp_path)


def test_on_a_local_stack_files_stay_where_they_are(
    simulation: Path, tmp_path: Path, data_config: Callable[..., DataConfig], store: Store
) -> None:
    store.path = str(tmp_path / "store")
    data = data_config(simulation)
    assert local_inputs(data, "hash", tmp_path / "unused") is data
    assert local_files({"a.parquet": "hash"}, simulation, tmp_path) == [simulation / "a.parquet"]
