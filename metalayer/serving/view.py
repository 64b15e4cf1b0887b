"""What the page asks for: a gene, a region, a sequence or a variant with the scores of every base, and why they are so.

Scores come as base64 of float32, little-endian, one number a base in genomic order, NaN where there is none: as JSON
numbers those of a gene of 100 kb take eight megabytes and longer than the base model.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metalayer.errors import ConfigError, InputError
from metalayer.genome import Gene, Interval, decode, encode
from metalayer.inference.contributions import AWAY_BP, Contributions, contributions
from metalayer.regions import parse_region
from metalayer.release.contract import SEQUENCE, Mistakes, RequestError
from metalayer.release.engine import Engine
from metalayer.release.view_contract import GENE, POSITION, Explained, Looked
from metalayer.schema import ACCEPTOR, DONOR
from metalayer.serving.variants import VariantSources
from metalayer.sites.calling import THRESHOLD
from metalayer.sites.stretch import Stretch
from metalayer.variants.answers import changes_as_json
from metalayer.variants.calls import Opened
from metalayer.variants.definition import Aligned
from metalayer.variants.genes import GeneSites
from metalayer.variants.reasons import REASONS
from metalayer.variants.scoring import GeneEffect, Options
from metalayer.variants.whole_gene import (
    ScoredGene,
    as_json,
    find_genes,
    part_of,
    refuse_unread,
    score_gene,
    scores_of,
    sites_of,
    summary_of,
    track_of,
)
from metalayer.variants.words import described, term_in_words

NUMBERS = "base64 of float32, little-endian: one number a base in genomic order, NaN where there is no score"
_CONTEXT_OF_VARIANT = 500
"""Positions to either side from which consequences of a variant are read, at least."""
_NOWHERE = "sequence"
_KINDS = {"donor": DONOR, "acceptor": ACCEPTOR}
Json = dict[str, Any]
Step = Callable[[], Json]


class Viewer:
    """Looks at things with the reference, the annotation and the base models of a server."""

    def __init__(self, sources: VariantSources, max_bp: int) -> None:
        """Take what is there.

        Args:
            sources: loaded.
            max_bp: letters that one request may score.
        """
        self._sources, self._max_bp = sources, max_bp

    def look(self, engine: Engine, looked: Looked, *, scored: bool = True) -> tuple[int, Iterator[Json | None]]:
        """A gene, region or sequence: letters that are scored; then None for each gene done, last the answer.

        Args:
            engine: which model.
            looked: at what.
            scored: False for letters and annotation alone, of a gene or region.

        Raises:
            RequestError: 422 of what cannot be found, 413 of what is too long, 503 of a model of other base models.
        """
        loaded = self._loaded(engine)
        if looked.kind == SEQUENCE:
            return len(looked.text), self._sequence(loaded, looked.text)
        try:
            contig, start, end, genes = self._place(loaded, looked)
        except InputError as error:
            raise _refusal(looked.kind, looked.text, str(error)) from None
        spans = [(max(start, one.gene.interval.start), min(end, one.gene.interval.end)) for one in genes]
        count = sum(last - first for first, last in spans)
        for long in (count, end - start):
            if long > self._max_bp:
                allowed = f"at most {self._max_bp:,} bases: ask for a part, as in chr3:42.1M-42.3M"
                detail = {"row": None, "field": looked.kind, "given": f"{long:,} bases", "allowed": allowed}
                raise RequestError(f"{looked.kind}: {long:,} bases to look at; allowed are {allowed}", 413, [detail])
        if not scored:
            return 0, self._annotated(loaded, contig, start, end, genes)
        return count, self._genes(loaded, contig, start, end, genes)

    def _loaded(self, engine: Engine) -> Opened:
        loaded = self._sources.loaded_with(engine)
        try:
            refuse_unread(loaded)
        except ConfigError as error:
            raise RequestError(f"this server cannot show genes: {error}", 503) from None
        return loaded

    def _place(self, loaded: Opened, looked: Looked) -> tuple[str, int, int, list[GeneSites]]:
        """Contig, bases [start, end) and genes of a name or a region; errors as of `find_genes`."""
        if looked.kind == GENE and ":" not in looked.text:
            (one,) = find_genes(looked.text, loaded.genes)
            span = one.gene.interval
            return span.chrom, span.start, span.end, [one]
        strands, place = parse_region(looked.text)
        key, letters = loaded.letters.key(place.chrom), loaded.letters
        if key is None:
            some = ", ".join(list(letters.names.values())[:5])
            raise InputError(f"region: the reference has no contig {place.chrom!r}; it has {some}")
        length = letters.lengths[key]
        if place.end > length:
            raise InputError(
                f"region: {letters.names[key]} has {length:,} bases in this reference; {place.end:,} lies outside. "
                "Is the place of another genome build?"
            )
        there = loaded.genes.touched(key, place.start, place.end)
        return key, place.start, place.end, [one for one in there if one.gene.strand in strands]

    def _annotated(
        self, loaded: Opened, contig: str, start: int, end: int, genes: Sequence[GeneSites]
    ) -> Iterator[Json | None]:
        with self._sources.turn:
            shown = [_annotation(one, loaded) for one in genes]
            yield {**_around(loaded, contig, start, end), "genes": shown, **_facts(loaded)}

    def _genes(
        self, loaded: Opened, contig: str, start: int, end: int, genes: Sequence[GeneSites]
    ) -> Iterator[Json | None]:
        shown = []
        for one in genes:
            with self._sources.turn:
                found = score_gene(one, loaded, (start, end))
                shown.append(_gene(found, loaded, contig))
            yield None
        with self._sources.turn:
            yield {**_around(loaded, contig, start, end), "genes": shown, **_facts(loaded)}

    def _sequence(self, loaded: Opened, text: str) -> Iterator[Json | None]:
        with self._sources.turn:
            scores = scores_of(track_of(loaded, text), loaded.predictor)
        yield None
        found = ScoredGene(
            _unplaced(len(text)),
            Stretch(_NOWHERE, "+", 0, {name: values[:, :2] for name, values in scores.items()}, (_NOWHERE,)),
            encode(text),
        )
        gene = _gene(found, loaded, _NOWHERE) | {"gene_id": None, "gene_name": None}
        place = {"contig": _NOWHERE, "contig_length": len(text), "start": 1, "end": len(text), "letters": text.upper()}
        yield {**place, "genes": [gene], **_facts(loaded)}

    def variant(self, engine: Engine, text: str, options: Options) -> Json:
        """A variant: what it does to each gene by each model, with the probabilities of all bases around it.

        Raises:
            RequestError: 422 of a text that is no variant, or one without a score.
        """
        options = replace(options, keep_tracks=True, context=max(options.context, _CONTEXT_OF_VARIANT))
        ((_, variant),) = self._sources.variants([text])
        with self._sources.turn:
            loaded = self._loaded(engine)
            scorer = self._sources.scorer(engine, options)
            (allele,) = scorer.score(variant.chrom, variant.position, variant.ref, [variant.alt])
            if allele.reason:
                raise _refusal("variant", text, f"variant: no score: {allele.reason}, {REASONS[allele.reason]}")
            genes = [self._effect(loaded, variant.chrom, variant.position, one) for one in allele.genes]
            start = min(gene["first"] for gene in genes) - 1
            end = max(gene["last"] for gene in genes)
            key = loaded.letters.key(variant.chrom)
            assert key is not None
            return {
                **_around(loaded, key, start, end),
                "variant": variant.text,
                "position": variant.position + 1,
                "ref": variant.ref,
                "alt": variant.alt,
                "distance": options.distance,
                "mask": options.mask,
                "genes": genes,
                **_facts(loaded),
            }

    def _effect(self, loaded: Opened, contig: str, position: int, gene: GeneEffect) -> Json:
        assert gene.sites is not None
        models = {}
        first = last = 0
        for name, changes in gene.effects.items():
            track = gene.tracks[name]
            first, last = int(track.positions[0]) + 1, int(track.positions[-1]) + 1
            meaning = described(gene.meanings[name], contig, gene.strand)
            meaning["words"] = [term_in_words(term) for term in gene.meanings[name].terms]
            models[name] = {
                "changes": changes_as_json(changes, position, gene.strand),
                "consequence": meaning,
                **_aligned(track),
            }
        return {**_annotation(gene.sites, loaded), "first": first, "last": last, "models": models}

    def explain(self, engine: Engine, asked: Explained) -> Json:
        """What each input of the model adds to its score of one base.

        Raises:
            RequestError: 422 of a gene that there is not, or a position outside it; 501 without a model.
        """
        if engine.predictor is None:
            raise RequestError("there is no model beside the base model here, so nothing to explain", 501)
        with self._sources.turn:
            loaded, reach = self._loaded(engine), engine.predictor.reach_bp + AWAY_BP
            at = asked.position
            if asked.what.kind == SEQUENCE:
                text = asked.what.text
                if at >= len(text):
                    raise _outside(at, f"1 to {len(text):,}")
                start, end = max(0, at - reach), min(len(text), at + reach + 1)
                track, is_plus = track_of(loaded, text[start:end], text[:start], text[end:]), True
            else:
                try:
                    (one,) = find_genes(asked.what.text, loaded.genes)
                except InputError as error:
                    raise _refusal(GENE, asked.what.text, str(error)) from None
                span, is_plus = one.gene.interval, one.is_plus
                if not span.start <= at < span.end:
                    raise _outside(at, f"{span.start + 1:,} to {span.end:,}")
                start, end = max(span.start, at - reach), min(span.end, at + reach + 1)
                track = part_of(one, loaded, start, end)
            found = contributions(engine.predictor, track, at - start if is_plus else end - 1 - at, asked.kind)
        return _explained(found, lambda index: (start + index if is_plus else end - 1 - index) + 1, track.tokens)


def _explained(found: Contributions, place: Callable[[int], int], tokens: NDArray[np.uint8]) -> Json:
    """Positions are 1-based, as the request's; letters in transcript sense."""
    return {
        "base": found.base,
        "meta": found.meta,
        "log_odds": found.log_odds,
        "inputs": [
            {"input": one.name, "of": one.of or None, "without": one.without, "log_odds": one.log_odds}
            for one in found.inputs
        ],
        "letters": [
            {
                "first": min(place(one.start), place(one.end - 1)),
                "last": max(place(one.start), place(one.end - 1)),
                "letters": decode(tokens[one.start : one.end]),
                "log_odds": one.log_odds,
            }
            for one in found.letters
        ],
    }


def _gene(found: ScoredGene, loaded: Opened, contig: str) -> Json:
    name = loaded.letters.names.get(contig, contig)
    shown = sites_of(found, THRESHOLD)
    stretch = found.stretch
    return {
        **_annotation(found.sites, loaded),
        "first": stretch.start + 1,
        "last": stretch.end,
        "scores": {system: _numbers(values) for system, values in stretch.scores.items()},
        "sites": as_json(found, shown, name)["sites"],
        "summary": summary_of(found, shown),
    }


def _annotation(sites: GeneSites, loaded: Opened) -> Json:
    """A gene of the annotation, positions 1-based, both included."""
    gene = sites.gene
    transcripts = []
    for one in sites.transcripts:
        coding = loaded.genes.coding(gene.interval.chrom, one.name)
        transcripts.append(
            {
                "name": one.name,
                "principal": one.is_principal,
                "exons": [[start + 1, end] for start, end in one.exons.tolist()],
                "coding": [coding[0] + 1, coding[1]] if coding else None,
            }
        )
    return {
        "gene_id": gene.gene_id,
        "gene_name": gene.gene_name or None,
        "strand": gene.strand,
        "start": gene.interval.start + 1,
        "end": gene.interval.end,
        "transcripts": transcripts,
    }


def _around(loaded: Opened, contig: str, start: int, end: int) -> Json:
    letters = loaded.letters
    return {
        "contig": letters.names[contig],
        "contig_length": letters.lengths[contig],
        "start": start + 1,
        "end": end,
        "letters": decode(letters.tokens(contig, start, end)),
    }


def _facts(loaded: Opened) -> Json:
    return {"base_models": [model.name for model in loaded.bases], "threshold": THRESHOLD}


def _numbers(values: NDArray[np.float32]) -> dict[str, str]:
    """Donor and acceptor of scores (n, 2 or more), as `NUMBERS` says."""
    return {name: _encoded(values[:, 0 if kind == DONOR else 1]) for name, kind in _KINDS.items()}


def _encoded(values: NDArray[np.floating]) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype="<f4").tobytes()).decode("ascii")


def _aligned(track: Aligned) -> Json:
    """Both haplotypes base by base of the reference, as `NUMBERS` says; inserted letters beside."""
    of_reference = track.inserted == 0
    sites = [DONOR, ACCEPTOR]
    reference, alternative = track.reference[:, sites], track.alternative[:, sites].copy()
    change = alternative - reference
    gone = slice(track.opened, track.opened - track.surplus) if track.surplus < 0 else slice(0, 0)
    alternative[gone] = np.nan
    at = np.searchsorted(track.positions[of_reference], track.positions)
    largest = change[of_reference].copy()
    for column in np.flatnonzero(~of_reference):
        here = np.abs(change[column]) > np.abs(largest[at[column]])
        largest[at[column]] = np.where(here, change[column], largest[at[column]])
    return {
        "reference": _numbers(reference[of_reference]),
        "alternative": _numbers(alternative[of_reference]),
        "change": _numbers(largest),
        "inserted": [
            {
                "after": int(track.positions[column]) + 1,
                "letter": int(track.inserted[column]),
                "donor": float(alternative[column, 0]),
                "acceptor": float(alternative[column, 1]),
            }
            for column in np.flatnonzero(~of_reference)
        ],
    }


def _unplaced(length: int) -> GeneSites:
    none = np.empty(0, np.int64)
    return GeneSites(Gene(_NOWHERE, Interval(_NOWHERE, 0, length), "+"), none, none, none)


def _refusal(field: str, given: str, why: str) -> RequestError:
    mistakes = Mistakes()
    mistakes.add(None, field, given, why.partition(": ")[2] or why)
    try:
        mistakes.raise_if_any()
    except RequestError as error:
        return RequestError(why, 422, error.details)
    raise AssertionError


def _outside(position: int, allowed: str) -> RequestError:
    detail = {"row": None, "field": POSITION, "given": position + 1, "allowed": allowed}
    return RequestError(f"{POSITION} {position + 1:,} lies outside; allowed is {allowed}", 422, [detail])
