"""The base-layer pass over an annotation: what it reads, writes, resumes and refuses."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from metalayer import cli
from metalayer.base.annotation import read_annotation
from metalayer.base.fasta import Reference
from metalayer.config import DataConfig
from metalayer.core import ArtifactLoader
from metalayer.data.tracks import TrackStore
from metalayer.errors import ConfigError, InputError
from metalayer.genome import decode
from metalayer.workflows.base_run import PassOptions, base_run

PWM = PassOptions("pwm", {})


def scores_of(folder: Path) -> pl.DataFrame:
    return pl.concat(
        [
            pl.read_parquet(path).with_columns(pl.col("gene_id", "chrom", "strand", "base", "label").cast(pl.String))
            for path in sorted(folder.glob("nucleotide_scores/*.parquet"))
        ]
    )


@pytest.fixture(scope="module")
def passed(simulation: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pass")
    base_run(
        PWM,
        simulation / "genome/simulated.fa",
        simulation / "genome/simulated.gff3",
        folder,
        annotation_source="simulated",
    )
    return folder


def test_a_pass_gives_what_the_simulation_gave(simulation: Path, passed: Path) -> None:
    """The simulation writes the same scores from its own genes: letters, labels and scores, both strands."""
    ours, theirs = scores_of(passed), scores_of(simulation)
    assert ours.equals(theirs)
    manifest = json.loads((passed / "base_layer.json").read_text())
    assert manifest["positions"] == len(ours)
    assert manifest["canonical"] >= 0.9 * manifest["introns"] > 0
    assert not list(passed.glob(".base-layer-*"))


def test_what_it_wrote_is_a_data_root(passed: Path, tmp_path: Path) -> None:
    report = ArtifactLoader(DataConfig(base_model="pwm", data_root=passed)).load(tmp_path)
    assert report["rows_rebuilt_from_tracks"] == report["artifacts"]["rows_kept"] > 0
    assert report["artifacts"]["mismatched_features"] == {}


def test_several_processes_give_the_same(simulation: Path, passed: Path, tmp_path: Path) -> None:
    base_run(PWM, simulation / "genome/simulated.fa", simulation / "genome/simulated.gff3", tmp_path, workers=2)
    assert scores_of(tmp_path).equals(scores_of(passed))


def test_flanks_of_n_change_the_ends_alone(simulation: Path, passed: Path, tmp_path: Path) -> None:
    options = PassOptions("pwm", {}, flanks="N")
    base_run(options, simulation / "genome/simulated.fa", simulation / "genome/simulated.gff3", tmp_path)
    real, bare = scores_of(passed), scores_of(tmp_path)
    apart = (real["donor_score"] - bare["donor_score"]).abs() > 0
    gene = real.filter(apart)["gene_id"].n_unique()
    assert 0 < apart.sum() < 60 * gene


def test_forms_of_files(simulation: Path, passed: Path, tmp_path: Path) -> None:
    """GTF, gzip, CRLF, lower case and IUPAC letters."""
    text = (simulation / "genome/simulated.fa").read_text()
    head, first, rest = text.split("\n", 2)
    odd = head + "\r\n" + "R" + first[1:].lower() + "\r\n" + rest.replace("\n", "\r\n")
    (tmp_path / "odd.fa.gz").write_bytes(gzip.compress(odd.encode()))
    lines = []
    for gene in read_annotation(simulation / "genome/simulated.gff3"):
        for transcript, exons in gene.exons.items():
            span = gene.gene.interval
            for start, end in exons:
                fields = f'gene_id "{gene.gene.gene_id}"; transcript_id "{transcript}";'
                lines.append(f"{span.chrom}\tx\texon\t{start}\t{end}\t.\t{gene.gene.strand}\t.\t{fields}")
    (tmp_path / "genes.gtf.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    manifest = base_run(PWM, tmp_path / "odd.fa.gz", tmp_path / "genes.gtf.gz", tmp_path / "out")
    assert list(manifest["ambiguous_letters"].values()) == [1]
    ours, theirs = scores_of(tmp_path / "out"), scores_of(passed)
    sites = (pl.col("label") != "neither") & (pl.col("donor_score") > -1)
    assert ours.filter(sites).select("gene_id", "position", "label").rows() == (
        theirs.filter(sites).select("gene_id", "position", "label").rows()
    )


def test_a_killed_pass_goes_on(simulation: Path, passed: Path, tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from metalayer.workflows import base_run as b\n"
        "from metalayer.base.pwm import PwmModel; score = PwmModel.score\n"
        "def slow(*a, **k): time.sleep(0.2); return score(*a, **k)\n"
        "PwmModel.score = slow\n"
        "b.base_run(b.PassOptions('pwm', {}), *map(Path, sys.argv[1:]))\n"
    )
    files = [simulation / "genome/simulated.fa", simulation / "genome/simulated.gff3", tmp_path / "out"]
    with subprocess.Popen([sys.executable, "-c", program, *map(str, files)], env={**os.environ}) as process:
        for _ in range(300):
            if len(list((tmp_path / "out").glob(".base-layer-*/*.npy"))) >= 3:
                break
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob(".base-layer-*/*.npy")}
    assert kept
    assert not (tmp_path / "out" / "base_layer.json").exists()
    counted: list[int] = []
    from metalayer.base.pwm import PwmModel

    score = PwmModel.score

    def count(self: PwmModel, *given: str) -> np.ndarray:
        counted.append(1)
        return score(self, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PwmModel, "score", count)
        manifest = base_run(PWM, *files)
    assert len(counted) == manifest["genes"] - len(kept)
    assert scores_of(tmp_path / "out").equals(scores_of(passed))


def test_sites_of_every_strand_and_transcript(tmp_path: Path) -> None:
    (tmp_path / "a.gff3").write_text(
        "##gff-version 3\n"
        "chr1\tx\tgene\t101\t200\t.\t+\t.\tID=gene-A;Name=A\n"
        "chr1\tx\tmRNA\t101\t200\t.\t+\t.\tID=rna-1;Parent=gene-A\n"
        "chr1\tx\texon\t101\t110\t.\t+\t.\tID=e1;Parent=rna-1\n"
        "chr1\tx\texon\t151\t200\t.\t+\t.\tID=e2;Parent=rna-1\n"
        "chr1\tx\tgene\t301\t400\t.\t-\t.\tID=gene-B\n"
        "chr1\tx\tmRNA\t301\t400\t.\t-\t.\tID=rna-2;Parent=gene-B\n"
        "chr1\tx\texon\t301\t340\t.\t-\t.\tParent=rna-2\n"
        "chr1\tx\texon\t381\t400\t.\t-\t.\tParent=rna-2\n"
        "chr1\tx\tmRNA\t301\t400\t.\t-\t.\tID=rna-3;Parent=gene-B\n"
        "chr1\tx\texon\t301\t330\t.\t-\t.\tParent=rna-3\n"
        "chr1\tx\texon\t381\t400\t.\t-\t.\tParent=rna-3\n"
    )
    plus, minus = read_annotation(tmp_path / "a.gff3")
    assert {i: int(c) for i, c in enumerate(plus.labels()) if c != 2} == {9: 0, 50: 1}
    # Transcript sense: the exon of 381-400 comes first; its last base is at genomic 381, index 19.
    assert {i: int(c) for i, c in enumerate(minus.labels()) if c != 2} == {19: 0, 60: 1, 70: 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("chr1\tx\texon\t1\t9\n", "5 fields"),
        ("chr1\tx\tgene\ta\t9\t.\t+\t.\tID=g\n", "start 'a'"),
        ("chr1\tx\tgene\t1\t9\t.\t+\t.\tID=g\n", "no gene with an exon"),
        (
            'chr1\tx\tgene\t1\t9\t.\t+\t.\tgene_id "g";\nchr2\tx\tgene\t1\t9\t.\t+\t.\tgene_id "g";\n',
            "stands there in two places",
        ),
        (
            'chr1\tx\tgene\t1\t9\t.\t+\t.\tgene_id "g";\n'
            'chr1\tx\texon\t1\t99\t.\t+\t.\tgene_id "g"; transcript_id "t";\n',
            "lies outside its gene",
        ),
    ],
)
def test_annotations_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.gtf").write_text(text)
    with pytest.raises(InputError, match=message):
        read_annotation(tmp_path / "a.gtf")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"ACGT\n", "no header"),
        (b">chr1\nAC!T\n", "'!' at position 3"),
        (b">chr1\nAC\n>chr1\nAC\n", "stands there twice"),
        (gzip.compress(b">chr1\nACGT\n" * 99)[:-20], "damaged"),
    ],
)
def test_references_that_are_none(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.fa").write_bytes(content)
    with pytest.raises(InputError, match=message):
        list(Reference(tmp_path / "a.fa").chromosomes(["1", "2"]))


def test_an_annotation_of_another_build_is_noticed(simulation: Path, tmp_path: Path) -> None:
    annotation = simulation / "genome/simulated.gff3"

    def shifted(by: int) -> Path:
        out = []
        for line in annotation.read_text().splitlines():
            fields = line.split("\t")
            if len(fields) == 9:
                fields[3], fields[4] = str(int(fields[3]) + by), str(int(fields[4]) + by)
            out.append("\t".join(fields))
        (tmp_path / "shifted.gff3").write_text("\n".join(out))
        return tmp_path / "shifted.gff3"

    fasta = simulation / "genome/simulated.fa"
    with pytest.raises(InputError, match="of one genome build and the strand is right"):
        base_run(PWM, fasta, shifted(3), tmp_path / "out")
    with pytest.raises(InputError, match="Are both of one genome build"):
        base_run(PWM, fasta, shifted(10**7), tmp_path / "out")
    text = fasta.read_text()
    (tmp_path / "part.fa").write_text(text[: text.index(">", 1)])
    with pytest.raises(InputError, match="has no chromosome"):
        base_run(PWM, tmp_path / "part.fa", annotation, tmp_path / "out")
    with pytest.raises(ConfigError, match="flanks: given 'x'"):
        base_run(PassOptions("pwm", {}, flanks="x"), fasta, annotation, tmp_path / "out")
    assert not (tmp_path / "out" / "genes.tsv").exists()


def test_command_line(simulation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [
        "--fasta",
        str(simulation / "genome/simulated.fa"),
        "--annotation",
        str(simulation / "genome/simulated.gff3"),
    ]
    assert cli.main(["base", "run", "--model", "pwm", *files, "--output", str(tmp_path / "out")]) == 0
    assert "scored with pwm" in capsys.readouterr().out
    assert cli.main(["base", "run", "--model", "spliceai", *files, "--output", str(tmp_path / "x")]) == 2
    assert "there are openspliceai, pwm" in capsys.readouterr().err


@pytest.mark.slow
def test_real_genes_come_back(shared: Path, tmp_path: Path, data_config: Callable[..., DataConfig]) -> None:
    """Flank-80 ensemble over real chromosome 3 and 7: the stored scores to 1e-3, the same labels and letters."""
    genome, weights = shared / "real" / "genome", shared / "golden" / "openspliceai-mane" / "80nt"
    options = PassOptions("openspliceai", {"weights": weights, "device": "cpu"})
    base_run(options, genome / "hg19_slices.fa.gz", genome / "hg19_slices.gff3", tmp_path, build="GRCh37")
    name = "openspliceai_80_chr3.parquet"
    ours = pl.read_parquet(tmp_path / "nucleotide_scores" / name)
    theirs = pl.read_parquet(shared / "real" / "nucleotide_scores" / name)
    ours, theirs = (
        frame.with_columns(pl.col("gene_id").cast(pl.String).str.strip_prefix("gene-")).sort("gene_id", "position")
        for frame in (ours, theirs)
    )
    for column in ("gene_id", "position", "base", "label"):
        assert (ours[column].cast(pl.String) == theirs[column].cast(pl.String)).all(), column
    for column in ("donor_score", "acceptor_score", "neither_score"):
        assert (ours[column] - theirs[column]).abs().max() < 1e-3
    report = ArtifactLoader(data_config(tmp_path, base_model="openspliceai_80")).load(tmp_path / "typed")
    assert report["rows_with_scores_of_no_pass"] == 0
    store = TrackStore(tmp_path / "typed" / "tracks.parquet")
    track = store.read(next(iter(store.genes())))
    assert set(decode(track.tokens)) <= set("ACGTN")
