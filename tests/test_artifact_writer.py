from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from metalayer.base import artifacts
from metalayer.base.artifacts import WriteReport, artifact_directory, artifact_rows, write_artifacts
from metalayer.data.nucleotide_scores import genes_in, genome_build_of, write_tracks
from metalayer.data.scored import ScoredGenome, ScoredGenomeWriter
from metalayer.data.tracks import TrackStore
from metalayer.errors import InputError
from metalayer.features import gene_row_scores, mismatched_columns
from metalayer.gene_track import GeneTrack
from metalayer.genome import LARGEST_32_BIT, Gene, decode, reverse_complement
from metalayer.schema import (
    ACCEPTOR,
    ARTIFACT_COLUMNS,
    CLASSES,
    DERIVED_FEATURES,
    DONOR,
    NEITHER,
    ROW_SCORES,
    TRANSCRIPTS_UNKNOWN,
)
from metalayer.site_labels import SiteMarks

REAL = Path(__file__).parents[2] / "shared" / "real"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="shared/real is not here")
PASS = {"base_model": "toy", "annotation_source": "made_up", "build": "GRCh38"}


def toy_gene(name="G1", chrom="2", strand="-", length=1200, start=5001, sites=((400, DONOR), (700, ACCEPTOR)), seed=0):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 4, length).astype(np.uint8)
    scores = np.zeros((length, 3), dtype=np.float32)
    scores[:, :2] = rng.uniform(0, 0.02, (length, 2))
    labels = np.full(length, NEITHER, dtype=np.uint8)
    for base, kind in sites:
        labels[base] = kind
        scores[base, kind] = 0.75
    scores[:, NEITHER] = 1 - scores[:, 0] - scores[:, 1]
    return GeneTrack(Gene.from_table(name, chrom, strand, start, start + length - 1), tokens, scores, labels)


def write(root, genes, **changes):
    return write_artifacts(root, genes, **(PASS | changes))


def files_in(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_rows_sit_on_the_intron_base_with_the_scores_of_their_pass():
    item = toy_gene()
    item.scores[900] = (0.02, 0.30, 0.68)  # an acceptor-like non-site: a hard negative at 899
    item.scores[100] = (0.60, 0.01, 0.39)  # a donor-like non-site that is called: FP at 101
    rows = artifact_rows(item, seed=1)
    assert rows.columns == list(ARTIFACT_COLUMNS)
    by_position = {row["position"]: row for row in rows.iter_rows(named=True)}

    donor = by_position[401]
    assert (donor["splice_type"], donor["pred_type"], donor["transcript_id"]) == ("donor", "TP", "rna-G1.1")
    assert donor["score"] == donor["donor_score"] == np.float32(0.75)
    assert donor["acceptor_score"] == item.scores[400, ACCEPTOR]
    context = [donor[f"context_score_{name}"] for name in ("m2", "m1", "p1", "p2")]
    assert context == [item.scores[i, DONOR] for i in (398, 399, 401, 402)]
    assert donor["predicted_position"] == donor["true_position"] == 401

    acceptor = by_position[699]
    assert (acceptor["splice_type"], acceptor["score"]) == ("acceptor", acceptor["acceptor_score"])
    context = [acceptor[f"context_score_{name}"] for name in ("m2", "m1", "p1", "p2")]
    assert context == [item.scores[i, ACCEPTOR] for i in (698, 699, 701, 702)]

    hard, called = by_position[899], by_position[101]
    assert (hard["pred_type"], hard["score"]) == ("TN", np.float32(0.30))
    assert (hard["splice_type"], hard["transcript_id"]) == (None, "")
    assert (called["pred_type"], called["predicted_position"], called["true_position"]) == ("FP", 101, None)


def test_a_row_counts_the_transcripts_with_its_site():
    item = toy_gene(sites=((400, DONOR), (700, ACCEPTOR), (1000, DONOR)))
    marks = SiteMarks.of_one_transcript(item.labels)
    marks.transcripts[[400, 1000]] = 7, TRANSCRIPTS_UNKNOWN
    rows = artifact_rows(replace(item, marks=marks), seed=1)
    counts = dict(rows.select("position", "transcript_count").iter_rows())
    assert (counts.pop(401), counts.pop(699), counts.pop(1001)) == (7, 1, 1)
    assert not any(counts.values())
    of_none = dict(artifact_rows(item, seed=1).select("position", "transcript_count").iter_rows())
    assert (of_none[401], of_none[699]) == (1, 1)


def test_negatives_come_from_either_pass_at_the_stated_rate():
    sites = tuple((100 + 20 * i, DONOR) for i in range(10)) + tuple((110 + 20 * i, ACCEPTOR) for i in range(5))
    rows = artifact_rows(toy_gene(sites=sites), seed=1)
    negatives = rows.filter(pl.col("pred_type") == "TN")
    from_donor = negatives.filter(pl.col("score") == pl.col("donor_score"))
    assert len(from_donor) == 12 + 5 and len(negatives) - len(from_donor) == 6 + 5
    assert rows["position"].is_sorted() and rows["position"].n_unique() == len(rows)


def test_windows_are_cut_at_gene_ends_and_reach_the_labelled_base():
    item = toy_gene(sites=((60, DONOR), (1150, ACCEPTOR)))
    letters = decode(item.tokens)
    for row in artifact_rows(item, seed=1).iter_rows(named=True):
        start, end, position = row["window_start"], row["window_end"], row["position"]
        assert (start, end) == (max(0, position - 250), min(1200, position + 250))
        assert row["sequence"] == letters[start:end]


def test_context_beyond_the_gene_is_zero():
    item = toy_gene(sites=((0, DONOR), (1199, ACCEPTOR)))
    rows = {row["position"]: row for row in artifact_rows(item, seed=1).iter_rows(named=True)}
    assert (rows[1]["context_score_m2"], rows[1]["context_score_m1"]) == (0.0, 0.0)
    assert rows[1]["context_score_p1"] == item.scores[1, DONOR]
    assert (rows[1198]["context_score_p1"], rows[1198]["context_score_p2"]) == (0.0, 0.0)


def test_a_one_base_intron_keeps_its_donor_and_counts_its_acceptor():
    report = WriteReport()
    rows = artifact_rows(toy_gene(sites=((400, DONOR), (402, ACCEPTOR))), 1, report)
    assert rows.filter(pl.col("position") == 401)["splice_type"].to_list() == ["donor"]
    assert report.sites_without_row == 1 and report.sites == {"donor": 1, "acceptor": 1}


def test_a_site_without_its_intron_base_in_the_gene_is_counted():
    report = WriteReport()
    rows = artifact_rows(toy_gene(sites=((1199, DONOR), (0, ACCEPTOR))), 1, report)
    assert report.sites_without_row == 2 and rows["splice_type"].null_count() == len(rows)


def test_derived_columns_agree_with_their_formulas_after_a_round_trip(tmp_path):
    write(tmp_path, [toy_gene()])
    path = next(artifact_directory(tmp_path, "toy", "made_up", "GRCh38").iterdir())
    rows = pl.read_csv(path, separator="\t", schema_overrides={"chrom": pl.String})
    present = {name: rows[name].to_numpy().astype(float) for name in DERIVED_FEATURES}
    assert mismatched_columns(rows.select(ROW_SCORES).to_numpy(), present) == {}


def test_rows_of_the_larger_pass_equal_the_label_free_rule():
    item = toy_gene(sites=tuple((50 + 20 * i, kind) for i in range(50) for kind in [i % 2]))
    rule = gene_row_scores(item.scores)
    agreed = 0
    for row in artifact_rows(item, seed=1).iter_rows(named=True):
        at = row["position"]
        own = DONOR if row["score"] == row["donor_score"] else ACCEPTOR
        assert row["score"] == rule[at, own]
        if rule[at, own] >= rule[at, 1 - own]:
            agreed += 1
            assert [row[name] for name in ROW_SCORES[3:]] == rule[at, 3:].tolist()
    assert agreed > 50


def test_tracks_are_plus_strand_ascending_on_the_exon_base(tmp_path):
    item = toy_gene(strand="-")
    write(tmp_path, [item])
    table = pl.read_parquet(tmp_path / "nucleotide_scores" / "toy_chr2.parquet")
    assert table["position"].to_list() == list(range(5001, 6201))
    assert "".join(table["base"].cast(pl.String)) == decode(reverse_complement(item.tokens))
    labels = table.with_columns(pl.col("label").cast(pl.String)).filter(pl.col("label") != "neither")
    assert dict(zip(labels["label"], labels["position"], strict=True)) == {"donor": 6200 - 400, "acceptor": 6200 - 700}
    assert labels.filter(pl.col("label") == "donor")["donor_score"].item() == np.float32(0.75)
    assert table.select("gene_id", "chrom", "strand").unique().row(0) == ("gene-G1", "chr2", "-")


def test_score_files_name_their_build_where_it_is_known(tmp_path):
    for build, expected in (("GRCh38", "GRCh38"), ("unknown", None)):
        write(tmp_path, [toy_gene()], build=build)
        assert genome_build_of(tmp_path / "nucleotide_scores" / "toy_chr2.parquet") == expected


def test_chunks_and_chromosomes(tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts, "GENES_PER_CHUNK", 2)
    genes = [toy_gene(f"A{i}", "1") for i in range(3)] + [toy_gene("B1", "GL000192_random")]
    report = write(tmp_path, genes)
    assert files_in(tmp_path) == [
        "data/made_up/GRCh38/toy_eval/meta_models/analysis_sequences_1_chunk_1_2.tsv",
        "data/made_up/GRCh38/toy_eval/meta_models/analysis_sequences_1_chunk_3_3.tsv",
        "data/made_up/GRCh38/toy_eval/meta_models/analysis_sequences_GL000192_random_chunk_1_1.tsv",
        "nucleotide_scores/toy_chr1.parquet",
        "nucleotide_scores/toy_chrGL000192_random.parquet",
    ]
    assert (report.genes, report.positions) == (4, 4800)
    assert pq.ParquetFile(tmp_path / "nucleotide_scores" / "toy_chr1.parquet").num_row_groups == 3


@pytest.mark.parametrize(
    ("genes", "message"),
    [
        ([], "no genes to write"),
        ([toy_gene("A", "1"), toy_gene("A", "1")], "gene A comes twice"),
        ([toy_gene("A", "1"), toy_gene("B", "2"), toy_gene("C", "1")], "chromosome 1 come in two places"),
    ],
)
def test_impossible_gene_lists_leave_nothing(tmp_path, genes, message):
    with pytest.raises(InputError, match=message):
        write(tmp_path, genes)
    assert files_in(tmp_path) == []


def test_failure_in_mid_pass_leaves_what_was_there(tmp_path):
    write(tmp_path, [toy_gene("A", "1"), toy_gene("B", "2")])
    before = {name: (tmp_path / name).read_bytes() for name in files_in(tmp_path)}

    def genes():
        yield toy_gene("A", "1", seed=5)
        yield toy_gene("B", "2", seed=5)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write(tmp_path, genes())
    assert {name: (tmp_path / name).read_bytes() for name in files_in(tmp_path)} == before


def test_a_new_pass_replaces_the_old_one_and_no_other_model(tmp_path):
    write(tmp_path, [toy_gene("A", "1"), toy_gene("B", "2")])
    write(tmp_path, [toy_gene("A", "1")], base_model="other")
    write(tmp_path, [toy_gene("A", "1")])
    assert [name.rsplit("/", 1)[-1] for name in files_in(tmp_path)] == [
        "analysis_sequences_1_chunk_1_1.tsv",
        "analysis_sequences_1_chunk_1_1.tsv",
        "other_chr1.parquet",
        "toy_chr1.parquet",
    ]


def test_gene_order_does_not_change_a_genes_rows():
    first = artifact_rows(toy_gene("A", seed=3), seed=9)
    artifact_rows(toy_gene("B", seed=4), seed=9)
    assert artifact_rows(toy_gene("A", seed=3), seed=9).equals(first)
    assert not artifact_rows(toy_gene("A", seed=3), seed=10).equals(first)


def test_shapes_and_scores_are_checked():
    item = toy_gene()
    with pytest.raises(InputError, match="its interval needs"):
        GeneTrack(item.gene, item.tokens[:-1], item.scores, item.labels)
    scores = item.scores.copy()
    scores[7, 1] = np.nan
    with pytest.raises(InputError, match=r"outside \[0, 1\] or NaN"):
        GeneTrack(item.gene, item.tokens, scores, item.labels)


def real_files():
    return sorted((REAL / "data").rglob("analysis_sequences_*.tsv"))


def field_kinds(path):
    """Header, and for each row kind and type the form of the fields that may be absent."""
    header, *lines = (line.split("\t") for line in path.read_text().splitlines())
    at = {name: i for i, name in enumerate(header)}
    forms = set()
    for line in lines:
        form = [line[at["pred_type"]], line[at["splice_type"]] or "null", line[at["transcript_count"]]]
        for name in ("transcript_id", "predicted_position", "true_position"):
            form.append({"": "null", '""': "empty"}.get(line[at[name]], "value"))
        forms.add(tuple(form))
    return header, forms


@needs_real
def test_columns_and_empty_fields_are_as_in_real_files(tmp_path):
    item = toy_gene(sites=((400, DONOR), (700, ACCEPTOR), (500, DONOR), (800, ACCEPTOR)))
    item.scores[500], item.scores[800], item.scores[60] = (0.3, 0.0, 0.7), (0.0, 0.3, 0.7), (0.9, 0.0, 0.1)
    write(tmp_path, [item])
    ours = field_kinds(next(artifact_directory(tmp_path, "toy", "made_up", "GRCh38").iterdir()))
    for path in real_files():
        header, forms = field_kinds(path)
        assert header == ours[0]
        assert forms == ours[1], path


@needs_real
def test_real_tracks_give_the_real_rows():
    """Sites and hard negatives of real files, column by column, and the number of true negatives."""
    compared = 0
    for base, chrom in (("openspliceai_80", "3"), ("openspliceai_10000", "5")):
        path = next(path for path in real_files() if f"{base}_eval" in str(path) and f"sequences_{chrom}_" in path.name)
        real = pl.read_csv(path, separator="\t", schema_overrides={"chrom": pl.String})
        tracks = pl.read_parquet(REAL / "nucleotide_scores" / f"{base}_chr{chrom}.parquet")
        for part in tracks.partition_by("gene_id", maintain_order=True):
            item = scored_gene(part)
            expected = real.filter(pl.col("gene_id") == part["gene_id"][0])
            got = artifact_rows(item, seed=1)
            certain = (pl.col("pred_type") != "TN") | (pl.col("score") >= artifacts.HARD_NEGATIVE_SCORE)
            assert abs(len(got) - len(expected)) <= 1, item.gene.gene_id  # a position that both passes would draw
            left, right = (frame.filter(certain).sort("position") for frame in (got, expected))
            for name in ARTIFACT_COLUMNS:
                if left[name].dtype.is_float():
                    np.testing.assert_allclose(left[name], right[name], rtol=1e-9, atol=1e-15, err_msg=name)
                else:
                    assert left[name].to_list() == right[name].to_list(), name
            compared += len(left)
    assert compared > 1000


def scored_gene(part):
    """A GeneTrack from rows of a real per-nucleotide file."""
    first = part.row(0, named=True)
    gene = Gene.from_table(first["gene_id"], first["chrom"], first["strand"], first["position"], part["position"][-1])
    tokens = part["base"].cast(pl.String).replace_strict(list("ACGTN"), range(5), return_dtype=pl.UInt8).to_numpy()
    scores = part.select("donor_score", "acceptor_score", "neither_score").to_numpy()
    labels = part["label"].cast(pl.String).replace_strict(list(CLASSES), range(3), return_dtype=pl.UInt8).to_numpy()
    if gene.strand == "-":
        tokens, scores, labels = reverse_complement(tokens), scores[::-1], labels[::-1]
    return GeneTrack(gene, np.ascontiguousarray(tokens), np.ascontiguousarray(scores), np.ascontiguousarray(labels))


@pytest.mark.parametrize("strand", ["+", "-"])
def test_genes_beyond_two_to_the_31(tmp_path, strand):
    """Genes of long chromosomes (lungfish, pine): across 2**31 and beyond, in every file that holds a position."""
    genes = [toy_gene("g1", "6", strand, start=LARGEST_32_BIT - 500), toy_gene("g2", "6", strand, start=3_000_000_001)]
    write(tmp_path, [toy_gene("g0", "5"), *genes], long_chroms={"6"})
    files = [tmp_path / "nucleotide_scores" / f"toy_chr{chrom}.parquet" for chrom in "56"]
    assert [str(pq.read_schema(path).field("position").type) for path in files] == ["int32", "int64"]
    places = [item.gene.interval for item in genes]
    assert [gene.interval for gene in genes_in(files[1])] == places
    no_sites = pl.DataFrame
    write_tracks(files, tmp_path / "tracks.parquet", {}, no_sites)
    store = TrackStore(tmp_path / "tracks.parquet")
    with ScoredGenomeWriter(tmp_path / "scored.parquet", {}, is_long=True) as writer:
        for item in genes:
            track = store.read(item.gene.gene_id)
            assert track.gene.interval == item.gene.interval
            np.testing.assert_array_equal(track.scores, item.scores)
            np.testing.assert_array_equal(track.labels, item.labels)
            writer.add(item.gene, item.scores)
    scored = ScoredGenome(tmp_path / "scored.parquet")
    for item, place in zip(genes, places, strict=True):
        np.testing.assert_array_equal(scored.read(item.gene.gene_id), item.scores)
        assert scored.region(place)["position"].to_list() == list(range(place.start + 1, place.end + 1))
