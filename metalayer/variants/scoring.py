"""The scores of a variant: from a record to what each base model, and ours, says of each gene that it touches."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

import numpy as np

from metalayer.base.protocol import BaseModel
from metalayer.data.mean import untrained_mean
from metalayer.errors import ConfigError
from metalayer.gene_track import GeneTrack
from metalayer.genome import N_TOKEN, Gene, Interval, encode, reverse_complement
from metalayer.inference import Predictor
from metalayer.models.stack import REACH_BP
from metalayer.schema import ARTIFACT_WINDOW_BP, BASE_SCORES, NEITHER, bases_of
from metalayer.variants import peers
from metalayer.variants.definition import Change, Effect, aligned, effect, reported
from metalayer.variants.genes import Genes, GeneSites
from metalayer.variants.haplotype import Event, Tokens, common, event_of
from metalayer.variants.letters import Letters
from metalayer.variants.windows import GenePass, PassOf, Scores, hidden_outside, window_pass

META = "metalayer"
"""Name of our own scores, beside those of base models."""
DEFINITION, SPLICEAI = "metalayer", "spliceai"
WAYS = (DEFINITION, SPLICEAI)
"""How two haplotypes are compared: rightly, or as SpliceAI does."""
MAX_DISTANCE = 5000
_PLAIN = re.compile("[ACGT]+", re.IGNORECASE)
_LETTERS = re.compile("[ACGTUNRYSWKMBDHV]+", re.IGNORECASE)
_BESIDE_BP = 8
"""What features of a position read beside their window."""
_KEPT_EFFECTS, _KEPT_PASSES = 4096, 8

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


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

    Raises:
        ConfigError: an impossible value.
    """

    distance: int = 50
    mask: bool = False
    flanks: str = "N"
    way: str = DEFINITION
    max_length: int = 10_000
    max_ambiguous: float = 0.5

    def __post_init__(self) -> None:
        for is_wrong, text in (
            (not 1 <= self.distance <= MAX_DISTANCE, f"distance {self.distance}; needs 1 to {MAX_DISTANCE}"),
            (self.flanks not in ("N", "real"), f"flanks {self.flanks!r}; allowed are N and real"),
            (self.way not in WAYS, f"way of scoring {self.way!r}; allowed are {', '.join(WAYS)}"),
            (self.way == SPLICEAI and self.flanks != "N", "flanks real; SpliceAI hides letters outside a gene"),
            (self.max_length < 1, f"longest allele {self.max_length}; needs 1 or more"),
            (not 0.0 <= self.max_ambiguous <= 1.0, f"share of N {self.max_ambiguous}; needs 0 to 1"),
        ):
            if is_wrong:
                raise ConfigError(f"variants: {text}")


@dataclass(frozen=True)
class GeneEffect:
    """What a variant does to a gene.

    Attributes:
        gene_id: of the gene.
        symbol: its name, or its id where it has none.
        strand: its strand.
        effects: by name of the base model, `META` for ours; None: an entry without numbers, as SpliceAI writes it.
    """

    gene_id: str
    symbol: str
    strand: str
    effects: Mapping[str, Effect | None]

    @classmethod
    def on(cls, sites: GeneSites, effects: Mapping[str, Effect | None]) -> Self:
        """On a gene of the annotation."""
        return cls(sites.gene.gene_id, sites.symbol, sites.gene.strand, effects)


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


class _Kept(OrderedDict[_Key, _Value]):
    """The last few values."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def of(self, key: _Key, make: Callable[[], _Value]) -> _Value:
        """The value of a key, made where it is not there."""
        if key in self:
            self.move_to_end(key)
            return self[key]
        value = self[key] = make()
        if len(self) > self._most:
            self.popitem(last=False)
        return value


class Scorer:
    """Scores records, one after the other.

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
        make_pass: PassOf = window_pass,
    ) -> None:
        """Take what answers.

        Args:
            letters: the reference.
            genes: of the annotation.
            bases: base models, each once.
            options: how; None for the defaults.
            predictor: our model, which reads the scores of the bases.
            make_pass: what does forward passes.

        Raises:
            ConfigError: base models that do not tell donors from acceptors, that are the same, or that are not those
                of our model.
        """
        self._letters, self._genes, self._bases, self._predictor = letters, genes, list(bases), predictor
        self.options, self._make = options or Options(), make_pass
        self.names = [model.name for model in bases] + [META] * (predictor is not None)
        for model in bases:
            if model.columns != BASE_SCORES:
                raise ConfigError(
                    f"base model {model.name} does not tell donors from acceptors; take one that gives "
                    f"{', '.join(BASE_SCORES)}"
                )
        if len(set(self.names)) < len(self.names) or not bases:
            raise ConfigError(f"base models {', '.join(self.names) or 'none'}: needs one or more, each once")
        self._reach = 0
        if predictor is not None:
            if self.options.way == SPLICEAI:
                raise ConfigError("as SpliceAI, base models are scored alone: leave out the model")
            _check_bases(predictor, [model.name for model in bases])
            reach = max(int(predictor.model.reach_bp), ARTIFACT_WINDOW_BP) + _BESIDE_BP
            self._reach = reach + (REACH_BP if predictor.stack else 0)
        self._passes: _Kept[object, GenePass] = _Kept(_KEPT_PASSES)
        self._effects: _Kept[object, dict[str, Effect] | str] = _Kept(_KEPT_EFFECTS)

    def score(self, contig: str, position: int, ref: str, alts: Sequence[str]) -> list[Allele]:
        """What is known of each ALT of a record.

        Args:
            contig: by any of its names.
            position: 0-based POS.
            ref: letters of the reference.
            alts: other alleles, as VCF writes them; none for a dot.
        """
        if not alts:
            return [Allele(".", reason="no_alt")]
        key = self._letters.key(contig)
        one = self._score_as_spliceai if self.options.way == SPLICEAI else self._score_one
        reason = self._fault(key, position, ref)
        return [Allele(alt, reason=reason) if reason else one(str(key), position, ref, alt) for alt in alts]

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

    def _score_one(self, key: str, position: int, ref: str, alt: str) -> Allele:
        reason = _reason_of(alt) or ("too_long" if max(len(ref), len(alt)) > self.options.max_length else None)
        if reason:
            return Allele(alt, reason=reason)
        is_plain = len(ref) == len(alt) == 1 and ref.upper() != alt.upper()
        if is_plain and not self._genes.touched(key, position, position + 1):
            return Allele(alt, reason="no_gene")  # most of a genome's variants, so before anything else
        event = event_of(position, encode(ref), encode(alt), lambda start, end: self._letters.tokens(key, start, end))
        if event is None:
            return Allele(alt, reason="same_as_ref")
        behind = event.end if event.surplus <= 0 else event.end + 1
        touched = self._genes.touched(key, min(event.anchor, event.start), max(behind, event.anchor + 1))
        if not touched:
            return Allele(alt, reason="no_gene")
        found, written = [], position + common(ref.upper(), alt.upper()) - 1
        for gene in touched:
            effects = self._effects.of((key, event, gene.gene), lambda: self._effects_on(key, event, gene))  # noqa: B023
            if isinstance(effects, str):
                return Allele(alt, reason=effects)
            shown = {name: _as_written(changes, event, written) for name, changes in effects.items()}
            found.append(GeneEffect.on(gene, shown))
        return Allele(alt, found)

    def _effects_on(self, key: str, event: Event, gene: GeneSites) -> dict[str, Effect] | str:
        """What each model says, or the reason why nothing is said."""
        start, end = reported(event, self.options.distance)
        span = gene.gene.interval
        first, last = start, end
        if self._reach:
            first = min(start, max(span.start, start - self._reach))
            last = max(end, min(span.end, end + self._reach))
        at, behind, letters = event.change
        found: dict[str, tuple[Scores, Scores]] = {}
        for model in self._bases:
            tokens = self._window(key, gene, first - model.flank_bp, last + model.flank_bp)
            hidden = self.options.flanks == "N"
            inside = max(0, min(span.end, last + model.flank_bp) - max(span.start, first - model.flank_bp))
            unknown = int((tokens == N_TOKEN).sum()) - (len(tokens) - inside if hidden else 0)
            if unknown > self.options.max_ambiguous * len(tokens):
                return "ambiguous_window"
            one = self._pass(key, gene, model, tokens, first, last)
            found[model.name] = one.reference, one.alternative(at, behind, letters)
        if self._predictor is not None:
            found[META] = self._corrected(self._predictor, key, gene, event, found, first, last)
        segment = self._letters.tokens(key, event.start, event.end)
        inner = slice(start - first, end - first), slice(start - first, end - first + event.surplus)
        return {
            name: effect(
                aligned(event, reference[inner[0]], alternative[inner[1]], start, segment),
                gene,
                mask=self.options.mask,
            )
            for name, (reference, alternative) in found.items()
        }

    def _window(self, key: str, gene: GeneSites, first: int, last: int) -> Tokens:
        """Letters [first, last) of the plus strand, those outside the gene as the options say."""
        tokens = self._letters.tokens(key, first, last)
        if self.options.flanks == "real":
            return tokens
        return hidden_outside(tokens, first, gene.gene.interval.start, gene.gene.interval.end)

    def _pass(self, key: str, gene: GeneSites, model: BaseModel, tokens: Tokens, start: int, end: int) -> GenePass:
        return self._passes.of(
            (key, gene.gene, model.name, start, end),
            lambda: GenePass(self._make, model, tokens, start, end, is_plus=gene.is_plus),
        )

    def _corrected(
        self,
        predictor: Predictor,
        key: str,
        gene: GeneSites,
        event: Event,
        bases: Mapping[str, tuple[Scores, Scores]],
        first: int,
        last: int,
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

        part = moved(start, at - first), moved(end, at - first + len(letters))
        sides = []
        for side, (tokens, (low, high)) in enumerate(((plus, (start, end)), (changed, part))):
            scores = {name: pair[side] for name, pair in bases.items()}
            out = np.zeros((len(tokens), len(BASE_SCORES)), np.float32)
            if high > low:
                out[low:high] = _predicted(predictor, tokens[low:high], scores, slice(low, high), gene)
            sides.append(out)
        return sides[0], sides[1]

    def _score_as_spliceai(self, key: str, position: int, ref: str, alt: str) -> Allele:
        if peers.passed_over(alt):
            return Allele(alt, reason="as_spliceai")
        touched = self._genes.touched(key, position, position + 1)
        if not touched:
            return Allele(alt, reason="no_gene")
        start, end = peers.span(position, ref, self.options.distance)
        found = []
        for gene in touched:
            effects: dict[str, Effect | None] = {}
            for model in self._bases:
                if peers.is_numberless(ref, alt):
                    effects[model.name] = None
                    continue
                aliased = model.name == SPLICEAI
                first = start - model.flank_bp
                tokens = hidden_outside(
                    peers.tokens_as(self._letters.raw(key, first, end + model.flank_bp), aliased=aliased),
                    first,
                    gene.gene.interval.start,
                    gene.gene.interval.end,
                )
                one = self._pass(key, gene, model, tokens, start, end)
                letters = peers.tokens_as(alt.encode(), aliased=aliased)
                changed = one.alternative(position, position + len(ref), letters)
                effects[model.name] = peers.effect_as(
                    one.reference,
                    changed,
                    gene,
                    position,
                    ref,
                    alt,
                    self.options.distance,
                    mask=self.options.mask,
                )
            found.append(GeneEffect.on(gene, effects))
        return Allele(alt, found)


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


def _predicted(predictor: Predictor, plus: Tokens, scores: Mapping[str, Scores], at: slice, gene: GeneSites) -> Scores:
    """Our probabilities at letters of a gene, (n, 3), in genome order; `scores` from those of `at`."""
    turn = slice(None) if gene.is_plus else slice(None, None, -1)
    tokens = plus if gene.is_plus else reverse_complement(plus)
    several = {name: np.ascontiguousarray(one[at][turn]) for name, one in scores.items()}
    track = GeneTrack(
        Gene(gene.gene.gene_id, Interval("?", 0, len(tokens)), "+"),
        tokens,
        untrained_mean(several) if len(several) > 1 else next(iter(several.values())),
        np.full(len(tokens), NEITHER, np.uint8),
        several=several if len(several) > 1 else {},
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
