"""The scores of a variant: from a record to what each base model, and ours, says of each gene that it touches."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from metalayer.base.haplotypes import Scores, Tokens
from metalayer.base.protocol import BaseModel
from metalayer.data.mean import untrained_mean
from metalayer.errors import ConfigError
from metalayer.formats.evidence import Evidence
from metalayer.gene_track import GeneTrack
from metalayer.genome import N_TOKEN, Gene, Interval, encode, reverse_complement
from metalayer.inference import Predictor
from metalayer.schema import BASE_SCORES, NEITHER, bases_of
from metalayer.variants import peers
from metalayer.variants.consequence import meaning_of
from metalayer.variants.definition import Aligned, Change, Effect, aligned, effect, reported
from metalayer.variants.genes import Genes, GeneSites
from metalayer.variants.haplotype import Event, common, event_of
from metalayer.variants.letters import Letters
from metalayer.variants.meaning import Meaning
from metalayer.variants.together import neighbours
from metalayer.variants.windows import AnswersOf, Pairs, Question, answered, haplotype_answers

META = "metalayer"
"""Name of our own scores, beside those of base models."""
DEFINITION, SPLICEAI = "metalayer", "spliceai"
WAYS = (DEFINITION, SPLICEAI)
"""How two haplotypes are compared: rightly, or as SpliceAI does."""
MAX_DISTANCE = 5000
_PLAIN = re.compile("[ACGT]+", re.IGNORECASE)
_LETTERS = re.compile("[ACGTUNRYSWKMBDHV]+", re.IGNORECASE)
_EVERYWHERE = -(1 << 62), 1 << 62
_BYTES_OF_A_POSITION = 2 * len(BASE_SCORES) * np.dtype(np.float32).itemsize
"""Of the probabilities of both haplotypes."""


@dataclass(frozen=True)
class Options:
    """How variants are scored.

    Attributes:
        distance: positions to either side that are looked at, 1 to `MAX_DISTANCE`.
        mask: whether gains of annotated sites and losses of others do not count.
        flanks: letters outside a gene: N, as the peers have it, or real.
        way: of `WAYS`.
        max_length: letters of REF and of ALT at most.
        max_ambiguous: share of N, among the letters that a score depends on and that are not hidden, at most.
        context: positions to either side from which consequences are read; where `distance` is more, that.
        keep_tracks: whether answers have the probabilities of all positions, for a picture.

    Raises:
        ConfigError: an impossible value.
    """

    distance: int = 50
    mask: bool = False
    flanks: str = "N"
    way: str = DEFINITION
    max_length: int = 10_000
    max_ambiguous: float = 0.5
    context: int = 0
    keep_tracks: bool = False

    def __post_init__(self) -> None:
        for is_wrong, text in (
            (not 1 <= self.distance <= MAX_DISTANCE, f"distance {self.distance}; needs 1 to {MAX_DISTANCE}"),
            (self.flanks not in ("N", "real"), f"flanks {self.flanks!r}; allowed are N and real"),
            (self.way not in WAYS, f"way of scoring {self.way!r}; allowed are {', '.join(WAYS)}"),
            (self.way == SPLICEAI and self.flanks != "N", "flanks real; SpliceAI hides letters outside a gene"),
            (not 0 <= self.context <= MAX_DISTANCE, f"context {self.context}; needs 0 to {MAX_DISTANCE}"),
            (self.max_length < 1, f"longest allele {self.max_length}; needs 1 or more"),
            (not 0.0 <= self.max_ambiguous <= 1.0, f"share of N {self.max_ambiguous}; needs 0 to 1"),
        ):
            if is_wrong:
                raise ConfigError(f"variants: {text}")


@dataclass(frozen=True)
class Read:
    """What probabilities say of a gene, by name of the scores.

    Attributes:
        effects: gain and loss of sites.
        meanings: what happens to exons.
        tracks: the probabilities themselves, where they are kept.
    """

    effects: Mapping[str, Effect]
    meanings: Mapping[str, Meaning]
    tracks: Mapping[str, Aligned]


@dataclass(frozen=True)
class GeneEffect:
    """What a variant does to a gene.

    Attributes:
        gene_id: of the gene.
        symbol: its name, or its id where it has none.
        strand: its strand.
        effects: by name of the base model, `META` for ours; None: an entry without numbers, as SpliceAI writes it.
        meanings: what happens to exons, likewise; none as SpliceAI has it.
        tracks: probabilities of all positions, likewise, where they are kept.
        sites: its annotated sites, where tracks are kept.
    """

    gene_id: str
    symbol: str
    strand: str
    effects: Mapping[str, Effect | None]
    meanings: Mapping[str, Meaning] = field(default_factory=dict)
    tracks: Mapping[str, Aligned] = field(default_factory=dict)
    sites: GeneSites | None = None

    @classmethod
    def on(cls, sites: GeneSites, effects: Mapping[str, Effect | None], read: Read | None = None) -> Self:
        """On a gene of the annotation."""
        more = (read.meanings, read.tracks, sites if read.tracks else None) if read else ()
        return cls(sites.gene.gene_id, sites.symbol, sites.gene.strand, effects, *more)


@dataclass(frozen=True)
class Allele:
    """What is known of one ALT.

    Attributes:
        alt: as it is written.
        genes: in the order of their starts; empty where it is not scored.
        reason: of `REASONS`, where it is not.
    """

    alt: str
    genes: Sequence[GeneEffect] = ()
    reason: str | None = None


class Asked(NamedTuple):
    """A record to be scored.

    Attributes:
        contig: by any of its names.
        position: 0-based POS.
        ref: letters of the reference.
        alts: other alleles, as VCF writes them; none for a dot.
    """

    contig: str
    position: int
    ref: str
    alts: Sequence[str]


@dataclass(frozen=True)
class _OnGene:
    """What is asked about an allele and a gene: by name of the base model; None where there is no number to be had."""

    sites: GeneSites
    questions: Mapping[str, Question | None]


@dataclass(frozen=True)
class _PlannedAllele:
    """An allele without a score, for a reason, or with what is asked about it.

    Attributes:
        alt: as it is written.
        reason: of `REASONS`, where it has no score.
        event: what differs; None as SpliceAI has it.
        genes: that it touches.
    """

    alt: str
    reason: str | None = None
    event: Event | None = None
    genes: Sequence[_OnGene] = ()


@dataclass(frozen=True)
class Plan:
    """What has to be asked to score a record.

    Attributes:
        asked: the record.
        key: our name of its contig; empty where the FASTA has none such.
        alleles: of its ALT.
    """

    asked: Asked
    key: str
    alleles: Sequence[_PlannedAllele]

    @classmethod
    def without(cls, reason: str) -> Self:
        """Of a line that is no record."""
        return cls(Asked("", 0, "", ()), "", [_PlannedAllele("", reason)])

    @property
    def questions(self) -> Iterator[Question]:
        """To base models."""
        for allele in self.alleles:
            for gene in allele.genes:
                yield from (question for question in gene.questions.values() if question)

    @property
    def span(self) -> tuple[str, int, int] | None:
        """Contig and letters [first, last) that the answers depend on; None where nothing is asked."""
        places = [(question.first, question.last) for question in self.questions]
        return (self.key, min(first for first, _ in places), max(last for _, last in places)) if places else None

    @property
    def answer_bytes(self) -> int:
        """How much memory the answers take."""
        return sum(question.end - question.start for question in self.questions) * _BYTES_OF_A_POSITION


class _Known(NamedTuple):
    """What was computed for records that are scored together.

    Attributes:
        read: what haplotypes mean, by contig, event and gene.
        references: our probabilities of the reference, by contig, gene and stretch.
    """

    read: dict[object, Read]
    references: dict[object, Scores]


class Scorer:
    """Scores records: built once, asked for any number of them.

    Attributes:
        names: of the scores, those of base models first.
        options: how.
    """

    def __init__(
        self,
        letters: Letters,
        genes: Genes,
        bases: Sequence[BaseModel],
        options: Options | None = None,
        predictor: Predictor | None = None,
        ask: AnswersOf = haplotype_answers,
        evidence: Evidence | None = None,
    ) -> None:
        """Take what answers.

        Args:
            letters: the reference.
            genes: of the annotation.
            bases: base models, each once.
            options: how; None for the defaults.
            predictor: our model, which reads the scores of the bases.
            ask: what does forward passes.
            evidence: that our model reads.

        Raises:
            ConfigError: base models that do not tell donors from acceptors, that are the same, or that are not those
                of our model.
        """
        self._letters, self._genes, self._bases, self._predictor = letters, genes, list(bases), predictor
        self.options, self._ask, self._evidence = options or Options(), ask, evidence
        self.names = [model.name for model in bases] + [META] * (predictor is not None)
        for model in bases:
            if model.columns != BASE_SCORES:
                raise ConfigError(
                    f"base model {model.name} does not tell donors from acceptors; take one that gives "
                    f"{', '.join(BASE_SCORES)}"
                )
        if len(set(self.names)) < len(self.names) or not bases:
            raise ConfigError(f"base models {', '.join(self.names) or 'none'}: needs one or more, each once")
        self._read_bp = max(self.options.distance, self.options.context)
        self._reach = 0
        if predictor is not None:
            if self.options.way == SPLICEAI:
                raise ConfigError("as SpliceAI, base models are scored alone: leave out the model")
            _check_bases(predictor, [model.name for model in bases])
            self._reach = predictor.reach_bp

    def score(self, contig: str, position: int, ref: str, alts: Sequence[str]) -> list[Allele]:
        """What is known of each ALT of one record, whose parts are as in `Asked`; several are faster together."""
        return self.answer([self.plan(Asked(contig, position, ref, alts))])[0]

    def score_all(self, records: Iterable[Asked]) -> Iterator[list[Allele]]:
        """What is known of each ALT of each record, in order.

        Records that follow each other and lie near each other share the reference's forward pass, so a list that is
        sorted is fastest. No more of it is read ahead than `neighbours` allows.
        """
        for group in self.score_groups(records):
            yield from group

    def score_groups(self, records: Iterable[Asked], most: int | None = None) -> Iterator[list[list[Allele]]]:
        """As `score_all`, those that are scored together at a time, of whom no more than `most` are asked about."""
        for group in neighbours((self.plan(record) for record in records), lambda plan: plan, most=most):
            yield self.answer(group)

    def plan(self, record: Asked) -> Plan:
        """What has to be asked to score a record."""
        contig, position, ref, alts = record
        if not alts:
            return Plan(record, "", [_PlannedAllele(".", "no_alt")])
        key = self._letters.key(contig)
        one = self._plan_as_spliceai if self.options.way == SPLICEAI else self._plan_one
        reason = self._fault(key, position, ref)
        known = str(key)
        return Plan(
            record, known, [_PlannedAllele(alt, reason) if reason else one(known, position, ref, alt) for alt in alts]
        )

    def answer(self, plans: Sequence[Plan]) -> list[list[Allele]]:
        """What is known of each ALT of each of some records; all forward passes are made together."""
        models = {model.name: model for model in self._bases}
        questions = (question for plan in plans for question in plan.questions)
        pairs = answered(questions, models, self._read, self._ask)
        known = _Known({}, {})
        return [[self._allele(plan, allele, pairs, known) for allele in plan.alleles] for plan in plans]

    def _fault(self, key: str | None, position: int, ref: str) -> str | None:
        """Why no ALT of a record is scored."""
        if key is None:
            return "contig_absent"
        if not 0 <= position <= position + len(ref) <= self._letters.lengths[key]:
            return "out_of_range"
        there = self._letters.raw(key, position, position + len(ref)).decode("latin-1")
        if self.options.way == SPLICEAI:
            if there.upper() != ref:  # case of the FASTA alone does not count there
                return "ref_mismatch"
            half = self._bases[0].flank_bp + self.options.distance
            is_within = half <= position < self._letters.lengths[key] - half
            return None if is_within and len(ref) <= 2 * self.options.distance else "as_spliceai"
        if not _PLAIN.fullmatch(ref):
            return "ambiguous_letters" if _LETTERS.fullmatch(ref) else "no_letters"
        return None if there.upper().replace("U", "T") == ref.upper() else "ref_mismatch"

    def _plan_one(self, key: str, position: int, ref: str, alt: str) -> _PlannedAllele:
        reason = _reason_of(alt) or ("too_long" if max(len(ref), len(alt)) > self.options.max_length else None)
        if reason:
            return _PlannedAllele(alt, reason)
        is_plain = len(ref) == len(alt) == 1 and ref.upper() != alt.upper()
        if is_plain and not self._genes.touched(key, position, position + 1):
            return _PlannedAllele(alt, "no_gene")  # most of a genome's variants, so before anything else
        event = event_of(position, encode(ref), encode(alt), lambda start, end: self._letters.tokens(key, start, end))
        if event is None:
            return _PlannedAllele(alt, "same_as_ref")
        behind = event.end if event.surplus <= 0 else event.end + 1
        touched = self._genes.touched(key, min(event.anchor, event.start), max(behind, event.anchor + 1))
        if not touched:
            return _PlannedAllele(alt, "no_gene")
        found = []
        for gene in touched:
            questions = {model.name: self._question(key, event, gene, model) for model in self._bases}
            if not all(questions.values()):
                return _PlannedAllele(alt, "ambiguous_window")
            found.append(_OnGene(gene, questions))
        return _PlannedAllele(alt, None, event, found)

    def _question(self, key: str, event: Event, gene: GeneSites, model: BaseModel) -> Question | None:
        """What a base model is asked; None where too many letters are N."""
        first, last = self._stretch(event, gene)
        at, behind, letters = event.change
        span, low, high = gene.gene.interval, first - model.flank_bp, last + model.flank_bp
        hides = self.options.flanks == "N"
        shown = (span.start, span.end) if hides else _EVERYWHERE
        visible = max(shown[0], low), min(shown[1], high)
        unknown = int((self._letters.tokens(key, *visible) == N_TOKEN).sum()) if visible[1] > visible[0] else 0
        if unknown > self.options.max_ambiguous * (high - low):
            return None
        return Question(
            model.name, key, gene.is_plus, first, last, at, behind, letters.tobytes(), model.flank_bp, visible, shown
        )

    def _stretch(self, event: Event, gene: GeneSites) -> tuple[int, int]:
        """Positions [first, last) whose base scores are needed: those looked at, and what our model reads."""
        start, end = reported(event, self._read_bp)
        if not self._reach:
            return start, end
        span = gene.gene.interval
        return min(start, max(span.start, start - self._reach)), max(end, min(span.end, end + self._reach))

    def _plan_as_spliceai(self, key: str, position: int, ref: str, alt: str) -> _PlannedAllele:
        if peers.passed_over(alt):
            return _PlannedAllele(alt, "as_spliceai")
        touched = self._genes.touched(key, position, position + 1)
        if not touched:
            return _PlannedAllele(alt, "no_gene")
        start, end = peers.span(position, ref, self.options.distance)
        found = []
        for gene in touched:
            questions: dict[str, Question | None] = {}
            for model in self._bases:
                if peers.is_numberless(ref, alt):
                    questions[model.name] = None
                    continue
                flank, shown = model.flank_bp, (gene.gene.interval.start, gene.gene.interval.end)
                questions[model.name] = Question(
                    model.name,
                    key,
                    gene.is_plus,
                    start,
                    end,
                    position,
                    position + len(ref),
                    peers.tokens_as(alt.encode(), aliased=model.name == SPLICEAI).tobytes(),
                    flank,
                    (max(shown[0], start - flank), min(shown[1], end + flank)),
                    shown,
                )
            found.append(_OnGene(gene, questions))
        return _PlannedAllele(alt, None, None, found)

    def _read(self, model: str, contig: str, first: int, last: int) -> Tokens:
        """Letters [first, last) of the plus strand, as a base model reads them."""
        if self.options.way == SPLICEAI:
            return peers.tokens_as(self._letters.raw(contig, first, last), aliased=model == SPLICEAI)
        return self._letters.tokens(contig, first, last)

    def _allele(self, plan: Plan, allele: _PlannedAllele, pairs: Pairs, known: _Known) -> Allele:
        """An allele by the answers."""
        found = []
        for gene in allele.genes:
            event, (_, position, ref, _) = allele.event, plan.asked
            if event is None:
                effects = self._effects_as_spliceai(gene, position, ref, allele.alt, pairs)
                found.append(GeneEffect.on(gene.sites, effects))
                continue
            place = plan.key, event, gene.sites.gene
            if place not in known.read:
                known.read[place] = self._effects_on(plan.key, event, gene, pairs, known)
            read, written = known.read[place], position + common(ref.upper(), allele.alt.upper()) - 1
            shown = {name: _as_written(changes, event, written) for name, changes in read.effects.items()}
            found.append(GeneEffect.on(gene.sites, shown, read))
        return Allele(allele.alt, found or (), allele.reason)

    def _effects_on(self, key: str, event: Event, gene: _OnGene, pairs: Pairs, known: _Known) -> Read:
        """What each model says."""
        start, end = reported(event, self._read_bp)
        first, last = self._stretch(event, gene.sites)
        found: dict[str, tuple[Scores, Scores]] = {
            name: pairs[question] for name, question in gene.questions.items() if question
        }
        if self._predictor is not None:
            found[META] = self._corrected(self._predictor, key, gene.sites, event, found, first, last, known)
        inner = slice(start - first, end - first), slice(start - first, end - first + event.surplus)
        segment = self._letters.tokens(key, event.start, event.end)
        tracks = {
            name: aligned(event, reference[inner[0]], alternative[inner[1]], start, segment)
            for name, (reference, alternative) in found.items()
        }
        return self._meant(key, event, gene.sites, tracks)

    def _meant(self, key: str, event: Event, gene: GeneSites, tracks: Mapping[str, Aligned]) -> Read:
        """What aligned probabilities say; they may go further to either side than the distance."""
        within = reported(event, self.options.distance)
        effects = {name: effect(found.within(*within), gene, mask=self.options.mask) for name, found in tracks.items()}
        meanings = {
            name: meaning_of(
                found,
                gene,
                lambda transcript: self._genes.coding(key, transcript),
                lambda start, end: self._letters.tokens(key, start, end),
                event.change,
            )
            for name, found in tracks.items()
        }
        return Read(effects, meanings, tracks if self.options.keep_tracks else {})

    def _effects_as_spliceai(
        self, gene: _OnGene, position: int, ref: str, alt: str, pairs: Pairs
    ) -> dict[str, Effect | None]:
        distance, mask = self.options.distance, self.options.mask
        return {
            name: peers.effect_as(*pairs[question], gene.sites, position, ref, alt, distance, mask=mask)
            if question
            else None
            for name, question in gene.questions.items()
        }

    def _corrected(
        self,
        predictor: Predictor,
        key: str,
        gene: GeneSites,
        event: Event,
        bases: Mapping[str, tuple[Scores, Scores]],
        first: int,
        last: int,
        known: _Known,
    ) -> tuple[Scores, Scores]:
        """Our probabilities of both haplotypes, float32 (n, 3) each from `first` on; 0 outside the gene."""
        span = gene.gene.interval
        start, end = max(span.start, first) - first, min(span.end, last) - first
        at, behind, letters = event.change
        plus = self._letters.tokens(key, first, last)
        changed = np.concatenate([plus[: at - first], letters, plus[behind - first :]])

        def moved(place: int, inside: int) -> int:
            """Where a bound of the gene is on the other haplotype; within what goes, `inside`."""
            if place <= at - first:
                return place
            return place + event.surplus if place >= behind - first else inside

        seen = self._evidence_at(gene, first, last)

        def corrected(side: int, tokens: Tokens, low: int, high: int) -> Scores:
            scores = {name: pair[side] for name, pair in bases.items()}
            evidence = {name: _carried(one, event, first) if side else one for name, one in seen.items()}
            out = np.zeros((len(tokens), len(BASE_SCORES)), np.float32)
            if high > low:
                out[low:high] = _predicted(predictor, tokens[low:high], scores, slice(low, high), gene, evidence)
            return out

        place = key, gene.gene, first, last
        if place not in known.references:
            known.references[place] = corrected(0, plus, start, end)
        part = moved(start, at - first), moved(end, at - first + len(letters))
        return known.references[place], corrected(1, changed, *part)

    def _evidence_at(self, gene: GeneSites, first: int, last: int) -> dict[str, NDArray[np.float32]]:
        """Evidence of letters [first, last), in genome order; missing outside the gene."""
        if self._evidence is None:
            return {}
        span, found = gene.gene.interval, {}
        start, end = max(span.start, first), min(span.end, last)
        part = replace(gene.gene, interval=Interval(span.chrom, start, end))
        for name, one in self._evidence.ascending(part).items():
            found[name] = np.full(last - first, np.nan, np.float32)
            found[name][start - first : end - first] = one
        return found


def _carried(evidence: NDArray[np.float32], event: Event, first: int) -> NDArray[np.float32]:
    """Evidence of the reference from `first` on, on the other haplotype.

    Bases in the place of others have what these have; what is deleted goes, and what is inserted has none.
    """
    at, behind, letters = event.change
    kept = min(len(letters), behind - at)
    inserted = np.full(len(letters) - kept, np.nan, np.float32)
    return np.concatenate([evidence[: at - first + kept], inserted, evidence[behind - first :]])


def _as_written(changes: Effect, event: Event, written: int) -> Effect:
    """Changes with inserted letters behind the base where the record has them, if that is one of their places.

    Args:
        changes: by the leftmost form.
        event: the haplotype.
        written: 0-based, the base before the letters that the record inserts.
    """
    if not event.start - 1 <= written < event.start + event.repeat:
        return changes

    def moved(change: Change) -> Change:
        behind = change.position + change.inserted - written
        is_there = change.inserted and 0 < behind <= event.surplus
        return change._replace(position=written, inserted=behind) if is_there else change

    gain_a, loss_a, gain_d, loss_d = map(moved, changes)
    return gain_a, loss_a, gain_d, loss_d


def _reason_of(alt: str) -> str | None:
    """Why an ALT is no change of letters."""
    if _PLAIN.fullmatch(alt):
        return None
    if alt == "*":
        return "star"
    if alt.startswith("<"):
        return "symbolic"
    if "[" in alt or "]" in alt or alt.startswith(".") or alt.endswith("."):
        return "breakend"
    return "ambiguous_letters" if _LETTERS.fullmatch(alt) else "no_letters"


def _predicted(
    predictor: Predictor,
    plus: Tokens,
    scores: Mapping[str, Scores],
    at: slice,
    gene: GeneSites,
    evidence: Mapping[str, NDArray[np.float32]],
) -> Scores:
    """Our probabilities at letters of a gene, (n, 3), in genome order; `scores` and evidence from those of `at`."""
    turn = slice(None) if gene.is_plus else slice(None, None, -1)
    tokens = plus if gene.is_plus else reverse_complement(plus)
    several = {name: np.ascontiguousarray(one[at][turn]) for name, one in scores.items()}
    track = GeneTrack(
        Gene(gene.gene.gene_id, Interval("?", 0, len(tokens)), "+"),
        tokens,
        untrained_mean(several) if len(several) > 1 else next(iter(several.values())),
        np.full(len(tokens), NEITHER, np.uint8),
        several=several if len(several) > 1 else {},
        evidence={name: np.ascontiguousarray(one[at][turn]) for name, one in evidence.items()},
    )
    return predictor.predict_gene_track(track)[turn]


def _check_bases(predictor: Predictor, names: Sequence[str]) -> None:
    trained = predictor.info.get("base_model")
    several = [name for name in predictor.stack.bases if name] if predictor.stack else []  # one alone has no name there
    needed = several or (bases_of(trained) if trained else ())
    if needed and set(needed) != set(names):
        raise ConfigError(
            f"base models {', '.join(names)}; the model reads the scores of {', '.join(needed)}: name these, in any "
            "order"
        )
