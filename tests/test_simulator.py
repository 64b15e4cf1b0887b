import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from metalayer.base import load_base_model
from metalayer.base.simulator import (
    CHROMOSOMES,
    ENHANCERS,
    SimulationParameters,
    simulate_genes,
    simulate_variants,
)
from metalayer.core import ArtifactLoader
from metalayer.data.tracks import TrackStore
from metalayer.errors import InputError
from metalayer.genome import decode, intron_base, parse_variant, reverse_complement
from metalayer.schema import ACCEPTOR, CLASSES, DONOR, NEITHER
from metalayer.settings.sections import DataConfig
from metalayer.workflows.simulate import simulate

N_GENES = 40


@pytest.fixture(scope="module")
def planted():
    return simulate_genes(3, N_GENES)


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("simulated") / "data_root"
    simulate(root, seed=3, n_genes=N_GENES)
    return root


def sites_of(item):
    return [(int(base), int(item.labels[base])) for base in np.flatnonzero(item.labels != NEITHER)]


def core(item, base, kind):
    """The dinucleotide of a site or decoy, transcript sense."""
    return decode(item.tokens[base + 1 : base + 3] if kind == DONOR else item.tokens[base - 2 : base])


def test_genes_cover_both_strands_and_all_chromosomes(planted):
    assert len(planted.genes) == N_GENES
    assert [gene.gene.strand for gene in planted.genes].count("+") not in (0, N_GENES)
    assert list(planted.chromosomes) == list(CHROMOSOMES)
    assert {item.gene.interval.chrom for item in planted.genes} == set(CHROMOSOMES)
    assert len({item.gene.gene_id for item in planted.genes}) == N_GENES


def test_planted_sites_are_gt_and_ag_on_the_genome_of_either_strand(planted):
    for item in planted.genes:
        letters = planted.chromosomes[item.gene.interval.chrom]
        for base, kind in sites_of(item):
            places = [base + 1, base + 2] if kind == DONOR else [base - 2, base - 1]
            tokens = np.array([letters[item.gene.genomic(index)] for index in places], dtype=np.uint8)
            if item.gene.strand == "-":
                tokens = reverse_complement(tokens[::-1])
            assert decode(tokens) == ("GT" if kind == DONOR else "AG")
            assert decode(tokens) == core(item, base, kind)


def test_labels_are_the_exon_ends(planted):
    for item in planted.genes:
        inner = item.exons[1:-1]
        assert item.exons[0][0] == 0 and item.exons[-1][1] == len(item.tokens) == len(item.gene)
        expected = {(item.exons[0][1] - 1, DONOR), (item.exons[-1][0], ACCEPTOR)}
        expected |= {(end - 1, DONOR) for _, end in inner} | {(start, ACCEPTOR) for start, _ in inner}
        assert set(sites_of(item)) == expected


def test_lengths_are_as_stated(planted):
    p = SimulationParameters()
    for item in planted.genes:
        introns = [right[0] - left[1] for left, right in zip(item.exons, item.exons[1:], strict=False)]
        assert p.introns[0] <= len(introns) < p.introns[1]
        assert all(p.intron_bp[0] <= length < p.intron_bp[1] for length in introns)
        assert all(p.exon_bp[0] <= end - start < p.exon_bp[1] for start, end in item.exons[1:-1])


def test_some_genes_overlap_and_share_their_letters(planted):
    pairs = [
        (a, b)
        for a in planted.genes
        for b in planted.genes
        if a.gene.gene_id < b.gene.gene_id and a.gene.interval.overlaps(b.gene.interval)
    ]
    assert len(pairs) == round(N_GENES * SimulationParameters().overlapping_share / 2) > 0
    for left, right in pairs:
        assert (left.gene.strand, right.gene.strand) == ("+", "-")
        shared = left.gene.interval.end - right.gene.interval.start
        assert decode(left.tokens[-shared:]) == decode(reverse_complement(right.tokens[-shared:]))


def test_paralogs_are_mutated_copies_on_another_chromosome(planted):
    groups = {}
    for item in planted.genes:
        if item.gene.paralog_group:
            groups.setdefault(item.gene.paralog_group, []).append(item)
    assert len(groups) == 2
    for left, right in groups.values():
        assert left.gene.interval.chrom != right.gene.interval.chrom
        assert left.exons == right.exons
        assert 0.9 < (left.tokens == right.tokens).mean() < 0.99


def test_decoys_look_like_sites_to_the_base_and_are_none(planted):
    model = load_base_model("pwm")
    scores = {"site": [], "decoy": []}
    for item in planted.genes:
        track = model.score(decode(item.tokens), *planted.flanks(item.gene, model.flank_bp))
        scores["site"] += [track[base, kind] for base, kind in sites_of(item)]
        for base, kind in item.decoys:
            assert item.labels[base] == NEITHER
            assert core(item, base, kind) == ("GT" if kind == DONOR else "AG")
            scores["decoy"].append(track[base, kind])
    assert len(scores["decoy"]) > 0.9 * len(scores["site"])
    assert np.mean(scores["decoy"]) == pytest.approx(np.mean(scores["site"]), rel=0.15)


def surroundings(item, base, kind):
    """Enhancers on the exon side, share of C and T before the motif, and a branch point, by place."""
    letters = decode(item.tokens)
    exon = letters[max(0, base - 59) : base + 1] if kind == DONOR else letters[base : base + 60]
    enhancers = sum(len(re.findall(f"(?={motif})", exon)) for motif in ENHANCERS)
    tract = letters[base - 24 : base - 14] if kind == ACCEPTOR else ""
    branch = bool(re.search("[CT]T[ACGT]A[CT]", letters[base - 43 : base - 25])) if kind == ACCEPTOR else False
    return enhancers, sum(letter in "CT" for letter in tract) / 10, branch


def test_only_real_sites_have_their_surroundings(planted):
    found = {(kind, real): [] for kind in (DONOR, ACCEPTOR) for real in (True, False)}
    for item in planted.genes:
        for base, kind in sites_of(item):
            found[kind, True].append(surroundings(item, base, kind))
        for base, kind in item.decoys:
            found[kind, False].append(surroundings(item, base, kind))
    mean = {key: np.mean(values, axis=0) for key, values in found.items()}
    for kind in (DONOR, ACCEPTOR):
        assert mean[kind, True][0] > 2 and mean[kind, False][0] < 0.5
    assert mean[ACCEPTOR, True][1] > 0.75 and mean[ACCEPTOR, False][1] < 0.6
    assert mean[ACCEPTOR, True][2] > 0.7 and mean[ACCEPTOR, False][2] < 0.4


def test_base_model_finds_sites_and_errs(planted):
    metrics = pytest.importorskip("sklearn.metrics")
    model = load_base_model("pwm")
    scores = np.concatenate(
        [model.score(decode(i.tokens), *planted.flanks(i.gene, model.flank_bp)) for i in planted.genes]
    )
    labels = np.concatenate([item.labels for item in planted.genes])
    for kind in (DONOR, ACCEPTOR):
        assert 0.2 < metrics.average_precision_score(labels == kind, scores[:, kind]) < 0.6


def test_same_seed_same_genes():
    one, two, other = simulate_genes(5, 12), simulate_genes(5, 12), simulate_genes(6, 12)
    for left, right in zip(one.genes, two.genes, strict=True):
        assert left.gene == right.gene and (left.tokens == right.tokens).all() and left.decoys == right.decoys
    assert one.genes[0].gene != other.genes[0].gene


@pytest.mark.parametrize(("seed", "n_genes"), [(-1, 10), (1, 0)])
def test_impossible_simulations(tmp_path, seed, n_genes):
    with pytest.raises(InputError, match="seed >= 0 and at least 1 gene"):
        simulate(tmp_path / "out", seed, n_genes)
    assert not (tmp_path / "out").exists()


def test_one_gene_is_enough(tmp_path):
    assert simulate(tmp_path / "out", 1, 1)["genes"] == 1


def test_variants_lie_on_the_genome_and_alter_what_they_say(planted):
    variants = simulate_variants(planted, 3)
    by_name = {item.gene.gene_name: item for item in planted.genes}
    cores = {}
    for item in planted.genes:
        places = set()
        for base, kind in sites_of(item):
            here = [base + 1, base + 2] if kind == DONOR else [base - 2, base - 1]
            places |= {item.gene.genomic(index) for index in here}
        cores[item.gene.gene_name] = places
    kinds = {item.classification for item in variants}
    assert {"Splice-altering", "Normal", "Low-frequency"} <= kinds
    for item in variants:
        variant = item.variant
        letters = planted.chromosomes[variant.chrom]
        assert decode(letters[variant.position : variant.position + len(variant.ref)]) == variant.ref != variant.alt
        assert variant.chrom == by_name[item.gene_name].gene.interval.chrom
        touched = set(range(variant.position, variant.position + len(variant.ref)))
        altering = item.classification == "Splice-altering"
        changed = touched if len(variant.ref) == 1 else touched - {variant.position}
        assert bool(changed & cores[item.gene_name]) == altering
        assert not (altering and item.exonic)
    lengths = {(len(item.variant.ref), len(item.variant.alt)) for item in variants}
    assert lengths == {(1, 1), (2, 1), (1, 3)}


def test_hgvs_names_the_place_and_the_letter_of_the_transcript(planted):
    by_name = {item.gene.gene_name: item for item in planted.genes}
    checked = {"+": 0, "-": 0}
    for variant in simulate_variants(planted, 3, share=1.0):
        item = by_name[variant.gene_name]
        match = re.fullmatch(r".*:c\.(\d+)\+([12])([ACGT])>[ACGT]", variant.hgvs)
        if match and int(match[1]) == item.exons[0][1] and variant.classification == "Splice-altering":
            assert match[3] == "GT"[int(match[2]) - 1]
            checked[item.gene.strand] += 1
    assert min(checked.values()) > 0


# The data root


def test_every_form_shows_the_planted_sites(planted, data_root, tmp_path):
    report = ArtifactLoader(DataConfig(base_model="pwm", data_root=data_root)).load(tmp_path)
    assert report["artifacts"]["mismatched_features"] == {} and report["artifacts"]["dropped"] == {}
    assert report["rows_as_they_stand"] == report["rows_with_scores_of_no_pass"] == 0
    rows = pl.read_parquet(tmp_path / "rows.parquet").filter(pl.col("splice_type") != "neither")
    in_rows = set(rows.select("gene_id", "position", "splice_type").iter_rows())
    store = TrackStore(tmp_path / "tracks.parquet")
    expected = set()
    for item in planted.genes:
        track = store.read(item.gene.gene_id)
        np.testing.assert_array_equal(track.labels, item.labels)
        np.testing.assert_array_equal(track.tokens, item.tokens)
        expected |= {(item.gene.gene_id, intron_base(base, kind), CLASSES[kind]) for base, kind in sites_of(item)}
    assert in_rows == expected
    at_base = {
        row["sequence"][row["index"] : row["index"] + 2]
        for row in rows.filter(splice_type="donor").iter_rows(named=True)
    }
    assert at_base == {"GT"}
    at_base = {
        row["sequence"][row["index"] - 1 : row["index"] + 1]
        for row in rows.filter(splice_type="acceptor").iter_rows(named=True)
    }
    assert at_base == {"AG"}


def test_gene_table_and_gff_agree_with_the_planted_exons(planted, data_root):
    table = pl.read_csv(data_root / "genes.tsv", separator="\t")
    exons = {}
    for line in (data_root / "genome" / "simulated.gff3").read_text().splitlines()[1:]:
        chrom, _, kind, start, end, _, strand, _, attributes = line.split("\t")
        if kind == "exon":
            gene_id = re.search("gene=([^;]+)", attributes)[1]
            exons.setdefault(gene_id, []).append((chrom, strand, int(start), int(end)))
    for item, row in zip(planted.genes, table.iter_rows(named=True), strict=True):
        gene = item.gene
        assert (row["gene_id"], row["chrom"], row["strand"]) == (
            f"gene-{gene.gene_id}",
            f"chr{gene.interval.chrom}",
            gene.strand,
        )
        assert (row["start"], row["end"]) == (gene.interval.start + 1, gene.interval.end)
        assert row["paralog_group"] == gene.paralog_group
        here = sorted(exons[gene.gene_id], key=lambda exon: exon[2], reverse=gene.strand == "-")
        assert {exon[:2] for exon in here} == {(row["chrom"], gene.strand)}
        for (start, end), (_, _, low, high) in zip(item.exons, here, strict=True):
            ends = (low - 1, high - 1) if gene.strand == "+" else (high - 1, low - 1)
            assert (gene.genomic(start), gene.genomic(end - 1)) == ends


def test_fasta_holds_the_chromosomes(planted, data_root):
    blocks = (data_root / "genome" / "simulated.fa").read_text().split(">")[1:]
    fasta = {name: "".join(lines) for name, *lines in (block.splitlines() for block in blocks)}
    assert fasta == {f"chr{chrom}": decode(tokens) for chrom, tokens in planted.chromosomes.items()}


def test_variant_table_is_in_the_form_of_splicevardb(data_root):
    text = (data_root / "splicevardb.download.tsv").read_text()
    header, *lines = (line.split("\t") for line in text.splitlines())
    assert header == ["variant_id", "hg19", "hg38", "gene", "hgvs", "method", "classification", "location", "doi"]
    assert [int(line[0]) for line in lines] == list(range(1, len(lines) + 1))
    assert 0 < sum(line[1].startswith('"') and line[2].endswith('"') for line in lines) < len(lines)
    for line in lines:
        assert parse_variant(line[1]).position - parse_variant(line[2]).position == 137
        assert line[7] in ("Exonic", "Intronic")


def test_manifest_says_what_was_made(data_root):
    manifest = json.loads((data_root / "manifest.json").read_text())
    assert (manifest["seed"], manifest["genes"], manifest["base_model"]) == (3, N_GENES, "pwm")
    assert manifest["parameters"]["intron_bp"] == [150, 750]
    rows = pl.scan_csv(data_root / "data" / "**" / "*.tsv", separator="\t", schema_overrides={"chrom": pl.String})
    counted = dict(rows.group_by("pred_type").len().collect().iter_rows())
    assert manifest["rows"] == counted
    assert manifest["sites"]["donor"] == manifest["sites"]["acceptor"]


def content(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_same_seed_writes_the_same_bytes(data_root, tmp_path):
    simulate(tmp_path / "again", seed=3, n_genes=N_GENES)
    assert content(tmp_path / "again") == content(data_root)


def test_an_earlier_simulation_is_replaced_whole(tmp_path):
    out = tmp_path / "out"
    simulate(out, seed=1, n_genes=30)
    (out / "nucleotide_scores" / "left_over.txt").write_text("x")
    simulate(out, seed=2, n_genes=5)
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["seed"], manifest["genes"]) == (2, 5)
    assert not (out / "nucleotide_scores" / "left_over.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_of_something_else_is_refused_and_kept(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="holds no earlier simulation"):
        simulate(tmp_path)
    assert content(tmp_path) == {"thesis.txt": b"years of work"}
    with pytest.raises(InputError, match="is a file"):
        simulate(tmp_path / "thesis.txt")


def test_an_empty_folder_will_do(tmp_path):
    (tmp_path / "out").mkdir()
    assert simulate(tmp_path / "out", n_genes=3)["genes"] == 3


def test_failure_in_mid_write_leaves_nothing_or_the_earlier_one(tmp_path, monkeypatch):
    out = tmp_path / "out"

    def full(*args, **kwargs):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["metalayer.workflows.simulate"], "write_gff3", full)
        with pytest.raises(OSError, match="disk full"):
            simulate(out, n_genes=3)
        assert list(tmp_path.iterdir()) == []
    simulate(out, n_genes=3)
    before = content(out)
    monkeypatch.setattr(sys.modules["metalayer.workflows.simulate"], "write_gff3", full)
    with pytest.raises(OSError, match="disk full"):
        simulate(out, seed=9, n_genes=3)
    assert content(out) == before and [path.name for path in tmp_path.iterdir()] == ["out"]


def test_kill_in_mid_write_leaves_no_folder_and_the_next_run_works(tmp_path):
    out = tmp_path / "out"
    script = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "import metalayer.workflows.simulate\n"
        "module = sys.modules['metalayer.workflows.simulate']\n"
        "module.write_gff3 = lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGKILL)\n"
        "module.simulate(Path(sys.argv[1]), n_genes=3)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(out)], cwd=Path(__file__).parents[1], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not out.exists() and len(list(tmp_path.iterdir())) == 2  # the hidden draft and its lock
    simulate(out, n_genes=3)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
