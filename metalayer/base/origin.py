"""Where a base model comes from: under which licence its weights are, and what they were trained on.

Known by name, without weights: what was trained on genes is no judge of how a base model does on new ones. All that can
be said of a name is what its authors published; of a user's own names nothing is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from metalayer.genome import chrom_order, is_human
from metalayer.schema import bases_of

HUMAN_CHROMS = (*map(str, range(1, 23)), "X", "Y")
SPLICEAI_TEST_CHROMS = ("1", "3", "5", "7", "9")
"""Human chromosomes that SpliceAI and those after it were tested on, and not trained."""

CISPLICEAI = "cispliceai==1.2.2"
"""The distribution that has CI-SpliceAI's weights in it, free for any use that names its authors."""


@dataclass(frozen=True)
class Origin:
    """What the authors of a base model say of it.

    Attributes:
        licence: of the weights, with who says so; None: nothing to keep to, as it has no weights of others.
        trained_on: in words.
        unseen_chroms: human chromosomes on which it was not trained, as far as they say: empty, none; None: not known,
            or it was not trained on genes.
    """

    licence: str | None
    trained_on: str
    unseen_chroms: tuple[str, ...] | None

    def described(self) -> dict[str, Any]:
        """For a manifest: JSON-ready."""
        unseen = None if self.unseen_chroms is None else list(self.unseen_chroms)
        return {"licence": self.licence, "trained_on": self.trained_on, "unseen_chroms": unseen}


_PANGOLIN = Origin(
    licence="GPL-3.0, as the LICENSE of Pangolin's repository says",
    trained_on="genes of human, rhesus, mouse and rat, without those of the human test chromosomes",
    unseen_chroms=SPLICEAI_TEST_CHROMS,
)
ORIGINS = {
    "spliceai": Origin(
        licence="CC BY NC 4.0 (academic and non-commercial use), as SpliceAI's LICENSE on GitHub says of its models",
        trained_on="human genes of GENCODE v24lift37, without the test chromosomes",
        unseen_chroms=SPLICEAI_TEST_CHROMS,
    ),
    "openspliceai": Origin(
        licence="GPL-3.0, as OpenSpliceAI's repository says of its published weights",
        trained_on="OpenSpliceAI-MANE, the published human networks: genes of MANE, without the test chromosomes; "
        "files do not say whether they are these",
        unseen_chroms=SPLICEAI_TEST_CHROMS,
    ),
    "cispliceai": Origin(
        licence="CC BY 4.0, as the LICENSE in the distribution cispliceai says",
        trained_on="human genes of GENCODE, all isoforms in one, of every chromosome",
        unseen_chroms=(),
    ),
    "pangolin": Origin(
        licence="GPL-3.0, as the LICENSE of Pangolin's repository and of the distribution bipangolin say",
        trained_on=f"networks: {_PANGOLIN.trained_on}; probes: not stated; their correction: chromosomes 3 and 7",
        unseen_chroms=tuple(chrom for chrom in SPLICEAI_TEST_CHROMS if chrom not in ("3", "7")),
    ),
    "pangolin_spliced": _PANGOLIN,
}
"""Published base models, by name."""
_FLANK = re.compile(r"_\d+$")
"""Of a name such as `openspliceai_80`."""


def seen_chroms(base_model: str) -> dict[str, list[str]]:
    """Human chromosomes that a base model was trained on, as published.

    Args:
        base_model: its name, or several as in `schema.bases_of`.

    Returns:
        By name; only names that are known and were trained on human genes.
    """
    found = {name: ORIGINS.get(_FLANK.sub("", name.lower())) for name in bases_of(base_model)}
    return {
        name: [chrom for chrom in HUMAN_CHROMS if chrom not in origin.unseen_chroms]
        for name, origin in found.items()
        if origin and origin.unseen_chroms is not None
    }


def unseen_chroms(base_model: str) -> list[str] | None:
    """Human chromosomes that none of the base models of a name was trained on; None where nothing is known of any."""
    by_base = seen_chroms(base_model)
    return [chrom for chrom in HUMAN_CHROMS if not any(chrom in seen for seen in by_base.values())] if by_base else None


def training_note(seen: Mapping[str, Any]) -> str:
    """Of what `seen_by_base` found among training genes: what the model learns there, and what to do, in a line."""
    free = ", ".join(seen["unseen_chroms"])
    return (
        f"training genes: {seen['note']}, so a model learns from fewer errors than it will meet; human chromosomes "
        f"that are new to the base: {free or 'none'}"
    )


def seen_by_base(base_model: str, genes: Iterable[tuple[str, str, str | None]]) -> dict[str, Any] | None:
    """Which genes a base model was trained on, as published: human ones on the chromosomes of its training.

    Args:
        base_model: its name, or several as in `schema.bases_of`.
        genes: id, chromosome and genome build (None where unknown) of each.

    Returns:
        JSON-ready: note, a sentence; bases, the names that were trained on any; genes, their ids; of, how many were
        given; chromosomes, where they lie; unseen_chroms, human chromosomes that none of the base models was trained
        on. None where no gene is known to be one.
    """
    by_base = seen_chroms(base_model)
    bases, ids, found = set[str](), set[str](), dict[str, str]()
    for gene_id, chrom, build in genes:
        ids.add(gene_id)
        names = [name for name, chroms in by_base.items() if chrom in chroms]
        if names and is_human(gene_id, build):
            bases.update(names)
            found[gene_id] = chrom
    if not found:
        return None
    chroms, named = sorted(set(found.values()), key=chrom_order), sorted(bases)
    was = "was" if len(named) == 1 else "were"
    return {
        "note": f"{len(found):,} of {len(ids):,} genes are on chromosome{'s' * (len(chroms) > 1)} {', '.join(chroms)}, "
        f"on which {' and '.join(named)}, as published, {was} trained: there the base errs less than on genes that "
        "are new to it",
        "bases": named,
        "genes": sorted(found),
        "of": len(ids),
        "chromosomes": chroms,
        "unseen_chroms": unseen_chroms(base_model),
    }
