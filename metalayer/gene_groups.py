"""Which genes belong together: those that overlap, on either strand, and those of one paralog group.

A split keeps them in one part, and an interval draws them as one: their sites are not independent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from metalayer.genome import Gene


def related(genes: Iterable[Gene]) -> list[list[str]]:
    """Ids of genes that overlap or share a paralog group; an id may be in several of the lists (see `united`).

    Args:
        genes: of one genome build; only their places and paralog groups are read.
    """
    placed = sorted(genes, key=lambda gene: (gene.interval.chrom, gene.interval.start, gene.gene_id))
    lists = []
    reaching: Gene | None = None  # of the genes so far, the one that ends last
    for gene in placed:
        if reaching and gene.interval.overlaps(reaching.interval):
            lists.append([reaching.gene_id, gene.gene_id])
        if not reaching or gene.interval.chrom != reaching.interval.chrom or gene.interval.end > reaching.interval.end:
            reaching = gene
    paralogs: dict[str, list[str]] = {}
    for gene in placed:
        if gene.paralog_group is not None:
            paralogs.setdefault(gene.paralog_group, []).append(gene.gene_id)
    return [*lists, *paralogs.values()]


def united(gene_ids: Iterable[str], lists: Iterable[Sequence[str]]) -> list[list[str]]:
    """Groups of `gene_ids`: two genes are of one group where lists link them, directly or through others.

    Args:
        gene_ids: each in exactly one of the groups, in this order.
        lists: ids that belong together; others than `gene_ids` link, but are in no group.

    Returns:
        Groups, sorted.
    """
    parent: dict[str, str] = {}

    def root(gene_id: str) -> str:
        while (above := parent.setdefault(gene_id, gene_id)) != gene_id:
            parent[gene_id] = parent[above]
            gene_id = above
        return gene_id

    for first, *others in filter(None, lists):
        for other in others:
            parent[root(other)] = root(first)
    groups: dict[str, list[str]] = {}
    for gene_id in dict.fromkeys(gene_ids):
        groups.setdefault(root(gene_id), []).append(gene_id)
    return sorted(groups.values())
