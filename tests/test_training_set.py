"""Training sets: prepared, mapped, split and loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from metalayer.core import ArtifactLoader, MetaLayerConfig
from metalayer.data import MetaLayerDataset, create_dataloaders, mapped, prepare_training_dataset
from metalayer.data.dataset import RowLoader
from metalayer.data.prevalence import prevalence_weights
from metalayer.data.tracks import TrackStore
from metalayer.data.windows import encode_windows
from metalayer.errors import ArtifactError, ConfigError, SchemaError, SplitError
from metalayer.files import sha256
from metalayer.models.meta import build_model
from metalayer.schema import DERIVED_FEATURES, FEATURES, ROW_FEATURES, SCORE_FEATURES
from tests.conftest import artifact_files
from tests.test_loader import edit


@pytest.fixture(scope="module")
def config(simulation: Path) -> MetaLayerConfig:
    return MetaLayerConfig(base_model="pwm", data_root=simulation)


@pytest.fixture(scope="module")
def folder(config: MetaLayerConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("set")
    prepare_training_dataset(config, output_dir=folder)
    return folder


@pytest.fixture(scope="module")
def dataset(folder: Path) -> MetaLayerDataset:
    return MetaLayerDataset(folder / "training_data.parquet")


def changed(folder: Path, to: Path, change: Callable[[pl.DataFrame], pl.DataFrame]) -> Path:
    to.mkdir(parents=True, exist_ok=True)
    change(pl.read_parquet(folder / "training_data.parquet")).write_parquet(to / "set.parquet")
    return to / "set.parquet"


def test_statistics_count_every_row(simulation: Path, base_layer: Path) -> None:
    stats = ArtifactLoader(MetaLayerConfig(base_model="pwm", data_root=simulation, max_samples=3)).get_statistics()
    lines = sum(path.read_bytes().count(b"\n") - 1 for path in artifact_files(simulation))
    assert stats["total_positions"] == lines
    assert stats["missing"] == {}
    for kind in ("classes", "chromosomes", "genes"):
        assert sum(stats[kind].values()) == lines
    assert list(stats["classes"]) == ["donor", "acceptor", "neither"]
    for path in artifact_files(base_layer)[:1]:
        edit(path, lambda frame: frame.with_columns(pl.lit(None).alias("sequence"), pl.lit("NaN").alias("donor_score")))
        rows = path.read_bytes().count(b"\n") - 1
    stats = ArtifactLoader(MetaLayerConfig(base_model="pwm", data_root=base_layer)).get_statistics()
    assert stats["missing"]["sequence"] == stats["missing"]["donor_score"] == rows


def test_what_prepare_writes(folder: Path, config: MetaLayerConfig, dataset: MetaLayerDataset) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["data_hash"] == ArtifactLoader(config).fingerprint()
    assert manifest["rows"] == len(dataset) == sum(manifest["classes"].values())
    assert set(manifest["files"]) == {"training_data.parquet", "genes.parquet", "tracks.parquet"}
    for name, digest in manifest["files"].items():
        assert sha256(folder / name) == digest
    assert not (folder / "rows.parquet").exists()
    table = pl.read_parquet(folder / "training_data.parquet")
    windows = encode_windows(table["sequence"], table["index"].to_numpy(), 500)
    assert np.array_equal(dataset.windows, windows)
    assert np.array_equal(dataset.features, table.select(FEATURES).to_numpy())
    assert dataset.labels.tolist() == table["label"].to_list()


def test_a_sample_is_seeded(config: MetaLayerConfig, tmp_path: Path) -> None:
    sets = []
    for number, seed in enumerate((1, 1, 2)):
        some = MetaLayerConfig(**{**config.model_dump(), "max_samples": 100, "seed": seed})
        out = tmp_path / str(number)
        assert len(prepare_training_dataset(some, output_dir=out)) == 100
        sets.append(pl.read_parquet(out / "training_data.parquet").select("gene_id", "position").rows())
    assert sets[0] == sets[1] != sets[2]


def test_the_mapped_file_is_made_once_and_follows_the_parquet(folder: Path, tmp_path: Path) -> None:
    path = changed(folder, tmp_path, lambda table: table.head(50))
    assert len(MetaLayerDataset(path).labels) == 50
    mapped = list(tmp_path.glob(".set.*.arrow"))
    made = mapped[0].stat().st_mtime_ns
    assert len(MetaLayerDataset(path).labels) == 50
    assert mapped[0].stat().st_mtime_ns == made
    changed(folder, tmp_path, lambda table: table.head(30))
    assert len(MetaLayerDataset(path).labels) == 30
    assert len(list(tmp_path.glob(".set.*.arrow"))) == 1
    assert {file.suffix for file in tmp_path.glob(".*")} == {".arrow"}
    _ = MetaLayerDataset(path, feature_cols=list(SCORE_FEATURES)).labels
    assert len(list(tmp_path.glob(".set.*.arrow"))) == 2  # another reading of the set keeps the first


def test_another_file_of_the_same_size_and_time_gives_its_own_labels(folder: Path, tmp_path: Path) -> None:
    """As a copy that keeps times may have them: even the footers are alike, but for the content."""
    path = tmp_path / "set[1].parquet"
    table = pl.read_parquet(folder / "training_data.parquet").head(50).with_columns(label=pl.lit(2, pl.Int64))
    sizes = set()
    for name, label in (("one", 0), ("other", 1)):
        labels = pl.Series("label", [label, 1 - label] * 25, pl.Int64)
        table.with_columns(labels).write_parquet(tmp_path / name, compression="uncompressed", statistics=False)
        os.utime(tmp_path / name, (1, 1))
        sizes.add((tmp_path / name).stat().st_size)
        (tmp_path / name).replace(path)
        assert MetaLayerDataset(path).labels.tolist() == labels.to_list()
        assert len(list(tmp_path.glob(".*.arrow"))) == 1
    assert len(sizes) == 1


def test_other_code_maps_and_prepares_again(
    folder: Path, config: MetaLayerConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from metalayer.workflows import train_meta

    path = changed(folder, tmp_path, lambda table: table.head(50))
    _ = MetaLayerDataset(path).labels
    (before,) = tmp_path.glob(".*.arrow")
    prepared: list[Path] = []
    monkeypatch.setattr(train_meta, "prepare_training_dataset", lambda _, output_dir: prepared.append(output_dir))
    train_meta._prepared(config, folder)
    assert prepared == []
    for module in (mapped, train_meta):
        monkeypatch.setattr(module, "code_hash", lambda: "that of other code")
    _ = MetaLayerDataset(path).labels
    (after,) = tmp_path.glob(".*.arrow")
    assert after != before
    train_meta._prepared(config, folder)
    assert prepared == [folder]


def test_a_set_that_is_written_to_while_it_is_read(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = changed(folder, tmp_path, lambda table: table.head(50))
    write = mapped._write

    def written_to(*given: object) -> None:
        write(*given)  # type: ignore[arg-type]
        changed(folder, tmp_path, lambda table: table.tail(50))

    monkeypatch.setattr(mapped, "_write", written_to)
    with pytest.raises(ArtifactError, match="was written to while it was read"):
        _ = MetaLayerDataset(path).labels
    assert not list(tmp_path.glob(".*"))


def test_a_folder_that_cannot_be_written_to(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mapped file lies in a folder of the user's own: one that others made, or may write to, is not taken."""
    path = changed(folder, tmp_path / "data", lambda table: table.head(50))
    shared, elsewhere = tmp_path / "tmp", tmp_path / "elsewhere"
    shared.mkdir()
    elsewhere.mkdir()
    own = shared / f"metalayer-{os.getuid()}"
    access = os.access
    monkeypatch.setattr(os, "access", lambda place, mode: place != path.parent and access(place, mode))
    monkeypatch.setattr(tempfile, "tempdir", str(shared))
    assert len(MetaLayerDataset(path).labels) == 50
    (made,) = own.iterdir()
    assert own.stat().st_mode & 0o777 == 0o700
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    own.chmod(0o755)  # as an earlier version made it
    assert len(MetaLayerDataset(path).labels) == 50
    assert own.stat().st_mode & 0o777 == 0o700
    own.chmod(0o777)
    with pytest.raises(ConfigError, match=r"others may write to it.*TMPDIR"):
        _ = MetaLayerDataset(path).labels
    own.rename(elsewhere / "moved")
    own.symlink_to(elsewhere / "moved")
    with pytest.raises(ConfigError, match="a link"):
        _ = MetaLayerDataset(path).labels
    own.unlink()
    own.mkdir()
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000)
    own.rename(shared / "metalayer-4000000")
    with pytest.raises(ConfigError, match="another user's"):
        _ = MetaLayerDataset(path).labels
    monkeypatch.undo()
    assert [file.name for file in (elsewhere / "moved").iterdir()] == [made.name]


def test_files_of_43_columns_and_of_7(folder: Path, tmp_path: Path, dataset: MetaLayerDataset) -> None:
    for name, dropped in (("43", ROW_FEATURES), ("7", (*DERIVED_FEATURES, *ROW_FEATURES))):
        path = changed(folder, tmp_path / name, lambda table, names=dropped: table.drop(names))
        assert np.allclose(MetaLayerDataset(path).features, dataset.features, rtol=1e-6, atol=1e-7)
    given = MetaLayerDataset(folder / "training_data.parquet", feature_cols=list(SCORE_FEATURES))
    assert np.allclose(given.features, dataset.features, rtol=1e-6, atol=1e-7)


def test_other_column_names_and_text_labels(folder: Path, tmp_path: Path, dataset: MetaLayerDataset) -> None:
    names = {"sequence": "letters", "label": "code", "splice_type": "kind"}
    path = changed(folder, tmp_path, lambda table: table.rename(names).drop("sample_weight"))
    other = MetaLayerDataset(path, sequence_col="letters", label_col="kind")
    assert np.array_equal(other.windows, dataset.windows)
    assert np.array_equal(other.labels, dataset.labels)
    assert set(other.weights.tolist()) == {1.0}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda t: t.drop("label"), SchemaError, "no column label"),
        (lambda t: t.drop("donor_score"), SchemaError, "no column donor_score"),
        (lambda t: t.with_columns(pl.lit(7).alias("label")), SchemaError, "other values than 0, 1, 2"),
        (lambda t: t.with_columns(pl.lit(-1.0).alias("sample_weight")), SchemaError, "negative or no numbers"),
        (lambda t: t.with_columns(pl.lit(float("nan")).alias("donor_logit")), SchemaError, "no number in donor_logit"),
        (lambda t: t.with_columns(pl.lit("ACGR").alias("sequence")), SchemaError, "does not reach|letter"),
        (lambda t: t.with_columns(pl.lit(None, pl.String).alias("sequence")), SchemaError, "no sequence"),
    ],
)
def test_sets_that_cannot_be_used(
    folder: Path, tmp_path: Path, change: Callable[[pl.DataFrame], pl.DataFrame], error: type, message: str
) -> None:
    path = changed(folder, tmp_path, change)
    with pytest.raises(error, match=message):
        _ = MetaLayerDataset(path).labels
    assert not list(tmp_path.glob(".*"))


def test_feature_columns_that_are_none(folder: Path, tmp_path: Path) -> None:
    path = folder / "training_data.parquet"
    with pytest.raises(SchemaError, match="'splice_type' gives the label away"):
        MetaLayerDataset(path, feature_cols=["donor_score", "splice_type"])
    with pytest.raises(SchemaError, match="'frob' are no features"):
        MetaLayerDataset(path, feature_cols=["frob"])
    with pytest.raises(ArtifactError, match="prepare_training_dataset"):
        MetaLayerDataset(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("text")
    with pytest.raises(ArtifactError, match="not a whole Parquet file"):
        MetaLayerDataset(tmp_path / "text.parquet")


def test_loaders_keep_genes_together(dataset: MetaLayerDataset) -> None:
    parts = create_dataloaders(dataset, 0.6, 0.2, 0.2, batch_size=32, seed=3)
    genes = [set(dataset.frame["gene_id"].gather(loader.rows)) for loader in parts]
    assert not (genes[0] & genes[1] or genes[0] & genes[2] or genes[1] & genes[2])
    assert sum(len(loader.rows) for loader in parts) == len(dataset)
    again = create_dataloaders(dataset, 0.6, 0.2, 0.2, batch_size=32, seed=3)
    assert all(np.array_equal(a.rows, b.rows) for a, b in zip(parts, again, strict=True))
    other = create_dataloaders(dataset, 0.6, 0.2, 0.2, batch_size=32, seed=4)
    assert not np.array_equal(parts[0].rows, other[0].rows)
    # Negatives stand for the positions of whole genes; the test part is as it is.
    assert parts[0].weights.max() > 1
    assert set(parts[2].weights.tolist()) == {1.0}


def test_random_rows_are_told_to_leak(dataset: MetaLayerDataset, caplog: pytest.LogCaptureFixture) -> None:
    parts = create_dataloaders(dataset, by="random")
    assert "metrics are too good" in caplog.text
    genes = [set(dataset.frame["gene_id"].gather(loader.rows)) for loader in parts]
    assert genes[0] & genes[2]


def test_splits_that_cannot_be(dataset: MetaLayerDataset, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"together 1, not 1\.2"):
        create_dataloaders(dataset, 0.8, 0.2, 0.2)
    with pytest.raises(ConfigError, match="batch_size: given 0"):
        create_dataloaders(dataset, batch_size=0)
    with pytest.raises(ConfigError, match="allowed are 'gene' and 'random'"):
        create_dataloaders(dataset, by="row")  # type: ignore[arg-type]
    nameless = MetaLayerDataset(changed(folder, tmp_path / "a", lambda table: table.drop("gene_id")))
    with pytest.raises(SchemaError, match="no column gene_id"):
        create_dataloaders(nameless)
    no_donor = changed(folder, tmp_path / "b", lambda table: table.filter(pl.col("label") != 0))
    with pytest.raises(SplitError, match="has no donor"):
        create_dataloaders(MetaLayerDataset(no_donor))


def test_encoder_options_of_a_configuration_reach_the_model() -> None:
    options = {"kernel_sizes": [3, 5], "num_filters": 7, "output_dim": 9, "levels": 2}
    model = build_model(MetaLayerConfig(sequence_encoder_config=options, hidden_dim=24, fusion="gated", dropout=0.25))
    assert model.encoder.output_dim == 9
    assert model.options["sequence_encoder_config"] == options
    assert (model.options["hidden_dim"], model.options["fusion"], model.options["dropout"]) == (24, "gated", 0.25)


def test_workers_fetch_the_same_batches(dataset: MetaLayerDataset) -> None:
    plain, fetched = (RowLoader(dataset, 128, shuffle=True, seed=1, num_workers=n) for n in (0, 2))
    for a, b in zip(plain, fetched, strict=True):
        assert torch.equal(a.windows, b.windows)
        assert torch.equal(a.rows, b.rows)


def test_several_processes_map_one_set_once(folder: Path, tmp_path: Path) -> None:
    path = changed(folder, tmp_path, lambda table: table)
    program = (
        "import sys; from metalayer.data import MetaLayerDataset; print(len(MetaLayerDataset(sys.argv[1]).labels))"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert {process.communicate()[0] for process in started} == {f"{len(pl.read_parquet(path))}\n"}
    assert len(list(tmp_path.glob(".set.*.arrow"))) == 1


def test_a_sample_of_rows_weighs_what_all_rows_weigh(
    config: MetaLayerConfig, dataset: MetaLayerDataset, tmp_path: Path
) -> None:
    """Sites are drawn too: each then stands for several, as each negative stands for more positions."""

    def share_of_sites(rows: MetaLayerDataset) -> float:
        store = TrackStore(rows.path.with_name("tracks.parquet"))
        weights = prevalence_weights(rows, store)
        return float(weights[rows.labels != 2].sum() / weights.sum())

    some = MetaLayerConfig(**{**config.model_dump(), "max_samples": len(dataset) // 4})
    sampled = prepare_training_dataset(some, output_dir=tmp_path)
    assert share_of_sites(sampled) == pytest.approx(share_of_sites(dataset), rel=0.05)
