"""VCF in, VCF, BCF and tables out: every record once and in order, all else untouched, and what is wrong said."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pysam
import pytest

from metalayer import cli
from metalayer.errors import InputError
from metalayer.gene_track import GeneTrack
from metalayer.genome import Gene, Interval, encode, reverse_complement
from metalayer.inference import Predictor
from metalayer.schema import NEITHER
from metalayer.variants import score_variants, together
from metalayer.variants.answers import COLUMNS, DETAIL_FORMAT, FORMAT, from_json, tags_of, to_json
from metalayer.variants.calls import Sources
from metalayer.variants.letters import Letters
from metalayer.variants.notation import variant_of
from metalayer.variants.scoring import Options, Plan, Scorer
from metalayer.workflows import variants as runs
from tests import variant_genomes as made
from tests.releases import make_bundle
from tests.test_openspliceai import member

TEXT = made.letters()
HEADER = (
    "##fileformat=VCFv4.2\n"
    '##INFO=<ID=AF,Number=A,Type=Float,Description="x">\n'
    '##INFO=<ID=PWM,Number=1,Type=String,Description="of an earlier run">\n'
    '##FORMAT=<ID=GT,Number=1,Type=String,Description="x">\n'
    "##contig=<ID=chr1,length=2000>\n"
    "##contig=<ID=chr9,length=2000>\n"
)
OTHER = {"A": "C", "C": "G", "G": "T", "T": "A"}


def snv(at: int, rest: str = "50\tPASS\t.", contig: str = "chr1", name: str = ".") -> str:
    """A record of a substitution at a 0-based place."""
    return f"{contig}\t{at + 1}\t{name}\t{TEXT[at]}\t{OTHER[TEXT[at]]}\t{rest}"


RECORDS = [
    snv(321, "1234.56789\tq10;s50\tAF=0.1234567891;DB;UNKNOWN=a|b\tGT:X\t0/1:1\t1|1:2", name="rs1"),
    snv(50, ".\t.\t.\tGT\t./.\t0/0"),
    snv(421, ".\t.\tPWM=old;AF=0.5\tGT\t./.\t0/0"),
    f"chr1\t642\t.\t{TEXT[641:644]}\t{TEXT[641]},*,<DEL>\t.\t.\tEND=700\tGT\t./.\t0/0",
    f"chr1\t643\t.\t{OTHER[TEXT[642]]}\t{TEXT[642]}\t.\t.\t.\tGT\t./.\t0/0",
    snv(1420, ".\t.\t.\tGT\t./.\t0/0"),
    f"chr1\t1500\t.\t{TEXT[1499]}\t{TEXT[1499]}[chr1:300[\t.\t.\tSVTYPE=BND\tGT\t./.\t0/0",
    "chr9\t5\t.\tA\tG\t.\t.\t.\tGT\t./.\t0/0",
    "chr1\t1501\t.\tA\t.\t.\t.\t.\tGT\t./.\t0/0",
]
COLUMNS_LINE = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tone\ttwo\n"


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options of FASTA, annotation and base model."""
    fasta, gtf = made.write(tmp_path_factory.mktemp("genome"), TEXT)
    return ["--fasta", str(fasta), "--annotation", str(gtf), "--base", "pwm", "--allow-introns"]


def write(path: Path, records: list[str] | None = None, header: str = HEADER) -> Path:
    path.write_text(header + COLUMNS_LINE + "".join(f"{line}\n" for line in (records or RECORDS)))
    return path


def run(genome: list[str], given: Path, output: Path | str, *more: str) -> int:
    return cli.main(["variants", str(given), "--output", str(output), *genome, *more])


def records_of(path: Path) -> list[list[str]]:
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode()
    return [line.split("\t") for line in text.splitlines() if not line.startswith("#")]


def info(fields: list[str]) -> dict[str, str]:
    return dict(part.partition("=")[::2] for part in fields[7].split(";"))


def test_every_record_comes_out_once_with_all_else_untouched(
    tmp_path: Path, genome: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    given, output = write(tmp_path / "in.vcf"), tmp_path / "out.vcf"
    assert run(genome, given, output) == 2  # two of nine records do not fit
    out = records_of(output)
    ours = {"PWM", "MetaLayerDetail", "MetaLayerSkipped"}
    for before, after in zip([line.split("\t") for line in RECORDS], out, strict=True):
        assert before[:7] + before[8:] == after[:7] + after[8:]
        kept = [part for part in after[7].split(";") if part.partition("=")[0] not in ours]
        assert kept == [part for part in before[7].split(";") if part not in (".", "PWM=old")]
    found = [info(fields) for fields in out]
    assert [set(one) & ours for one in found] == [
        {"PWM", "MetaLayerDetail"},
        {"MetaLayerSkipped"},
        {"PWM", "MetaLayerDetail"},
        ours,
        {"MetaLayerSkipped"},
        {"PWM", "MetaLayerDetail"},
        {"MetaLayerSkipped"},
        {"MetaLayerSkipped"},
        {"MetaLayerSkipped"},
    ]
    assert [one.get("MetaLayerSkipped") for one in found] == [
        *(None, "no_gene", None, "*|star,<DEL>|symbolic", "ref_mismatch", None, "breakend", "contig_absent", "no_alt")
    ]
    assert [entry.split("|")[1] for entry in found[5]["PWM"].split(",")] == ["MINUS", "OVER"]
    said = capsys.readouterr()
    assert said.out == ""
    assert "4 of 9 records have a score" in said.err
    assert "1 allele without a score: ref_mismatch, REF is not what the FASTA has there" in said.err
    assert "2 of 9 records do not fit; at most 10% may" in said.err
    header = [line for line in output.read_text().splitlines() if line.startswith("##")]
    assert [line for line in HEADER.splitlines() if "ID=PWM" not in line] == header[:5]
    (pwm,) = [line for line in header if "ID=PWM" in line]
    assert pwm.startswith("##INFO=<ID=PWM,Number=.,Type=String,") and f"Format: {FORMAT}" in pwm
    assert sum("sha256" in line and line.startswith("##metalayerVariants={") for line in header) == 1


def test_numbers_of_an_entry(tmp_path: Path, genome: list[str]) -> None:
    """Against the table, which has them in full: signs, places and decimals, on both strands."""
    given = write(tmp_path / "in.vcf", [snv(321), snv(1119), snv(1299)])
    assert run(genome, given, tmp_path / "out.vcf") == 0
    assert run(genome, given, tmp_path / "out.tsv") == 0
    table = pl.read_csv(tmp_path / "out.tsv", separator="\t", null_values="")
    assert table.columns == list(COLUMNS)
    for fields, row in zip(records_of(tmp_path / "out.vcf"), table.iter_rows(named=True), strict=True):
        entry, detail = info(fields)["PWM"].split("|"), info(fields)["MetaLayerDetail"].split("|")
        assert len(entry) == FORMAT.count("|") + 1 and len(detail) == DETAIL_FORMAT.count("|") + 1
        first = DETAIL_FORMAT.split("|").index("POS_AG")
        named = dict(zip(DETAIL_FORMAT.split("|"), detail, strict=True))
        assert named["Consequence"].replace("&", "") and named["Consequence"] == row["consequence"]
        assert (named["TRANSCRIPT"], named["FRAME"]) == (row["transcript"], row["frame"] or "")
        assert named["LENGTH"] == ("" if row["length_change"] is None else str(row["length_change"]))
        for number, kind in enumerate(("acceptor_gain", "acceptor_loss", "donor_gain", "donor_loss")):
            assert entry[2 + number] == f"{row[f'{kind}_score']:.2f}"
            assert int(entry[6 + number]) == row[f"{kind}_position"] - row["pos"]
            assert abs(row[f"{kind}_offset"]) == abs(int(entry[6 + number]))
            sign = 1 if row["strand"] == "+" else -1
            assert row[f"{kind}_offset"] == sign * int(entry[6 + number])
            place, before, after, known = detail[first + 4 * number : first + 4 + 4 * number]
            assert int(place.partition("^")[0]) == row[f"{kind}_position"]
            assert (before, after) == (f"{row[f'{kind}_ref']:.4f}", f"{row[f'{kind}_alt']:.4f}")
            assert bool(int(known)) == row[f"{kind}_annotated"]
    assert table["donor_loss_score"].max() > 0.1
    assert set(table["strand"]) == {"+", "-"}


@pytest.mark.parametrize("name", ["out.vcf.gz", "out.bcf"])
def test_packed_files_have_an_index_and_the_same_records(tmp_path: Path, genome: list[str], name: str) -> None:
    header = HEADER + '##INFO=<ID=DB,Number=0,Type=Flag,Description="x">\n'
    sites = [snv(at, "10\tPASS\tDB") for at in (50, 321, 421, 1420, 1600)]
    given = write(tmp_path / "in.vcf", [f"{line}\tGT\t0/1\t0/0" for line in sites], header)
    assert run(genome, given, tmp_path / "plain.vcf") == 0
    assert run(genome, given, tmp_path / name) == 0
    assert run(genome, tmp_path / name, tmp_path / "back.vcf") == 0
    expected = records_of(tmp_path / "plain.vcf")
    assert records_of(tmp_path / "back.vcf") == expected
    with pysam.VariantFile(str(tmp_path / name)) as file:
        assert [record.pos for record in file.fetch("chr1", 400, 1500)] == [422, 1421]
        entries = next(file.fetch("chr1", 1400, 1500)).info["PWM"]
        assert ",".join(entries) == info(expected[3])["PWM"]


def test_records_in_any_order_are_written_without_an_index(
    tmp_path: Path, genome: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    given, output = write(tmp_path / "in.vcf", [snv(421), snv(321)]), tmp_path / "out.vcf.gz"
    assert run(genome, given, output) == 0
    assert [fields[1] for fields in records_of(output)] == ["422", "322"]
    assert "has no index: its records are not sorted" in caplog.text
    assert not list(tmp_path.glob("out.vcf.gz.*"))


def test_a_contig_of_more_than_512_mb_has_an_index_that_can_hold_it(tmp_path: Path, genome: list[str]) -> None:
    records = [snv(321), "huge\t600000000\t.\tA\tC\t.\t.\t."]
    given = write(tmp_path / "in.vcf", records, HEADER + "##contig=<ID=huge,length=700000000>\n")
    assert run(genome, given, tmp_path / "out.vcf.gz") == 2
    assert (tmp_path / "out.vcf.gz.csi").exists() and not (tmp_path / "out.vcf.gz.tbi").exists()


def test_standard_output_has_vcf_alone(tmp_path: Path, genome: list[str]) -> None:
    given = write(tmp_path / "in.vcf", [snv(321)])
    assert run(genome, given, tmp_path / "out.vcf") == 0
    done = subprocess.run(
        [sys.executable, "-m", "metalayer", "variants", str(given), "-O", "-", *genome], capture_output=True, check=True
    )
    assert done.stdout == (tmp_path / "out.vcf").read_bytes()
    assert b"1 of 1 records have a score" in done.stderr


def test_one_record_an_allele(tmp_path: Path, genome: list[str]) -> None:
    first, second = OTHER[TEXT[321]], OTHER[OTHER[TEXT[321]]]
    record = f"chr1\t322\t.\t{TEXT[321]}\t{first},{second}\t.\t.\tAF=0.25,0.5\tGT\t0/1\t1/2"
    given = write(tmp_path / "in.vcf", [record])
    assert run(genome, given, tmp_path / "whole.vcf") == 0
    assert run(genome, given, tmp_path / "split.vcf", "--split") == 0
    entries = info(records_of(tmp_path / "whole.vcf")[0])["PWM"].split(",")
    out = records_of(tmp_path / "split.vcf")
    assert [fields[4] for fields in out] == [first, second]
    assert [info(fields)["PWM"] for fields in out] == entries
    assert [info(fields)["AF"] for fields in out] == ["0.25", "0.5"]
    assert [fields[9] for fields in out] == ["0/1", "0/0"]
    assert [fields[10].replace("|", "/") for fields in out] == ["1/0", "0/1"]


@pytest.mark.skipif(shutil.which("bcftools") is None, reason="bcftools is not installed")
def test_what_bcftools_does_to_the_tag(tmp_path: Path, genome: list[str]) -> None:
    """Splitting records keeps the whole list of entries in each, whose first field says which allele each is of."""
    at = 1420
    record = f"chr1\t{at + 1}\t.\t{TEXT[at]}\t{OTHER[TEXT[at]]},{OTHER[OTHER[TEXT[at]]]}\t.\t.\t.\tGT\t0/1\t1/2"
    assert run(genome, write(tmp_path / "in.vcf", [record]), tmp_path / "out.vcf") == 0
    whole = info(records_of(tmp_path / "out.vcf")[0])["PWM"]
    assert whole.count(",") == 3  # two alleles on two genes
    command = ["bcftools", "norm", "-m", "-any", "--no-version", str(tmp_path / "out.vcf")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    split = [line.split("\t") for line in done.stdout.splitlines() if not line.startswith("#")]
    assert [info(fields)["PWM"] for fields in split] == [whole, whole]
    assert run(genome, tmp_path / "in.vcf", tmp_path / "split.vcf", "--split") == 0
    own = [info(fields)["PWM"] for fields in records_of(tmp_path / "split.vcf")]
    assert ",".join(own) == whole
    joined = ["bcftools", "norm", "-m", "+any", "--no-version", str(tmp_path / "split.vcf")]
    done = subprocess.run(joined, capture_output=True, text=True, check=True)
    (fields,) = [line.split("\t") for line in done.stdout.splitlines() if not line.startswith("#")]
    assert info(fields)["PWM"] == own[0]  # the other allele's are lost, as docs/variants.md says


@pytest.mark.skipif(shutil.which("bcftools") is None, reason="bcftools is not installed")
def test_split_vep_reads_the_consequence(tmp_path: Path, genome: list[str]) -> None:
    """The plugin takes a tag only with "Format: " in its Description and a field of that name."""
    given = write(tmp_path / "in.vcf", [snv(321), snv(1420), snv(1600)])
    assert run(genome, given, tmp_path / "out.vcf") == 0
    tell = ["bcftools", "+split-vep", str(tmp_path / "out.vcf"), "-a", "MetaLayerDetail"]
    asked = "%POS|%ALLELE|%SYMBOL|%Consequence|%FRAME|%REF_DL\\n"
    done = subprocess.run([*tell, "-d", "-f", asked], capture_output=True, text=True, check=True)
    details = [
        (fields[1], dict(zip(DETAIL_FORMAT.split("|"), entry.split("|"), strict=True)))
        for fields in records_of(tmp_path / "out.vcf")
        for entry in info(fields)["MetaLayerDetail"].split(",")
    ]
    wanted = ("ALLELE", "SYMBOL", "Consequence", "FRAME", "REF_DL")
    assert done.stdout.splitlines() == [
        "|".join([position, *(detail[name] or "." for name in wanted)]) for position, detail in details
    ]
    assert any(detail["Consequence"].startswith("donor_loss") for _, detail in details)
    chosen = subprocess.run(
        [*tell, "-d", "-f", "%POS %Consequence\\n", "-i", 'Consequence~"donor_loss"'],
        capture_output=True,
        text=True,
        check=True,
    )
    kept = [position for position, detail in details if "donor_loss" in detail["Consequence"]]
    assert {line.split()[0] for line in chosen.stdout.splitlines()} == set(kept) != {one for one, _ in details}
    refused = subprocess.run([*tell[:-1], "PWM", "-f", "%Consequence\\n"], capture_output=True, text=True, check=False)
    assert refused.returncode and "Consequence" in refused.stderr


def test_tables(tmp_path: Path, genome: list[str]) -> None:
    given = write(tmp_path / "in.vcf")
    assert run(genome, given, tmp_path / "out.tsv") == 2
    assert run(genome, given, tmp_path / "out.parquet") == 2
    assert run(genome, given, tmp_path / "other.txt", "--format", "tsv") == 2
    assert (tmp_path / "other.txt").read_text() == (tmp_path / "out.tsv").read_text()
    table = pl.read_parquet(tmp_path / "out.parquet")
    text = pl.read_csv(tmp_path / "out.tsv", separator="\t", null_values="", schema_overrides={"chrom": pl.String})
    assert table.columns == text.columns == list(COLUMNS)
    for name in ("pos", "ref", "alt", "skipped", "gene_id", "donor_loss_position"):
        assert table[name].to_list() == text[name].to_list()
    assert len(table) == 12  # records, one with two alleles more, one with a gene more
    assert table.filter(pl.col("gene_id").is_null())["skipped"].null_count() == 0


class _Stopped(Exception):
    pass


def test_a_run_that_was_cut_off_goes_on(
    tmp_path: Path, genome: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    records = [snv(at) for at in range(300, 340)]
    given, output = write(tmp_path / "in.vcf", records), tmp_path / "out.vcf"
    assert run(genome, given, tmp_path / "whole.vcf") == 0
    caplog.set_level("INFO")
    answer, asked = Scorer.answer, list[int]()

    def counted(self: Scorer, plans: Sequence[Plan]) -> object:
        asked.extend(plan.asked.position for plan in plans)
        if len(asked) == 15:
            raise _Stopped
        return answer(self, plans)

    monkeypatch.setattr(Scorer, "answer", counted)
    monkeypatch.setattr(together, "MOST_QUESTIONS", 5)
    with pytest.raises(_Stopped):
        run(genome, given, output)
    assert not output.exists()
    (kept,) = tmp_path.glob(".out.vcf.kept-*")
    with kept.open("ab") as handle:
        lines = kept.read_bytes().splitlines(keepends=True)
        assert [line.split(b"\t")[0] for line in lines] == [str(number).encode() for number in range(10)]
        handle.truncate(len(b"".join(lines[:8])))
        handle.write(lines[8][:5])  # cut in mid-line, and in mid-group
    asked.clear()
    asked += range(100, 120)
    assert run(genome, given, output) == 0
    assert asked[20:] == list(range(305, 340)), "a group is asked again as a whole"
    assert "goes on where it was" in caplog.text
    assert output.read_bytes() == (tmp_path / "whole.vcf").read_bytes()
    assert not list(tmp_path.glob(".out.vcf.*"))
    # Other options are another run.
    monkeypatch.setattr(Scorer, "answer", answer)
    assert run(genome, given, output, "--distance", "60") == 0


def test_files_that_were_cut(tmp_path: Path, genome: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    given = write(tmp_path / "in.vcf", [snv(at, ".\t.\t.\tGT\t0/0\t0/1") for at in range(300, 340)])
    packed = tmp_path / "in.vcf.gz"
    pysam.tabix_compress(str(given), str(packed))
    binary = tmp_path / "in.bcf"
    pysam.bcftools.view("-Ob", "-o", str(binary), str(given), catch_stdout=False)
    for path in (packed, binary):
        whole = path.read_bytes()
        for size in (len(whole) - 28, len(whole) // 2):
            path.write_bytes(whole[:size])
            assert run(genome, path, tmp_path / "out.vcf") == 2
            said = capsys.readouterr().err
            assert f"variants {path}: " in said and "copy it again" in said
    given.write_text(given.read_text()[:-12])
    assert run(genome, given, tmp_path / "out.vcf") == 2
    assert "cut short in record 40" in capsys.readouterr().err
    assert not (tmp_path / "out.vcf").exists()


def test_lines_that_are_no_records(tmp_path: Path, genome: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    lines = [snv(at) for at in range(300, 330)]
    lines[3], lines[5] = "chr1\tx\t.\tA\tC\t.\t.\t.", "chr1\t5"
    assert run(genome, write(tmp_path / "in.vcf", lines), tmp_path / "out.vcf") == 0
    out = ["\t".join(fields) for fields in records_of(tmp_path / "out.vcf")]
    assert (out[3], out[5], len(out)) == (lines[3], lines[5], 30)
    assert "2 alleles without a score: damaged_line" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "this is no VCF"),
        (">chr1\nACGT\n", "this is FASTA"),
        ("##fileformat=VCFv4.2\nchr1\t5\t.\tA\tC\t.\t.\t.\n", "no line of columns"),
    ],
)
def test_files_that_are_none(
    tmp_path: Path, genome: list[str], capsys: pytest.CaptureFixture[str], content: str, message: str
) -> None:
    (tmp_path / "in.vcf").write_text(content)
    assert run(genome, tmp_path / "in.vcf", tmp_path / "out.vcf") == 2
    assert message in capsys.readouterr().err


def test_outputs_that_are_none(tmp_path: Path, genome: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    given = write(tmp_path / "in.vcf", [snv(321)])
    assert run(genome, given, tmp_path / "out.txt") == 2
    assert "needed is a name in .vcf" in capsys.readouterr().err
    assert run(genome, given, "-", "--format", "parquet") == 2
    assert "Parquet needs a file" in capsys.readouterr().err
    with pytest.raises(InputError, match="allowed are vcf, tsv, parquet"):
        runs.score_file(given, tmp_path / "x", Sources(given, given, ["pwm"]), Options(), form="xlsx")


def test_samples_by_the_thousand(tmp_path: Path, genome: list[str]) -> None:
    samples = "\t".join(f"s{number}" for number in range(3000))
    line = snv(321, ".\t.\t.\tGT\t") + "\t".join(["0|1:3.14159265"] * 3000)
    given = tmp_path / "in.vcf"
    given.write_text(HEADER + COLUMNS_LINE.replace("one\ttwo", samples) + line + "\n")
    assert run(genome, given, tmp_path / "out.vcf") == 0
    assert records_of(tmp_path / "out.vcf")[0][8:] == line.split("\t")[8:]


def test_names_of_contigs(tmp_path: Path, genome: list[str]) -> None:
    aliases = tmp_path / "aliases.tsv"
    aliases.write_text("chr1\tNC_000001.11\n")
    given = write(tmp_path / "in.vcf", [snv(321), snv(321, contig="1"), snv(321, contig="NC_000001.11")])
    assert run(genome, given, tmp_path / "out.vcf", "--aliases", str(aliases)) == 0
    one, two, three = (info(fields)["PWM"] for fields in records_of(tmp_path / "out.vcf"))
    assert one == two == three


def test_variants_as_text(tmp_path: Path) -> None:
    fasta, _ = made.write(tmp_path, TEXT)
    with Letters(fasta) as letters:

        def given(text: str) -> tuple[int, str, str]:
            found = variant_of(text, letters)
            return found.position, found.ref, found.alt

        assert given("chr1:322:G:a") == given("chr1-322-G-A") == given("chr1:g.322G>A") == (321, "G", "A")
        assert given("1-322-GA-T") == (321, "GA", "T")
        assert given("chr1:g.11_13del") == (9, TEXT[9:13], TEXT[9])
        assert given(f"chr1:g.11_13del{TEXT[10:13]}") == (9, TEXT[9:13], TEXT[9])
        assert given("chr1:g.1del") == (0, TEXT[:2], TEXT[1])
        assert given("chr1:g.11_12insACG") == (10, TEXT[10], TEXT[10] + "ACG")
        assert given("chr1:g.11_13dup") == (12, TEXT[12], TEXT[12] + TEXT[10:13])
        assert given("chr1:g.11_13delinsT") == (10, TEXT[10:13], "T")
        for wrong in (
            *("", "chr1", "chr1:322:G", "chr1:g.11_13insA", "chr1:g.11_12ins", "chr1:g.5_4del", "chr1:g.0del"),
            *("chr1:g.1999_2001del", "chr7:g.5del", "chr1:g.11_12A>T", "chr1:c.11A>T", "chr1:g.11_13delNNN"),
        ):
            with pytest.raises(InputError, match="variant "):
                variant_of(wrong, letters)


def test_one_variant_in_the_terminal(genome: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    loss = f"chr1:321:{TEXT[320]}:{OTHER[TEXT[320]]}"
    assert cli.main(["variant", loss, "chr1:g.51del", *genome]) == 0
    out = capsys.readouterr().out
    assert f"{loss} = chr1-321-{TEXT[320]}-{OTHER[TEXT[320]]}  PLUS (+)" in out
    assert "chr1:320, 1 nt upstream, annotated" in out
    assert "chr1:g.51del  no score: no_gene" in out
    assert cli.main(["variant", "chr1:g.51del", *genome]) == 2


def test_python(genome: list[str]) -> None:
    variants = [f"chr1:{at + 1}:{TEXT[at]}:{OTHER[TEXT[at]]}" for at in (320, 50, 1420)]
    table = score_variants(variants, fasta=genome[1], annotation=genome[3], base="pwm", allow_introns=True)
    assert table.columns == list(COLUMNS)
    assert table["gene_id"].to_list() == ["PLUS", None, "MINUS", "OVER"]
    assert table["id"].to_list() == [variants[0], variants[1], variants[2], variants[2]]
    assert table["donor_loss_score"][0] > 0.1


def test_answers_come_back_from_json_to_the_last_digit(tmp_path: Path) -> None:
    fasta, gtf = made.write(tmp_path, TEXT)
    with runs.opened(Sources(fasta, gtf, ["pwm"], allow_introns=True), Options()) as loaded:
        for position, ref, alt in made.some_variants(TEXT, 4, 20, 210, 1690):
            alleles = loaded.scorer.score("chr1", position, ref, [alt, "*"])
            assert from_json(to_json(alleles)) == alleles


def test_two_base_models_side_by_side(tmp_path: Path, genome: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    member(tmp_path, 80, 1)
    given, files = write(tmp_path / "in.vcf", [snv(321)]), [*genome[:4], "--allow-introns"]
    more = ["--base", "pwm,openspliceai_80", "--weights", str(tmp_path)]
    for weights in (more[2:], ["--weights", f"openspliceai_80={tmp_path}"]):
        assert run(files, given, tmp_path / "out.vcf", *more[:2], *weights) == 0
        fields = info(records_of(tmp_path / "out.vcf")[0])
        assert set(fields) >= {"PWM", "OpenSpliceAI"}
        assert [entry.split("|")[4] for entry in fields["MetaLayerDetail"].split(",")] == ["pwm", "openspliceai_80"]
    assert run(files, given, tmp_path / "out.vcf", "--base", "pwm,pwm") == 2
    assert "each once" in capsys.readouterr().err
    assert run(files, given, tmp_path / "out.vcf", *more, "--model", str(make_bundle(tmp_path / "model"))) == 2
    assert "the model reads the scores of pwm" in capsys.readouterr().err


def test_names_of_tags() -> None:
    assert tags_of(["spliceai", "openspliceai_10000", "cispliceai", "metalayer"]) == {
        "spliceai": "SpliceAI",
        "openspliceai_10000": "OpenSpliceAI",
        "cispliceai": "CISpliceAI",
        "metalayer": "MetaLayer",
    }
    assert tags_of(["openspliceai_80", "openspliceai_10000"]) == {
        "openspliceai_80": "OpenSpliceAI_80",
        "openspliceai_10000": "OpenSpliceAI_10000",
    }


@pytest.mark.parametrize("options", [{}, {"track_encoder": "stages"}], ids=["rows", "tracks"])
def test_our_model_beside_its_base(tmp_path: Path, genome: list[str], options: dict[str, str]) -> None:
    """As the model answers both haplotypes of the whole gene."""
    model = make_bundle(tmp_path / "model", **options)
    predictor = Predictor.load(model, "cpu")
    pwm = made_pwm()
    variants = [(at, ref, alt) for at, ref, alt in made.some_variants(TEXT, 6, 12, 950, 1390)]
    table = score_variants(
        [f"chr1:{at + 1}:{ref}:{alt}" for at, ref, alt in variants],
        fasta=genome[1],
        annotation=genome[3],
        base="pwm",
        model=model,
        allow_introns=True,
        device="cpu",
    )
    ours = table.filter((pl.col("model") == "metalayer") & (pl.col("gene_id") == "MINUS"))
    assert len(ours) >= 8
    assert table.filter(pl.col("gene_id") == "MINUS")["model"].unique().sort().to_list() == ["metalayer", "pwm"]
    strand, start, end = made.spans()["MINUS"]
    changed = 0
    for row in ours.iter_rows(named=True):
        at, ref, alt = row["pos"] - 1, row["ref"], row["alt"]

        def scores(text: str) -> np.ndarray:  # type: ignore[type-arg]
            """Of the contig: what lies outside the gene is zeros."""
            size = end - start + len(text) - len(TEXT)
            letters = reverse_complement(encode(text[start : start + size]))
            gene = Gene("g", Interval("1", 0, size), "+")
            base = pwm.score(made.mirror(text[start : start + size]))
            track = GeneTrack(gene, letters, base, np.full(size, NEITHER, np.uint8))
            out = np.zeros((len(text), 3), np.float32)
            out[start : start + size] = predictor.predict_gene_track(track)[::-1]
            return out

        slow = made.Slow(
            lambda text: np.zeros((len(text), 3), np.float32), TEXT, strand, start, end, made.sites("MINUS")
        )
        p, q = scores(TEXT), scores(TEXT[:at] + alt + TEXT[at + len(ref) :])
        columns, low, high = slow._columns(at, ref, alt, 50, p, q)
        for kind, channel in (("acceptor", 1), ("donor", 0)):
            pairs = [
                (float(p[i, channel]) if i is not None else 0.0, float(q[j, channel]) if j is not None else 0.0)
                for place, (i, j) in columns
                if low <= place <= high
            ]
            gain, loss = max(b - a for a, b in pairs), max(a - b for a, b in pairs)
            assert row[f"{kind}_gain_score"] == pytest.approx(max(gain, 0), abs=1e-5)
            assert row[f"{kind}_loss_score"] == pytest.approx(max(loss, 0), abs=1e-5)
            changed += max(gain, loss) > 0.01
    assert changed > 3


def made_pwm() -> object:
    from metalayer.base.pwm import PwmModel

    return PwmModel()


def test_options_that_do_not_go_together(tmp_path: Path, genome: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    model = make_bundle(tmp_path / "model")
    given = write(tmp_path / "in.vcf", [snv(321)])
    assert run(genome, given, tmp_path / "out.vcf", "--model", str(model), "--as", "spliceai") == 2
    assert "leave out the model" in capsys.readouterr().err
    assert run(genome, given, tmp_path / "out.vcf", "--weights", "nowhere") == 2
    assert "belongs to no base model" in capsys.readouterr().err


def test_reading_is_by_place_and_needs_no_index(tmp_path: Path) -> None:
    fasta, _ = made.write(tmp_path, TEXT)
    packed = tmp_path / "packed.fa.gz"
    pysam.tabix_compress(str(fasta), str(packed))
    plain_gzip = tmp_path / "plain.fa.gz"
    plain_gzip.write_bytes(gzip.compress(fasta.read_bytes()))
    for path in (fasta, packed):
        with Letters(path) as letters:
            assert letters.lengths == {"1": 2000}
            assert letters.raw("1", -3, 4) == b"NNN" + TEXT[:4].encode()
            assert letters.raw("1", 1998, 2002) == TEXT[1998:].encode() + b"NN"
            assert letters.raw("1", 2005, 2007) == b"NN"
        assert not list(tmp_path.glob("*.fai")), "what was made for the run goes with it"
    with pytest.raises(InputError, match="packed by bgzip"):
        Letters(plain_gzip)
    text = io.StringIO(fasta.read_text()).getvalue().replace("A", "?", 1)
    (tmp_path / "odd.fa").write_text(text)
    with Letters(tmp_path / "odd.fa") as letters, pytest.raises(InputError, match="a byte that is no letter"):
        letters.tokens("1", 0, 60)


def one_variant(genome: list[str], *more: str) -> int:
    at = 321
    return cli.main(["variant", f"chr1:{at + 1}:{TEXT[at]}:{OTHER[TEXT[at]]}", "chr1:51:A:C", *genome, *more])


def test_a_variant_as_json(genome: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert one_variant(genome, "--json") == 0
    scored, other = json.loads(capsys.readouterr().out)
    assert other["skipped"] and not other["genes"]
    (gene,) = scored["genes"]
    found = gene["models"]["pwm"]
    assert found["changes"]["donor_loss"]["position"] == 320 and found["changes"]["donor_loss"]["annotated"]
    meaning = found["consequence"]
    assert meaning["label"] == "research prediction" and meaning["consequence"][0] == "donor_loss"
    assert meaning["exons_before"][0]["start"] == 201 and meaning["transcript"] in ("PLUS.0", "PLUS.1")


def test_a_variant_on_a_terminal_has_what_it_means(genome: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert one_variant(genome) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    text = "\n".join(lines)
    assert "consequence: donor loss" in text and "donor loss: chr1:320" in text
    assert any(line.strip().startswith("before  [=") for line in lines)


@pytest.mark.parametrize("name", ["v.png", "v.svg"])
def test_a_picture_of_a_variant(
    tmp_path: Path, genome: list[str], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert one_variant(genome, "--plot", str(tmp_path / name)) == 0
    raw = (tmp_path / name).read_bytes()
    assert raw.startswith(b"\x89PNG" if name.endswith("png") else b"<?xml")
    if name.endswith("svg"):
        text = raw.decode()
        for part in ("PLUS (+)", "ALT - REF", "annotated site", "donor loss", "before", "after"):
            assert part in text
    assert one_variant(genome, "--plot", str(tmp_path / "v.txt")) == 2
    assert "needed is a name in .png, .svg, .pdf" in capsys.readouterr().err


def test_how_far_consequences_are_read(genome: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for context, status in (("0", 0), ("5000", 0), ("5001", 2), ("-1", 2)):
        assert one_variant(genome, "--context", context) == status
    assert "context -1; needs 0 to 5000" in capsys.readouterr().err


def test_a_wider_context_changes_no_score(tmp_path: Path, genome: list[str]) -> None:
    given = write(tmp_path / "in.vcf", [snv(at) for at in (321, 421, 1119, 1420)])
    assert run(genome, given, tmp_path / "near.vcf") == 0
    assert run(genome, given, tmp_path / "far.vcf", "--context", "400") == 0
    near, far = ([info(fields)["PWM"] for fields in records_of(tmp_path / f"{name}.vcf")] for name in ("near", "far"))
    assert near == far
