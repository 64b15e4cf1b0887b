"""`--pipeline variants`: records in parts, put together as `metalayer variants` writes them."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest

from metalayer.errors import ArtifactError, ConfigError, MetalayerError
from metalayer.settings.sections import VariantsConfig
from metalayer.variants.calls import Sources
from metalayer.variants.scoring import Options
from metalayer.workflows.variant_shards import VariantPlan, merge_shards, plan, score_shard, sources_of
from metalayer.workflows.variants import form_of, score_file
from tests.releases import make_bundle
from tests.test_pipeline import RUN, execute, found

HEADER = "##fileformat=VCFv4.2\n##contig=<ID=chr1>\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
COUNT = 23


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("model") / "bundle")


@pytest.fixture(scope="module")
def variants(simulation: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SNVs inside and outside of genes, one that does not fit, and one that is no variant."""
    text = (
        (simulation / "genome" / "simulated.fa").read_text().split(">")[1].partition("\n")[2].replace("\n", "").upper()
    )
    places = range(60, len(text) - 60, len(text) // COUNT)
    lines = [f"chr1\t{at + 1}\t.\t{text[at]}\t{'A' if text[at] != 'A' else 'G'}\t.\t.\tDP=3" for at in places]
    lines[4] = "\t".join([*lines[4].split("\t")[:4], "<DEL>", ".", ".", "."])
    path = tmp_path_factory.mktemp("vcf") / "in.vcf"
    path.write_text(HEADER + "\n".join(lines) + "\n")
    return path


@pytest.fixture
def config(variants: Path, simulation: Path, tmp_path: Path) -> VariantsConfig:
    genome = simulation / "genome"
    return VariantsConfig(
        file=variants,
        fasta=genome / "simulated.fa",
        annotation=genome / "simulated.gff3",
        bases="pwm",
        output=tmp_path / "out.vcf",
        shards=3,
        device="cpu",
        threads=1,
    )


def in_parts(config: VariantsConfig, model: Path | None, folder: Path) -> tuple[VariantPlan, list[Any]]:
    made, parts = plan(config), []
    for shard in made.shards:
        path = folder / f"{shard.number}.parquet"
        folders = {use: one.folder for use, one in made.inputs.items()}
        parts.append((path, score_shard(shard, config, made.inputs, folders, model, path)))
    return made, parts


@pytest.mark.parametrize("name", ["out.vcf", "out.tsv", "out.parquet"])
def test_parts_are_what_the_command_writes(config: VariantsConfig, model: Path, tmp_path: Path, name: str) -> None:
    config = config.model_copy(update={"output": tmp_path / name, "distance": 20, "mask": True})
    made, parts = in_parts(config, model, tmp_path)
    assert [shard.end - shard.first for shard in made.shards] == [7, 8, 8]
    outcome = merge_shards(config, made, parts, model)
    whole = tmp_path / f"whole-{name}"
    sources = Sources(config.fasta, config.annotation, ["pwm"], model=model, device="cpu")
    expected = score_file(config.file, whole, sources, Options(20, True), form=form_of(whole))
    assert outcome == expected
    assert outcome.scored > 10
    assert outcome.reasons["symbolic"] == 1
    if name.endswith("parquet"):
        assert pl.read_parquet(config.output).equals(pl.read_parquet(whole))
    else:
        assert config.output.read_bytes() == whole.read_bytes()
    assert not list(tmp_path.glob(".*"))


def test_what_is_not_put_together(config: VariantsConfig, model: Path, tmp_path: Path) -> None:
    made, parts = in_parts(config, None, tmp_path)
    with pytest.raises(MetalayerError, match=r"given \[1, 3\] of 3"):
        merge_shards(config, made, [parts[0], parts[2]], None)
    with pytest.raises(MetalayerError, match="shard 1 was scored with other files or models"):
        merge_shards(config, made, parts, model)
    path, manifest = parts[1]
    table = pq.read_table(path)
    pq.write_table(table.slice(1), path)
    with pytest.raises(MetalayerError, match="is not the file that was written"):
        merge_shards(config, made, parts, None)
    from metalayer.files import sha256

    manifest["sha256"] = sha256(path)  # a shard that lacks a record that it should have
    with pytest.raises(MetalayerError, match="has a score that its shard does not have"):
        merge_shards(config, made, parts, None)
    assert not config.output.exists()


def test_files_that_changed_are_not_scored(config: VariantsConfig, tmp_path: Path) -> None:
    own = tmp_path / "own.vcf"
    own.write_bytes(config.file.read_bytes())
    config = config.model_copy(update={"file": own})
    made = plan(config)
    own.write_text(own.read_text() + "chr1\t7\t.\tA\tC\t.\t.\t.\n")
    folders = {use: one.folder for use, one in made.inputs.items()}
    with pytest.raises(ArtifactError, match="changed since the run began"):
        score_shard(made.shards[0], config, made.inputs, folders, None, tmp_path / "a.parquet")
    assert not (tmp_path / "a.parquet").exists()


def test_more_shards_than_records_and_none(config: VariantsConfig, tmp_path: Path) -> None:
    assert len(plan(config.model_copy(update={"shards": None})).shards) == 8
    empty = tmp_path / "empty.vcf"
    empty.write_text(HEADER)
    none = config.model_copy(update={"file": empty, "shards": None})
    made, parts = in_parts(none, None, tmp_path)
    assert len(made.shards) == 1
    assert merge_shards(none, made, parts, None).records == 0
    assert config.output.read_text().endswith("INFO\n")


def test_settings_that_cannot_be(config: VariantsConfig) -> None:
    with pytest.raises(ConfigError, match="belongs to no base model"):
        plan(config.model_copy(update={"weights": ("a.pt",)}))
    with pytest.raises(ConfigError, match=r"variants\.distance: given 0"):
        VariantsConfig(**{**config.model_dump(), "distance": 0})
    with pytest.raises(ConfigError, match="SpliceAI hides letters outside a gene"):
        plan(config.model_copy(update={"way": "spliceai", "flanks": "real"}))


@pytest.mark.integration
def test_a_run_and_the_same_into_another_file(
    config: VariantsConfig, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    work = tmp_path_factory.mktemp("runs")
    given = {"file": config.file, "fasta": config.fasta, "annotation": config.annotation, "bases": "pwm"}
    given |= {"model": model, "shards": 2, "threads": 1}

    def run(output: str, *options: str) -> Any:
        sets = [
            part
            for name, value in {**given, "output": output}.items()
            for part in ("--set", f"variants.{name}={value}")
        ]
        return execute(work / "state", [str(RUN), "--pipeline", "variants", *sets, *options])

    first = run("a/one.vcf.gz")
    assert first.code == 0, first.err
    assert found(r"^cached +(.+)$", first.out) == "no step"
    assert first.out.endswith("exit status 0: scored\n")
    again = run("two.vcf.gz")
    assert sorted(found(r"^cached +(.+)$", again.out).split(", ")) == ["score_variants_1", "score_variants_2"]
    files = [gzip.decompress((work / name).read_bytes()) for name in ("a/one.vcf.gz", "two.vcf.gz")]
    assert files[0] == files[1]
    assert b"MetaLayer=" in files[0]
    assert (work / "two.vcf.gz.tbi").exists()
    assert "nothing new" in run("two.vcf.gz", "--if-changed").out
    (work / "two.vcf.gz").unlink()
    assert "scored" in run("two.vcf.gz", "--if-changed").out

    refused = execute(work / "state", [str(RUN), "--pipeline", "variants"])
    assert refused.code == 2
    assert "variants: missing; --pipeline variants needs file, fasta" in refused.out + refused.err


def test_parts_of_a_model_that_reads_evidence(config: VariantsConfig, simulation: Path, tmp_path: Path) -> None:
    tracks = {"track_encoder": "stages", "track_encoder_config": {"channels": 4, "distances": [1, 20]}}
    model = make_bundle(tmp_path / "model", sequence_encoder="none", evidence=("a", "b"), **tracks)
    files = [str(simulation / "evidence" / f"{name}.parquet") for name in ("conservation", "junctions")]
    given = {"a": {"plus": files[0], "minus": files[0]}, "b": files[1]}
    config = VariantsConfig(**{**dict(config), "evidence": given, "shards": 1})
    made, parts = in_parts(config, model, tmp_path)
    assert [use for use in made.inputs if use.startswith("evidence")] == ["evidence:0", "evidence:1", "evidence:2"]
    sources = sources_of(config, {use: one.folder for use, one in made.inputs.items()}, made.inputs, model)
    assert sources.evidence == given
    outcome = merge_shards(config, made, parts, model)
    whole = tmp_path / "whole.vcf"
    assert outcome == score_file(config.file, whole, sources, Options(), form=form_of(whole))
    assert config.output.read_bytes() == whole.read_bytes()
    none = VariantsConfig(**{**dict(config), "evidence": {"a": "none"}})
    with pytest.raises(ConfigError, match="evidence: no b; this model reads a, b"):
        in_parts(none, model, tmp_path)
