"""Scores of all genes: shards that cover them, one answer however they are cut, and no half of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from metalayer.data.nucleotide_scores import write_tracks
from metalayer.data.scored import ScoredGenome, ScoredGenomeWriter, genome_order
from metalayer.data.tracks import TrackStore
from metalayer.errors import ArtifactError, ConfigError, InputError, MetalayerError
from metalayer.files import sha256
from metalayer.genome import Interval
from metalayer.inference import Predictor
from metalayer.schema import CLASSES, GENOME_BUILD_KEY, SCORED_COLUMNS
from metalayer.settings.run import RunConfig
from metalayer.settings.sections import DataConfig, ScoreConfig
from metalayer.workflows.score_genome import (
    ScoringModel,
    ScoringPlan,
    Shard,
    merge_shards,
    named_model,
    plan_shards,
    publish_scores,
    registered_model,
    score_shard,
)
from tests.releases import make_bundle

Parts = list[tuple[Path, dict]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("model") / "model")


def plan_of(folder: Path, shards: int) -> ScoringPlan:
    return plan_shards(DataConfig(base_model="pwm", data_root=folder), shards)


def score(plan: ScoringPlan, model: Path, folder: Path) -> Parts:
    """Every shard of a plan, each in a folder of its own."""
    path_of = {path.name: path for path in plan.files}
    parts = []
    for shard in plan.shards:
        output = folder / f"shard_{shard.number}" / "scores.parquet"
        output.parent.mkdir(parents=True)
        parts.append((output, score_shard(shard, [path_of[name] for name in shard.files], model, output, threads=1)))
        assert [path.name for path in output.parent.iterdir()] == ["scores.parquet"]
    return parts


def facts(plan: ScoringPlan, model: Path) -> dict:
    return {
        **plan.facts(),
        "model": ScoringModel(model, Predictor.load(model).digest).facts(),
    }


def merge(plan: ScoringPlan, parts: Parts, model: Path, output: Path) -> dict:
    return merge_shards(plan.shards, parts, facts(plan, model), output)


@pytest.fixture(scope="module")
def whole(simulation: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All genes in one shard."""
    folder, plan = tmp_path_factory.mktemp("whole"), plan_of(simulation, 1)
    merge(plan, score(plan, model, folder), model, folder / "whole.parquet")
    return folder / "whole.parquet"


@pytest.fixture(scope="module")
def scored(simulation: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """A plan of four shards, and their files and manifests."""
    plan = plan_of(simulation, 4)
    return plan, score(plan, model, tmp_path_factory.mktemp("shards"))


class TestPlan:
    @pytest.mark.parametrize("shards", [1, 3, 8, 44])
    def test_every_gene_once_in_genome_order(self, simulation: Path, shards: int) -> None:
        plan = plan_of(simulation, shards)
        assert plan == plan_of(simulation, shards)
        assert [(shard.number, shard.of) for shard in plan.shards] == [(n, shards) for n in range(1, shards + 1)]
        genes = [gene for shard in plan.shards for gene in shard.placed()]
        tracks = pl.concat(
            [pl.read_parquet(path).cast({"gene_id": pl.String}) for path in plan.files], how="vertical_relaxed"
        )
        assert sorted(f"gene-{gene.gene_id}" for gene in genes) == sorted(tracks["gene_id"].unique())
        assert genes == sorted(genes, key=genome_order)
        assert sum(shard.positions for shard in plan.shards) == sum(map(len, genes)) == len(tracks)

    @pytest.mark.parametrize("shards", [2, 5, 8])
    def test_shards_are_of_about_one_size(self, simulation: Path, shards: int) -> None:
        plan = plan_of(simulation, shards)
        longest = max(len(gene) for shard in plan.shards for gene in shard.placed())
        total = sum(shard.positions for shard in plan.shards)
        assert all(abs(shard.positions - total / shards) <= longest for shard in plan.shards)

    def test_a_shard_names_its_own_files_alone(self, simulation: Path) -> None:
        plan = plan_of(simulation, 8)
        assert len(plan.files) > 2
        for shard in plan.shards:
            chroms = {gene.interval.chrom for gene in shard.placed()}
            assert shard.files.keys() == {f"pwm_chr{chrom}.parquet" for chrom in chroms}
            assert all(sha256(plan.folder / name) == content for name, content in shard.files.items())

    def test_numbers_come_before_names(self) -> None:
        def gene(chrom: str) -> tuple:
            shard = Shard(number=1, of=1, files={}, genes=(("g", chrom, "+", 1, 2),))
            return genome_order(shard.placed()[0])

        assert sorted(("X", "10", "2", "M", "Y"), key=gene) == ["2", "10", "M", "X", "Y"]

    def test_rows_need_not_be_there(self, simulation: Path, tmp_path: Path) -> None:
        shutil.copytree(simulation / "nucleotide_scores", tmp_path / "nucleotide_scores")
        assert plan_of(tmp_path, 2).data_hash == plan_of(simulation, 3).data_hash

    def test_what_cannot_be_planned(self, base_layer: Path) -> None:
        with pytest.raises(ConfigError, match=r"score.shards: given 45, but there are 44 genes"):
            plan_of(base_layer, 45)
        with pytest.raises(ConfigError, match=r"score.shards: given 0"):
            RunConfig.from_dict({"score": {"shards": 0}})
        with pytest.raises(ConfigError, match=r"score.output: given .*x.csv; the name must end in .parquet"):
            ScoreConfig(output="x.csv")
        scores = base_layer / "nucleotide_scores"
        (first, *_) = sorted(scores.iterdir())
        shutil.copy(first, scores / "pwm_copy.parquet")
        with pytest.raises(ArtifactError, match=r"gene \S+ is in .*chr.* and in .*pwm_copy.parquet"):
            plan_of(base_layer, 2)
        table = pq.read_table(first)
        pq.write_table(table.slice(0, 10), scores / "pwm_copy.parquet")
        pq.write_table(pa.concat_tables([table.slice(0, 5), table.slice(6)]), first)
        with pytest.raises(ArtifactError, match="one place a gene, and every position of it once"):
            plan_of(base_layer, 2)
        pq.write_table(table.drop_columns("strand"), first)
        with pytest.raises(ArtifactError, match="no column strand; needed are gene_id, chrom"):
            plan_of(base_layer, 2)
        shutil.rmtree(scores)
        with pytest.raises(ArtifactError, match=r"no pwm_\*.parquet in .*`metalayer score`"):
            plan_of(base_layer, 2)

    def test_builds_are_not_mixed(self, base_layer: Path) -> None:
        first, second, *_ = sorted((base_layer / "nucleotide_scores").iterdir())
        for path, build in ((first, "GRCh37"), (second, "GRCh38")):
            table = pq.read_table(path)
            pq.write_table(table.replace_schema_metadata({GENOME_BUILD_KEY: build}), path)
        with pytest.raises(ArtifactError, match="several genome builds, GRCh37, GRCh38"):
            plan_of(base_layer, 2)
        table = pq.read_table(first)
        pq.write_table(table.replace_schema_metadata({GENOME_BUILD_KEY: "hg38"}), first)
        assert plan_of(base_layer, 2).genome_build == "hg38"  # another name of GRCh38


class TestScores:
    def test_they_are_the_predictor_s(self, whole: Path, simulation: Path, model: Path, tmp_path: Path) -> None:
        plan = plan_of(simulation, 1)
        write_tracks(list(plan.files), tmp_path / "tracks.parquet", {}, pl.DataFrame)
        store, scored, predictor = TrackStore(tmp_path / "tracks.parquet"), ScoredGenome(whole), Predictor.load(model)
        assert {gene.gene_id: gene for gene in scored.genes()} == store.genes()
        assert {gene.strand for gene in scored.genes()} == {"+", "-"}
        for gene_id in store.genes():
            expected = predictor.predict_gene_track(store.read(gene_id))
            assert np.array_equal(scored.read(gene_id), expected)
            assert not np.array_equal(expected, store.read(gene_id).scores)

    @pytest.mark.parametrize("shards", [3, 8])
    def test_they_do_not_depend_on_the_shards(
        self, whole: Path, simulation: Path, model: Path, tmp_path: Path, shards: int
    ) -> None:
        plan = plan_of(simulation, shards)
        manifest = merge(plan, score(plan, model, tmp_path), model, tmp_path / "all.parquet")
        assert pq.read_table(tmp_path / "all.parquet").equals(pq.read_table(whole))
        assert ScoredGenome(tmp_path / "all.parquet").genes() == ScoredGenome(whole).genes()
        assert len(manifest["shards"]) == shards

    def test_rows_lie_where_they_say(self, whole: Path) -> None:
        scored = ScoredGenome(whole)
        table = pl.read_parquet(whole)
        assert tuple(table.columns) == SCORED_COLUMNS
        assert table["position"].dtype == pl.Int32
        gene = next(gene for gene in scored.genes() if gene.strand == "-")
        part = table.filter(pl.col("gene_id").cast(pl.String) == gene.gene_id)
        assert part["position"].to_list() == list(range(gene.interval.start + 1, gene.interval.end + 1))
        assert np.array_equal(part.select(CLASSES).to_numpy()[::-1], scored.read(gene.gene_id))
        middle = Interval(gene.interval.chrom, gene.interval.start + 5, gene.interval.start + 8)
        found = scored.region(middle).filter(pl.col("gene_id") == gene.gene_id)
        assert found["position"].to_list() == [middle.start + 1, middle.start + 2, middle.start + 3]
        assert len(scored.region(Interval("no", 0, 5))) == 0
        with pytest.raises(InputError, match="gene 'none' is not among the 44"):
            scored.read("none")

    def test_published_with_its_manifest(self, whole: Path, tmp_path: Path) -> None:
        manifest = ScoredGenome(whole).manifest
        described = publish_scores(whole, manifest, tmp_path / "out" / "genome.parquet")
        told = json.loads(described.read_text())
        assert told["sha256"] == sha256(tmp_path / "out" / "genome.parquet") == sha256(whole)
        assert (told["genes"], told["positions"]) == (44, pq.read_metadata(whole).num_rows)
        assert told["model"]["digest"] == manifest["shards"][0]["model_digest"]
        assert sorted(path.name for path in described.parent.iterdir()) == ["genome.json", "genome.parquet"]

    def test_labels_are_not_needed(self, simulation: Path, whole: Path, model: Path, tmp_path: Path) -> None:
        (tmp_path / "nucleotide_scores").mkdir()
        for path in (simulation / "nucleotide_scores").iterdir():
            pq.write_table(pq.read_table(path).drop_columns("label"), tmp_path / "nucleotide_scores" / path.name)
        plan = plan_of(tmp_path, 1)
        ((output, _),) = score(plan, model, tmp_path)
        assert pq.read_table(output).equals(pq.read_table(whole))

    def test_no_gene_is_left_out_in_silence(self, base_layer: Path, model: Path, tmp_path: Path) -> None:
        first = min((base_layer / "nucleotide_scores").iterdir())
        frame = pl.read_parquet(first).with_row_index()
        scores = [pl.when(pl.col("index") != 7).then(name).alias(name) for name in ("donor_score", "acceptor_score")]
        frame.with_columns(scores).drop("index").write_parquet(first)
        plan = plan_of(base_layer, 1)
        with pytest.raises(ArtifactError, match=r"shard 1: 1 genes cannot be scored: \S+ \(null or NaN score\)"):
            score(plan, model, tmp_path / "out")
        assert not (tmp_path / "out" / "shard_1" / "scores.parquet").exists()

    def test_files_without_letters(self, base_layer: Path, model: Path, tmp_path: Path) -> None:
        first = min((base_layer / "nucleotide_scores").iterdir())
        pl.read_parquet(first).with_columns(base=pl.lit("?")).write_parquet(first)
        with pytest.raises(ArtifactError, match="shard 1: per-nucleotide files without letters"):
            score(plan_of(base_layer, 1), model, tmp_path)

    def test_files_that_changed_since_the_plan(self, base_layer: Path, model: Path, tmp_path: Path) -> None:
        plan = plan_of(base_layer, 1)
        first = next(iter(plan.files))
        pq.write_table(pq.read_table(first).slice(1), first)
        with pytest.raises(ArtifactError, match="changed since the run began"):
            score(plan, model, tmp_path)

    def test_other_files_are_no_scores(self, simulation: Path, tmp_path: Path) -> None:
        with pytest.raises(ArtifactError, match="no scores of whole genes"):
            ScoredGenome(min((simulation / "nucleotide_scores").iterdir()))
        (tmp_path / "x.parquet").write_bytes(b"no")
        with pytest.raises(ArtifactError, match="not a whole Parquet file"):
            ScoredGenome(tmp_path / "x.parquet")

    def test_damage_within_a_file(self, whole: Path, tmp_path: Path) -> None:
        content = bytearray(whole.read_bytes())
        content[4 : len(content) // 2] = bytes(len(content) // 2 - 4)
        (tmp_path / "x.parquet").write_bytes(content)
        scored = ScoredGenome(tmp_path / "x.parquet")
        with pytest.raises(ArtifactError, match="damaged within"):
            scored.read(scored.genes()[0].gene_id)


class TestMerge:
    """Of shards that are not all of the genes, once, by one model, nothing is published."""

    @pytest.fixture
    def plan(self, scored: tuple) -> ScoringPlan:
        return scored[0]

    @pytest.fixture
    def parts(self, scored: tuple, tmp_path: Path) -> Parts:
        """Copies, to damage."""
        copies = []
        for path, manifest in scored[1]:
            copies.append((tmp_path / f"{manifest['shard']}.parquet", dict(manifest)))
            shutil.copy(path, copies[-1][0])
        return copies

    @pytest.fixture
    def refused(self, plan: ScoringPlan, model: Path, tmp_path: Path) -> Callable[..., None]:
        def check(parts: Parts, *messages: str) -> None:
            with pytest.raises(MetalayerError) as caught:
                merge(plan, parts, model, tmp_path / "out" / "all.parquet")
            for message in messages:
                assert message in str(caught.value)
            assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())

        return check

    @staticmethod
    def rewrite(part: tuple[Path, dict], change: Callable[[list], list]) -> None:
        """Write a shard's file anew from its [(gene, rows)], past the writer's own checks, and note its hash."""
        path, manifest = part
        scored = ScoredGenome(path)
        genes = [(gene, scored.rows(gene.gene_id)) for gene in scored.genes()]
        with ScoredGenomeWriter(path, scored.manifest) as writer:
            for gene, rows in change(genes):
                writer._writer.write_table(rows, row_group_size=len(rows))
                writer._index.append(
                    (gene.gene_id, gene.interval.chrom, gene.strand, gene.interval.start + 1, gene.interval.end)
                )
        manifest["sha256"] = sha256(path)

    def test_in_any_order(self, plan: ScoringPlan, parts: Parts, model: Path, tmp_path: Path) -> None:
        merge(plan, parts, model, tmp_path / "a.parquet")
        merge(plan, parts[::-1], model, tmp_path / "b.parquet")
        assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()

    def test_missing(self, parts: Parts, refused: Callable, plan: ScoringPlan) -> None:
        first = plan.shards[2].genes[0][0]
        refused([part for part in parts if part[1]["shard"] not in (1, 3)], "shard 1 is missing", "shard 3 is missing")
        refused(parts[:2] + parts[3:], f"shard 3 is missing: genes {first}, ")

    def test_twice_or_unknown(self, parts: Parts, refused: Callable) -> None:
        refused([*parts, parts[1]], "shard 2 is there twice: genes ")
        refused([*parts, (parts[0][0], parts[0][1] | {"shard": 9})], "shard 9 is none of the 4")
        refused([parts[0], *parts[2:], (parts[0][0], parts[0][1] | {"shard": 2})], "shard 2 lacks ", " has ")

    def test_tampered(self, parts: Parts, refused: Callable) -> None:
        content = bytearray(parts[3][0].read_bytes())
        content[len(content) // 2] ^= 1
        parts[3][0].write_bytes(content)
        refused(parts, "shard 4: ", "is not the file that was written")

    def test_another_model(self, parts: Parts, refused: Callable, simulation: Path, tmp_path: Path) -> None:
        other = make_bundle(tmp_path / "other", seed=1)
        mixed = score(plan_of(simulation, 4), other, tmp_path / "by_other")
        refused([*parts[:2], mixed[2], parts[3]], "shard 3 was scored by model")

    def test_a_gene_lost_or_added(self, parts: Parts, refused: Callable) -> None:
        lost = ScoredGenome(parts[0][0]).genes()[1].gene_id
        self.rewrite(parts[0], lambda genes: [item for item in genes if item[0].gene_id != lost])
        refused(parts, f"shard 1 lacks 1 genes, or has them elsewhere: {lost}")
        self.rewrite(parts[0], lambda genes: [*genes, genes[0]])
        refused(parts, "shard 1 lacks 1 genes")

    def test_genes_in_another_order(self, parts: Parts, refused: Callable) -> None:
        self.rewrite(parts[1], lambda genes: genes[::-1])
        refused(parts, "shard 2 has genes twice, or in another order")

    def test_a_position_lost(self, parts: Parts, refused: Callable) -> None:
        name = ScoredGenome(parts[1][0]).genes()[0].gene_id
        self.rewrite(parts[1], lambda genes: [(genes[0][0], genes[0][1].slice(1)), *genes[1:]])
        refused(parts, f"shard 2: gene {name}: ", "that are not the positions")

    def test_rows_of_another_gene(self, parts: Parts, refused: Callable) -> None:
        def damage(genes: list) -> list:
            gene, rows = genes[0]
            names = pa.array(["other"] * len(rows)).dictionary_encode()
            return [(gene, rows.set_column(0, "gene_id", names)), *genes[1:]]

        name = ScoredGenome(parts[1][0]).genes()[0].gene_id
        self.rewrite(parts[1], damage)
        refused(parts, f"shard 2: gene {name}: rows whose gene_id is not {name}")

    @pytest.mark.parametrize(
        ("value", "message"), [(float("nan"), "NaN"), (1.5, "outside [0, 1]"), (0.5, "do not add up to 1")]
    )
    def test_no_probabilities(self, parts: Parts, refused: Callable, value: float, message: str) -> None:
        def damage(genes: list) -> list:
            gene, rows = genes[0]
            donors = rows["donor"].to_numpy().copy()
            donors[3] = value
            return [(gene, rows.set_column(4, "donor", pa.array(donors))), *genes[1:]]

        self.rewrite(parts[2], damage)
        refused(parts, "shard 3: gene ", message)


class TestModel:
    def test_a_directory(self, model: Path, tmp_path: Path) -> None:
        found = named_model(ScoreConfig(model=model), "pwm")
        assert found == named_model(ScoreConfig(model=model.parent), "pwm")
        assert found is not None
        assert found.facts() == {"digest": Predictor.load(model).digest, "name": None, "version": None}
        assert named_model(ScoreConfig(), "pwm") is named_model(ScoreConfig(model=3), "pwm") is None
        with pytest.raises(InputError, match="recalibrates 'pwm', but the scores are of 'openspliceai'"):
            named_model(ScoreConfig(model=model), "openspliceai")
        with pytest.raises(InputError, match=r"a folder without a model; a model directory holds model.json"):
            named_model(ScoreConfig(model=tmp_path), "pwm")
        with pytest.raises(InputError, match=r"score.model: given .*absent, which is no folder"):
            named_model(ScoreConfig(model=tmp_path / "absent"), "pwm")

    def test_no_champion(self, tmp_path: Path) -> None:
        uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
        with pytest.raises(InputError, match="metalayer-pwm has no champion to score with"):
            registered_model(ScoreConfig(), "pwm", uri)
        with pytest.raises(InputError, match="metalayer-pwm has no version 7; there are: none"):
            registered_model(ScoreConfig(model=7), "pwm", uri)
