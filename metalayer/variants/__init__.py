"""What a variant does to splice sites: base models and ours on both haplotypes, compared base by base."""
