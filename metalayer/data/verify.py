"""Whether a training set can be trained on: every check a row of a table, and one verdict.

A damaged data set does not raise, it is in the report. The file is read once, in batches; what is
kept of a row is a few bytes (its key, a hash of its window), and the features of a sample.

What a row cannot tell is not checked: whether the scores of sites are maxima over +-2 nt (trap 5 of the
artifacts). The own-type score of practically every site is the highest of its context with point scores
too. `ArtifactLoader` tells it from the per-nucleotide scores.
"""

from __future__ import annotations

import json
import logging
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from metalayer.data.gene_table import load_genes
from metalayer.data.splits import PARTS, check_split
from metalayer.data.windows import encode_windows
from metalayer.errors import ArtifactError, InputError, SplitError
from metalayer.evaluation.tables import aligned
from metalayer.features import feature_matrix, mismatched_columns
from metalayer.genome import encode, reverse_complement
from metalayer.integrity import no_parquet
from metalayer.schema import (
    ACCEPTOR,
    ARTIFACT_WINDOW_BP,
    BASE_SCORES,
    CLASSES,
    DERIVED_FEATURES,
    DONOR,
    FEATURES,
    LABEL_LEAKING_COLUMNS,
    NEITHER,
    PROBABILITY_SUM_TOLERANCE,
    ROW_SCORES,
    SCORE_FEATURES,
)

logger = logging.getLogger(__name__)

Status = Literal["ok", "warning", "failed", "not checked"]

BATCH_ROWS = 32_768
"""Rows held at a time."""
AUC_ROWS = 200_000
"""Rows drawn to see how well a single column separates the classes."""
FORMULA_ROWS = 20_000
"""Rows drawn to compute features again."""
FEATURE_TOLERANCE = 1e-4
"""Relative difference between a stored feature and its formula; both come from float32 scores."""
FAILING_FORMULA_SHARE = 0.01
"""Share of rows in which a feature may differ from its formula before training on it is wrong."""
MIN_SITES = 50
"""Fewer rows of a site class are too few to train on and to judge by."""
SEPARATING_AUC = 0.995
"""ROC-AUC above which a single column that is no base score is looked at."""
SITE_LETTERS_OK, SITE_LETTERS_WRONG = 0.9, 0.5
"""Share of donors with GT, of acceptors with AG: about 0.99 in human genes; below the second, rows are shifted."""
MAX_SHIFT = 2
"""Bases either side of the labelled one at which GT and AG are looked for."""

_MIN_STRAND_ROWS = 20
_MIN_AUC_ROWS = 10
_WRITE_AGAIN = "write the file again with prepare_training_dataset"
_NEEDED_KINDS = {
    **dict.fromkeys(("gene_id", "chrom", "strand", "sequence"), "text"),
    "position": "a whole number",
    **dict.fromkeys(ROW_SCORES, "a number"),
    "label": "a whole number",
}
_OPTIONAL_KINDS = {
    "index": "a whole number",
    "splice_type": "text",
    "sample_weight": "a number",
    **dict.fromkeys((name for name in FEATURES if name not in ROW_SCORES), "a number"),
}
_ABSENT_MEANS = {
    "index": "the labelled base is taken to be in the middle of each sequence",
    "splice_type": "labels cannot be compared with it",
    "sample_weight": "every row weighs 1",
}
_NOT_EXAMINED_FOR_LEAKS = {"sequence", "label", "splice_type", "sample_weight"}
"""What the label is made of, what the model reads as letters, and weights, which follow classes rightfully."""


@dataclass(frozen=True)
class Check:
    """One row of the table.

    Attributes:
        name: what was looked at.
        status: `ok`, `warning`, `failed` or `not checked`.
        found: what is there.
        advice: what to do about it; empty where there is nothing to do.
    """

    name: str
    status: Status
    found: str
    advice: str = ""


@dataclass(frozen=True, repr=False)
class DatasetReport:
    """All checks of one training set; shown as a table.

    Attributes:
        path: the file.
        rows: rows in it.
        checks: in the order of the table.
    """

    path: str
    rows: int
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return all(check.status != "failed" for check in self.checks)

    @property
    def verdict(self) -> str:
        """`usable`, `usable, with warnings` or `not usable`."""
        if not self.ok:
            return "not usable"
        warned = any(check.status == "warning" for check in self.checks)
        return "usable, with warnings" if warned else "usable"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "path": self.path,
            "rows": self.rows,
            "verdict": self.verdict,
            "ok": self.ok,
            "checks": [asdict(check) for check in self.checks],
        }

    def __str__(self) -> str:
        table = [["check", "status", "found", "what to do"]]
        for check in self.checks:
            found, advice = textwrap.wrap(check.found, 62) or [""], textwrap.wrap(check.advice, 38)
            for i in range(max(len(found), len(advice))):
                first = [check.name, check.status] if i == 0 else ["", ""]
                table.append([*first, *(lines[i] if i < len(lines) else "" for lines in (found, advice))])
        return "\n".join([f"{self.path}, {self.rows:,} rows: {self.verdict}", "", *aligned(table)])

    __repr__ = __str__


def verify_dataset(path: str | Path, manifest: Mapping[str, Any] | None = None) -> DatasetReport:
    """Examine a training set; a bare call in a shell shows the verdict and the table.

    Every check that warns or fails is logged as a warning, the table at INFO.

    Args:
        path: Parquet with gene_id, chrom, strand, position, index, sequence, splice_type, 43 or 50 features,
            label and sample_weight; other columns may be there. A `genes.parquet` beside it is read to find
            overlapping genes.
        manifest: the parts, as `splits.make_split` returns them; without it, `split` of a `manifest.json`
            beside the file.

    Returns:
        The report; its `verdict` says whether the file is usable.

    Raises:
        ArtifactError: no such file, another kind of file, or not a whole Parquet file.
    """
    path = Path(path)
    try:
        with pq.ParquetFile(path) as file:
            report = DatasetReport(str(path), file.metadata.num_rows, tuple(_examine(path, file, manifest)))
    except FileNotFoundError:
        raise ArtifactError(f"{path}: no such file; write it with prepare_training_dataset") from None
    except (pa.ArrowException, OSError) as error:
        raise no_parquet(path, error, _WRITE_AGAIN) from None
    for check in report.checks:
        if check.status in ("warning", "failed"):
            logger.warning("%s: %s (%s): %s. %s", path, check.name, check.status, check.found, check.advice)
    logger.info("%s", report)
    return report


def _examine(path: Path, file: pq.ParquetFile, manifest: Mapping[str, Any] | None) -> Iterator[Check]:
    schema = _check_schema(file.schema_arrow)
    yield schema
    if schema.status == "failed":
        yield Check("all other checks", "not checked", "they rely on the schema", "fix the schema first")
        return
    if not file.metadata.num_rows:
        yield Check("class balance", "failed", "no rows", _WRITE_AGAIN)
        return
    scan = _Scan(file.metadata.num_rows, _kinds(file.schema_arrow))
    for batch in file.iter_batches(BATCH_ROWS, columns=scan.columns):
        scan.add(pl.DataFrame(pl.from_arrow(pa.Table.from_batches([batch]))))
    rows = pl.concat(scan.keys)
    yield _check_ranges(scan)
    yield _check_labels(scan)
    yield _check_formulas(scan)
    yield _check_balance(rows)
    yield _check_duplicates(rows)
    yield _check_identical_windows(rows)
    separation = _Separation(scan)
    yield _check_leaking_columns(scan, separation)
    yield _check_parts(path, rows, manifest)
    yield _check_single_features(scan, separation)
    yield from _check_letters(scan)


def _kinds(schema: pa.Schema) -> dict[str, pl.DataType]:
    return dict(pl.DataFrame(pl.from_arrow(schema.empty_table())).schema)


def _is(dtype: pl.DataType, kind: str) -> bool:
    if kind == "text":
        return dtype in (pl.String, pl.Categorical, pl.Enum)
    return dtype.is_integer() if kind == "a whole number" else dtype.is_numeric()


def _check_schema(schema: pa.Schema) -> Check:
    """Columns and their types; all that follows relies on them."""
    twice = sorted(name for name, count in Counter(schema.names).items() if count > 1)
    if twice:
        return Check("schema", "failed", f"columns that stand there twice: {', '.join(twice)}", "keep one of each")
    kinds = _kinds(schema)
    wrong = []
    missing = [name for name in _NEEDED_KINDS if name not in kinds]
    if missing:
        wrong.append(f"no column {', '.join(missing)}")
    wrong += [
        f"{name} is {kinds[name]}, must be {kind}"
        for name, kind in (_NEEDED_KINDS | _OPTIONAL_KINDS).items()
        if name in kinds and not _is(kinds[name], kind)
    ]
    there = [name for name in FEATURES if name in kinds]
    if there != list(FEATURES) and there != list(SCORE_FEATURES):
        known = SCORE_FEATURES if not set(there) - set(SCORE_FEATURES) else FEATURES
        wrong.append(
            f"{len(there)} features, must be {len(SCORE_FEATURES)} or {len(FEATURES)}; missing "
            f"{', '.join(name for name in known if name not in there)}"
        )
    if wrong:
        return Check("schema", "failed", "; ".join(wrong), _WRITE_AGAIN)
    extra = [name for name in kinds if name not in _NEEDED_KINDS and name not in _OPTIONAL_KINDS]
    found = f"{len(there)} features" + (f"; other columns: {', '.join(extra)}" if extra else "")
    absent = [f"no {name}: {meaning}" for name, meaning in _ABSENT_MEANS.items() if name not in kinds]
    if absent:
        return Check("schema", "warning", "; ".join([found, *absent]), "add them, or be sure that this is meant")
    return Check("schema", "ok", found)


@dataclass(frozen=True)
class _View:
    """A way in which the letters may have been meant: as they stand, or the sequence turned round."""

    text: str = ""
    turned: bool = False
    complemented: bool = False
    mirrored: bool = False


_VIEWS = (
    _View(),
    _View("on the reverse complement with the index as it stands", turned=True, complemented=True, mirrored=True),
    _View("on the reverse complement with the index mirrored too", turned=True, complemented=True),
    _View("on the reversed sequence with the index as it stands", turned=True, mirrored=True),
    _View("on the reversed sequence with the index mirrored too", turned=True),
)
_SHIFTS = tuple(range(-MAX_SHIFT, MAX_SHIFT + 1))


@dataclass
class _Scan:
    """One pass over the file: what all checks need of every row, and a sample.

    Attributes:
        n_rows: rows of the file.
        kinds: its columns and their types, as the schema check found them good.
        problems: values that are out of range, by kind, in rows.
        keys: of each batch gene_id, chrom, position, label (Int8, null where it is none), hash of the window.
        letters: int64 (strands, classes, GT or AG, views, shifts), rows that have it there.
        letter_rows: int64 (strands, classes).
        mismatched: features that differ from their formula, in rows of the sample.
        pure: columns that may determine the label, with hashed values of each batch.
    """

    n_rows: int
    kinds: dict[str, pl.DataType]
    seen: int = 0
    problems: Counter[str] = field(default_factory=Counter)
    labels_apart: int = 0
    keys: list[pl.DataFrame] = field(default_factory=list)
    mismatched: Counter[str] = field(default_factory=Counter)
    formula_rows: int = 0
    sample: list[NDArray[np.float32]] = field(default_factory=list)
    sample_labels: list[NDArray[np.int8]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.features = [name for name in FEATURES if name in self.kinds]
        known = {*_NEEDED_KINDS, *_OPTIONAL_KINDS}
        self.leaking = [name for name in self.kinds if name in LABEL_LEAKING_COLUMNS and name != "splice_type"]
        examined = [
            name
            for name, dtype in self.kinds.items()
            if name not in {*FEATURES, *_NOT_EXAMINED_FOR_LEAKS, *self.leaking} and not dtype.is_nested()
        ]
        self.pure: dict[str, list[pl.DataFrame]] = {name: [] for name in examined}
        numbers = [name for name in examined if self.kinds[name].is_numeric() or self.kinds[name] == pl.Boolean]
        self.sampled = [*self.features, *numbers]
        self.columns = [name for name in self.kinds if name in known or name in examined]
        shape = (2, len(CLASSES))
        self.letter_rows = np.zeros(shape, dtype=np.int64)
        self.letters = np.zeros((*shape, 2, len(_VIEWS), len(_SHIFTS)), dtype=np.int64)
        rng = np.random.default_rng(0)
        self._auc_rows = np.sort(rng.choice(self.n_rows, min(self.n_rows, AUC_ROWS), replace=False))
        self._formula_rows = np.sort(rng.choice(self.n_rows, min(self.n_rows, FORMULA_ROWS), replace=False))

    def add(self, batch: pl.DataFrame) -> None:
        """Take in the next rows of the file."""
        text = [name for name in batch.columns if _is(self.kinds[name], "text")]
        batch = batch.with_columns(pl.col(text).cast(pl.String))
        index = pl.col("index") if "index" in self.kinds else pl.col("sequence").str.len_bytes() // 2
        known = pl.col("label").is_in([DONOR, ACCEPTOR, NEITHER])
        batch = batch.with_columns(
            index.cast(pl.Int64).alias("index"), pl.when(known).then("label").cast(pl.Int8).alias("_label")
        )
        values = batch.select(pl.col(self.features).cast(pl.Float64)).to_numpy()
        self._count_problems(batch, values)
        reaches = (pl.col("index") >= 0) & (pl.col("index") < pl.col("sequence").str.len_bytes())
        letters_known = ~pl.col("sequence").str.contains("[^ACGTNacgtn]")
        whole = batch.select((reaches & letters_known).fill_null(value=False)).to_series().to_numpy()
        self.problems["index outside its sequence"] += int(batch.select((~reaches).sum()).item())
        self.problems["sequence with a letter other than ACGTN"] += int(batch.select((~letters_known).sum()).item())
        self._count_letters(batch.filter(whole).drop_nulls("_label"))
        self._compare_formulas(batch, whole)
        self._keep_pure(batch)
        window = pl.struct("sequence", "index").hash().alias("window")
        self.keys.append(batch.select("gene_id", "chrom", pl.col("position").cast(pl.Int64), "_label", window))
        at = self._drawn(self._auc_rows, len(batch))
        self.sample.append(batch[at].select(pl.col(self.sampled).cast(pl.Float32)).to_numpy())
        self.sample_labels.append(batch["_label"].fill_null(-1).to_numpy()[at])
        self.seen += len(batch)

    def _drawn(self, rows: NDArray[np.int64], length: int) -> NDArray[np.int64]:
        """Which rows of a sample are in the batch at hand, counted in the batch."""
        first, last = np.searchsorted(rows, [self.seen, self.seen + length])
        return rows[first:last] - self.seen

    def _count_problems(self, batch: pl.DataFrame, values: NDArray[np.float64]) -> None:
        finite = np.isfinite(values)
        for column in np.flatnonzero(~finite.all(axis=0)):
            self.problems[f"{self.features[column]} null, NaN or infinite"] += int((~finite[:, column]).sum())
        scores = values[:, : len(ROW_SCORES)]
        for column in np.flatnonzero(((scores < 0) | (scores > 1)).any(axis=0)):
            outside = (scores[:, column] < 0) | (scores[:, column] > 1)
            self.problems[f"{ROW_SCORES[column]} outside [0, 1]"] += int(outside.sum())
        total = scores[:, : len(BASE_SCORES)].sum(axis=1)
        off = np.abs(total - 1.0) > PROBABILITY_SUM_TOLERANCE
        self.problems["donor, acceptor and neither scores that do not add up to 1"] += int(off.sum())
        tests = {
            "label other than 0, 1, 2": pl.col("_label").is_null(),
            "empty gene_id, chrom, strand, position or index": pl.any_horizontal(
                pl.col("gene_id", "chrom", "strand", "position", "index").is_null()
            ),
            "negative position": pl.col("position") < 0,
            "strand other than + and -": ~pl.col("strand").is_in(["+", "-"]),
            "no sequence": pl.col("sequence").fill_null("").str.len_bytes() == 0,
        }
        if "sample_weight" in self.kinds:
            weight = pl.col("sample_weight").cast(pl.Float64).fill_null(float("nan"))
            tests["sample_weight that is not above 0 and finite"] = ~(weight.is_finite() & (weight > 0))
        for text, count in (
            batch.select(test.sum().alias(text) for text, test in tests.items()).row(0, named=True).items()
        ):
            self.problems[text] += count
        if "splice_type" in self.kinds:
            named = pl.col("splice_type").fill_null("").str.to_lowercase().replace("", "neither")
            code = named.replace_strict(list(CLASSES), [0, 1, 2], default=-1, return_dtype=pl.Int8)
            self.labels_apart += int(batch.select((code != pl.col("_label")).sum()).item())

    def _count_letters(self, rows: pl.DataFrame) -> None:
        """GT from and AG up to the labelled base and its neighbours, seen in all ways."""
        if not len(rows):
            return
        index, lengths = rows["index"].to_numpy(), rows["sequence"].str.len_bytes().to_numpy().astype(np.int64)
        reach = MAX_SHIFT + 1  # a dinucleotide from the last shift, or up to the first
        width = 2 * (reach + 1)
        near = {
            False: encode_windows(rows["sequence"], index, width)[:, 1:],
            True: encode_windows(rows["sequence"], lengths - 1 - index, width)[:, 1:],
        }
        a, g, t = encode("AGT")
        group = rows["_label"].to_numpy() + len(CLASSES) * (rows["strand"].to_numpy() == "-")
        self.letter_rows += np.bincount(group, minlength=self.letter_rows.size).reshape(self.letter_rows.shape)
        for number, view in enumerate(_VIEWS):
            tokens = near[view.mirrored]
            if view.complemented:
                tokens = reverse_complement(tokens.T).T
            elif view.turned:
                tokens = tokens[:, ::-1]
            for column, shift in enumerate(_SHIFTS):
                before, here, after = (tokens[:, reach + shift + step] for step in (-1, 0, 1))
                for kind, has in enumerate(((here == g) & (after == t), (before == a) & (here == g))):
                    counts = np.bincount(group[has], minlength=self.letter_rows.size)
                    self.letters[:, :, kind, number, column] += counts.reshape(self.letter_rows.shape)

    def _compare_formulas(self, batch: pl.DataFrame, whole: NDArray[np.bool_]) -> None:
        at = self._drawn(self._formula_rows, len(batch))
        rows = batch[at[whole[at]]]
        rows = rows.filter(pl.all_horizontal(pl.col(ROW_SCORES).cast(pl.Float64).is_between(0, 1)))
        if not len(rows):
            return
        self.formula_rows += len(rows)
        windows = encode_windows(rows["sequence"], rows["index"].to_numpy(), ARTIFACT_WINDOW_BP)
        expected = feature_matrix(rows.select(pl.col(ROW_SCORES).cast(pl.Float32)).to_numpy(), windows)
        stored = {name: rows[name].cast(pl.Float64).fill_null(float("nan")).to_numpy() for name in self.features}
        counts = {}
        for name, values in stored.items():
            formula = expected[:, FEATURES.index(name)].astype(np.float64)
            tolerance = FEATURE_TOLERANCE * np.maximum(np.abs(values), np.abs(formula)) + 1e-9
            counts[name] = int(np.count_nonzero(~(np.abs(values - formula) <= tolerance)))
        if any(self.kinds[name] != pl.Float32 for name in ROW_SCORES):
            # Features may have been computed before the scores were rounded to float32.
            scores = np.stack([stored[name] for name in ROW_SCORES], axis=1)
            derived = {name: stored[name] for name in DERIVED_FEATURES if name in stored}
            exact = mismatched_columns(scores, derived, FEATURE_TOLERANCE)
            counts |= {name: min(counts[name], exact.get(name, 0)) for name in derived}
        self.mismatched.update(counts)

    def _keep_pure(self, batch: pl.DataFrame) -> None:
        """Hashed values of the columns none of whose values has come with two labels yet."""
        for name in list(self.pure):
            pairs = batch.drop_nulls("_label").group_by(pl.col(name).hash().alias("value"), "_label").len("rows")
            if pairs["value"].is_duplicated().any():
                del self.pure[name]
            else:
                self.pure[name].append(pairs)


def _check_ranges(scan: _Scan) -> Check:
    found = [f"{text}: {count:,} rows" for text, count in scan.problems.items() if count]
    if found:
        return Check("ranges", "failed", "; ".join(found), "drop or fix these rows, or " + _WRITE_AGAIN)
    return Check("ranges", "ok", f"scores in [0, 1] and adding up to 1, all {len(scan.features)} features finite")


def _check_labels(scan: _Scan) -> Check:
    if "splice_type" not in scan.kinds:
        return Check("labels", "not checked", "no splice_type to compare with")
    if scan.labels_apart:
        found = f"label differs from splice_type in {scan.labels_apart:,} rows (donor 0, acceptor 1, neither 2)"
        return Check("labels", "failed", found, "label the rows again with label_rows")
    return Check("labels", "ok", "label agrees with splice_type in every row")


def _check_formulas(scan: _Scan) -> Check:
    name = "derived features"
    if not scan.formula_rows:
        return Check(name, "not checked", "no row with scores in [0, 1] and a sequence that reaches its base")
    basis = "all" if scan.formula_rows == scan.n_rows else "a sample of"
    rows = f"{basis} {scan.formula_rows:,} rows"
    worst = [(feature, count) for feature, count in scan.mismatched.most_common() if count]
    if not worst:
        return Check(name, "ok", f"computed again in {rows}, agree")
    listed = ", ".join(f"{feature} in {count:,}" for feature, count in worst[:5])
    found = f"{len(worst)} differ from their formula in {rows}: {listed}{', ...' if len(worst) > 5 else ''}"
    failed = worst[0][1] > FAILING_FORMULA_SHARE * scan.formula_rows
    return Check(name, "failed" if failed else "warning", found, "compute them again with features.feature_matrix")


def _check_balance(rows: pl.DataFrame) -> Check:
    counts = [int((rows["_label"] == code).sum()) for code in (DONOR, ACCEPTOR, NEITHER)]
    total = max(sum(counts), 1)
    found = ", ".join(f"{n:,} {name} ({n / total:.1%})" for name, n in zip(CLASSES, counts, strict=True))
    none = [name for name, count in zip(CLASSES, counts, strict=True) if not count]
    if none:
        return Check("class balance", "failed", found, f"add rows of class {', '.join(none)}; all three are needed")
    if min(counts[DONOR], counts[ACCEPTOR]) < MIN_SITES:
        return Check("class balance", "warning", found, f"add genes: fewer than {MIN_SITES} sites of a class")
    return Check("class balance", "ok", found)


def _check_duplicates(rows: pl.DataFrame) -> Check:
    twice = rows.group_by("gene_id", "position").len("times").filter(pl.col("times") > 1).sort("gene_id", "position")
    if not len(twice):
        return Check("duplicates", "ok", "no (gene_id, position) stands there twice")
    found = (
        f"{len(twice):,} positions stand there more than once ({int(twice['times'].sum()):,} rows), the first "
        f"{twice['gene_id'][0]} {twice['position'][0]}"
    )
    return Check("duplicates", "failed", found, "keep one row of each (gene_id, position)")


def _check_identical_windows(rows: pl.DataFrame) -> Check:
    """Windows with the same letters around the same base: paralogs, repeats, overlapping genes."""
    of_window = pl.col("_label").n_unique().alias("labels"), pl.len().alias("times")
    apart = rows.drop_nulls("_label").group_by("window").agg(of_window).filter(pl.col("labels") > 1)
    if not len(apart):
        return Check("identical windows", "ok", "no two have different labels")
    genes = rows.filter(pl.col("window") == apart["window"].min())["gene_id"].unique().sort().head(3)
    found = (
        f"{len(apart):,} windows ({int(apart['times'].sum()):,} rows) occur with different labels, one of them in "
        f"{', '.join(genes.drop_nulls())}"
    )
    advice = (
        "expected for a few in overlapping genes (one's site is none of the other's) and paralogs; else fix the labels"
    )
    return Check("identical windows", "warning", found, advice)


class _Separation:
    """How well each sampled column alone tells sites, donors and acceptors from all other rows."""

    TARGETS = ("sites", "donors", "acceptors")

    def __init__(self, scan: _Scan) -> None:
        labels = np.concatenate(scan.sample_labels)
        positives = [(labels == DONOR) | (labels == ACCEPTOR), labels == DONOR, labels == ACCEPTOR]
        self.rows = len(labels)
        self.auc: dict[str, list[float]] = {}
        for column, name in enumerate(scan.sampled):
            values = np.concatenate([part[:, column] for part in scan.sample])
            known = np.isfinite(values) & (labels >= 0)
            self.auc[name] = _areas([positive[known] for positive in positives], values[known])

    def highest(self, name: str) -> tuple[float, str]:
        """The largest AUC of a column, and what it tells apart."""
        return max(zip(self.auc[name], self.TARGETS, strict=True))


def _areas(positives: Sequence[NDArray[np.bool_]], values: NDArray[np.float32]) -> list[float]:
    """ROC-AUC of values for each target, in the direction that separates better; 0.5 where a side has too few rows."""
    from scipy.stats import rankdata

    ranks = rankdata(values)
    areas = []
    for positive in positives:
        n, m = int(positive.sum()), int((~positive).sum())
        area = (ranks[positive].sum() - n * (n + 1) / 2) / (n * m) if min(n, m) >= _MIN_AUC_ROWS else 0.5
        areas.append(float(max(area, 1 - area)))
    return areas


def _check_leaking_columns(scan: _Scan, separation: _Separation) -> Check:
    found = [f"{name} is made from the label" for name in scan.leaking]
    told = set()
    for name, batches in scan.pure.items():
        values = pl.concat(batches).group_by("value").agg(pl.col("_label").n_unique(), pl.col("rows").sum())
        repeated = values.filter(pl.col("rows") > 1)["rows"].sum()
        # A value that occurs once tells nothing: a row number would determine any label.
        if len(values) > 1 and (values["_label"] == 1).all() and repeated * 2 >= values["rows"].sum():
            found.append(f"{name} determines the label")
            told.add(name)
    for name in scan.sampled:
        if name not in FEATURES and name not in told:
            area, target = separation.highest(name)
            if area > SEPARATING_AUC:
                found.append(f"{name} tells {target} apart with an AUC of {area:.4f}")
    if found:
        advice = "metalayer never reads them as features; drop them before anything else does"
        return Check("leaking columns", "warning", "; ".join(found), advice)
    return Check("leaking columns", "ok", "no column beside the features gives the label away")


def _check_single_features(scan: _Scan, separation: _Separation) -> Check:
    """Base scores may be excellent, and what derives from them too; nothing else may."""
    name = "single features"
    best = []  # of the base scores, for each target
    for number, target in enumerate(separation.TARGETS):
        area, score = max((separation.auc[score][number], score) for score in BASE_SCORES)
        best.append((area, score, target))
    suspects = []
    for feature in scan.features:
        # GT and AG are what a site is made of: easy negatives have neither.
        if feature in (*BASE_SCORES, "has_gt", "has_ag"):
            continue
        of_letters = feature in ("gc_fraction", "n_fraction")
        for area, (base, _, target) in zip(separation.auc[feature], best, strict=True):
            # All else is made of the base scores of the position and its neighbours, and halves their error nowhere.
            if area > SEPARATING_AUC and (of_letters or 1 - area < 0.5 * (1 - base)):
                suspects.append(f"{feature} tells {target} apart with an AUC of {area:.4f}")
                break
    bases = ", ".join(f"{score} {area:.4f} for {target}" for area, score, target in best)
    basis = f"best base scores in {separation.rows:,} rows: {bases}"
    if suspects:
        advice = "the label has leaked into it: compute the features again from the base model's scores"
        return Check(name, "failed", f"{'; '.join(suspects)}; {basis}", advice)
    perfect = sorted({score for area, score, _ in best if area == 1.0})
    if perfect:
        advice = "make sure that the scores are not made from the labels; else there is nothing left to learn"
        return Check(name, "warning", f"{', '.join(perfect)} without one mistake; {basis}", advice)
    return Check(name, "ok", basis)


def _check_parts(path: Path, rows: pl.DataFrame, manifest: Mapping[str, Any] | None) -> Check:
    name = "genes across parts"
    split = manifest
    if split is None:
        beside = path.parent / "manifest.json"
        try:
            content = json.loads(beside.read_text(encoding="utf-8")) if beside.exists() else {}
        except ValueError as error:
            return Check(name, "not checked", f"{beside.name} beside the file is no JSON: {error}")
        split = content.get("split") if isinstance(content, dict) else None
        if split is None:
            return Check(name, "not checked", "no split given", "give the manifest of make_split")
    try:
        genes_of = {part: list(split[part]["genes"]) for part in PARTS}
    except (KeyError, TypeError):
        form = "{'train': {'genes': [...]}, 'valid': ..., 'test': ...}"
        return Check(name, "failed", "the split has not the form of make_split", f"give {form}")
    chrom_of = dict(rows.drop_nulls(["gene_id", "chrom"]).select("gene_id", "chrom").unique().iter_rows())
    present = {part: {"genes": [gene for gene in genes if gene in chrom_of]} for part, genes in genes_of.items()}
    counts = ", ".join(f"{len(present[part]['genes']):,} {part}" for part in PARTS)
    beside = path.parent / "genes.parquet"
    try:
        table = load_genes(beside if beside.exists() else None)
    except (pl.exceptions.PolarsError, OSError, InputError, KeyError) as error:
        return Check(name, "not checked", f"{beside.name} beside the file cannot be read: {error}", "write it again")
    try:
        checks = check_split(present, table, chrom_of)
    except SplitError as error:
        return Check(name, "failed", str(error), "split again with make_split")
    overlap = checks["overlapping_genes_crossing"]
    found = f"{counts} genes, none in two parts; overlapping genes: {'none cross' if overlap == 0 else overlap}"
    placed = {gene for part in present.values() for gene in part["genes"]} | set(split.get("left_out", ()))
    nowhere = sorted(set(chrom_of) - placed)
    empty = [part for part in PARTS if not present[part]["genes"]]
    if empty:
        found += f"; no gene of the file is in {', '.join(empty)}"
    if nowhere:
        found += f"; {len(nowhere):,} genes are in no part ({', '.join(nowhere[:3])})"
    if empty or nowhere:
        return Check(name, "warning", found, "give the split that was made of this file")
    return Check(name, "ok", found)


def _check_letters(scan: _Scan) -> Iterator[Check]:
    """GT at donors and AG at acceptors; where not, which shift or orientation would agree."""
    best = {site_class: _best_view(scan, site_class) for site_class in (DONOR, ACCEPTOR)}
    plain = {site_class: shift for site_class, (view, shift, _) in best.items() if not view.text}
    as_exon = plain.get(DONOR) == 1 and plain.get(ACCEPTOR) == -1
    for site_class, letters in ((DONOR, "GT"), (ACCEPTOR, "AG")):
        site = CLASSES[site_class]
        name = f"{site} letters"
        n = scan.letter_rows[:, site_class]
        if not n.sum():
            yield Check(name, "not checked", f"no {site} row with a sequence that reaches its base")
            continue
        here = scan.letters[:, :, site_class, 0, MAX_SHIFT]  # strands, classes: as the rows stand
        rate = here[:, site_class].sum() / n.sum()
        found = f"{letters} at {rate:.1%} of {site} rows"
        negatives = scan.letter_rows[:, NEITHER].sum()
        if negatives:
            found += f", at {here[:, NEITHER].sum() / negatives:.1%} of neither rows"
        by_strand = here[:, site_class] / np.maximum(n, 1)
        judged = [strand for strand in (0, 1) if n[strand] >= _MIN_STRAND_ROWS]
        worst = min([rate, *by_strand[judged]])
        if worst >= SITE_LETTERS_OK:
            yield Check(name, "ok", found)
            continue
        if len(judged) == 2:
            found += f" (+ genes {by_strand[0]:.1%}, - genes {by_strand[1]:.1%})"
        view, shift, there = best[site_class]
        advice = "look at sequence, index and label of such rows"
        if there >= max(0.8, worst + 0.2):
            where = " ".join(part for part in (f"at {shift:+d}" if shift or not view.text else "", view.text) if part)
            found += f"; {site} rows agree {where} ({there:.1%})"
            advice = _advice(view, shift, site, as_exon=as_exon)
        yield Check(name, "failed" if worst < SITE_LETTERS_WRONG else "warning", found, advice)


def _best_view(scan: _Scan, site_class: int) -> tuple[_View, int, float]:
    """Where the letters of a site class would agree best, on the strand that agrees least: view, shift and share."""
    rows = scan.letter_rows[:, site_class]
    here = scan.letters[:, site_class, site_class]
    strands = [strand for strand in (0, 1) if rows[strand] >= _MIN_STRAND_ROWS]
    if strands:
        hits, n = min(((here[s], rows[s]) for s in strands), key=lambda pair: pair[0][0, MAX_SHIFT] / pair[1])
    else:
        hits, n = here.sum(axis=0), rows.sum()
    at = max(np.ndindex(hits.shape), key=lambda at: (hits[at], -abs(_SHIFTS[at[1]]), -at[0]))
    return _VIEWS[at[0]], _SHIFTS[at[1]], float(hits[at] / max(n, 1))


def _advice(view: _View, shift: int, site: str, *, as_exon: bool) -> str:
    if view.text:
        return "sequences must be in transcript sense, once: make them again from the gene's strand"
    if as_exon:
        return (
            "the labelled base looks like the exon base: rows sit on the intron base (donor exon base + 1, acceptor "
            "exon base - 1)"
        )
    return (
        f"add {shift} to the index of {site} rows" if shift > 0 else f"subtract {-shift} from the index of {site} rows"
    )
