"""One flipped bit in any kind of stored file: refused by name with what to do, or the same answer as before."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from metalayer.core import ArtifactLoader, MetaLayerConfig
from metalayer.data.mapped import Columns, map_parquet
from metalayer.data.nucleotide_scores import genes_in, write_tracks
from metalayer.data.prepare import prepare_training_dataset
from metalayer.data.scored import ScoredGenome, ScoredGenomeWriter
from metalayer.data.states import StateStore
from metalayer.data.tracks import TrackStore
from metalayer.errors import ArtifactError, MetalayerError, ModelError
from metalayer.evaluation.answers import read_answers, write_answers
from metalayer.evaluation.metrics import GeneScores
from metalayer.files import sha256
from metalayer.genome import Gene, Interval
from metalayer.models import MetaSpliceModel
from metalayer.models.bundle import load_model, save_model
from metalayer.models.description import content_of, digest
from metalayer.release.engine import Engine
from metalayer.release.folder import check_release, read_facts, seal
from metalayer.serving.kept import Kept
from metalayer.settings.sections import DataConfig
from metalayer.training.checkpoint import load_checkpoint, save_checkpoint
from metalayer.workflows import base_run, score, train_meta
from tests.releases import make_bundle

FLIPS, TAIL_BYTES = 40, 4000


@dataclass
class Stored:
    """A file, and what is read of it: a text that another number would change.

    Attributes:
        path: of the file.
        read: reads it, and raises a MetalayerError where it is damaged.
        heals: whether damage is made good instead.
    """

    path: Path
    read: Callable[[], str]
    heals: bool = False


def text(*arrays: Any) -> str:
    total = hashlib.sha256()
    for array in arrays:
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def weights(tensors: dict[str, torch.Tensor]) -> str:
    return text(*(tensors[name].numpy() for name in sorted(tensors)))


@pytest.fixture(scope="module")
def complete(released: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release with a graph, which is not looked into before its bytes are."""
    directory = Path(shutil.copytree(released, tmp_path_factory.mktemp("complete") / "release"))
    (directory / "model.onnx").write_bytes(random.Random(1).randbytes(2000))
    seal(directory, read_facts(directory))
    return directory


@pytest.fixture(scope="module")
def training_set(simulation: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("training") / "data"
    prepare_training_dataset(
        MetaLayerConfig(base_model="pwm", data_root=simulation, variant_source="splicevardb", max_samples=200),
        output_dir=folder,
    )
    return folder


@pytest.fixture
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Stored:
    kind, _, name = request.param.partition(":")
    return globals()[f"a_{kind}"](request.getfixturevalue, tmp_path, name)


def a_model(_: Callable[[str], Any], folder: Path, name: str) -> Stored:
    bundle = make_bundle(folder / "model")

    def read() -> str:
        model, info = load_model(bundle)
        return weights(dict(model.state_dict())) + json.dumps(info, sort_keys=True)

    return Stored(bundle / name, read)


def a_release(fixture: Callable[[str], Any], folder: Path, name: str) -> Stored:
    directory = Path(shutil.copytree(fixture("complete"), folder / "release"))

    def read() -> str:
        facts = read_facts(directory)
        check_release(directory)
        return json.dumps(facts, sort_keys=True)

    return Stored(directory / name, read)


def a_followed(_: Callable[[str], Any], folder: Path, name: str) -> Stored:
    kept = Kept(folder, "http://mlflow", "m")
    with kept.taken_in("1", "d" * 64, lambda: make_bundle(folder / "b")):
        pass
    kept.set_current("1", "d" * 64, seen_at=12345.5)

    def read() -> str:
        current = kept.current()
        if current is None:  # it counts as nothing kept, with a warning
            raise MetalayerError(name)
        return json.dumps(asdict(current))

    return Stored(kept.folder / name, read)


def a_checkpoint(_: Callable[[str], Any], folder: Path, name: str) -> Stored:
    save_checkpoint(folder / name, MetaSpliceModel(hidden_dim=8), {"history": [{"epoch": 0.0, "val_loss": 0.25}]})

    def read() -> str:
        content = load_checkpoint(folder / name)
        return weights(content["model"]) + json.dumps(content["history"])

    return Stored(folder / name, read)


def a_base_layer(fixture: Callable[[str], Any], folder: Path, name: str) -> Stored:
    """Written by us, so that a manifest lists it."""
    root = Path(shutil.copytree(fixture("simulation"), folder / "root"))
    loader = ArtifactLoader(DataConfig(base_model="pwm", data_root=root))
    return Stored(next(iter(sorted(root.glob(name)))), loader.fingerprint)


def a_users_scores(fixture: Callable[[str], Any], folder: Path, name: str) -> Stored:
    """Of ours, without a manifest: by the checksums in it, which do not cover the names of its columns."""
    source = min(fixture("simulation").glob("nucleotide_scores/*.parquet"), key=lambda path: path.stat().st_size)
    path = Path(shutil.copyfile(source, folder / "pwm_chr1.parquet"))
    no_sites = pl.DataFrame(schema={"gene_id": pl.String, "position": pl.Int64, "splice_type": pl.String})

    def read() -> str:
        placed = genes_in(path)
        found = write_tracks([path], folder / name, {}, lambda: no_sites)
        return f"{placed} {found.genome_builds} {found.labels} {_tracks(folder / name)}"

    return Stored(path, read)


def a_positions(fixture: Callable[[str], Any], folder: Path, name: str) -> Stored:
    stored = a_users_scores(fixture, folder, name)
    stored.read()
    return Stored(folder / name, lambda: _tracks(folder / name))


def _tracks(path: Path) -> str:
    store = TrackStore(path)
    found = [store.read(gene_id) for gene_id in store.genes()]
    return f"{store.genome_build} {store.has_letters} " + " ".join(
        f"{one.gene} {one.paralog} {text(one.tokens, one.scores, one.labels)}" for one in found
    )


def a_training_set(fixture: Callable[[str], Any], folder: Path, name: str) -> Stored:
    root = Path(shutil.copytree(fixture("training_set"), folder / "set"))
    config = MetaLayerConfig(
        base_model="pwm", data_root=fixture("simulation"), variant_source="splicevardb", max_samples=200
    )
    made = [0]

    def read() -> str:
        with pytest.MonkeyPatch.context() as patch:  # made again: told by raising, for it takes seconds
            patch.setattr(train_meta, "prepare_training_dataset", lambda *_, **__: made.append(1))
            before = len(made)
            train_meta._prepared(config, root)
        if len(made) > before:
            raise MetalayerError(name)
        return "as it was"

    return Stored(root / name, read)


def a_mapped(fixture: Callable[[str], Any], folder: Path, name: str) -> Stored:
    data = Path(shutil.copyfile(fixture("training_set") / "training_data.parquet", folder / "rows.parquet"))

    def read() -> str:
        arrays = map_parquet(data, Columns(), 101)
        return text(arrays.windows, arrays.features, arrays.labels, arrays.weights)

    read()
    (mapped,) = folder.glob(name)
    return Stored(mapped, read, heals=True)


def a_scored(_: Callable[[str], Any], folder: Path, name: str) -> Stored:
    genes = [Gene(f"g{i}", Interval("1", 100 * i, 100 * i + 60), "+-"[i]) for i in range(2)]
    scores = np.random.default_rng(0).dirichlet([0.2, 0.2, 1.0], 60).astype(np.float32)
    with ScoredGenomeWriter(folder / name, {"model": {"digest": "d"}}) as writer:
        for gene in genes:
            writer.add(gene, scores)

    def read() -> str:
        scored = ScoredGenome(folder / name)
        return f"{scored.genes()} {scored.manifest} {text(*(scored.read(gene.gene_id) for gene in scored.genes()))}"

    return Stored(folder / name, read)


def a_states(_: Callable[[str], Any], folder: Path, name: str) -> Stored:
    keys = [bytes([i]) * 16 for i in range(6)]
    StateStore(folder / name, (4, 8)).add(keys, np.random.default_rng(0).random((6, 4, 8)).astype(np.float32))
    (path,) = (folder / name).glob("*.arrow")

    def read() -> str:
        store = StateStore(folder / name, (4, 8))
        if missing := store.missing(keys):  # they are computed again
            raise MetalayerError(f"{path.name}: {missing}")
        return text(store.read(keys)[np.arange(6)])

    return Stored(path, read)


def a_answers(_: Callable[[str], Any], folder: Path, name: str) -> Stored:
    scores = np.random.default_rng(0).dirichlet([0.2, 0.2, 1.0], 50).astype(np.float32)
    write_answers([GeneScores("g", "1", np.full(50, 2, np.uint8), {"base": scores, "meta": scores})], folder / name)
    expected = sha256(folder / name)

    def read() -> str:
        answers = read_answers(folder / name, expected)
        return f"{answers.floor} {answers.lengths} {[text(*found) for found in answers.genes.values()]}"

    return Stored(folder / name, read)


def a_score_run(_: Callable[[str], Any], folder: Path, name: str) -> Stored:
    def read() -> str:
        score._check_run(folder / name, folder, "c", "d")
        return "the same run"

    read()
    return Stored(folder / name, read)


def a_score_part(_: Callable[[str], Any], folder: Path, name: str) -> Stored:
    table = score._noted(pl.DataFrame({"donor": np.random.default_rng(0).random(80)}), "note")
    pq.write_table(table, folder / name, write_page_checksum=True)
    return Stored(folder / name, lambda: text(score._kept_answers(folder / name).column(0).to_numpy()))


def a_gene_of_a_pass(_: Callable[[str], Any], folder: Path, name: str) -> Stored:
    scores = np.random.default_rng(0).random((30, 3)).astype(np.float32)
    base_run._keep(folder / name, scores)

    def read() -> str:
        found = base_run._read_kept(folder / name, (30, 3))
        if found is None:  # it is scored again, with a warning
            raise MetalayerError(name)
        return text(found)

    return Stored(folder / name, read)


KINDS = (
    *("model:model.safetensors", "model:model.json"),
    *(f"release:{name}" for name in ("release.json", "facts.json", "golden.parquet", "model.onnx", "model.json")),
    *("release:model.safetensors", "followed:current.json", "checkpoint:last_model.pt"),
    *("base_layer:nucleotide_scores/*.parquet", "base_layer:data/*/*/*/meta_models/*.tsv", "base_layer:genes.tsv"),
    *("base_layer:manifest.json", "users_scores:tracks.parquet", "positions:tracks.parquet"),
    *(f"training_set:{name}.parquet" for name in ("training_data", "genes", "tracks", "variant_weights")),
    *("training_set:manifest.json", "mapped:.rows.*.arrow", "scored:scores.parquet", "states:store"),
    *("answers:answers.parquet", "score_run:run.json", "score_part:00000000.parquet", "gene_of_a_pass:g.npy"),
)


@pytest.mark.parametrize("stored", KINDS, indirect=True)
def test_a_flipped_bit_is_refused_or_changes_nothing(stored: Stored) -> None:
    before, whole = stored.read(), stored.path.read_bytes()
    rng = random.Random(16)
    refused = 0
    for number in range(FLIPS):
        damaged = bytearray(whole)
        first = max(0, len(whole) - TAIL_BYTES) if number % 2 else 0  # every other one where Parquet has its metadata
        damaged[rng.randrange(first, len(whole))] ^= 1 << rng.randrange(8)
        stored.path.write_bytes(damaged)
        try:
            assert stored.read() == before
            if stored.heals:
                assert stored.path.read_bytes() in (whole, bytes(damaged))
        except MetalayerError as error:
            refused += 1
            assert stored.path.name in str(error)
    assert stored.heals or refused > FLIPS / 2
    stored.path.write_bytes(whole)
    assert stored.read() == before


@pytest.mark.parametrize("name", ["model.onnx", "golden.parquet", "facts.json", "release.json", "model.safetensors"])
def test_a_server_refuses_a_release_that_is_not_as_it_was_packaged(complete: Path, tmp_path: Path, name: str) -> None:
    directory = Path(shutil.copytree(complete, tmp_path / "release"))
    content = bytearray((directory / name).read_bytes())
    content[len(content) // 2] ^= 4
    (directory / name).write_bytes(content)
    with pytest.raises(ModelError, match=rf"{name} is damaged.*package"):
        Engine(directory)


def test_files_of_a_user_are_read_as_they_are_and_changed_ones_of_ours_say_how(
    simulation: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(simulation, tmp_path / "root"))
    (tmp_path / "manifest.json").write_text("another program's {")
    first, *others = sorted(root.glob("nucleotide_scores/*.parquet"))
    pq.write_table(pq.read_table(first).append_column("mine", pa.nulls(pq.read_metadata(first).num_rows)), first)
    for path in others:
        pl.read_parquet(path).write_parquet(path)
    config = DataConfig(base_model="pwm", data_root=root)
    with pytest.raises(ArtifactError, match=r"nucleotide_scores/.* was changed since .* remove manifest\.json"):
        ArtifactLoader(config).load(tmp_path / "out")
    assert not (tmp_path / "out" / "rows.parquet").exists()
    (root / "manifest.json").unlink()
    assert ArtifactLoader(config).load(tmp_path / "out")["rows_rebuilt_from_tracks"] > 0


def test_equal_weights_of_two_runs_are_one_content_and_two_digests(tmp_path: Path) -> None:
    model = MetaSpliceModel(hidden_dim=16)
    for name, changes in (("a", {"pipeline_run": "r1"}), ("b", {"pipeline_run": "r2"}), ("c", {"base_model": "other"})):
        save_model(model, tmp_path / name, {"base_model": "pwm", **changes})
    torch.nn.init.normal_(model.head.weight)
    save_model(model, tmp_path / "d", {"base_model": "pwm", "pipeline_run": "r1"})
    contents = [content_of(tmp_path / name) for name in "abcd"]
    assert contents[0] == contents[1]
    assert len(set(contents)) == 3
    assert len({digest(tmp_path / name) for name in "abcd"}) == 4
