"""What a variant does to the exons of a gene, as names, places and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Self

from metalayer.schema import ACCEPTOR, DONOR
from metalayer.variants.columns import Place

LABEL = "research prediction"
NO_CHANGE, UNCLEAR = "no_change", "outcome_unclear"
LOSS = {DONOR: "donor_loss", ACCEPTOR: "acceptor_loss"}
GAIN = {DONOR: "donor_gain", ACCEPTOR: "acceptor_gain"}
CRYPTIC = {DONOR: "cryptic_donor_gain", ACCEPTOR: "cryptic_acceptor_gain"}
SKIPPED, RETAINED, PSEUDOEXON = "exon_skipping", "intron_retention", "pseudoexon"
EXON_DELETED, INTRON_DELETED = "exon_deleted", "intron_deleted"
OTHER_EXON = "exon_of_other_isoform"
SHORTER, LONGER, NEW_INTRON = "partial_exon_deletion", "exon_extension", "intron_in_exon"
TERMS = (
    *LOSS.values(),
    *GAIN.values(),
    *CRYPTIC.values(),
    *(
        SKIPPED,
        EXON_DELETED,
        RETAINED,
        INTRON_DELETED,
        PSEUDOEXON,
        OTHER_EXON,
        SHORTER,
        LONGER,
        NEW_INTRON,
        UNCLEAR,
        NO_CHANGE,
    ),
)
"""Every name there is, in the order in which they are said."""
KEPT, SHIFTED, OUTSIDE, UNKNOWN, START_LOST, STOP_LOST = (
    *("kept", "shifted", "outside_cds", "unknown"),
    *("start_lost", "stop_lost"),
)
FRAMES = (KEPT, SHIFTED, OUTSIDE, UNKNOWN, START_LOST, STOP_LOST)
"""What happens to the reading frame; unknown where the annotation has no coding sequence of the transcript."""


class ExonEvent(NamedTuple):
    """One thing that happens.

    Attributes:
        term: of `TERMS`.
        first, last: what it is about, from its first base to its last in transcript sense; of a site both are the base.
        length: nt that the transcript gains, negative: loses; of a site how far it is from the one that it stands for,
            positive downstream.
        exon: number of the exon in the transcript, from 1; 0 for none. Of an intron that of the exon before.
        skipped: exons that are skipped.
        reference, alternative: of a site its probabilities; -1 of what is none.
    """

    term: str
    first: Place
    last: Place
    length: int
    exon: int = 0
    skipped: int = 0
    reference: float = -1.0
    alternative: float = -1.0


class ShownExon(NamedTuple):
    """An exon as it is shown.

    Attributes:
        first, last: its bases in transcript sense.
        length: in nt on its haplotype.
        number: in the transcript, from 1; 0 of one that REF does not have so.
    """

    first: Place
    last: Place
    length: int
    number: int


class ChangedSite(NamedTuple):
    """A site of the window that changes.

    Attributes:
        kind: donor or acceptor.
        place: its base.
        reference, alternative: probabilities.
        annotated: whether any isoform of the gene has it.
    """

    kind: str
    place: Place
    reference: float
    alternative: float
    annotated: bool


class OtherWay(NamedTuple):
    """Another way to splice ALT.

    Attributes:
        terms: what it would be called.
        probability: among all ways that were looked at.
        events: in full.
    """

    terms: tuple[str, ...]
    probability: float
    events: tuple[ExonEvent, ...]


@dataclass(frozen=True)
class Meaning:
    """What a variant does to a transcript.

    Attributes:
        transcript: its name; empty of exons decoded from junctions.
        terms: what it is called, of `TERMS`.
        events: what happens, in full.
        length: nt that the spliced transcript gains, letters that the variant itself brings among them.
        frame: of `FRAMES`; None where no change is called.
        stop: codon of a stop that comes too early, from 1, and that of the stop on REF; None: no such, or not known.
        before, after: exons of REF and ALT around what changes, in transcript sense.
        exons: of the transcript.
        probability: of the exons on ALT, among all ways to splice it that were looked at; by the model's own numbers.
        alternatives: others of `LIKELY` or more, the most probable first.
        sites: that change by `NOTABLE` or more.
    """

    transcript: str
    terms: tuple[str, ...]
    events: tuple[ExonEvent, ...] = ()
    length: int = 0
    frame: str | None = None
    stop: tuple[int, int] | None = None
    before: tuple[ShownExon, ...] = ()
    after: tuple[ShownExon, ...] = ()
    exons: int = 0
    probability: float = 1.0
    alternatives: tuple[OtherWay, ...] = ()
    sites: tuple[ChangedSite, ...] = ()

    @property
    def is_change(self) -> bool:
        """Whether a change of exons is called."""
        return self.terms != (NO_CHANGE,)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    @classmethod
    def from_json(cls, given: dict[str, Any]) -> Self:
        """Back from `to_json`, which JSON may have been in between."""

        def place(pair: Sequence[int]) -> Place:
            return int(pair[0]), int(pair[1])

        def event(fields: Sequence[Any]) -> ExonEvent:
            return ExonEvent(fields[0], place(fields[1]), place(fields[2]), *fields[3:])

        def exon(fields: Sequence[Any]) -> ShownExon:
            return ShownExon(place(fields[0]), place(fields[1]), *fields[2:])

        return cls(
            **{
                **given,
                "terms": tuple(given["terms"]),
                "events": tuple(map(event, given["events"])),
                "stop": tuple(given["stop"]) if given["stop"] else None,
                "before": tuple(map(exon, given["before"])),
                "after": tuple(map(exon, given["after"])),
                "alternatives": tuple(
                    OtherWay(tuple(terms), share, tuple(map(event, events)))
                    for terms, share, events in given["alternatives"]
                ),
                "sites": tuple(ChangedSite(one[0], place(one[1]), *one[2:]) for one in given["sites"]),
            }
        )
