"""Called sites as BED and decoded exons as GFF3: the part of `metalayer export` that calls."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from metalayer.errors import InputError
from metalayer.files import publish_file, scratch_directory
from metalayer.schema import CLASSES, DONOR
from metalayer.sites import decode_exons
from metalayer.sites.calling import THRESHOLD
from metalayer.sites.exons import CANDIDATE
from metalayer.sites.stretch import Stretch, called

BED, PACKED = ".bed", ".bed.gz"
BED_COLUMNS = (
    *("chrom", "start", "end", "name", "score", "strand", "thick_start", "thick_end", "rgb"),
    *("base", "meta", "called_by", "genes"),
)
"""BED9 and four more; those of a model that there is not have a dot."""
_RGB = {"donor": "0,92,175", "acceptor": "196,78,0"}
_TBI_LONGEST = 1 << 29
_SAFE = " :/,+-_.()[]|@*"


def _genomic(one: Stretch, positions: NDArray[np.int64]) -> NDArray[np.int64]:
    return one.start + positions if one.strand == "+" else one.end - 1 - positions


class SitesFile:
    """Gathers called sites, and writes them sorted, as BED: 0-based half-open, each at its own exon base."""

    def __init__(self, path: Path, order: Sequence[str], longest: int) -> None:
        """Begin.

        Args:
            path: `.bed`, or `.bed.gz`, which gets a tabix index beside it.
            order: names of the contigs.
            longest: length of the longest contig.

        Raises:
            InputError: another name.
        """
        if not path.name.endswith((BED, PACKED)):
            raise InputError(f"--bed: given {path}; the name must end in {BED} or {PACKED}")
        self._path, self._order, self._longest = path, {name: number for number, name in enumerate(order)}, longest
        self._rows: list[tuple[int, int, str]] = []

    def add(self, one: Stretch, contig: str) -> None:
        """The sites that a system or several call on a stretch."""
        found: dict[tuple[int, int], list[str]] = {}
        for system in one.scores:
            sites = called(one, system, THRESHOLD)
            at = _genomic(one, sites.positions)
            for place, kind in zip(at.tolist(), sites.kinds.tolist(), strict=True):
                found.setdefault((place, kind), []).append(system)
        for (place, kind), systems in found.items():
            column = 0 if kind == DONOR else 1
            values = {name: float(scores[place - one.start, column]) for name, scores in one.scores.items()}
            name, best = CLASSES[kind], max(values[system] for system in systems)
            shown = [f"{values[system]:.6g}" if system in values else "." for system in ("base", "meta")]
            fields = [contig, place, place + 1, name, round(1000 * best), one.strand, place, place + 1, _RGB[name]]
            line = "\t".join(map(str, [*fields, *shown, ",".join(systems), ",".join(one.names)]))
            self._rows.append((self._order[contig], place, line))

    def write(self) -> list[Path]:
        """Publish the file, and its index."""
        lines = "".join(f"{line}\n" for _, _, line in sorted(self._rows))
        if not self._path.name.endswith(PACKED):
            with publish_file(self._path) as draft:
                draft.write_text(lines, encoding="utf-8")
            return [self._path]
        import pysam

        end = ".tbi" if self._longest < _TBI_LONGEST else ".csi"
        index = self._path.with_name(self._path.name + end)
        with scratch_directory(self._path) as folder:
            plain, packed = folder / "sites.bed", folder / "sites.bed.gz"
            plain.write_text(lines, encoding="utf-8")
            pysam.tabix_compress(str(plain), str(packed))
            pysam.tabix_index(str(packed), preset="bed", csi=end == ".csi")
            with publish_file(index) as beside, publish_file(self._path) as draft:
                shutil.copyfile(packed, draft)
                shutil.copyfile(f"{packed}{end}", beside)
        return [self._path, index]


class ExonsFile:
    """Writes exons of whole genes as GFF3: 1-based, both ends included."""

    def __init__(self, path: Path, lengths: Mapping[str, int], best: int = 1) -> None:
        """Begin a file.

        Args:
            path: to write.
            lengths: of the contigs, in order.
            best: transcripts of a gene at most, by each system.
        """
        self._handle, self._best = path.open("w", encoding="utf-8"), best
        self._handle.write("##gff-version 3\n")
        for contig, length in lengths.items():
            self._handle.write(f"##sequence-region {quote(contig, safe=_SAFE)} 1 {length}\n")

    def add(self, one: Stretch, contig: str) -> None:
        """The transcripts of a gene, best first; their probabilities are among all chains of its sites."""
        (gene,) = one.names
        line = self._line(one, contig)
        self._handle.write(line("gene", one.start, one.end, f"ID=gene:{_text(gene)};gene_id={_text(gene)}"))
        for system in one.scores:
            sites = called(one, system, CANDIDATE)
            chains = decode_exons(sites, 0, one.end - one.start - 1, best=self._best).chains
            for number, chain in enumerate(chains, 1):
                name = f"{_text(gene)}.{system}.{number}"
                facts = f"ID=transcript:{name};Parent=gene:{_text(gene)};model={system}"
                facts += f";probability={chain.probability:.4g}"
                self._handle.write(line("mRNA", one.start, one.end, facts))
                for count, exon in enumerate(chain.exons, 1):
                    ends = sorted(int(end) for end in _genomic(one, np.array(exon, np.int64)))
                    facts = f"ID=exon:{name}.{count};Parent=transcript:{name};exon_number={count}"
                    self._handle.write(line("exon", ends[0], ends[1] + 1, facts))

    @staticmethod
    def _line(one: Stretch, contig: str) -> Callable[[str, int, int, str], str]:
        place = quote(contig, safe=_SAFE)

        def line(kind: str, start: int, end: int, facts: str) -> str:
            return f"{place}\tmetalayer\t{kind}\t{start + 1}\t{end}\t.\t{one.strand}\t.\t{facts}\n"

        return line

    def close(self) -> None:
        """Nothing more comes."""
        self._handle.close()


def _text(value: str) -> str:
    """As GFF3 escapes attributes."""
    return quote(value, safe=_SAFE.replace(",", ""))
