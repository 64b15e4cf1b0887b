"""A new model against the champion, and against the best champion of the line, on genes that these never saw.

A champion is asked where it can be loaded here. Where it cannot, as after an upgrade that changed the format or the
feature schema, the answers that were kept with it are looked up (`evaluation.answers`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metalayer.data.row_table import RowTable
from metalayer.data.same_genes import KnownGene, same_as, seen_by
from metalayer.data.tracks import TrackStore
from metalayer.errors import EvaluationError, MetalayerError, ModelError
from metalayer.evaluation.answers import Answers, clipped, gene_key
from metalayer.evaluation.columns import Columns
from metalayer.evaluation.counts import counted
from metalayer.evaluation.metrics import GeneScores
from metalayer.evaluation.report import compare_champion
from metalayer.evaluation.scored_genes import MadeOf
from metalayer.inference import Predictor
from metalayer.schema import CLASSES, ROWS
from metalayer.settings.run import RunConfig

logger = logging.getLogger(__name__)

CANDIDATE, CHAMPION = "meta", "champion"


@dataclass(frozen=True)
class Champion:
    """A champion of the line, now or before.

    Attributes:
        name: registered name.
        version: of it.
        bundle: gives its model directory, or raises a MetalayerError.
        answers: gives the answers kept with it, or raises a MetalayerError.
    """

    name: str
    version: int
    bundle: Callable[[], Path]
    answers: Callable[[], Answers]


@dataclass(frozen=True)
class TestGenes:
    """What a champion is compared on.

    Attributes:
        scored: the test genes with the scores of the base and of the candidate.
        table: their rows.
        store: their tracks, where all their positions were scored; None where rows were.
        related: ids of genes that belong together beyond what their places say.
    """

    scored: Sequence[GeneScores]
    table: RowTable
    store: TrackStore | None
    related: Sequence[Sequence[str]] = ()


def line_of_champions(name: str, tracking_uri: str | None, folder: Path) -> list[Champion]:
    """The champions of a registered name that were not retired: the one that stands, if any does, then those before.

    Raises:
        RegistryError: the service cannot be reached or refuses.
    """
    from metalayer.registry import download, evidence, line, versions

    there = {one.version: one for one in versions.all_versions(tracking_uri) if one.name == name}
    now = line.read(name, tracking_uri)
    if now.champion is None:
        return []
    chosen = [now.champion]
    for version in dict.fromkeys(reversed(now.history)):
        if version != now.champion and version in there and line.RETIRED_TAG not in there[version].tags:
            chosen.append(version)

    def bundle(version: int) -> Path:
        return download.fetch(name, version, tracking_uri, folder / "champions").bundle

    def answers(version: int) -> Answers:
        if version not in there:
            raise ModelError(f"{name} version {version}: not found in the registry")
        place = folder / "answers" / str(version)
        place.mkdir(parents=True, exist_ok=True)
        return evidence.fetch_answers(there[version], tracking_uri, place)

    return [Champion(name, version, partial(bundle, version), partial(answers, version)) for version in chosen]


def against_line(
    champions: Sequence[Champion], genes: TestGenes, config: RunConfig
) -> dict[str, dict[str, Any] | None]:
    """Compare the candidate with the champion that stands, and with the best of the line.

    The best is the one that leads the candidate by most, or trails it by least, in PR-AUC of splice sites, on the test
    genes that it never saw.

    Args:
        champions: the one that stands first; none where there is none.
        genes: to compare on.
        config: the run.

    Returns:
        champion: version, scored, error where it could not be, by (which answers), genes, and the report of
        `compare_champion`; None where there is none. best_champion: likewise with compared and left_out (version to
        why); None where the line has no other champion.
    """
    if not champions:
        return {"champion": None, "best_champion": None}
    standing = _compared(champions[0], genes, config)
    if len(champions) == 1:
        return {"champion": standing, "best_champion": None}
    leads: list[tuple[float, Champion]] = []
    left_out: dict[str, str] = {}
    for one in champions:
        try:
            both, _ = _answers(one, genes, config, kept_first=True)
            leads.append((_lead(both), one))
        except MetalayerError as error:
            left_out[str(one.version)] = str(error)
    facts: dict[str, Any] = {"compared": len(leads), "left_out": left_out}
    if not leads:
        return {"champion": standing, "best_champion": {"scored": False, "error": None, "genes": 0} | facts}
    best = max(leads, key=lambda pair: (pair[0], pair[1].version))[1]
    found = standing if best is champions[0] else _compared(best, genes, config, kept_first=True)
    return {"champion": standing, "best_champion": found | facts}


def _compared(champion: Champion, genes: TestGenes, config: RunConfig, *, kept_first: bool = False) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "name": champion.name,
        "version": champion.version,
        "scored": False,
        "error": None,
        "genes": 0,
    }
    try:
        both, more = _answers(champion, genes, config, kept_first=kept_first)
        return (
            facts | more | {"scored": True, "genes": len(both)} | compare_champion(both, config.evaluate, genes.related)
        )
    except MetalayerError as error:
        return facts | {"error": str(error)}


def _answers(
    champion: Champion, genes: TestGenes, config: RunConfig, *, kept_first: bool
) -> tuple[Collection[GeneScores], dict[str, Any]]:
    """Candidate and champion on the genes that the champion never saw, and what is to be said of that.

    Raises:
        MetalayerError: neither its files nor the answers kept with it serve.
    """
    ways = [_by_files, _by_kept_answers]
    errors = []
    for way in reversed(ways) if kept_first else ways:
        try:
            return way(champion, genes, config)
        except MetalayerError as error:
            errors.append(str(error))
    raise EvaluationError("; ".join(errors))


def _by_files(champion: Champion, genes: TestGenes, config: RunConfig) -> tuple[Collection[GeneScores], dict[str, Any]]:
    predictor = Predictor.load(champion.bundle(), config.train.device)
    trained = seen_by(predictor.info)
    if not trained:
        raise ModelError("its model.json does not say which genes it was trained on")
    test = [KnownGene(one.gene_id, one.gene, one.genome_build, one.letters) for one in genes.scored]
    seen = same_as(test, trained)
    unseen = [number for number, gene in enumerate(test) if gene.gene_id not in seen]
    if not unseen:
        raise EvaluationError("it was trained or validated on every test gene; test on other genes (split.test_chroms)")
    theirs: Callable[[int], NDArray[np.float32]]
    if genes.store is not None:
        answers = Columns({CHAMPION: (np.float32, (len(CLASSES),))})
        for track in genes.store.read_many([test[number].gene_id for number in unseen]):
            answers.append(**{CHAMPION: predictor.predict_gene_track(track)})
        place = {number: i for i, number in enumerate(unseen)}

        def theirs(number: int) -> NDArray[np.float32]:
            return answers.read(CHAMPION, place[number])
    else:
        rows = predictor.calibrated(predictor.row_log_probabilities(genes.table.features, genes.table.windows), ROWS)
        at = {gene_id: at for gene_id, _, at in genes.table.by_gene()}

        def theirs(number: int) -> NDArray[np.float32]:
            return rows[at[test[number].gene_id]]

    both = MadeOf(genes.scored, lambda number, gene: _both(gene, partial(theirs, number)), set(unseen))
    return both, {"by": "its files", "genes_it_was_trained_on": len(genes.scored) - len(unseen)}


def _by_kept_answers(
    champion: Champion, genes: TestGenes, _config: RunConfig
) -> tuple[Collection[GeneScores], dict[str, Any]]:
    kept = champion.answers()
    keys = [gene_key(gene) for gene in genes.scored]
    common = {number for number, key in enumerate(keys) if key in kept.genes}
    if not common:
        raise EvaluationError(
            "none of the answers kept with it are on the test genes: it was evaluated on other genes, or these "
            "have other letters, labels or base scores now"
        )
    both = MadeOf(genes.scored, lambda number, gene: _both(gene, partial(kept.of, keys[number])), common)
    found = clipped(both, [CANDIDATE, CHAMPION], kept.floor)
    return found.genes, {"by": "answers kept with it", "floor": kept.floor, "exact_to": found.bound}


def _both(gene: GeneScores, theirs: Callable[[], NDArray[np.float32]]) -> dict[str, Callable[[], NDArray[np.float32]]]:
    """Answers of candidate and champion on a gene, when they are asked for."""
    return {CANDIDATE: lambda: gene.scores[CANDIDATE], CHAMPION: theirs}


def _lead(both: Collection[GeneScores]) -> float:
    """PR-AUC of splice sites of the champion above that of the candidate."""
    sample, counts = counted(both, [CANDIDATE, CHAMPION])
    alike = np.ones((1, len(sample.sizes)))
    ours, theirs = (float(counts[name].metric_values(alike, ())["pr_auc_splice"][0]) for name in (CANDIDATE, CHAMPION))
    return theirs - ours
