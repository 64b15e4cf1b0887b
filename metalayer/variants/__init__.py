"""What a variant does to splice sites: base models and ours on both haplotypes, compared base by base."""

from __future__ import annotations

from metalayer.variants.calls import Sources, opened, score_variants
from metalayer.variants.scoring import Asked, Options

__all__ = ["Asked", "Options", "Sources", "opened", "score_variants"]
