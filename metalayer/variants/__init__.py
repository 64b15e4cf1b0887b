"""What a variant does to splice sites: base models and ours on both haplotypes, compared base by base."""

from __future__ import annotations

from metalayer.variants.calls import score_variants

__all__ = ["score_variants"]
