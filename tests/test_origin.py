"""Which genes a base model was trained on, known by its name: human ones on chromosomes of its published training."""

import logging

import pytest

from metalayer.base.origin import HUMAN_CHROMS, seen_by_base, seen_chroms, unseen_chroms
from metalayer.errors import ConfigError
from metalayer.settings.run import RunConfig
from metalayer.workflows.gated import check_held_out


@pytest.mark.parametrize(
    ("name", "unseen"),
    [
        ("spliceai", ["1", "3", "5", "7", "9"]),
        ("openspliceai", ["1", "3", "5", "7", "9"]),
        ("OpenSpliceAI_80", ["1", "3", "5", "7", "9"]),
        ("pangolin_spliced", ["1", "3", "5", "7", "9"]),
        ("pangolin", ["1", "5", "9"]),
        ("cispliceai", []),
        ("openspliceai_80+pangolin", ["1", "5", "9"]),
        ("mine+openspliceai_80", ["1", "3", "5", "7", "9"]),
        ("openspliceai_80+cispliceai", []),
        *((name, None) for name in ("pwm", "mine", "openspliceai_mouse", "spliceai-like", "")),
    ],
)
def test_chromosomes_by_name(name: str, unseen: list[str] | None) -> None:
    assert unseen_chroms(name) == unseen
    seen = {chrom for chroms in seen_chroms(name).values() for chrom in chroms}
    assert seen == (set() if unseen is None else set(HUMAN_CHROMS) - set(unseen))


@pytest.mark.parametrize(
    ("gene_id", "build", "known"),
    [
        ("G", "GRCh38", True),
        ("G", "hg19", True),
        ("G", "hs1", True),
        ("ENSG00000141510.18", None, True),
        ("gene:ENSG00000141510", None, True),
        ("G", None, False),
        ("ENSMUSG00000059552", None, False),
        ("G", "GRCm39", False),
        ("ENSG00000141510", "panTro6", False),
    ],
)
def test_only_genes_that_are_known_to_be_human_count(gene_id: str, build: str | None, known: bool) -> None:
    assert (seen_by_base("spliceai", [(gene_id, "2", build)]) is not None) == known
    assert seen_by_base("spliceai", [(gene_id, "3", build)]) is None
    assert seen_by_base("spliceai", [(gene_id, "KI270711.1", build)]) is None
    assert seen_by_base("pwm", [(gene_id, "2", build)]) is None


def test_what_is_found() -> None:
    genes = [("b", "X", "GRCh38"), ("a", "2", "GRCh38"), ("a", "2", "GRCh37"), ("c", "1", "GRCh38")]
    assert seen_by_base("openspliceai_80", genes) == {
        "note": "2 of 3 genes are on chromosomes 2, X, on which openspliceai_80, as published, was trained: there the "
        "base errs less than on genes that are new to it",
        "bases": ["openspliceai_80"],
        "genes": ["a", "b"],
        "of": 3,
        "chromosomes": ["2", "X"],
        "unseen_chroms": ["1", "3", "5", "7", "9"],
    }
    both = seen_by_base("cispliceai+mine+spliceai", genes)
    assert both is not None
    assert (both["bases"], both["genes"], both["unseen_chroms"]) == (["cispliceai", "spliceai"], ["a", "b", "c"], [])


def run(base_model: str, *settings: str) -> RunConfig:
    return RunConfig.load(None, [f"data.base_model={base_model}", *settings])


def test_test_chromosomes_of_the_bases_training_are_refused_at_once() -> None:
    given = ("split.test_chroms=[2, X]",)
    with pytest.raises(ConfigError, match=r"given 2, X, on which spliceai, as published.*choose among 1, 3, 5, 7, 9"):
        check_held_out(run("spliceai", *given), "hg38")
    for build in (None, "GRCm39"):
        check_held_out(run("spliceai", *given), build)
    check_held_out(run("mine", *given), "hg38")
    check_held_out(run("spliceai", "split.test_chroms=[2, 3]"), "hg38")
    check_held_out(run("spliceai", "split.by=gene"), "hg38")
    check_held_out(run("spliceai", *given, "gate.allow_seen_by_base=true"), "hg38")


def test_that_nothing_is_held_out_of_the_base_is_said_at_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        check_held_out(run("cispliceai", "gate.allow_seen_by_base=true"), "hg38")
        check_held_out(run("cispliceai"), "GRCm39")
        assert caplog.messages == []
        check_held_out(run("cispliceai"), "hg38")
    (said,) = caplog.messages
    assert said.startswith("cispliceai, as published, was trained on every human chromosome, so the gate will reject")
    assert said.endswith("or accept this with gate.allow_seen_by_base=true")
