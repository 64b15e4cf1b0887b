"""The engine: one release, loaded once, checked against its golden rows, answering rows."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from metalayer.base.protocol import is_built_in, load_base_model
from metalayer.data.windows import encode_windows
from metalayer.errors import InputError, ModelError
from metalayer.inference import Predictor
from metalayer.inference.predictor import sequence_track
from metalayer.release import answer
from metalayer.release.contract import ALLOWED_EVIDENCE, RequestError, Rows, SequenceInput
from metalayer.release.folder import GOLDEN, MADE_WITH, ONNX, check_release, made_with, read_facts
from metalayer.release.golden import made_up_sequence, read_golden
from metalayer.release.onnx import OnnxRows
from metalayer.schema import POSITIONS, ROW_SCORES, ROWS, evidence_column, score_columns

GOLDEN_TOLERANCE = 1e-6
"""Largest allowed difference of a golden row's probability from the expected one."""

_BLOCKS = 10
"""Of which the pace is the mean: how fast a machine is changes with what else it does."""
BLOCK_ROWS = 512
"""Rows between two looks at the clock, a multiple of the chunk of a forward pass; requests take turns by block."""
_PACKAGE_DAMAGED = (
    "The package is damaged: remove it and make it again of the registered version, metalayer registry promote VERSION"
)
_REGISTRY_DAMAGED = (
    "The registry's copy is damaged, and every package made of it would be: restore its artifact store, promote "
    "another version (metalayer registry promote VERSION), or train again"
)

logger = logging.getLogger(__name__)


class Pace:
    """Seconds that a row, a letter of a sequence, or a byte of a kind of body takes: the mean of the last ones."""

    def __init__(self) -> None:
        self._of: dict[str, tuple[int, float]] = {}

    def note(self, way: str, count: int, seconds: float) -> None:
        """So many took so long; few of them say little of large requests."""
        blocks, mean = self._of.get(way, (0, 0.0))
        if not blocks or count >= BLOCK_ROWS // 2:
            blocks = min(blocks + 1, _BLOCKS)
            self._of[way] = blocks, mean + (seconds / count - mean) / blocks

    def seconds(self, way: str, count: int) -> float:
        """What so many will take; 0 of what was never noted."""
        return self._of.get(way, (0, 0.0))[1] * count


class Engine:
    """A release that answers.

    Attributes:
        name: registered name.
        version: registered version, as text.
        digest: SHA-256 of all that was registered: model, graph, facts and golden rows.
        runs_in: what rows run in, and why where that is torch.
        pace: what it takes here, measured since it was loaded.
    """

    def __init__(self, directory: Path, device: str = "cpu", *, registered: bool = False) -> None:
        """Load a release, check it on its golden rows and warm it up.

        Args:
            directory: the release.
            device: `cpu`, or one on which torch runs all of the model.
            registered: whether the release was just made of a registered version, and not found in a package: that
                decides what helps against damage.

        Raises:
            ModelError: missing or damaged files, or answers that differ from those expected.
            SchemaError: a model of another feature schema.
        """
        directory = Path(directory)
        self.pace = Pace()
        damaged = _REGISTRY_DAMAGED if registered else _PACKAGE_DAMAGED
        self._facts = read_facts(directory)
        self.name, self.version = str(self._facts["name"]), str(self._facts["version"])
        self.digest = str(self._facts["digest"])
        try:
            check_release(directory)
        except ModelError as error:
            raise ModelError(f"model {self.name} version {self.version}: {error}. {damaged}") from None
        self._predictor = Predictor.load(directory, device)
        base = self._predictor.info.get("base_model")
        self._base = load_base_model(base) if base and is_built_in(base) else None
        self._onnx: OnnxRows | None = None
        if self._predictor.device != "cpu":
            self.runs_in = f"torch on {self._predictor.device}"
            torch.backends.cudnn.allow_tf32 = False  # whose rounding golden rows would not forgive
        elif (directory / ONNX).is_file():
            self._onnx, self.runs_in = OnnxRows(directory / ONNX, self._predictor.digest), "ONNX Runtime"
        elif self._predictor.stack:
            self.runs_in = "nothing: rows are not answered"
        else:
            why = self._predictor.model.encoder.eager_because or f"the release has no {ONNX}"
            self.runs_in = f"torch: {why}"
        self._check(directory / GOLDEN, damaged)
        self._warm_up()
        how = f"rows run in {self.runs_in}" if self.answers_rows else "it answers whole sequences, not rows"
        logger.info("model %s version %s (%s) is ready; %s", self.name, self.version, self.digest[:12], how)

    def score(self, rows: Rows) -> Iterator[NDArray[np.float32]]:
        """Calibrated probabilities, block by block; a row's bytes do not depend on the rows beside it.

        Yields:
            float32 (n, 3): donor, acceptor, neither; n at most `BLOCK_ROWS`.

        Raises:
            RequestError: a model that reads what rows do not carry.
        """
        self.refuse_rows()
        for start in range(0, len(rows), BLOCK_ROWS):
            part = slice(start, start + BLOCK_ROWS)
            windows = encode_windows(rows.sequences[part], rows.index[part], self._predictor.schema.window_bp)
            yield self._predictor.predict_rows(rows.row_scores[part], windows, self._onnx)

    @property
    def predictor(self) -> Predictor | None:
        """The model itself; None of what is base models alone (`at_hand.BaseAlone`)."""
        return self._predictor

    @property
    def score_fields(self) -> dict[str, tuple[str, ...]]:
        """Fields of the scores of a sequence that the model reads, by base model; of a single one without its name."""
        reads = self._predictor.reads
        return reads if len(reads) == 1 else {name: score_columns(name, columns) for name, columns in reads.items()}

    @property
    def answers_rows(self) -> bool:
        """Whether rows are answered, or whole sequences alone."""
        return self._predictor.stack is None

    def refuse_rows(self) -> None:
        """Refuse rows where the model reads what they do not carry.

        Raises:
            RequestError: it does.
        """
        try:
            self._predictor.refuse_rows()
        except InputError as error:
            raise RequestError(str(error)) from None

    def score_sequence(self, given: SequenceInput) -> Iterator[NDArray[np.float32]]:
        """Base and calibrated probabilities at every position of a sequence, block by block.

        Yields:
            float32 (n, 6): `answer.SEQUENCE_COLUMNS`, at exon bases; of several base models `base` is the one that was
            best on the training genes.

        Raises:
            RequestError: no base scores, and no base model that could give them, or scores of other base models, or
                other evidence than the model reads.
        """
        self._check_evidence(given)
        track = sequence_track(given.sequence, self._bases_of(given), given.evidence)
        base, start = self._predictor.best_base(track), 0
        for block in self._predictor.log_probability_blocks(track):
            end = start + len(block)
            yield np.concatenate([base[start:end], self._predictor.calibrated(block, POSITIONS)], axis=1)
            start = end

    def _bases_of(self, given: SequenceInput) -> Mapping[str, NDArray[np.float32]]:
        """Scores of a request by base model, or what the base model here gives.

        Raises:
            RequestError: others than the model reads, or none and no base model here.
        """
        reads = self._predictor.reads
        if not given.bases and self._base is not None:
            return {"": self._base.score(given.sequence)}
        alone = next(iter(reads)) if len(reads) == 1 else ""
        bases = {name or alone: scores for name, scores in given.bases.items()}
        stack = self._predictor.stack
        wanted = stack.answering(bases).bases if stack and not alone else reads
        if {name: scores.shape[1] for name, scores in bases.items()} == {name: len(reads[name]) for name in wanted}:
            return bases
        fields = self.score_fields
        details = [
            {
                "row": None,
                "field": "+".join(theirs),
                "given": "missing",
                "allowed": f"the scores of {name}, one a letter",
            }
            for name, theirs in fields.items()
            if name not in bases or bases[name].shape[1] != len(theirs)
        ]
        details += [
            {"row": None, "field": name, "given": "scores of that name", "allowed": f"scores of {', '.join(reads)}"}
            for name in bases
            if name not in reads
        ]
        needed = ", ".join(name for theirs in fields.values() for name in theirs)
        if bases:
            named = ", ".join(name or "a base model without a name" for name in bases)
            raise RequestError(f"given scores of {named}; this model reads {needed}", 422, details)
        whose = "its" if len(reads) == 1 else "their"
        held = ", ".join(map(repr, reads))
        raise RequestError(f"this server holds no base model {held}: give {whose} {needed}", 422, details)

    def _check_evidence(self, given: SequenceInput) -> None:
        """Refuse other evidence than the model reads, or none where it does not answer without.

        Raises:
            RequestError: all of it.
        """
        reads, answers_without = self._predictor.evidence, self._predictor.model.evidence_dropout > 0
        allowed = ALLOWED_EVIDENCE if answers_without else ALLOWED_EVIDENCE.partition(";")[0]
        known = {name: not bool(np.isnan(values).all()) for name, values in given.evidence.items()}
        details = [
            {"row": None, "field": evidence_column(name), "given": said, "allowed": allowed}
            for name in reads
            for said in (["missing"] if name not in known else [] if known[name] or answers_without else ["null"])
        ]
        details += [
            {"row": None, "field": evidence_column(name), "given": "evidence of that name", "allowed": _known(reads)}
            for name in known
            if name not in reads
        ]
        if details:
            named = ", ".join(str(one["field"]) for one in details)
            raise RequestError(f"evidence: {named}; this model reads {_known(reads)}", 422, details)

    def answered(self, way: str, given: SequenceInput | None = None) -> dict[str, str]:
        """What every answer says of itself: the way of asking, and how the model answers in it.

        Args:
            way: of asking.
            given: the sequence of a request.
        """
        evidence = {} if given is None else given.evidence
        without = [name for name, values in evidence.items() if np.isnan(values).all()]
        return answer.facts(way, self._predictor.note(way, () if given is None else given.bases, without))

    def describe(self) -> dict[str, Any]:
        """What is served and where it comes from, JSON-ready."""
        info = self._predictor.info
        return {
            "name": self.name,
            "version": self.version,
            "alias": self._facts.get("alias"),
            "digest": self.digest,
            "base_model": info.get("base_model"),
            "holds_base_model": self._base is not None,
            "score_fields": {name: list(fields) for name, fields in self.score_fields.items()},
            **(
                {"evidence_fields": [evidence_column(name) for name in reads]}
                if (reads := self._predictor.evidence)
                else {}
            ),
            "feature_schema": {**self._predictor.schema.to_dict(), "hash": self._predictor.schema.hash},
            "ways": self._predictor.ways(),
            "rows_run_in": self.runs_in,
            "metrics": self._facts.get("metrics", {}),
            "held_out": self._facts.get("held_out"),
            "data_hash": self._facts.get("data_hash", info.get("data_hash")),
            "git_commit": self._facts.get("git_commit", info.get("git_commit")),
        }

    def _warm_up(self) -> None:
        """One sequence, and one pass of rows, where rows are answered; the second time is measured."""
        count, letters = self._predictor.row_chunk, "ACGT" * (BLOCK_ROWS // 4)
        sequence = made_up_sequence(self._predictor, letters, np.random.default_rng(0))
        rows = Rows(
            np.full((count, len(ROW_SCORES)), 1 / 3, dtype=np.float32),
            pl.Series([letters] * count),
            np.full(count, BLOCK_ROWS // 2),
        )
        for _ in range(2):
            begun = time.perf_counter()
            list(self.score_sequence(sequence))
            between = time.perf_counter()
            self.pace = Pace()
            self.pace.note(POSITIONS, BLOCK_ROWS, between - begun)
            if self.answers_rows:
                list(self.score(rows))
                self.pace.note(ROWS, count, time.perf_counter() - between)

    def _check(self, golden: Path, damaged: str) -> None:
        try:
            asked = read_golden(golden)
        except ModelError as error:
            raise ModelError(f"model {self.name} version {self.version}: {error}. {damaged}") from None
        if asked.rows is not None:
            answers = np.concatenate(list(self.score(asked.rows)))
        else:
            answers = np.concatenate([block for one in asked.sequences for block in self.score_sequence(one)])[:, 3:]
        difference = float(np.abs(answers - asked.answers).max())
        if not difference <= GOLDEN_TOLERANCE:  # NaN fails too
            raise ModelError(
                f"model {self.name} version {self.version}: golden rows differ by {difference:.2g} from the expected "
                f"probabilities, allowed is {GOLDEN_TOLERANCE:g}; not serving it. {_why_they_differ(golden, damaged)}"
            )


def _known(reads: Collection[str]) -> str:
    """The fields of evidence that a model reads, in words."""
    return ", ".join(map(evidence_column, reads)) or "no evidence"


def _why_they_differ(golden: Path, damaged: str) -> str:
    """What made golden rows, where that was another environment than this one, and what helps."""
    made = (pq.read_schema(golden).metadata or {}).get(MADE_WITH.encode(), b"{}")
    then, now = json.loads(made), made_with()
    other = [f"{name} {then[name]} (here {now.get(name, 'absent')})" for name in then if then[name] != now.get(name)]
    if other:
        return (
            f"They were made with {', '.join(other)}: serve it with those, or train here, which makes rows of its own. "
            "Packaging it again keeps the rows"
        )
    return f"{'They were made with the same libraries as are here. ' if then else ''}{damaged}"
