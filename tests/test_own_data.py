"""A folder of own data: what is found in it, the settings that follow, and what is said where there is nothing."""

import shutil
from pathlib import Path

import polars as pl
import pytest

from metalayer import yaml12
from metalayer.cli import main
from metalayer.data.gene_table import read_gene_table
from metalayer.data.splits import PARTS, make_split, parts_of
from metalayer.errors import ArtifactError, ConfigError
from metalayer.genome import Gene
from metalayer.schema import CLASSES
from metalayer.settings.run import RunConfig
from metalayer.settings.sections import SplitConfig
from metalayer.workflows import own_data
from metalayer.workflows.own_data import BaseFiles, Contents, Genes

RUN = Path(__file__).resolve().parents[1] / "pipelines" / "run.py"


def planned(root: Path, base: str | None = None) -> own_data.Plan:
    found = own_data.contents(root)
    chosen = own_data.chosen_base(found, base)
    return own_data.plan(found, chosen, own_data.genes_of(found, chosen))


@pytest.fixture
def scores(simulation: Path, tmp_path: Path) -> Path:
    """Per-nucleotide scores and a gene table, as `import` writes them."""
    root = tmp_path / "own"
    shutil.copytree(simulation / "nucleotide_scores", root / "nucleotide_scores")
    shutil.copy(simulation / "genes.tsv", root)
    return root


def test_settings_follow_from_scores_alone(scores: Path) -> None:
    made = planned(scores)
    config = made.config()
    assert config.data.base_model == "pwm"
    assert config.data.variant_source is None
    assert config.train.training_unit == "genes"
    assert config.model.track_encoder == "stages"
    total = sum(pl.scan_parquet(path).select(pl.len()).collect().item() for path in made.base.scores)
    assert made.genes.positions == total
    labels = pl.concat(pl.read_parquet(path, columns=["label"]) for path in made.base.scores)["label"]
    assert tuple(sum(counts[i] for counts in made.genes.sites.values()) for i in (0, 1)) == (
        (labels == "donor").sum(),
        (labels == "acceptor").sum(),
    )
    # Paralogs are known from the gene table.
    table = pl.read_csv(scores / "genes.tsv", separator="\t")
    grouped = (
        table.filter(pl.col("paralog_group").is_not_null()).group_by("paralog_group").len().filter(pl.col("len") > 1)
    )
    assert len(grouped) and len(made.genes.clusters()) < len(made.genes.sites)


def test_settings_follow_from_rows_alone(simulation: Path, tmp_path: Path) -> None:
    root = tmp_path / "own"
    shutil.copytree(simulation / "data", root / "data")
    made = planned(root)
    config = made.config()
    assert (config.data.base_model, config.train.training_unit, config.model.track_encoder) == ("pwm", "rows", "none")
    assert made.genes.positions == 0
    assert made.genes.sites.keys() == planned(simulation).genes.sites.keys()


def test_the_written_file_gives_the_same_settings(scores: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(scores)]) == 0
    said = capsys.readouterr().out
    assert "base model    pwm: " in said
    assert "of genes show a true gain in PR-AUC splice of" in said
    assert "an epoch on this machine, at most 20 epochs" in said
    written = scores / own_data.CONFIG_NAME
    assert RunConfig.load(written).model_dump() == planned(scores).config().model_dump()
    before = written.read_bytes()
    assert b"# the base model whose scores are here" in before
    assert main(["init", str(scores)]) == 2
    assert "--replace writes over it" in capsys.readouterr().err
    assert written.read_bytes() == before
    assert main(["init", str(scores), "--replace"]) == 0


def genes(by_chrom: dict[str, int]) -> Genes:
    """One gene a cluster, each with a donor and an acceptor."""
    found = Genes(positions=1, letters=True)
    for chrom, n in by_chrom.items():
        for number in range(n):
            gene = Gene.from_table(f"{chrom}_{number}", chrom, "+", 1 + 1000 * number, 500 + 1000 * number)
            found.genes[gene.gene_id], found.sites[gene.gene_id] = gene, (1, 1)
            found.chroms[gene.gene_id] = chrom
    return found


@pytest.mark.parametrize(
    ("by_chrom", "expected"),
    [
        ({str(i): 20 for i in range(1, 23)}, {"by": "chromosome", "test_chroms": ["1", "3", "5", "7", "9"]}),
        ({"1": 60, "3": 22}, {"by": "chromosome", "test_chroms": ["3"]}),
        ({"X": 10, "2L": 40, "2R": 50}, {"by": "chromosome", "test_chroms": ["2L", "X"]}),
        ({"2": 50}, {"by": "gene", "test_fraction": 0.3}),
        ({"2": 50, "4": 3}, {"by": "gene", "test_fraction": 0.3}),
        ({"1": 90, "2": 10}, {"by": "gene", "test_fraction": 0.3}),
    ],
)
def test_parts(tmp_path: Path, by_chrom: dict[str, int], expected: dict[str, object]) -> None:
    base = BaseFiles("openspliceai_80", (tmp_path / "b_chr1.parquet",))
    made = own_data.plan(Contents(tmp_path, {"b": base}), base, genes(by_chrom))
    assert {key: made.values["split"][key] for key in expected} == expected
    assert "valid_fraction" in made.values["split"]
    made.config()


@pytest.mark.parametrize(
    ("name", "builds", "by_chrom", "expected", "said"),
    [
        ("spliceai", ("GRCm39",), {"1": 40, "2": 30, "3": 40}, ["2"], None),
        ("pangolin", (), {"1": 10, "2": 20, "3": 60}, ["1"], None),
        ("spliceai", ("hg38",), {"1": 20, "2": 5, "3": 60, "5": 15}, ["1", "5"], None),
        ("mine", ("hg38",), {"1": 40, "2": 30, "3": 40}, ["2"], None),
        (
            "cispliceai",
            ("hg38",),
            {"1": 40, "2": 30, "3": 40},
            ["2"],
            "the gate rejects the model: no human chromosome",
        ),
        (
            "spliceai",
            ("hg38",),
            {"2": 30, "4": 40},
            ["2"],
            "the gate rejects the model: test on chromosomes that are new",
        ),
        ("spliceai", ("hg38",), {"1": 100}, None, None),
        ("spliceai", ("hg38",), {"1": 90, "2": 10}, None, "4 of 30 genes are on chromosome 2,"),
    ],
)
def test_parts_are_new_to_the_base(
    tmp_path: Path, name: str, builds: tuple[str, ...], by_chrom: dict[str, int], expected: list[str], said: str | None
) -> None:
    base = BaseFiles(name, (tmp_path / "b_chr1.parquet",))
    found, there = Contents(tmp_path, {name: base}), genes(by_chrom)
    there.builds = builds
    made = own_data.plan(found, base, there)
    assert made.values["split"].get("test_chroms") == expected
    lines = [line for line in own_data.summary(found, made) if line.startswith("held out")]
    assert len(lines) == (said is not None)
    assert said is None or said in lines[0]
    if said and "leaves" in lines[0]:
        assert made.test_clusters == (26, 26)  # of the 30 to test on, without those of chromosome 2


def test_too_few_genes_for_the_gate_are_said(tmp_path: Path) -> None:
    base = BaseFiles("b", (tmp_path / "b_chr1.parquet",))
    found = Contents(tmp_path, {"b": base})
    lines = own_data.summary(found, own_data.plan(found, base, genes({"2": 10})))
    assert any("cannot be passed: 3 clusters to test on have donors and 3 acceptors" in line for line in lines)
    with pytest.raises(ArtifactError, match="2 clusters of genes with sites"):
        own_data.plan(found, base, genes({"2": 2}))


def test_the_parts_are_those_of_the_run(scores: Path, tmp_path: Path) -> None:
    """So that the clusters which `init` counts, and the gain that it foretells, are of the genes to be tested on."""
    made = planned(scores)
    rows, genes = tmp_path / "rows.parquet", tmp_path / "genes.parquet"
    labels = [(one, chrom, name) for one, chrom in made.genes.chroms.items() for name in CLASSES]
    pl.DataFrame(labels, schema=["gene_id", "chrom", "splice_type"], orient="row").write_parquet(rows)
    read_gene_table(scores / "genes.tsv").write_parquet(genes)
    for split in (made.config().split, SplitConfig(by="gene", test_fraction=0.3, valid_fraction=0.15)):
        parts, left_out = parts_of(made.genes.chroms, made.genes.genes, split)
        manifest = make_split(rows, genes, split)
        assert manifest["left_out"] == left_out
        assert all(sorted(one for one in parts if parts[one] == part) == manifest[part]["genes"] for part in PARTS)
    assert made.parts == parts_of(made.genes.chroms, made.genes.genes, made.config().split)[0]


def test_several_base_models(scores: Path) -> None:
    for path in list((scores / "nucleotide_scores").iterdir()):
        pl.read_parquet(path).write_parquet(path.with_name(path.name.replace("pwm", "other_80")))
    found = own_data.contents(scores)
    assert list(found.bases) == ["other_80", "pwm"]
    with pytest.raises(ConfigError, match=r"2 base models \(other_80, pwm\); name one: --base NAME"):
        own_data.chosen_base(found)
    with pytest.raises(ArtifactError, match=r"given 'other_8', of which .* did you mean 'other_80'"):
        own_data.chosen_base(found, "other_8")
    assert planned(scores, "other_80").config().data.base_model == "other_80"


def test_without_labels(scores: Path) -> None:
    for path in (scores / "nucleotide_scores").iterdir():
        pl.read_parquet(path).drop("label").write_parquet(path)
    with pytest.raises(ArtifactError, match="no column label"):
        planned(scores)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, "metalayer import FILE --fasta genome.fa --annotation genes.gff3 --base NAME"),
        (
            {"g/a.fa": ">1\nACGT\n", "a.gtf": '1\tx\tgene\t1\t4\t.\t+\t.\tgene_id "A";\n'},
            "Make them: pip install --no-deps cispliceai==1.2.2 && metalayer base run --model cispliceai --fasta",
        ),
        ({"donor_plus.bw": "x"}, "Bring these in: metalayer import"),
    ],
)
def test_a_folder_without_scores_names_the_command_that_makes_them(
    tmp_path: Path, files: dict[str, str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "own"
    root.mkdir()
    for name, text in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    assert main(["init", str(root)]) == 2
    assert expected in capsys.readouterr().err
    assert not (root / own_data.CONFIG_NAME).exists()


@pytest.mark.parametrize(("path", "words"), [("absent", "not there"), ("file", "a file")])
def test_no_folder(tmp_path: Path, path: str, words: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError, match=words):
        own_data.contents(tmp_path / path)


def settings(root: Path, *arguments: str) -> dict[str, dict[str, object]]:
    """What a run on a folder would use."""
    from pipelines import configuration, run

    options = run._parser().parse_args(["--data-root", str(root), *arguments])
    found = configuration.read(options, root / "state")
    return dict(yaml12.parse(found.text()))


def test_nothing_of_the_demo_is_in_own_data(scores: Path) -> None:
    shutil.copy(scores / "genes.tsv", scores / "splicevardb.download.tsv")  # there, and not asked for
    found = settings(scores)
    assert found["data"]["variant_source"] is None
    assert found["train"]["max_epochs"] == 20
    assert found["split"]["test_chroms"] != ["1", "3", "5", "7", "9"]
    (scores / own_data.CONFIG_NAME).write_text("data: {base_model: pwm}\ntrain: {max_epochs: 7}\n")
    assert settings(scores)["train"]["max_epochs"] == 7
    assert settings(scores, "--set", "max_epochs=2")["train"]["max_epochs"] == 2


def test_each_setting_says_where_it_comes_from(scores: Path) -> None:
    from pipelines import configuration, run

    options = run._parser().parse_args(["--data-root", str(scores), "--set", "train.patience=3", "--set", "seed=5"])
    text = configuration.read(options, scores / "state").text()
    for line in (
        "  patience: 3  # --set",
        f"  data_root: {scores}  # --data-root",
        f"  training_unit: genes  # of the files in {scores}",
        "  weight_decay: 0.01  # default",
    ):
        assert line in text.splitlines()
    demo = configuration.read(run._parser().parse_args([]), scores / "state")
    assert demo.is_demo
    assert f"  data_root: {scores / 'state' / 'demo'}  # the demo's data" in demo.text().splitlines()
    assert "  variant_source: splicevardb  # pipelines/configs/demo.yaml" in demo.text().splitlines()


def test_a_schedule_needs_a_file(scores: Path) -> None:
    from pipelines import configuration, run

    options = run._parser().parse_args(["--data-root", str(scores)])
    with pytest.raises(ConfigError, match=r"write them first: metalayer init"):
        configuration.require_file(configuration.read(options, scores), "--schedule")


def test_names_of_runs(tmp_path: Path) -> None:
    from pipelines import configuration, run

    for given, name in (
        ([], "demo"),
        (["--data-root", str(tmp_path / "mine")], "mine"),
        (["--data-root", "mine", "--config", "weekly.yaml"], "weekly"),
    ):
        assert configuration.run_name(run._parser().parse_args(given)) == name


def test_a_typing_mistake_is_answered_with_the_setting(scores: Path) -> None:
    with pytest.raises(ConfigError, match=r"did you mean data\.base_model\?"):
        settings(scores, "--set", "basemodel=pwm")
