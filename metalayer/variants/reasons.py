"""Why a variant has no score, and what of that is a fault of the input."""

from __future__ import annotations

REASONS = {
    "no_alt": "no other allele (ALT is a dot)",
    "contig_absent": "on contigs that the FASTA lacks",
    "out_of_range": "at a position that its contig does not have",
    "ref_mismatch": "REF is not what the FASTA has there",
    "ambiguous_letters": "REF or ALT has N or a letter of several bases",
    "no_letters": "REF or ALT is no letters",
    "symbolic": "a symbolic allele, as <DEL>",
    "breakend": "a breakend",
    "star": "the allele *, deleted by another record",
    "same_as_ref": "ALT is REF",
    "too_long": "REF or ALT is longer than the limit",
    "no_gene": "touches no gene of the annotation",
    "ambiguous_window": "too many of the letters around are N",
    "damaged_line": "a line that is no record of VCF",
    "as_spliceai": "what SpliceAI passes over",
}
"""Key as in `MetaLayerSkipped`, and words."""
FAULTS = frozenset(("contig_absent", "out_of_range", "ref_mismatch", "no_letters", "damaged_line"))
"""Those that say that file, FASTA and annotation do not fit: above a share of them a run ends with an error."""
