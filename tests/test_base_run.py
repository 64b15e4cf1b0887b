"""The base-layer pass over an annotation: what it reads, writes, resumes and refuses."""

from __future__ import annotations

import errno
import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
import torch

from metalayer import cli
from metalayer.base.annotation import read_annotation
from metalayer.base.dilated import Ensemble
from metalayer.base.protocol import BASE_MODELS
from metalayer.base.pwm import PwmModel
from metalayer.core import ArtifactLoader
from metalayer.data.gene_table import load_genes, read_gene_table
from metalayer.data.tracks import TrackStore
from metalayer.device import kernels
from metalayer.errors import InputError, MetalayerError
from metalayer.files import sha256
from metalayer.genome import decode, encode, normalise_chrom, reverse_complement
from metalayer.integrity import unsealed
from metalayer.schema import BASE_SCORES, KERNELS_KEY, PRECISION_KEY
from metalayer.settings.sections import BaseConfig, DataConfig
from metalayer.workflows import base_run as base_run_module
from metalayer.workflows.base_run import base_run, fingerprint, is_written
from tests.test_openspliceai import member


def pwm_config(simulation: Path, output: Path, **changes: object) -> BaseConfig:
    """A pass of the built-in model over the simulated genome."""
    genome = simulation / "genome"
    files = {"fasta": genome / "simulated.fa", "annotation": genome / "simulated.gff3", "output": output}
    return BaseConfig(**{"model": "pwm", **files, **changes})


def pwm_pass(simulation: Path, output: Path, **changes: object) -> dict[str, Any]:
    return base_run(pwm_config(simulation, output, **changes))


def wait_until(what: Callable[[], bool]) -> None:
    for _ in range(300):
        if what():
            return
        time.sleep(0.1)
    raise AssertionError("waited for 30 s")


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
    pwm_pass(simulation, folder, annotation_source="simulated")
    return folder


def test_a_pass_gives_what_the_simulation_gave(simulation: Path, passed: Path) -> None:
    """The simulation writes the same scores from its own genes: letters, labels and scores, both strands."""
    ours, theirs = scores_of(passed), scores_of(simulation)
    assert ours.equals(theirs)
    manifest = json.loads((passed / "base_layer_pwm.json").read_text())
    assert manifest["positions"] == len(ours)
    assert manifest["canonical"] >= 0.9 * manifest["introns"] > 0
    assert list(passed.glob(".*")) == []


def test_what_it_wrote_is_a_data_root(passed: Path, tmp_path: Path) -> None:
    report = ArtifactLoader(DataConfig(base_model="pwm", data_root=passed)).load(tmp_path)
    assert report["rows_rebuilt_from_tracks"] == report["artifacts"]["rows_kept"] > 0
    assert report["artifacts"]["mismatched_features"] == {}


def test_several_processes_give_the_same(simulation: Path, passed: Path, tmp_path: Path) -> None:
    pwm_pass(simulation, tmp_path, workers=2)
    assert scores_of(tmp_path).equals(scores_of(passed))


def test_flanks_of_n_change_the_ends_alone(simulation: Path, passed: Path, tmp_path: Path) -> None:
    assert pwm_pass(simulation, tmp_path, flanks="N")["padding"] == "N"
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
    for gene in read_annotation(simulation / "genome/simulated.gff3").genes:
        for transcript, exons in gene.exons.items():
            span = gene.gene.interval
            for start, end in exons:
                fields = f'gene_id "{gene.gene.gene_id}"; transcript_id "{transcript}";'
                lines.append(f"{span.chrom}\tx\texon\t{start + 1}\t{end}\t.\t{gene.gene.strand}\t.\t{fields}")
    (tmp_path / "genes.gtf.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    odd_files = {"fasta": tmp_path / "odd.fa.gz", "annotation": tmp_path / "genes.gtf.gz"}
    manifest = pwm_pass(simulation, tmp_path / "out", **odd_files)
    assert list(manifest["ambiguous_letters"].values()) == [1]
    ours, theirs = scores_of(tmp_path / "out"), scores_of(passed)
    sites = (pl.col("label") != "neither") & (pl.col("donor_score") > -1)
    assert ours.filter(sites).select("gene_id", "position", "label").rows() == (
        theirs.filter(sites).select("gene_id", "position", "label").rows()
    )


SLOW = """
import sys, time
from pathlib import Path
from metalayer.base.pwm import PwmModel
from metalayer.settings.sections import BaseConfig
from metalayer.workflows.base_run import base_run

score = PwmModel.score
def slow(*given):
    time.sleep(0.2)
    return score(*given)
PwmModel.score = slow

if __name__ == "__main__":
    base_run(BaseConfig.model_validate_json(sys.argv[1]))
"""


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def running(process: str) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_killed_pass_goes_on(simulation: Path, passed: Path, tmp_path: Path, workers: int) -> None:
    """Killed for good, it scores what is left, and every byte is that of a pass that was not killed."""
    (tmp_path / "slow.py").write_text(SLOW)
    out = tmp_path / "out"
    config = pwm_config(simulation, out, annotation_source="simulated", workers=workers)
    with subprocess.Popen([sys.executable, str(tmp_path / "slow.py"), config.model_dump_json()]) as process:
        wait_until(lambda: len(list(out.glob(".base-layer-*/*.npy"))) >= 3)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) >= (workers if workers > 1 else 0)
        with pytest.raises(
            MetalayerError, match=rf"another run \(process {process.pid} on .*\) is using .*another output"
        ):
            base_run(config)
        process.send_signal(signal.SIGKILL)
    wait_until(lambda: not any(map(running, children)))
    kept = sorted(out.glob(".base-layer-*/*.npy"))
    assert kept
    assert not (out / "base_layer_pwm.json").exists()
    kept[0].write_bytes(kept[0].read_bytes()[:-5])  # a damaged one is scored again
    kept[0].with_suffix(".part").write_bytes(b"half")
    scored: list[int] = []
    score = PwmModel.score

    def count(self: PwmModel, *given: str) -> np.ndarray:
        scored.append(1)
        return score(self, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PwmModel, "score", count)
        manifest = base_run(config.model_copy(update={"workers": 1}))
    assert len(scored) == manifest["genes"] - len(kept) + 1
    assert tree(out) == tree(passed)


def test_a_pass_with_other_facts_starts_anew(simulation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, padding and files by content: what was kept of a pass with others is not used, nor left behind."""
    score, calls = PwmModel.score, [0]

    def broken(self: PwmModel, *given: str) -> np.ndarray:
        calls[0] += 1
        if calls[0] == 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return score(self, *given)

    monkeypatch.setattr(PwmModel, "score", broken)
    foreign = tmp_path / ".base-layer-pwm_2-0123456789abcdef"
    foreign.mkdir()
    for changes in ({}, {"flanks": "N"}, {"weights_sha256": "other"}):
        monkeypatch.setattr(PwmModel, "weights", {"w": changes.pop("weights_sha256", "")}, raising=False)
        calls[0] = 0
        with pytest.raises(MetalayerError, match=r"cannot be written: .*No space left.*finished genes are kept"):
            pwm_pass(simulation, tmp_path, **changes)
        assert calls[0] == 4
        assert len(list(tmp_path.glob(".base-layer-pwm-*/*.npy"))) == 3
    assert foreign.is_dir()
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".npy"}


def test_a_pass_of_other_code_is_another(
    simulation: Path, passed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The version of metalayer stays the same while its source changes."""
    config = pwm_config(simulation, passed, annotation_source="simulated")
    before = fingerprint(config)
    assert is_written(config, before)
    monkeypatch.setattr(base_run_module, "code_hash", lambda: "that of other code")
    assert fingerprint(config) != before
    assert not is_written(config, fingerprint(config))


def test_a_disk_that_is_full(simulation: Path, tmp_path: Path) -> None:
    """A limit on file sizes stands for the disk: nothing is published, and the message says how to go on."""
    program = (
        "import resource, sys; from metalayer.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)); sys.exit(main(sys.argv[1:]))\n"
    )
    genome = simulation / "genome"
    arguments = ["base", "run", "--model", "pwm", "--output", str(tmp_path / "out")]
    arguments += ["--fasta", str(genome / "simulated.fa"), "--annotation", str(genome / "simulated.gff3")]
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "cannot be written" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert {path.suffix for path in (tmp_path / "out").rglob("*") if path.is_file()} == {".npy"}
    assert cli.main(arguments) == 0


def die(*_: str) -> None:
    os._exit(9)


def test_a_worker_that_dies(simulation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_run_module, "_score_in_worker", die)
    with pytest.raises(MetalayerError, match=r"one of 2 processes that score genes died.*fewer workers"):
        pwm_pass(simulation, tmp_path, workers=2)


def test_passes_of_several_models_share_a_data_root(simulation: Path, tmp_path: Path) -> None:
    pwm_pass(simulation, tmp_path)
    other = {path.name: path.read_bytes() for path in tmp_path.glob("nucleotide_scores/*")}

    class Other(PwmModel):
        name = "other"

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BASE_MODELS, "other", Other)
        pwm_pass(simulation, tmp_path, model="other")
        assert {path.name for path in tmp_path.glob("base_layer_*")} == {"base_layer_pwm.json", "base_layer_other.json"}
        assert other.items() <= {path.name: path.read_bytes() for path in tmp_path.glob("nucleotide_scores/*")}.items()
        shifted = tmp_path / "fewer.gff3"
        lines = (simulation / "genome/simulated.gff3").read_text().splitlines()
        shifted.write_text("\n".join(line.replace("SIM0001", "NEW1") for line in lines))
        with pytest.raises(InputError, match=r"genes.tsv is of another annotation: 1 of 44 .* first NEW1"):
            pwm_pass(simulation, tmp_path, model="other", annotation=shifted)
    single = tmp_path / "single"
    pwm_pass(simulation, single)
    pwm_pass(simulation, single, annotation=shifted)  # the same model's own earlier pass is replaced
    assert "gene-NEW1\t" in (single / "genes.tsv").read_text()


def test_a_gene_table_that_knows_more_stays(simulation: Path, base_layer: Path) -> None:
    """The simulation's own gene table names paralogs, which no annotation does."""
    before = (base_layer / "genes.tsv").read_bytes()
    assert b"PG1" in before
    pwm_pass(simulation, base_layer, annotation_source="simulated", build="GRCh38")
    assert (base_layer / "genes.tsv").read_bytes() == before


def test_an_annotation_of_another_build_is_noticed(
    simulation: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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

    fasta, out = simulation / "genome/simulated.fa", tmp_path / "out"

    def never(*_: object) -> None:
        raise AssertionError("scored before the build was checked")

    monkeypatch.setattr(PwmModel, "score", never)
    with pytest.raises(InputError, match=r"only \d+ of \d+ introns .* of one genome build and the strand is right"):
        pwm_pass(simulation, out, annotation=shifted(3))
    with pytest.raises(InputError, match=r"end beyond it, the first.*Are both of one genome build"):
        pwm_pass(simulation, out, annotation=shifted(10**7))
    text = fasta.read_text()
    (tmp_path / "part.fa").write_text(text[: text.index(">", 1)])
    with pytest.raises(
        InputError, match=r"has no chromosome chr2, chr3.*The FASTA has chr1; the.*Give the whole reference"
    ):
        pwm_pass(simulation, out, fasta=tmp_path / "part.fa")
    assert not out.exists()


def test_a_build_is_told_from_all_introns(simulation: Path, passed: Path, tmp_path: Path) -> None:
    """Wrong on the last chromosomes alone, and still before anything is scored."""
    lines = (simulation / "genome/simulated.gff3").read_text().splitlines()
    moved = []
    for line in lines:
        fields = line.split("\t")
        if fields[0] in ("chr8", "chr9", "chr10", "chrX"):
            fields[3:5] = [str(int(place) + 7) for place in fields[3:5]]
        moved.append("\t".join(fields))
    (tmp_path / "a.gff3").write_text("\n".join(moved))
    with pytest.raises(InputError, match="of one genome build"):
        pwm_pass(simulation, tmp_path / "out", annotation=tmp_path / "a.gff3")
    assert not (tmp_path / "out").exists()


def test_command_line(simulation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [
        "--fasta",
        str(simulation / "genome/simulated.fa"),
        "--annotation",
        str(simulation / "genome/simulated.gff3"),
    ]
    assert cli.main(["base", "run", "--model", "pwm", *files, "--output", str(tmp_path / "out")]) == 0
    assert "scored with pwm" in capsys.readouterr().out
    assert cli.main(["base", "run", "--model", "spliceby", *files, "--output", str(tmp_path / "x")]) == 2
    assert "there are cispliceai, openspliceai, pangolin, pangolin_spliced, pwm, spliceai" in capsys.readouterr().err


def test_short_genes_and_chromosome_ends(tmp_path: Path) -> None:
    """Genes shorter than what the model sees, of one letter, over a whole chromosome and at its ends: all scored."""
    letters = decode(np.random.default_rng(3).integers(0, 4, 120).astype(np.uint8))
    (tmp_path / "a.fa").write_text(f">chr1\n{letters}\n>chrUn_1\n{letters[::-1]}\n")
    places = {"FIRST": (1, 1), "LAST": (120, 120), "WHOLE": (1, 120), "SHORT": (60, 65), "END": (100, 120)}
    lines = [
        f'{chrom}\tx\texon\t{start}\t{end}\t.\t{strand}\t.\tgene_id "{chrom}{name}{strand}"; transcript_id "t{strand}";'
        for chrom in ("chr1", "chrUn_1")
        for strand in "+-"
        for name, (start, end) in places.items()
    ]
    (tmp_path / "a.gtf").write_text("\n".join(lines))
    files = {"fasta": tmp_path / "a.fa", "annotation": tmp_path / "a.gtf", "output": tmp_path / "out"}
    manifest = base_run(BaseConfig(model="pwm", **files))
    assert (manifest["genes"], manifest["introns"]) == (20, 0)
    found = scores_of(tmp_path / "out").with_columns(pl.col("gene_id").str.strip_prefix("gene-"))
    for chrom, text in (("chr1", letters), ("chrUn_1", letters[::-1])):
        plus = PwmModel().score(text)
        minus = PwmModel().score(decode(reverse_complement(encode(text))))[::-1]
        for strand, whole in (("+", plus), ("-", minus)):
            for name, (start, end) in places.items():
                gene = found.filter(pl.col("gene_id") == f"{chrom}{name}{strand}")
                assert gene["position"].to_list() == list(range(start, end + 1))
                assert np.array_equal(gene.select(BASE_SCORES).to_numpy(), whole[start - 1 : end])


def test_what_the_manifest_says(tmp_path: Path) -> None:
    member(tmp_path, 80, 1)
    member(tmp_path, 400, 1)
    files = {"fasta": tmp_path / "a.fa", "annotation": tmp_path / "a.gtf", "output": tmp_path / "out"}
    files["fasta"].write_text(">chr1\nACGT" + "acgR" * 50 + "\n")
    files["annotation"].write_text('chr1\tx\texon\t11\t60\t.\t+\t.\tgene_id "g"; transcript_id "t";\n')
    made = {"weights": tmp_path, "flank": 400, "device": "cpu", "build": "GRCh38", "annotation_source": "mane"}
    manifest = base_run(BaseConfig(model="openspliceai", flanks="N", **files, **made))
    assert unsealed((tmp_path / "out" / "base_layer_openspliceai_400.json").read_text()) == manifest
    weights = {"model_400nt_rs1.pt": sha256(tmp_path / "model_400nt_rs1.pt")}
    expected = {
        "base_model": "openspliceai_400",
        "flank_bp": 200,
        "padding": "N",
        "weights_sha256": weights,
        "precision": "float32",
        "kernels": [kernels("cpu", "float32")],
        "genome_build": "GRCh38",
        "annotation_source": "mane",
        "site_convention": "exon_base_transcript_sense",
        "fasta": {"name": "a.fa", "sha256": sha256(files["fasta"])},
        "annotation": {"name": "a.gtf", "sha256": sha256(files["annotation"])},
        "genes": 1,
        "positions": 50,
        "ambiguous_letters": {"1": 50},
        "annotation_handled": {},
    }
    assert expected.items() <= manifest.items()
    assert sorted(manifest["files"]) == [
        "data/mane/GRCh38/openspliceai_400_eval/meta_models/analysis_sequences_1_chunk_1_1.tsv",
        "genes.tsv",
        "nucleotide_scores/openspliceai_400_chr1.parquet",
    ]
    before = manifest["fingerprint"]
    member(tmp_path, 400, 2)  # weights replaced or added: other scores, another pass
    assert fingerprint(BaseConfig(model="openspliceai", flanks="N", **files, **made)) != before


def test_what_scores_were_computed_in_and_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files and manifest say it. Another precision is another pass; one that goes on on another CPU names both."""
    member(tmp_path, 80, 1)
    files = {"fasta": tmp_path / "a.fa", "annotation": tmp_path / "a.gtf", "output": tmp_path / "out"}
    files["fasta"].write_text(">chr1\n" + "ACGT" * 50 + "\n")
    line = 'chr1\tx\texon\t{}\t{}\t.\t+\t.\tgene_id "{}"; transcript_id "{}";\n'
    files["annotation"].write_text(line.format(11, 60, "g", "t") + line.format(91, 150, "h", "u"))
    config = BaseConfig(model="openspliceai", weights=tmp_path, device="cpu", **files)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    coarse = config.model_copy(update={"precision": "auto"})
    assert fingerprint(coarse) != fingerprint(config)
    assert fingerprint(config.model_copy(update={"precision": "float32"})) == fingerprint(config)

    def on_disk() -> tuple[str, list[str]]:
        found = pq.read_schema(tmp_path / "out" / "nucleotide_scores" / "openspliceai_80_chr1.parquet").metadata
        return found[PRECISION_KEY.encode()].decode(), json.loads(found[KERNELS_KEY.encode()])

    base_run(coarse)
    assert on_disk() == ("bfloat16", ["avx512_bf16"])
    score = Ensemble.score

    def broken(self: Ensemble, sequence: str, *around: str) -> np.ndarray:
        if len(sequence) == 60:
            raise OSError(errno.ENOSPC, "no space")
        return score(self, sequence, *around)

    with monkeypatch.context() as other:
        other.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
        other.setattr(Ensemble, "score", broken)
        with pytest.raises(MetalayerError, match="finished genes are kept"):
            base_run(config)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    manifest = base_run(config)
    assert manifest["kernels"] == ["avx2", "avx512_core"]
    assert on_disk() == ("float32", manifest["kernels"])
    assert not list((tmp_path / "out").glob(".base-layer-*/*"))


def real_pass(shared: Path, output: Path, flank: int, annotation: Path) -> None:
    """A pass of the published ensemble over the real chromosomes, through the command line."""
    arguments = ["--weights", shared / "golden" / "openspliceai-mane" / f"{flank}nt", "--annotation", annotation]
    arguments += ["--fasta", shared / "real" / "genome" / "hg19_slices.fa.gz", "--output", output, "--device", "cpu"]
    assert cli.main(["base", "run", "--model", "openspliceai", "--build", "GRCh37", *map(str, arguments)]) == 0


def assert_as_stored(shared: Path, output: Path, name: str, genes: set[str] | None = None) -> None:
    """Every position of these genes (None: all that are stored): scores to 1e-3, the same labels and letters."""
    ours, theirs = (
        pl.read_parquet(folder / "nucleotide_scores" / f"{name}.parquet")
        .with_columns(pl.col("gene_id", "base", "label").cast(pl.String))
        .with_columns(pl.col("gene_id").str.strip_prefix("gene-"))
        .sort("gene_id", "position")
        for folder in (output, shared / "real")
    )
    if genes is not None:
        theirs = theirs.filter(pl.col("gene_id").is_in(genes))
        assert set(theirs["gene_id"]) == genes
    same = ["gene_id", "position", "base", "label"]
    assert ours.select(same).equals(theirs.select(same))
    for column in BASE_SCORES:
        assert (ours[column] - theirs[column]).abs().max() < 1e-3


def test_real_genes_come_back(shared: Path, tmp_path: Path, data_config: Callable[..., DataConfig]) -> None:
    """Flank-80 ensemble over all genes of real chromosome 3 (and 7)."""
    real_pass(shared, tmp_path, 80, shared / "real" / "genome" / "hg19_slices.gff3")
    assert_as_stored(shared, tmp_path, "openspliceai_80_chr3")
    report = ArtifactLoader(data_config(tmp_path, base_model="openspliceai_80")).load(tmp_path / "typed")
    assert report["rows_with_scores_of_no_pass"] == 0
    store = TrackStore(tmp_path / "typed" / "tracks.parquet")
    track = store.read(next(iter(store.genes())))
    assert set(decode(track.tokens)) <= set("ACGTN")


def test_real_genes_come_back_with_the_wide_flank(shared: Path, tmp_path: Path) -> None:
    """Flank-10000 ensemble over the smallest genes of either strand; the whole chromosome takes minutes."""
    genes = {"CCK", "KLHL40", "HHATL"}
    lines = (shared / "real" / "genome" / "hg19_slices.gff3").read_text().splitlines()
    few = [line for line in lines if genes & set(re.findall(r"gene=([^;]+)", line))]
    (tmp_path / "few.gff3").write_text("\n".join(few))
    real_pass(shared, tmp_path / "out", 10000, tmp_path / "few.gff3")
    assert_as_stored(shared, tmp_path / "out", "openspliceai_10000_chr3", genes)


NAMES = [
    "tig00000012/0_500",
    "ctg[1]",
    "a b",
    "scaffold*",
    "chr%2F",
    'x"y',
    "c'1",
    "_chunk_1_2",
    "NC_000001.11",
    "\u03b1",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_contigs_and_genes_come_back(tmp_path: Path, name: str) -> None:
    """What a pass writes of a name that is odd, and valid in GFF3 and FASTA, the loader reads."""
    rng = np.random.default_rng(3)
    letters = decode(rng.integers(0, 4, 3000).astype(np.uint8))
    word = name.replace(" ", "_")  # a FASTA name ends at a blank, and GFF3 writes one as %20
    (tmp_path / "a.fa").write_text(f">{word}\n{letters}\n>2\n{letters[::-1]}\n")
    escaped = quote(name)
    lines = []
    for chrom in (word, "2"):
        for at in (100, 1500):
            gene = f"{escaped}.{chrom == word}{at}"
            lines.append(f"{chrom}\tx\tgene\t{at}\t{at + 900}\t.\t+\t.\tID={quote(gene)};Name={escaped}")
            lines += [
                f"{chrom}\tx\texon\t{s}\t{e}\t.\t+\t.\tParent={quote(gene)}"
                for s, e in ((at, at + 300), (at + 600, at + 900))
            ]
    (tmp_path / "a.gff3").write_text("\n".join(lines) + "\n")
    files = {"fasta": tmp_path / "a.fa", "annotation": tmp_path / "a.gff3", "output": tmp_path / "out"}
    for _ in range(2):  # the second finds its own gene table
        base_run(BaseConfig(model="pwm", allow_introns=True, **files))
    table = read_gene_table(tmp_path / "out" / "genes.tsv")
    assert sorted(set(table["chrom"])) == sorted({"2", normalise_chrom(word)})
    assert set(table["gene_name"]) == {name}
    report = ArtifactLoader(DataConfig(base_model="pwm", data_root=tmp_path / "out")).load(tmp_path / "loaded")
    assert report["artifacts"]["rows_kept"] > 0
    assert len(load_genes(tmp_path / "loaded" / "genes.parquet")) == 4
