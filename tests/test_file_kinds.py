"""Wrong files are named for what they are at every door; usual ways of packing and saving are read."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from metalayer import cli
from metalayer.base.annotation import read_annotation
from metalayer.base.fasta import Reference
from metalayer.core import ArtifactLoader
from metalayer.data.gene_table import read_gene_table
from metalayer.data.nucleotide_scores import genes_in
from metalayer.data.verify import verify_dataset
from metalayer.errors import ArtifactError, InputError
from metalayer.file_kinds import FASTA, GFF, head_of, kind_of, unpacked
from metalayer.genome import decode
from metalayer.settings.sections import DataConfig
from metalayer.yaml12 import read
from tests.conftest import artifact_files

Make = Callable[..., DataConfig]

GTF = b"".join(
    b'chr1\tx\texon\t%d\t%d\t.\t+\t.\tgene_id "G"; transcript_id "T";\n' % place for place in ((1, 40), (101, 140))
)
LETTERS = b">chr1 first\nACGTN\nacgtu\n>2\nRR\n"


def zipped(*contents: bytes, name: str = "a{}.txt") -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for i, content in enumerate(contents):
            archive.writestr(name.format(i), content)
    return target.getvalue()


def tarred(content: bytes) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as archive:
        entry = tarfile.TarInfo("a.gtf")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return target.getvalue()


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "gzip twice": lambda content: gzip.compress(gzip.compress(content)),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda content: bytes(pa.compress(content, "zstd", asbytes=True)),
    "zip": zipped,
    "byte order mark": lambda content: b"\xef\xbb\xbf" + content,
    "byte order mark, packed": lambda content: gzip.compress(b"\xef\xbb\xbf" + content),
}


@pytest.mark.parametrize("way", PACKED)
def test_usual_ways_of_packing(tmp_path: Path, way: str) -> None:
    """Whatever the ending says."""
    path = tmp_path / "file"
    path.write_bytes(PACKED[way](GTF))
    assert read_annotation(path).genes[0].introns() == [(40, 100)]
    path.write_bytes(PACKED[way](LETTERS))
    assert {name: decode(tokens) for name, tokens in Reference(path).chromosomes(["1", "2"])} == {
        "1": "ACGTNACGTT",
        "2": "NN",
    }


@pytest.mark.parametrize("way", ["gzip", "bzip2", "xz", "zstd", "zip"])
def test_a_packed_file_that_is_cut_short(tmp_path: Path, way: str) -> None:
    (tmp_path / "a").write_bytes(PACKED[way](GTF * 500)[:-9])
    with pytest.raises(InputError, match="damaged"):
        read_annotation(tmp_path / "a")


OTHERS: dict[bytes, str] = {
    b"\x26\xfc\x8f\x88\0\0\0\0": "this is BigWig",
    b"\xeb\xf2\x89\x87\0\0\0\0": "this is BigBed",
    b"\x43\x27\x41\x1a\0\0\0\0": "this is 2bit.*twoBitToFa",
    b"\x89HDF\r\n\x1a\n\0\0": "this is HDF5",
    b"SQLite format 3\0": "this is an SQLite database",
    gzip.compress(b"BAM\x01\0\0"): "this is BAM",
    gzip.compress(b"BCF\x02\2\0"): "this is BCF",
    gzip.compress(b"TBI\x01\2\0"): "this is an index of tabix",
    b"##fileformat=VCFv4.2\n": "this is VCF",
    gzip.compress(b"##fileformat=VCFv4.2\n"): "this is VCF",
    b"@SQ\tSN:chr1\tLN:9\n": "this is SAM",
    b"@read\nACGT\n+\nIIII\n": "this is FASTQ",
    b"LOCUS       NC_000001  9 bp\n": "this is GenBank",
    b"ID   X56734; SV 1; linear;\nXX\n": "this is EMBL",
    b"chr1\t10\t60\tx\t0\t+\n": "this is BED, intervals",
    b"track name=x\nchr1\t10\t60\tx\t0\t+\t10\t60\t0\t2\t9,9\t0,30\n": "this is BED of 12 columns",
    b"chr1\t10\t60\t0.25\n": "this is bedGraph",
    b"fixedStep chrom=chr1 start=1 step=1\n0.1\n": "this is wiggle",
    b"NM_1\tchr1\t+\t10\t60\t10\t60\t2\t10,40,\t20,60,\n": "this is genePred.*genePredToGtf",
    b"585\tNM_1\tchr1\t+\t10\t60\t10\t60\t2\t10,40,\t20,60,\t0\tG\tcmpl\tcmpl\t0,0,\n": "this is genePred",
    b"#bin\tname\tchrom\n585\tNM_1\tchr1\n": "this is a table of UCSC",
    b"chr1\t248956422\t6\t60\t61\n": "this is an index of FASTA",
    b"seqname,source,feature,start\nchr1,x,exon,1\n": "this is comma separated",
    b"\n<!DOCTYPE html>\n<html><body>404</body></html>\n": "this is HTML.*download it again",
    gzip.compress(b"<?xml version='1.0'?><Error/>"): "this is HTML or XML",
    b'{"error": "not found"}': "this is JSON",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n": "this is a pointer of Git LFS",
    "chr1\tx".encode("utf-16"): "this is text in UTF-16",
    "chr1\tx\texon".encode("utf-16-le"): "this is text in UTF-16",
    b"%PDF-1.7\n": "this is PDF",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": "this is an Excel workbook",
    zipped(b"x", name="xl/workbook.xml"): "this is an Excel workbook",
    zipped(b"x", b"y"): "this is a zip archive of 2 files; unpack it",
    zipped(b"x", name="model/data.pkl"): "this is of PyTorch",
    tarred(GTF): "this is a tar archive; unpack it",
    b"": "the file is empty",
    b"\n \n": "the file is empty",
}


@pytest.mark.parametrize("content", OTHERS, ids=OTHERS.values())
def test_other_files_are_named_at_every_door(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.gtf"
    path.write_bytes(content)
    for reading in (read_annotation, lambda path: list(Reference(path).chromosomes(["1"])), read_gene_table):
        with pytest.raises(InputError, match=OTHERS[content]) as raised:
            reading(path)
        assert str(path) in str(raised.value)
        assert "damaged" not in str(raised.value)


def test_each_file_in_the_place_of_another(tmp_path: Path) -> None:
    (tmp_path / "a.fa").write_bytes(LETTERS)
    (tmp_path / "a.gtf").write_bytes(GTF)
    assert (kind_of(LETTERS), kind_of(GTF), kind_of(b"##gff-version 3\n")) == (FASTA, GFF, GFF)
    with pytest.raises(InputError, match=r"annotation .*this is FASTA, sequences; needed is GTF or GFF3"):
        read_annotation(tmp_path / "a.fa")
    with pytest.raises(InputError, match=r"FASTA .*this is GFF3 or GTF, an annotation; needed is FASTA"):
        list(Reference(tmp_path / "a.gtf").chromosomes(["1"]))
    for path, reason in ((tmp_path, "this is a folder; give a file"), (tmp_path / "none", "no such file")):
        with pytest.raises(InputError, match=reason):
            head_of(path, "annotation")
        with pytest.raises(ArtifactError, match=reason), unpacked(path, "table", ArtifactError):
            pass


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"##fileformat=VCFv4.2\n", "this is VCF, variants; needed is Parquet"),
        (b"\x89HDF\r\n\x1a\n\0", "this is HDF5; needed is Parquet"),
        (b"\x26\xfc\x8f\x88\0\0\0\0", "this is BigWig, signals along a genome; needed is Parquet"),
        (b"chr1\t10\t60\t0.25\n", "this is bedGraph.*needed is Parquet"),
        (b"gene_id,chrom,strand,position\n", r"this is comma separated text \(CSV\); needed is Parquet"),
    ],
)
@pytest.mark.parametrize("name", ["a.parquet", "a.bw"])
def test_scores_of_other_kinds(tmp_path: Path, content: bytes, message: str, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=message):
        genes_in(path)


def test_train_names_what_it_was_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.bed").write_bytes(b"chr1\t10\t60\tx\t0\t+\n")
    arguments = ["train", "--scores", str(tmp_path / "a.bed"), "--output-dir", str(tmp_path / "out")]
    assert cli.main(arguments) == 2
    assert "this is BED, intervals; needed is Parquet of per-nucleotide scores" in capsys.readouterr().err


def test_scores_in_parquet_of_another_name(simulation: Path, tmp_path: Path) -> None:
    source = sorted(simulation.glob("nucleotide_scores/*.parquet"))[0]
    (tmp_path / "scores.pq").write_bytes(source.read_bytes())
    assert genes_in(tmp_path / "scores.pq") == genes_in(source)


def rows(base_layer: Path, output: Path, make: Make, **changes: object) -> pl.DataFrame:
    ArtifactLoader(make(base_layer, **changes)).load(output)
    return pl.read_parquet(output / "rows.parquet")


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_artifacts_that_are_packed(base_layer: Path, tmp_path: Path, data_config: Make, ending: str) -> None:
    expected = rows(base_layer, tmp_path / "plain", data_config)
    for path in artifact_files(base_layer):
        packed = gzip.compress if ending == ".gz" else PACKED["zstd"]
        path.with_name(path.name + ending).write_bytes(packed(path.read_bytes()))
        path.unlink()
    assert rows(base_layer, tmp_path / "packed", data_config).equals(expected)
    assert ArtifactLoader(data_config(base_layer)).get_statistics()["total_positions"] == len(expected)
    path = sorted(base_layer.glob(f"data/*/*/*/meta_models/*{ending}"))[0]
    content = path.read_bytes()
    path.write_bytes(content[:-40])
    with pytest.raises(ArtifactError, match="damaged"):
        rows(base_layer, tmp_path / "cut", data_config)
    path.write_bytes(packed(unpacked_bytes(packed, content)[:-40]))
    with pytest.raises(ArtifactError, match="last line is cut short"):
        rows(base_layer, tmp_path / "short", data_config)


def unpacked_bytes(packed: Callable[[bytes], bytes], content: bytes) -> bytes:
    if packed is gzip.compress:
        return gzip.decompress(content)
    return pa.CompressedInputStream(pa.BufferReader(content), "zstd").read()


def test_artifacts_packed_otherwise_are_named(base_layer: Path, data_config: Make) -> None:
    path = artifact_files(base_layer)[0]
    path.rename(path.with_name(path.name + ".bz2"))
    with pytest.raises(ArtifactError, match=r"tsv\.bz2: expected a name of the form .*unpack the file"):
        ArtifactLoader(data_config(base_layer)).fingerprint()


def test_artifacts_that_another_program_saved(base_layer: Path, tmp_path: Path, data_config: Make) -> None:
    """With a byte order mark, and CRLF."""
    expected = rows(base_layer, tmp_path / "plain", data_config)
    for path in artifact_files(base_layer):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    (base_layer / "genes.tsv").write_bytes(b"\xef\xbb\xbf" + (base_layer / "genes.tsv").read_bytes())
    assert rows(base_layer, tmp_path / "saved", data_config).equals(expected)


def test_other_files_named_as_artifacts(base_layer: Path, tmp_path: Path, data_config: Make) -> None:
    path = artifact_files(base_layer)[0]
    for content, message in (
        (b"<html>no</html>\n", "this is HTML"),
        (b"gene_id,position,strand,donor_score\n", "this is comma separated"),
        (b"PAR1\0\0\0\0PAR1", "this is Parquet; needed is a table"),
    ):
        path.write_bytes(content)
        with pytest.raises(ArtifactError, match=message):
            rows(base_layer, tmp_path / "out", data_config)


def test_the_folder_that_was_meant(base_layer: Path, tmp_path: Path, data_config: Make) -> None:
    models = artifact_files(base_layer)[0].parent
    for given, message in (
        (base_layer / "data", rf"looks like that folder itself: is {base_layer} meant\?"),
        (base_layer.parent, rf"Is {base_layer} meant\?"),
        (models, rf"{models} holds the rows themselves: set data.artifacts_dir to it"),
        (models.parent, rf"{models} holds the rows themselves"),
        (base_layer / "genes.tsv", "is a file and not a folder"),
        (tmp_path / "none", "which is not there"),
        (base_layer / "nucleotide_scores", r"which has no folder data/; expected .*pwm_<chrom>\.parquet$"),
    ):
        with pytest.raises(ArtifactError, match=message):
            ArtifactLoader(data_config(given)).fingerprint()
    with pytest.raises(ArtifactError, match=r"no analysis_.* or \.tsv\.gz, in .*which holds .*pwm_chr"):
        ArtifactLoader(data_config(base_layer, artifacts_dir=base_layer / "nucleotide_scores")).fingerprint()


def test_gene_tables_and_variants_as_people_save_them(base_layer: Path, tmp_path: Path, data_config: Make) -> None:
    table = base_layer / "genes.tsv"
    expected, text = read_gene_table(table), table.read_bytes()
    for way in PACKED.values():
        table.write_bytes(way(text))
        assert read_gene_table(table).equals(expected)
    lines = text.split(b"\n")
    lines[2] = lines[2].replace(b"\t", b"\xe9\t", 1)
    table.write_bytes(b"\n".join(lines))
    with pytest.raises(ArtifactError, match=r"line 3: byte 0xe9 is no UTF-8, perhaps Latin-1; save the file in UTF-8"):
        read_gene_table(table)


def test_other_files_as_training_set_and_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.bed").write_bytes(b"chr1\t10\t60\tx\t0\t+\n")
    (tmp_path / "a.bw").write_bytes(b"\x26\xfc\x8f\x88\0\0\0\0")
    for name, kind in (("a.bed", "BED, intervals"), ("a.bw", "BigWig, signals along a genome")):
        given = str(tmp_path / name)
        with pytest.raises(ArtifactError, match=f"{given}: this is {kind}; needed is Parquet"):
            verify_dataset(tmp_path / name)
        assert cli.main(["train", "--config", given, "--output-dir", str(tmp_path / "out")]) == 2
        assert f"This is {kind}; needed is YAML" in capsys.readouterr().err


def test_a_configuration_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbfa: 1\r\n")
    assert read(tmp_path / "a.yaml") == {"a": 1}
