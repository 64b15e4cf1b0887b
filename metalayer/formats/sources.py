"""Which reader a file needs, by its content; and which class and strand it has, by a sheet or by its name."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from metalayer.errors import InputError
from metalayer.file_kinds import ARRAY, BEDGRAPH, BIGWIG, HDF5, PARQUET, head_of, kind_of, read_table
from metalayer.formats.arrays import ArrayPlace, Arrays, datasets, is_npz, place_of
from metalayer.formats.bedgraph import BedGraph
from metalayer.formats.bigwig import BigWig
from metalayer.formats.openspliceai import Bed, Predictions, is_call, is_predict
from metalayer.formats.pieces import Reader
from metalayer.formats.tables import Header, Table, text_header
from metalayer.formats.text import first_lines
from metalayer.integrity import open_parquet
from metalayer.schema import ACCEPTOR, CLASSES, DONOR

_SITES = (CLASSES[DONOR], CLASSES[ACCEPTOR])
SHEET_COLUMNS = ("path", "class", "strand", "key", "gene_id", "chrom", "start", "end", "sense", "channels")
_CLASS_IN_NAME = {
    DONOR: re.compile(r"(?<![a-z])(donors?|5ss|5prime)(?![a-z])", re.IGNORECASE),
    ACCEPTOR: re.compile(r"(?<![a-z])(acceptors?|3ss|3prime)(?![a-z])", re.IGNORECASE),
}
_STRAND_IN_NAME = {
    "+": re.compile(r"(?<![a-z])(plus|pos|positive|fwd|forward)(?![a-z])|\+", re.IGNORECASE),
    "-": re.compile(r"(?<![a-z])(minus|neg|negative|rev|reverse)(?![a-z])", re.IGNORECASE),
}
_FORMATS = (
    "BigWig or bedGraph of one class and strand, OpenSpliceAI's BED or predict.h5, npy, npz or HDF5 of SpliceAI's "
    "shape, a table (CSV, TSV, Parquet) with chrom, position, strand and scores, or a sheet that lists files in a "
    "column path"
)
_TRACKS = {BIGWIG: BigWig, BEDGRAPH: BedGraph}


def readers(files: Sequence[Path], columns: Mapping[str, str]) -> list[Reader]:
    """What reads files.

    Args:
        files: in the order in which they are read; sheets stand for what they list.
        columns: of tables, by what they are; see `tables.columns_of`.

    Raises:
        InputError: a file that is none of these, a track without class or strand, or a sheet that cannot be used.
    """
    found: list[Reader] = []
    for path in files:
        sheet = _sheet(path)
        found += [_reader(path, {}, columns, str(path))] if sheet is None else _listed(path, sheet, columns)
    return found


def inputs(found: Sequence[Reader], files: Sequence[Path]) -> list[Path]:
    """All files that are read, once each: those given, and those that their sheets list."""
    return list(dict.fromkeys([*files, *(reader.path for reader in found)]))


def _sheet(path: Path) -> list[dict[str, str]] | None:
    """Lines of a sheet, fields by column; None where the file is no sheet."""
    if is_npz(path) or kind_of(head_of(path, "scores"), by_columns=False) is not None:
        return None
    lines = first_lines(path, "scores", 1)
    separator = "\t" if lines and "\t" in lines[0] else ","
    columns = [name.strip().lower() for name in lines[0].split(separator)] if lines else []
    if "path" not in columns:
        return None
    if strange := [name for name in columns if name not in SHEET_COLUMNS]:
        raise InputError(f"sheet {path}: columns {', '.join(strange)}; allowed are {', '.join(SHEET_COLUMNS)}")
    content = read_table(path, "sheet", "a table with a column path", by_columns=False)
    try:
        frame = pl.read_csv(content, separator=separator, infer_schema=False, comment_prefix="#", new_columns=columns)
    except pl.exceptions.PolarsError as error:
        raise InputError(f"sheet {path}: {str(error).splitlines()[0]}") from None
    rows = [
        {name: str(value).strip() for name, value in row.items() if value is not None and str(value).strip()}
        for row in frame.iter_rows(named=True)
    ]
    if not rows:
        raise InputError(f"sheet {path}: no line; a line a file")
    return rows


def _listed(sheet: Path, rows: Sequence[dict[str, str]], columns: Mapping[str, str]) -> list[Reader]:
    """Readers of what a sheet lists: arrays of one file together."""
    found: list[Reader] = []
    arrays: dict[Path, list[ArrayPlace]] = defaultdict(list)
    for number, row in enumerate(rows, start=2):
        where = f"sheet {sheet}, line {number}"
        if "path" not in row:
            raise InputError(f"{where}: no path")
        path = sheet.parent / row["path"]
        if not path.is_file():
            raise InputError(f"{where}: given {row['path']}, which is not a file beside the sheet ({path})")
        if _is_array(path):
            arrays[path].append(place_of(row, where))
            continue
        found.append(_reader(path, row, columns, where))
    given = {pair for reader in found if isinstance(reader, BigWig | BedGraph) for pair in reader.gives}
    for strand in ("+", "-"):
        lacking = [name for name in _SITES if (CLASSES.index(name), strand) not in given]
        if len(lacking) == 1:
            raise InputError(
                f"sheet {sheet}: no {lacking[0]} of the strand {strand}, which has the other class; a position needs "
                "both. Add its file, or leave out the strand"
            )
    return found + [Arrays(path, places) for path, places in arrays.items()]


def _is_array(path: Path) -> bool:
    if is_npz(path):
        return True
    kind = kind_of(head_of(path, "scores"))
    return kind == ARRAY or (kind == HDF5 and not is_predict(_datasets(path)))


def _datasets(path: Path) -> list[str]:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return datasets(file)
    except OSError as error:
        raise InputError(f"{path}: not a whole HDF5 file ({error}); copy it again") from None


def _reader(path: Path, row: Mapping[str, str], columns: Mapping[str, str], where: str) -> Reader:
    if _is_array(path):
        return Arrays(path, None)
    head = head_of(path, "scores")
    if not head.strip():
        raise InputError(f"{path}: the file is empty; needed is {_FORMATS}")
    kind = kind_of(head)
    if kind == HDF5:
        return Predictions(path)
    if kind == BIGWIG:
        return BigWig(path, *_class_and_strand(path, row, where))
    if kind == PARQUET:
        header = Header.of(open_parquet(path, "copy it again").schema_arrow.names, columns, path)
        return Table(path, header, is_parquet=True)
    lines = first_lines(path, "scores", 1)
    fields = lines[0].split("\t") if lines else []
    if is_call(fields):
        return Bed(path)
    if kind == BEDGRAPH or _is_bedgraph(lines[0] if lines else ""):
        return BedGraph(path, *_class_and_strand(path, row, where))
    if kind_of(head, by_columns=False) is None and (found := text_header(path, columns)):
        return Table(path, found, is_parquet=False)
    raise InputError(f"{path}: this is {kind or 'text without a line of column names'}; needed is {_FORMATS}")


def _is_bedgraph(line: str) -> bool:
    """Also with blanks between the fields."""
    return kind_of("\t".join(line.split()).encode()) == BEDGRAPH


def _class_and_strand(path: Path, row: Mapping[str, str], where: str) -> tuple[int, str]:
    """Of a track: by its line in the sheet, else by its name."""
    if row:
        name, strand = row.get("class", "").lower(), row.get("strand", "")
        if name not in _SITES:
            raise InputError(f"{where}: class {name!r}; allowed are {' and '.join(_SITES)}, and a track needs one")
        if strand not in ("+", "-"):
            raise InputError(f"{where}: strand {strand!r}; allowed are + and -, and a track needs one")
        return CLASSES.index(name), strand
    kinds = [kind for kind, pattern in _CLASS_IN_NAME.items() if pattern.search(path.name)]
    strands = [strand for strand, pattern in _STRAND_IN_NAME.items() if pattern.search(path.name)]
    if len(kinds) != 1 or len(strands) != 1:
        what = " and ".join(["class"] * (len(kinds) != 1) + ["strand"] * (len(strands) != 1))
        raise InputError(
            f"{path}: its name does not say its {what}; call it as in donor_plus{path.suffix}, or list the files in a "
            "sheet with columns path, class (donor or acceptor) and strand (+ or -)"
        )
    return kinds[0], strands[0]
