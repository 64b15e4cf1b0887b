"""Artifact rows that count neither in training nor in evaluation, as positions of whole genes do not (`overlaps.py`).

A row is named by its intron base. It is ignored where another gene of the strand labels that base differently, or where
the exon base that it stands for is ignored in the per-nucleotide scores.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from metalayer.gene_track import GeneTrack
from metalayer.genome import Gene, intron_base
from metalayer.overlaps import PlacedSites, contradicted
from metalayer.schema import ACCEPTOR, CLASSES, DONOR, NEITHER

_KEY = ["gene_id", "position"]


def rows_of_ignored(track: GeneTrack) -> NDArray[np.int64]:
    """Row positions (intron bases) of a track's ignored exon bases, int64, each once; of a non-site, of both kinds."""
    labels = track.labels[track.ignored]
    found = [intron_base(track.ignored[(labels == kind) | (labels == NEITHER)], kind) for kind in (DONOR, ACCEPTOR)]
    return np.unique(np.concatenate(found)).astype(np.int64)


def contradicted_rows(keys: pl.DataFrame, genes: Mapping[str, Gene]) -> pl.DataFrame:
    """Rows whose base another gene of the strand labels differently; a gene's sites are all among its rows.

    Args:
        keys: gene_id, position, splice_type of all rows.
        genes: where they lie; genes without a place contradict nothing.

    Returns:
        Those of `keys`, in their order.
    """
    of_gene = keys.filter(pl.col("splice_type") != CLASSES[NEITHER]).sort(
        "gene_id", "position", pl.col("splice_type") == CLASSES[ACCEPTOR]
    )
    sites = {
        str(gene_id): part.unique("position", keep="first", maintain_order=True)
        for (gene_id,), part in of_gene.partition_by("gene_id", as_dict=True).items()
    }
    placed = []
    for gene_id in keys["gene_id"].unique().sort():
        gene, here = genes.get(gene_id), sites.get(gene_id, keys.clear())
        if gene is not None:
            site_class = here["splice_type"].replace_strict(list(CLASSES), [0, 1, 2], return_dtype=pl.UInt8).to_numpy()
            at = gene.genomic(here["position"].to_numpy()).astype(np.int64)
            placed.append(PlacedSites(gene, at, site_class))
    odd = [
        pl.DataFrame({"gene_id": [one.gene.gene_id] * len(at), "position": at}, schema_overrides=_kinds(keys))
        for one, at in zip(placed, contradicted(placed), strict=True)
        if len(at)
    ]
    return keys.join(pl.concat(odd), on=_KEY, how="semi", maintain_order="left") if odd else keys.clear()


def _kinds(keys: pl.DataFrame) -> dict[str, pl.DataType]:
    return {name: keys.schema[name] for name in _KEY}
