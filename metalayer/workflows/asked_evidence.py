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


def asked_sources(
    predictor: Predictor, scores: Iterable[Path], given: Mapping[str, Source], setting: str = "--evidence"
) -> dict[str, Source]:
    """Where all that the model reads beside per-nucleotide scores is read.

    Args:
        predictor: the model.
        scores: files of scores; where all of them have the column of a piece that is not named, that is read.
        given: pieces that are named.
        setting: that names them, for messages.

    Raises:
        ConfigError: a piece that is not there, or that the model does not read.
    """
    sources = dict(given)
    if missing := [name for name in predictor.evidence if name not in sources]:
        files = [path for path in scores if path.is_file()]  # what is none is refused where it is read
        there = [open_parquet(path, "copy or write it again").schema_arrow.names for path in files]
        for name in missing:
            if there and all(evidence_column(name) in names for names in there):
                sources[name] = COLUMN
    predictor.check_evidence(sources, setting)
    return sources


def evidence_for(
    predictor: Predictor,
    scores: Iterable[Path],
    given: Mapping[str, Source],
    contigs: Contigs | None = None,
    setting: str = "--evidence",
) -> Evidence | None:
    """What the model reads beside per-nucleotide scores, opened; arguments and errors as in `asked_sources`.

    Args:
        predictor: the model.
        scores: files of scores.
        given: pieces that are named.
        contigs: which names are of one contig.
        setting: that names them.

    Returns:
        None where the model reads no evidence.

    Raises:
        ConfigError: as in `asked_sources`.
        InputError: files that cannot be used.
    """
    sources = asked_sources(predictor, scores, given, setting)
    return Evidence(sources, contigs) if sources else None
