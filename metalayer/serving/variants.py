"""What a server needs to score variants beside its model: a reference, an annotation, and the base models it reads."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from metalayer.errors import ConfigError, InputError
from metalayer.genome import Variant
from metalayer.release.contract import Mistakes, RequestError
from metalayer.release.engine import Engine, Pace
from metalayer.release.variant_contract import VARIANT
from metalayer.schema import bases_of
from metalayer.serving.settings import PREFIX, ServingSettings
from metalayer.variants.answers import COLUMNS, rows_of
from metalayer.variants.calls import Opened, Sources, opened
from metalayer.variants.notation import variant_of
from metalayer.variants.scoring import MAX_DISTANCE, Asked, Options, Scorer

QUERY = {"distance": "50", "context": "0", "mask": "false", "flanks": "N"}
"""Query parameters and what they are where they are left out."""
TEXTS = {
    "distance": f"positions to either side that are looked at, 1 to {MAX_DISTANCE}",
    "context": f"positions to either side for consequences, where more than distance, 0 to {MAX_DISTANCE}",
    "mask": "true: gains of annotated sites and losses of others do not count",
    "flanks": "letters outside a gene: N, as the tools of others have it, or real",
}
ANSWER_COLUMNS: dict[str, type] = {VARIANT: int, **COLUMNS}
"""Of the rows of an answer: the number of the variant in its request, from 0, and those of `metalayer variants`."""
AT_A_TIME = 32
"""Variants at most, times genes and base models, that are scored together: others wait so long."""
_KEPT = 4

Named = tuple[str | None, Variant]
"""A variant, and its text where it came as one."""


class VariantSources:
    """Reference, annotation and base models, loaded once; scores variants with the model that answers at the moment.

    Attributes:
        turn: held by who reads the reference or asks the models.
        pace: seconds that a variant takes here, by distance.
        example: a variant of a site of the annotation, as text.
        examples: that variant, its gene and a region of it, for who looks for something to try.
    """

    def __init__(self, settings: ServingSettings, base_model: str, *, allow_introns: bool = False) -> None:
        """Load what the settings name.

        Args:
            settings: with `fasta` and `annotation`.
            base_model: which the served model reads, several joined by `+`.
            allow_introns: introns of the annotation may begin and end with anything.

        Raises:
            ConfigError: weights that belong to no base model of it.
            InputError: files that cannot be used.
            ModelError: damaged weights.
        """
        assert settings.fasta is not None
        assert settings.annotation is not None
        sources = Sources(
            settings.fasta,
            settings.annotation,
            bases_of(base_model),
            [one for one in settings.weights.split(",") if one],
            aliases=settings.aliases,
            device=settings.device,
            allow_introns=allow_introns,
            evidence=settings.evidence_sources,
        )
        self._open = contextlib.ExitStack()
        self._loaded = self._open.enter_context(opened(sources))
        self.turn = threading.Lock()
        self._scorers: OrderedDict[tuple[str, Options], Scorer] = OrderedDict()
        self.pace = Pace()
        self.example = self._loaded.example()
        self.examples = self._examples()

    def _examples(self) -> dict[str, str]:
        for sites in self._loaded.genes:
            if self.example and len(sites.donors):
                at, span = int(sites.donors[0]), sites.gene.interval
                name, start, end = self._loaded.letters.names[span.chrom], max(at - 999, span.start), at + 1000
                return {
                    "gene": sites.symbol,
                    "region": f"{name}:{start + 1}-{min(end, span.end)}",
                    "variant": self.example,
                }
        return {}

    def options(self, query: Mapping[str, str]) -> Options:
        """How variants are scored, of the query parameters of a request.

        Raises:
            RequestError: 422 of a value that cannot be.
        """
        given = {name: query.get(name, usual) for name, usual in QUERY.items()}
        distance, context = (
            int(text) if text.isdecimal() and len(text) < 9 else -1 for text in (given["distance"], given["context"])
        )
        allowed = {
            "distance": (1 <= distance <= MAX_DISTANCE, f"1 to {MAX_DISTANCE}"),
            "context": (0 <= context <= MAX_DISTANCE, f"0 to {MAX_DISTANCE}"),
            "mask": (given["mask"] in ("true", "false"), "true or false"),
            "flanks": (given["flanks"] in ("N", "real"), "N or real"),
        }
        mistakes = Mistakes()
        for name, (is_right, text) in allowed.items():
            if not is_right:
                mistakes.add(None, name, given[name][:80], text)
        mistakes.raise_if_any()
        return Options(distance, given["mask"] == "true", given["flanks"], context=context)

    def variants(self, given: Sequence[str | Variant]) -> list[Named]:
        """Variants of a request, those that came as text by what they mean.

        Raises:
            RequestError: 422 with all that are no variants, or name no place of the reference.
        """
        mistakes, found = Mistakes(), list[Named]()
        for number, one in enumerate(given):
            try:
                found.append((one, variant_of(one, self._loaded.letters)) if isinstance(one, str) else (None, one))
            except InputError as error:
                mistakes.add(number, VARIANT, one, str(error).partition(": ")[2])
        mistakes.raise_if_any()
        return found

    def rows(
        self, engine: Engine, options: Options, variants: Sequence[Named]
    ) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        """Rows of the answer, as `ANSWER_COLUMNS`, ours beside the base models'; of how many variants they are.

        Variants that follow each other and lie near each other are scored together.
        """
        asked = [Asked(one.chrom, one.position, one.ref, [one.alt]) for _, one in variants]
        with self.turn:
            groups = self.scorer(engine, options).score_groups(asked, AT_A_TIME)
        number = 0
        while number < len(variants):
            with self.turn:
                group = next(groups)
            rows = list[dict[str, Any]]()
            for alleles in group:
                name, one = variants[number]
                found = rows_of(one.chrom, one.position, name, one.ref, alleles)
                rows += ({VARIANT: number, **row} for row in found)
                number += 1
            yield len(group), rows

    def loaded_with(self, engine: Engine) -> Opened:
        """What is loaded, with the model that answers at the moment; errors as of `scorer`."""
        self.scorer(engine, Options())
        return replace(self._loaded, predictor=engine.predictor)

    def scorer(self, engine: Engine, options: Options) -> Scorer:
        """What scores variants with a model; kept for the next request.

        Raises:
            RequestError: 503 of a model of other base models than those that were loaded.
        """
        key = engine.digest, options
        if key in self._scorers:
            self._scorers.move_to_end(key)
        else:
            try:
                self._scorers[key] = self._loaded.scorer_with(engine.predictor, options)
            except ConfigError as error:  # a champion of other base models than the one that the server began with
                raise RequestError(f"this server cannot score variants with its model: {error}", 503) from None
            if len(self._scorers) > _KEPT:
                self._scorers.popitem(last=False)
        return self._scorers[key]


def missing(settings: ServingSettings) -> str:
    """Why a server scores no variants; empty where it does."""
    if settings.scores_variants:
        return ""
    return (
        f"this server scores no variants: start it with {PREFIX}FASTA and {PREFIX}ANNOTATION, and {PREFIX}WEIGHTS "
        "where the base model of its model takes weights (docs/serving.md)"
    )


def described(settings: ServingSettings) -> dict[str, Any] | None:
    """What variants are scored on, JSON-ready; None where they are not."""
    if not settings.scores_variants:
        return None
    return {"fasta": Path(str(settings.fasta)).name, "annotation": Path(str(settings.annotation)).name}
