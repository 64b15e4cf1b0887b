"""Contigs and their names: one chromosome is `1`, `chr1`, `CM000663.2` and `NC_000001.11`, depending on who asks.

Without a table of aliases two rules hold: `chr` before a name says nothing, and `M` and `MT` are one. A table adds what
no rule can know, the lengths by which builds differ, and which contigs are chromosomes. Three forms are read as they
come: NCBI's assembly report, UCSC's chromAlias (both forms) and any table with the names of one contig a line.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from metalayer.errors import InputError
from metalayer.file_kinds import read_table
from metalayer.genome import MITOCHONDRIAL, chrom_order, normalise_chrom

CHROMOSOME, SCAFFOLD, ALTERNATIVE = range(3)
"""Kinds of contigs, in the order in which they may keep the id of a gene that lies on several."""
_KIND_OF_ROLE = {
    "assembled-molecule": CHROMOSOME,
    "unlocalized-scaffold": SCAFFOLD,
    "unplaced-scaffold": SCAFFOLD,
    "pseudo-scaffold": SCAFFOLD,
}
"""Sequence-Role of NCBI's assembly report; all others (alt-scaffold, fix-patch, novel-patch) are alternatives."""
_CHROMOSOME_NAME = re.compile(r"\d{1,3}[LRABab]?|[XYWZM]|MT|[IVX]+", re.ASCII)
_ORGANELLE_NAME = re.compile(r"(?i)M|MT|PT|(MT|PT|CP)(DNA|GENOME)|MITO|.*(MITOCHONDRI|PLAST|CYANELLE).*", re.ASCII)
"""C is one too, unless other contigs are called by letters."""
_CHROMOSOME_ACCESSION = re.compile(r"(NC_|CM|CP)\d+(\.\d+)?", re.ASCII)
_ALTERNATIVE_NAME = re.compile(
    r"(?i).*_(alt|fix|patch|hap\d+)|_?(HS|MM)CHR(?!.*(UNLOCALIZED|RANDOM)).*_CTG.*", re.ASCII
)
_ACCESSION = re.compile(r"([A-Z]{1,2}_?[A-Z]*\d{5,})(?:\.(\d+))?", re.ASCII)
_SLICE = re.compile(r"(.+):[\d,]+-[\d,]+", re.ASCII)
"""As `samtools faidx` names what it cuts out."""
_REPORT_COLUMNS = ("sequence-name", "sequence-role", "assigned-molecule", "genbank-accn", "refseq-accn")
_SOURCES = frozenset(
    ("assembly", "ensembl", "genbank", "refseq", "ucsc", "ncbi", "insdc", "flybase", "wormbase", "tair", "sgd")
)
"""Third column of UCSC's older chromAlias, perhaps several with commas between them."""
_LENGTH_COLUMNS = ("sequence-length", "length", "size")
_MIN_LENGTH = 1000
_NONE = ("", "na")
_NAMED = 10


@dataclass(frozen=True)
class Contig:
    """A line of a table.

    Attributes:
        key: the name that all names stand for; it is one of them, without `chr`.
        names: as they stand in the table.
        length: in nt; None where the table has none.
        kind: `CHROMOSOME`, `SCAFFOLD` or `ALTERNATIVE`; None where the table does not say.
        place: Assigned-Molecule-Location/Type of NCBI's report, as Chromosome or Mitochondrion; empty elsewhere.
    """

    key: str
    names: tuple[str, ...]
    length: int | None = None
    kind: int | None = None
    place: str = ""


@dataclass(frozen=True)
class Contigs:
    """Names of contigs; without a table, only the rules hold.

    Attributes:
        path: the table, None for none.
        lines: its contigs by key.
    """

    path: Path | None = None
    lines: Mapping[str, Contig] = field(default_factory=dict)
    _by_name: dict[str, Contig] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, path: Path | None) -> Contigs:
        """Read a table of aliases; None is no table.

        Raises:
            InputError: no such file, no names in it, lines with too few fields, a name of two contigs, or a length
                that is none.
        """
        if path is None:
            return cls()
        found = cls(path, {contig.key: contig for contig in _read(path)})
        for contig in found.lines.values():
            for name in contig.names:
                found._by_name[normalise_chrom(name)] = contig
        for name, other in MITOCHONDRIAL.items():
            if name in found._by_name:
                found._by_name.setdefault(other, found._by_name[name])
        return found

    def key(self, name: str) -> str:
        """Our name of a contig, by any of its names; a name that the table lacks is itself, without `chr`."""
        plain = normalise_chrom(name)
        contig = self._contig(plain)
        return contig.key if contig else plain

    def knows(self, name: str) -> bool:
        """Whether the table has a name."""
        return self._contig(normalise_chrom(name)) is not None

    def _contig(self, plain: str) -> Contig | None:
        found = self._by_name.get(plain)
        if found is None and plain.startswith("_"):  # Ensembl's CHR_HSCHR6_MHC_APD_CTG1
            found = self._by_name.get(plain[1:])
        if found is None and "|" in plain:  # NCBI's older gi|568815597|ref|NC_000001.11|
            found = next(filter(None, map(self._by_name.get, plain.split("|"))), None)
        if found is None and "%" in plain:  # as GFF3 escapes names
            found = self._contig(unquote(plain)) if unquote(plain) != plain else None
        return found

    def twin(self, key: str) -> str | None:
        """The other name of a mitochondrial genome, unless the table has both for different contigs."""
        other = MITOCHONDRIAL.get(key)
        return None if other is None or self.knows(other) else other

    def kind(self, key: str) -> int:
        """Kind of a contig, by the table, else by the pattern of its name."""
        contig = self._contig(normalise_chrom(key))
        if contig and contig.kind is not None:
            return contig.kind
        names = [normalise_chrom(name) for name in contig.names] if contig else [key]
        if any(_ALTERNATIVE_NAME.fullmatch(name) for name in names):
            return ALTERNATIVE
        if any(_CHROMOSOME_NAME.fullmatch(name) or _CHROMOSOME_ACCESSION.fullmatch(name) for name in names):
            return CHROMOSOME
        return SCAFFOLD

    def organelles(self, keys: Collection[str]) -> set[str]:
        """Which contigs are of mitochondria and plastids, by the table, else by the patterns of their names.

        Args:
            keys: our names of all contigs of a file: where they are called A, B, C, ..., letters say nothing.
        """
        lettered = {"A", "B"} <= set(keys)
        found = set()
        for key in keys:
            contig = self._contig(normalise_chrom(key))
            if contig and contig.place:
                is_one = is_organelle(contig.place)
            else:
                names = [normalise_chrom(name) for name in contig.names] if contig else [key]
                is_one = any(
                    (is_organelle(name) or name == "C") and not (lettered and len(name) == 1) for name in names
                )
            if is_one:
                found.add(key)
        return found

    def lengths(self) -> dict[str, int]:
        """Lengths that the table has, in nt by key."""
        return {key: contig.length for key, contig in self.lines.items() if contig.length is not None}

    def hint(self, lacking: Collection[str], there: Iterable[str]) -> str:
        """What would let two files meet whose names do not: a sentence.

        Args:
            lacking: names of one file, as they stand there, that the other lacks.
            there: names of the other.
        """
        names = (*lacking, *there)
        named = dict.fromkeys(names)
        cut = next(
            (
                name
                for name in named
                if (match := _SLICE.fullmatch(name)) and normalise_chrom(match[1]) in map(normalise_chrom, named)
            ),
            None,
        )
        if cut:
            return f"{cut} is a piece that was cut out: its bases have other positions than those of the annotation"
        if self.path is None:
            kind = "NCBI's assembly report of the build" if any(map(is_accession, named)) else "a table of their names"
            return f"If these are other names of the same contigs, map them: --aliases (base.aliases) with {kind}"
        versions = {
            match[1]: name
            for name in (name for contig in self.lines.values() for name in contig.names)
            if (match := _ACCESSION.fullmatch(name)) and match[2]
        }
        if lacking and all(map(self.knows, lacking)):
            return f"{self.path} has other names of them, but the FASTA has none of these"
        for name in named:
            match = _ACCESSION.fullmatch(name)
            if match and match[2] and match[1] in versions and not self.knows(name):
                return f"{self.path} has {versions[match[1]]}, another version of {name}: it is of another genome build"
        return f"{self.path} does not map them"


def is_organelle(name: str) -> bool:
    """Whether a name or a word for a place, as `Mt` or `Chloroplast`, is of a mitochondrion or a plastid."""
    return _ORGANELLE_NAME.fullmatch(name) is not None


def is_accession(name: str) -> bool:
    """Whether a name is an accession, as `NC_000932.1`, which says nothing of what it is of."""
    return _ACCESSION.fullmatch(name) is not None


def listed(names: Iterable[str]) -> str:
    """Names for a message: the first of them, chromosomes before others, and how many more."""
    ordered = sorted(names, key=lambda name: chrom_order(normalise_chrom(name)))
    more = f" and {len(ordered) - _NAMED} more" if len(ordered) > _NAMED else ""
    return (", ".join(ordered[:_NAMED]) or "none") + more


def own_names(contigs: Mapping[str, str]) -> dict[str, str]:
    """Our name by that of a file, without `chr`: to read what a user asks for.

    Args:
        contigs: a file's own name by ours, as manifests have it.
    """
    return {normalise_chrom(theirs): ours for ours, theirs in contigs.items()}


def _read(path: Path) -> list[Contig]:
    rows = _rows(path)
    if not rows.fields:
        raise InputError(f"aliases {path}: no line with names; {_FORMS}")
    drafts = _of_report(rows) if rows.is_report else _of_table(rows)
    line_of: dict[str, int] = {}
    for draft in drafts:
        for name in dict.fromkeys(map(normalise_chrom, draft.names)):
            if line_of.setdefault(name, draft.line) != draft.line:
                raise InputError(
                    f"aliases {path}: {name} stands for two contigs, in lines {line_of[name]} and {draft.line}; a name "
                    "is of one"
                )
    if len(line_of) == len(drafts):
        raise InputError(f"aliases {path}: one name a contig, so nothing is mapped; {_FORMS}")
    return [Contig(_key(draft.names), draft.names, draft.length, draft.kind, draft.place) for draft in drafts]


_FORMS = (
    "it is NCBI's assembly report, UCSC's chromAlias, or a table with the names of one contig a line, tabs between them"
)


def _key(names: tuple[str, ...]) -> str:
    """The name of a chromosome, as in `1` or `2L`, else the first; a name that stays as it is without `chr`."""
    plain = [normalise_chrom(name) for name in names]
    fixed = [name for name in plain if normalise_chrom(name) == name and not re.search(r"\s", name)] or plain
    return next((name for name in fixed if _CHROMOSOME_NAME.fullmatch(name)), fixed[0])


@dataclass
class _Rows:
    """Lines of a table with their numbers; `header`: names of the columns in small letters, where it has them."""

    path: Path
    fields: list[tuple[int, list[str]]] = field(default_factory=list)
    header: list[str] = field(default_factory=list)

    @property
    def is_report(self) -> bool:
        return set(_REPORT_COLUMNS) <= set(self.header)


@dataclass
class _Draft:
    line: int
    names: tuple[str, ...]
    length: int | None = None
    kind: int | None = None
    place: str = ""


def _rows(path: Path) -> _Rows:
    text = read_table(path, "aliases", _FORMS.removeprefix("it is "), by_columns=False).decode()
    rows = _Rows(path)
    for number, line in enumerate(text.split("\n"), start=1):
        if line.startswith("#"):
            columns = [name.strip().lower() for name in line.lstrip("#").split("\t")]
            rows.header = columns if len(columns) > 1 and not rows.fields else rows.header
        elif line.strip():
            fields = [name.strip() for name in line.split("\t")] if "\t" in line else line.split()
            rows.fields.append((number, fields))
    if rows.fields and not rows.header:
        first = [name.lower() for name in rows.fields[0][1]]
        if any(name in _LENGTH_COLUMNS for name in first):
            rows.header = first
            rows.fields.pop(0)
    return rows


def _length(rows: _Rows, line: int, text: str) -> int | None:
    if text.lower() in _NONE:
        return None
    if not text.isascii() or not text.isdigit():
        raise InputError(f"aliases {rows.path}, line {line}: given length {text!r}; needs a number of nt")
    return int(text)


def _of_report(rows: _Rows) -> list[_Draft]:
    """NCBI's: the assigned molecule is a name of an assembled one alone, where no other has it."""
    at = {name: rows.header.index(name) for name in rows.header}
    if short := next((line for line, fields in rows.fields if len(fields) < len(rows.header)), None):
        raise InputError(f"aliases {rows.path}, line {short}: fewer fields than the header has; copy it again")

    def of(fields: list[str], column: str) -> str:
        return fields[at[column]] if column in at else ""

    columns = ("ucsc-style-name", "sequence-name", "genbank-accn", "refseq-accn")
    named = Counter(
        name
        for _, fields in rows.fields
        for name in {
            normalise_chrom(of(fields, column))
            for column in (*columns, "assigned-molecule")
            if column in columns or of(fields, "sequence-role") == "assembled-molecule"
        }
    )
    drafts = []
    for line, fields in rows.fields:
        role, molecule = of(fields, "sequence-role"), of(fields, "assigned-molecule")
        is_name = role == "assembled-molecule" and named[normalise_chrom(molecule)] == 1
        names = [molecule if is_name else "", *(of(fields, column) for column in columns)]
        kept = tuple(dict.fromkeys(name for name in names if name.lower() not in _NONE))
        if kept:
            length = _length(rows, line, of(fields, "sequence-length"))
            place = of(fields, "assigned-molecule-location/type")
            place = "" if place.lower() in _NONE else place
            drafts.append(_Draft(line, kept, length, _KIND_OF_ROLE.get(role, ALTERNATIVE), place))
    return drafts


def _of_table(rows: _Rows) -> list[_Draft]:
    """UCSC's and others': all fields of a line are names, but for a length, or the source of an alias."""
    if _is_alias_by_alias(rows):
        by_contig: dict[str, _Draft] = {}
        for line, (alias, name, *_) in rows.fields:
            draft = by_contig.setdefault(name, _Draft(line, (name,)))
            draft.names = tuple(dict.fromkeys((*draft.names, alias)))
        return list(by_contig.values())
    if _is_of_lengths(rows):
        raise InputError(f"aliases {rows.path}: lengths beside names, as in a .fai or chrom.sizes file; {_FORMS}")
    length_at = next((rows.header.index(name) for name in _LENGTH_COLUMNS if name in rows.header), None)
    drafts = []
    for line, fields in rows.fields:
        names = tuple(
            dict.fromkeys(name for i, name in enumerate(fields) if i != length_at and name.lower() not in _NONE)
        )
        length = _length(rows, line, fields[length_at]) if length_at is not None and length_at < len(fields) else None
        if names:
            drafts.append(_Draft(line, names, length))
    return drafts


def _is_of_lengths(rows: _Rows) -> bool:
    """Whether all that stands beside the first names are numbers, too large for names of chromosomes."""
    beside = [fields[1:] for _, fields in rows.fields]
    return not rows.header and all(
        numbers and all(number.isdigit() for number in numbers) and int(numbers[0]) >= _MIN_LENGTH for numbers in beside
    )


def _is_alias_by_alias(rows: _Rows) -> bool:
    """UCSC's older form: an alias, the contig and where the alias is from."""
    return all(
        len(fields) == 3 and {word.strip().lower() for word in fields[2].split(",")} <= _SOURCES
        for _, fields in rows.fields
    )
