"""Variants of which it is known whether they alter splicing, in the forms that people have.

- SpliceVarDB's download: `classification`, and coordinates in the column of the genome build.
- A table of two columns, tabs or commas: `variant`, as in `notation`, and `label`; a third one, `gene`, where it has a
  header.
- VCF or BCF whose INFO has a flag, or a field with a label for the record or for each ALT.

What is doubtful (Low-frequency, Conflicting) is no label, and counted. A haplotype that is there twice counts once,
however it is written; with two labels the file is refused.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from metalayer.data.variant_weights import CLASSIFICATION, COLUMN_OF_BUILD, VARIANT_WEIGHTS, read_splicevardb
from metalayer.errors import InputError
from metalayer.file_kinds import BCF, VCF, head_of, kind_of, read_table
from metalayer.genome import Variant, encode, normalise_build, parse_variant
from metalayer.variants.haplotype import event_of
from metalayer.variants.letters import Letters
from metalayer.variants.notation import variant_of
from metalayer.variants.vcf import Record, VariantFile
from metalayer.words import count_of

_ALTERING = "splice-altering"
LABELS: dict[str, bool | None] = {
    **{name: name == _ALTERING if weight >= 1.0 else None for name, weight in VARIANT_WEIGHTS.items()},
    **dict.fromkeys(("1", "yes", "true", "altering"), True),
    **dict.fromkeys(("0", "no", "false", "neutral"), False),
}
"""Word to whether a variant alters splicing; None: doubtful."""
JUDGED_COLUMNS: dict[str, type] = {
    **{"chrom": str, "contig": str, "pos": int, "ref": str, "alt": str, "altering": bool},
    **{"gene_id": str, "gene_name": str, "kind": str, "side": str, "distance": int, "cluster": int, "reason": str},
}
"""Of a table of labelled variants that are judged: name and type; then the scores, by their names."""
_NEEDED = "a table of variants with labels (SpliceVarDB's download, or columns variant and label), or VCF or BCF"
_PLAIN = re.compile("[ACGT]+", re.IGNORECASE)
_INFO = re.compile(rb"##INFO=<ID=([^,>]+)[,>].*")
_LOOKED_AT, _FITS = 500, 0.9
"""About so many variants, whose REF tells of which build the FASTA is, and how many of them must fit."""
_NAMED = 3
UNREADABLE, UNLABELLED = "unreadable coordinates", "no label"


@dataclass(frozen=True)
class LabelledVariant:
    """A variant and what it is known to do.

    Attributes:
        variant: on the plus strand; `chrom` as it is written.
        altering: whether it alters splicing.
        gene: symbol or id of the gene that this is known of; empty where none is named.
        line: of the file, from 1; of a VCF the number of the record.
    """

    variant: Variant
    altering: bool
    gene: str
    line: int


@dataclass(frozen=True)
class LabelledFile:
    """Variants of a file, by place.

    Attributes:
        path: of the file.
        form: what it is, in words.
        build: genome build of its coordinates; None where unknown.
        variants: each haplotype (and gene) once.
        passed_over: why others have no label that counts, and how many there are.
        repeated: how many more times variants are there with the same label.
    """

    path: Path
    form: str
    variants: Sequence[LabelledVariant]
    passed_over: dict[str, int] = field(default_factory=dict)
    repeated: int = 0
    build: str | None = None


def read_labelled(path: Path, letters: Letters, *, label: str | None = None, build: str | None = None) -> LabelledFile:
    """Read variants with labels.

    Args:
        path: of the file.
        letters: the reference, for HGVS, and to see of which build a SpliceVarDB column is.
        label: of VCF, the INFO flag or field that is the label.
        build: of SpliceVarDB, GRCh37 or GRCh38; None: that whose REF are the letters of the FASTA.

    Raises:
        InputError: another file, no variant with a label, a word that is no label, or a variant with two of them.
    """
    passed_over: Counter[str] = Counter()
    column = None
    if kind_of(head_of(path, "variants"), by_columns=False) in (VCF, BCF):
        if label is None:
            raise InputError(f"variants {path}: of VCF, --label names the INFO flag or field that says what they do")
        form, found = f"VCF, INFO {label}", list(_of_vcf(path, label, passed_over))
    else:
        if label is not None:
            raise InputError(f"--label {label}: goes with VCF; {path} is a table, whose column is `label`")
        content = read_table(path, "variants", _NEEDED, by_columns=False).decode()
        if CLASSIFICATION in content.splitlines()[0].split("\t"):
            column = _column(path, letters, build)
            form, found = f"SpliceVarDB, {column}", list(_of_splicevardb(path, column, passed_over))
        else:
            form, found = "table", list(_of_table(path, content, letters, passed_over))
    once, repeated = _once(path, found, letters)
    if not once:
        said = "; ".join(f"{count:,} {reason}" for reason, count in passed_over.items())
        raise InputError(f"variants {path}: none has a label{': ' * bool(said)}{said}; needed is {_NEEDED}")
    of_column = next((name for name, at in COLUMN_OF_BUILD.items() if at == column), None)
    return LabelledFile(path, form, once, dict(passed_over), repeated, of_column)


def _meaning(where: str, word: str) -> bool | None:
    """Of a label.

    Raises:
        InputError: a word that is none.
    """
    text = word.strip().strip('"').lower()
    if text not in LABELS:
        allowed = {
            value: ", ".join(name for name, of in LABELS.items() if of is value) for value in (True, False, None)
        }
        raise InputError(
            f"variants {where}: label {word!r}; allowed are, for variants that alter splicing, {allowed[True]}; for "
            f"others {allowed[False]}; for doubtful ones, which do not count, {allowed[None]}"
        )
    return LABELS[text]


def _of_table(path: Path, content: str, letters: Letters, passed_over: Counter[str]) -> Iterator[LabelledVariant]:
    lines = content.splitlines()
    separator = "\t" if "\t" in lines[0] else ","
    columns: dict[str, int] | None = None
    for number, fields in enumerate(csv.reader(lines, delimiter=separator), start=1):
        if not any(map(str.strip, fields)):
            continue
        where = f"{path}, line {number}"
        if columns is None:
            names = [name.strip().lstrip("#").lower() for name in fields]
            if "variant" in names and "label" in names:
                columns = {name: names.index(name) for name in ("variant", "label", "gene") if name in names}
                width = len(names)
                continue
            columns, width = {"variant": 0, "label": 1}, 2
        if len(fields) != width:
            raise InputError(
                f"variants {where}: {count_of(len(fields), 'column')}, needed are {width}: variant and "
                "label with a tab or comma between, others where a first line names them"
            )
        try:
            variant = variant_of(fields[columns["variant"]], letters)
        except InputError as error:
            raise InputError(f"variants {where}: {error}") from None
        meaning = _meaning(where, fields[columns["label"]])
        if meaning is None:
            passed_over[fields[columns["label"]].strip().lower()] += 1
            continue
        yield LabelledVariant(variant, meaning, fields[columns["gene"]].strip() if "gene" in columns else "", number)


def _read(text: str | None) -> Variant | None:
    try:
        variant = parse_variant(text or "")
    except InputError:
        return None
    return variant if variant.ref and variant.alt else None


def _column(path: Path, letters: Letters, build: str | None) -> str:
    """That of the FASTA's genome build.

    Raises:
        InputError: neither, or both.
    """
    if build is not None:
        column = COLUMN_OF_BUILD.get(normalise_build(build))
        if column is None:
            raise InputError(f"--build {build}: SpliceVarDB has {' and '.join(COLUMN_OF_BUILD)}")
        return column
    table = read_splicevardb(path, CLASSIFICATION, InputError)
    fitting, said = list[str](), list[str]()
    for column in (name for name in COLUMN_OF_BUILD.values() if name in table.columns):
        asked = [variant for variant in map(_read, table[column]) if variant and letters.key(variant.chrom)]
        asked = asked[:: max(1, len(asked) // _LOOKED_AT)]
        there = sum(_is_there(variant, letters) for variant in asked)
        said.append(f"{there} of {len(asked)} in {column}")
        if asked and there >= _FITS * len(asked):
            fitting.append(column)
    if len(fitting) != 1:
        raise InputError(
            f"variants {path}: REF is what FASTA {letters.path} has there for {', '.join(said) or 'no variant'}; "
            f"needed are {_FITS:.0%} in one of {', '.join(COLUMN_OF_BUILD.values())}. --build takes one whatever the "
            "letters are"
        )
    return fitting[0]


def _is_there(variant: Variant, letters: Letters) -> bool:
    key, end = letters.key(variant.chrom), variant.position + len(variant.ref)
    if key is None or end > letters.lengths[key]:
        return False
    return letters.raw(key, variant.position, end).decode("latin-1").upper() == variant.ref


def _of_splicevardb(path: Path, column: str, passed_over: Counter[str]) -> Iterator[LabelledVariant]:
    table = read_splicevardb(path, column, InputError)
    genes = table["gene"] if "gene" in table.columns else pl.Series([""] * len(table))
    for number, (text, word, gene) in enumerate(zip(table[column], table[CLASSIFICATION], genes, strict=True), start=2):
        variant, meaning = _read(text), _meaning(f"{path}, line {number}", word or "")
        if variant is None or meaning is None:
            passed_over[UNREADABLE if variant is None else word] += 1
            continue
        yield LabelledVariant(variant, meaning, (gene or "").strip('" '), number)


def _of_vcf(path: Path, label: str, passed_over: Counter[str]) -> Iterator[LabelledVariant]:
    file = VariantFile.of(path)
    declared = {match[1].decode(): match[0] for match in map(_INFO.match, file.header) if match}
    if label not in declared:
        raise InputError(
            f"--label {label}: no INFO field of {path}, whose header declares {', '.join(declared) or 'none'}"
        )
    is_flag = b"Type=Flag" in declared[label]
    for number, line in enumerate(file.lines(), start=1):
        record = Record.of(line)
        if record is None or not record.alts:
            passed_over["no record of VCF" if record is None else "no other allele"] += 1
            continue
        info = line.split(b"\t", 8)[7].decode("utf-8", "surrogateescape").split(";")
        values = {name: value for name, _, value in (part.partition("=") for part in info)}
        if is_flag:
            words = ["1" if label in values else "0"] * len(record.alts)
        else:
            words = values.get(label, ".").split(",")
            words = words * len(record.alts) if len(words) == 1 else words
        where = f"{path}, record {number}"
        if len(words) != len(record.alts):
            raise InputError(
                f"variants {where}: {len(words)} labels in {label} for {len(record.alts)} ALT; give one, or one each"
            )
        for alt, word in zip(record.alts, words, strict=True):
            meaning = None if word == "." else _meaning(where, word)
            if meaning is None:
                passed_over[UNLABELLED if word == "." else word.lower()] += 1
                continue
            yield LabelledVariant(Variant(record.contig, record.position, record.ref, alt), meaning, "", number)


def _once(path: Path, found: Sequence[LabelledVariant], letters: Letters) -> tuple[list[LabelledVariant], int]:
    """Variants by place, each haplotype once, and how many more times they are there.

    Raises:
        InputError: some have two labels.
    """
    order = {contig: number for number, contig in enumerate(letters.lengths)}

    def place(one: LabelledVariant) -> tuple[int, str, int]:
        key = letters.key(one.variant.chrom)
        return order.get(key or "", len(order)), key or one.variant.chrom, one.variant.position

    known: dict[object, LabelledVariant] = {}
    contrary, repeated = list[str](), 0
    for one in sorted(found, key=place):
        first = known.setdefault(_identity(one, letters), one)
        repeated += first is not one
        if first.altering != one.altering:
            contrary.append(f"{one.variant.text} (lines {first.line} and {one.line})")
    if contrary:
        raise InputError(
            f"variants {path}: {len(contrary):,} are there with two labels: {', '.join(contrary[:_NAMED])}"
            f"{' ...' * (len(contrary) > _NAMED)}; give each one label, or call it conflicting"
        )
    return list(known.values()), repeated


def _identity(one: LabelledVariant, letters: Letters) -> object:
    """The same for the same haplotype, however it is written."""
    variant, key = one.variant, letters.key(one.variant.chrom)
    if key is None or not (_PLAIN.fullmatch(variant.ref) and _PLAIN.fullmatch(variant.alt)):
        return variant.text, one.gene
    ref, alt = encode(variant.ref), encode(variant.alt)
    event = event_of(variant.position, ref, alt, lambda start, end: letters.tokens(key, start, end))
    return (key, event, one.gene) if event else (variant.text, one.gene)
