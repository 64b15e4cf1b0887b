"""Per-nucleotide score files that stand alone: labelled genes with letters, without artifact rows beside them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from metalayer.contigs import Contigs
from metalayer.data.discovery import check_written
from metalayer.data.nucleotide_scores import TrackReport, write_tracks
from metalayer.data.tracks import TrackStore
from metalayer.errors import ArtifactError
from metalayer.formats.evidence import Evidence
from metalayer.genome import Gene
from metalayer.schema import SPLICED_SCORE, bases_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScoreFile:
    """One or more files as they were read.

    Attributes:
        paths: the files, in words.
        names: likewise, without folders.
        found: what reading found.
        store: their genes.
    """

    paths: str
    names: str
    found: TrackReport
    store: TrackStore

    @classmethod
    def read(
        cls,
        paths: Sequence[Path],
        canonical: Path,
        gene_table: Mapping[str, Gene],
        contigs: Contigs | None = None,
        *,
        base_model: str | None = None,
        allow_introns: bool = False,
        spliced_alone: bool = False,
        evidence: Evidence | None = None,
    ) -> ScoreFile:
        """Read files into one canonical Parquet.

        Args:
            paths: per-nucleotide Parquet.
            canonical: file to publish.
            gene_table: where genes must lie, as in `write_tracks`; empty for no such check.
            contigs: which names are of one chromosome; None for the rules alone.
            base_model: whose scores, of files where several stand side by side, as in `schema.bases_of`; None: of all.
            allow_introns: introns may begin and end with anything, not GT or GC and AG alone.
            evidence: gets a column each, as in `write_tracks`.
            spliced_alone: scores that do not tell donors from acceptors need none that do beside them.

        Raises:
            ArtifactError: no such file, or one that cannot be used, without labels or letters, or whose letters, labels
                and scores do not keep one convention; a gene twice; no scores that tell donors from acceptors.
        """
        given = ", ".join(map(str, paths))
        for path in paths:
            if not path.is_file():
                raise ArtifactError(f"scores: given {path}, which is no file")

        check_written(paths)

        def no_rows() -> pl.DataFrame:
            raise ArtifactError(
                f"{given}: no column label, so nothing says where sites are; write it with `metalayer base run`, or "
                "add donor, acceptor, neither at exon bases"
            )

        bases = None if base_model is None else bases_of(base_model)
        found = write_tracks(
            paths,
            canonical,
            gene_table,
            no_rows,
            contigs=contigs,
            base_models=bases,
            allow_introns=allow_introns,
            evidence=evidence,
        )
        if not found.letters:
            raise ArtifactError(f"{given}: no letters, so whole genes cannot be read; give Parquet with a column base")
        for gene_id, cause in found.genes_dropped.items():
            logger.warning("gene %s of %s is left out: %s", gene_id, given, cause)
        store = TrackStore(canonical)
        if not spliced_alone and all(len(store.score_columns(name)) == 1 for name in store.base_models):
            raise ArtifactError(
                f"{given}: given {SPLICED_SCORE} alone, which does not tell donors from acceptors; put the scores of a "
                "base model that does beside them: metalayer merge"
            )
        return cls(given, ", ".join(path.name for path in paths), found, store)
