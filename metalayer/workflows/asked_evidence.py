"""Evidence that a trained model is asked with: what it reads, from files that are named or columns that are there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from metalayer.contigs import Contigs
from metalayer.formats.evidence import Evidence
from metalayer.inference import Predictor
from metalayer.integrity import open_parquet
from metalayer.schema import evidence_column
from metalayer.settings.evidence import COLUMN, Source


def evidence_for(
    predictor: Predictor,
    scores: Iterable[Path],
    given: Mapping[str, Source],
    contigs: Contigs | None = None,
    setting: str = "--evidence",
) -> Evidence | None:
    """What the model reads beside per-nucleotide scores.

    Args:
        predictor: the model.
        scores: files of scores; where all of them have the column of a piece that is not named, that is read.
        given: pieces that are named.
        contigs: which names are of one contig.
        setting: that names them, for messages.

    Returns:
        None where the model reads no evidence.

    Raises:
        ConfigError: a piece that is not there, or that the model does not read.
        InputError: files that cannot be used.
    """
    sources = dict(given)
    if missing := [name for name in predictor.evidence if name not in sources]:
        there = [open_parquet(path, "copy or write it again").schema_arrow.names for path in scores]
        for name in missing:
            if there and all(evidence_column(name) in names for names in there):
                sources[name] = COLUMN
    predictor.check_evidence(sources, setting)
    return Evidence(sources, contigs) if sources else None
