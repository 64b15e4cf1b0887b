"""A trained model that answers: for rows and for every position of a gene, in torch where that is installed.

Without torch, networks of our own parts answer in numpy, on the CPU, up to rounding as in torch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from metalayer.base.protocol import BaseModel
from metalayer.data.mean import tells_kinds, untrained_mean
from metalayer.data.stretches import stretch_inputs
from metalayer.device import has_torch, resolve_device
from metalayer.errors import ConfigError, InputError
from metalayer.features import FEATURE_REACH_BP, feature_matrix
from metalayer.gene_track import GeneTrack, refuse_no_probabilities
from metalayer.genome import N_TOKEN, Gene, Interval, encode
from metalayer.models.description import DESCRIPTION, digest
from metalayer.models.numpy_network import NumpyNetwork
from metalayer.models.stack import REACH_BP, STACK, Stack
from metalayer.schema import (
    ARTIFACT_WINDOW_BP,
    BASE_SCORES,
    CLASSES,
    FEATURE_SCHEMA,
    NEITHER,
    POSITIONS,
    PROBABILITY_SUM_TOLERANCE,
    ROWS,
    SPLICED_SCORE,
    WAYS,
)
from metalayer.settings.evidence import ABSENT

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from metalayer.inference.torch_network import TorchNetwork
    from metalayer.models.meta import MetaSpliceModel

ROW_CHUNK = 32
"""Rows a forward pass always holds (the last one padded), so that a row's bytes do not depend on its
neighbours; also what a CPU does fastest."""
GPU_ROW_CHUNK = 256
"""The same on a GPU, which is busy with so many, and answers a single row in milliseconds still."""
RowsForward = Callable[[NDArray[np.uint8], NDArray[np.float32]], NDArray[np.float32]]
"""Letters (n, W) and features (n, F) to calibrated probabilities (n, 3)."""
POSITION_BLOCK = 8192
"""Positions a dense forward pass holds at a time: memory does not grow with the gene."""
GPU_POSITION_BLOCK = 131_072
"""The same on a GPU, which waits for the next of smaller ones."""
_BESIDE_BP = 8
"""What features of a position read beside their window."""
_NOT_IN_ROWS = (
    "base scores around a position, which rows do not carry: ask for whole sequences (/v1/score_sequence, "
    "Predictor.predict_tracks)"
)


class Predictor:
    """A model directory, loaded once.

    Attributes:
        model: the network.
        device: on which it runs.
        info: its `model.json`.
        digest: SHA-256 of the model, in hex.
        row_chunk: rows a forward pass always holds.
        position_block: positions a dense forward pass holds at most.
        schema: the feature schema it was trained on.
        stack: what several base models are joined by, or one and what surrounds a position; None: no stack.
    """

    def __init__(
        self, model: MetaSpliceModel | NumpyNetwork, info: dict[str, Any], model_digest: str, device: str = "cpu"
    ) -> None:
        self.model: Any = model
        self.device = "cpu"
        self._network: NumpyNetwork | TorchNetwork
        if isinstance(model, NumpyNetwork):
            self._network = model
        else:
            from metalayer.inference.torch_network import TorchNetwork

            network = TorchNetwork(model, resolve_device(device))
            self._network, self.device = network, str(network.device)
        on_cpu = self.device == "cpu"
        self.row_chunk = 1 if model.pads else ROW_CHUNK if on_cpu else GPU_ROW_CHUNK
        self.position_block = POSITION_BLOCK if on_cpu else GPU_POSITION_BLOCK
        self.info = info
        self.digest = model_digest
        self.schema = FEATURE_SCHEMA
        self.stack = Stack.of(info[STACK]) if info.get(STACK) else None

    @classmethod
    def load(cls, directory: Path, device: str = "cpu") -> Predictor:
        """Load a model directory, or the `model` in the output folder of a training run.

        Raises:
            ModelError: missing or damaged files.
            SchemaError: a model of another feature schema.
            ConfigError: without torch, a device or a language model that needs it.
        """
        directory = Path(directory)
        if not (directory / DESCRIPTION).exists() and (directory / "model" / DESCRIPTION).exists():
            directory = directory / "model"
        if has_torch():
            from metalayer.models.bundle import load_model

            return cls(*load_model(directory), digest(directory), device)
        resolve_device(device)
        return cls(*NumpyNetwork.load(directory), digest(directory))

    @property
    def masks_rows(self) -> bool:
        """Whether rows are answered otherwise than positions, with a calibration of their own."""
        return bool(self.model.masks_rows)

    @property
    def ways_of_asking(self) -> tuple[str, ...]:
        """Ways that are answered on paths of their own."""
        if self.stack:
            return (POSITIONS,)
        return WAYS if self.masks_rows else (POSITIONS,)

    def note(self, way: str, given: Collection[str] = (), without: Collection[str] = ()) -> str:
        """How the model answers in a way of asking, in words: part of every answer.

        Args:
            way: of asking.
            given: base models whose scores there are; empty: all that it reads.
            without: evidence that is missing everywhere.
        """
        model = self.model
        if way == POSITIONS and without:
            return f"{self.note(way, given)}; evidence {', '.join(without)} is missing: answered without it"
        if self.stack and way == ROWS:
            return f"not answered: this model reads {_NOT_IN_ROWS}"
        if self.stack and len(self.stack.bases) > 1:
            here = self.stack.answering(given) if given else self.stack
            missing = [name for name in self.stack.bases if name not in here.bases]
            alone = f"; base model {missing[0]} is missing: answered by a stack of the others" if missing else ""
            best = f"base scores beside it are those of {here.best}, which was best on the training genes"
            beside = f" and evidence {', '.join(model.evidence)}" if model.evidence else ""
            of = ", ".join(here.bases)
            return f"answered from {of}{beside}, scores around each position included; {best}{alone}"
        if not model.masks_rows:
            return "answered from all that the model reads"
        if way == POSITIONS:
            beside = f" and evidence {', '.join(model.evidence)}" if model.evidence else ""
            return f"answered from all that the model reads, base scores around each position{beside} included"
        if not model.is_fused:
            base = "base scores as they are" if model.calibrator(ROWS).changes_nothing else "recalibrated base scores"
            return f"{base}; this model reads {_NOT_IN_ROWS}"
        letters = " and letters" if model.reads_letters else ""
        return f"answered from a row's scores{letters} alone; this model also reads {_NOT_IN_ROWS}"

    def ways(self) -> dict[str, dict[str, Any]]:
        """Ways of asking, each with its note and its calibration: JSON-ready.

        Returns:
            By way: note, own_calibration (whether the other way has another one), shrinkage (donor, acceptor), scale
            and bias.
        """
        found: dict[str, dict[str, Any]] = {}
        for way in WAYS:
            calibrator = self.model.calibrator(way)
            found[way] = {
                "note": self.note(way),
                "own_calibration": self.model.masks_rows,
                "shrinkage": calibrator.shrinkage[:2].tolist(),
                "scale": float(calibrator.scale),
                "bias": calibrator.bias.tolist(),
            }
        return found

    def forward_rows(self, letters: NDArray[np.uint8], features: NDArray[np.float32]) -> NDArray[np.float32]:
        """One forward pass: letters (n, W) and features (n, F) to calibrated probabilities, float32 (n, 3).

        Raises:
            InputError: a model with a stack, which reads what rows do not carry.
        """
        self.refuse_rows()
        return self._network.calibrated(self._network.rows(letters, features), ROWS)

    def refuse_rows(self) -> None:
        """Refuse rows where the model has a stack.

        Raises:
            InputError: it has one.
        """
        if self.stack:
            raise InputError(f"this model reads {_NOT_IN_ROWS}")

    def predict_rows(
        self, row_scores: NDArray[np.float32], windows: NDArray[np.uint8], forward: RowsForward | None = None
    ) -> NDArray[np.float32]:
        """Calibrated probabilities of rows; each row's result is independent of the others, bit for bit.

        Args:
            row_scores: float32 (n, 7), columns `ROW_SCORES`.
            windows: uint8 (n, W), the labelled base at W // 2, N outside.
            forward: does the forward passes, of `row_chunk` rows each; None: `forward_rows`.

        Returns:
            float32 (n, 3): donor, acceptor, neither.
        """
        return _in_chunks(feature_matrix(row_scores, windows), windows, self.row_chunk, forward or self.forward_rows)

    def row_log_probabilities(self, features: NDArray[np.float32], windows: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Uncalibrated log-probabilities of rows with ready features, each independent of the others, bit for bit.

        Of an encoder that pads (see `SequenceEncoder`) the last bits depend on up to `ROW_CHUNK` rows beside it.

        Args:
            features: float32 (n, F).
            windows: uint8 (n, W).

        Returns:
            float32 (n, 3).
        """
        size = ROW_CHUNK if self.model.pads else self.row_chunk  # one by one would take too long
        return _in_chunks(features, windows, size, self._network.rows)

    def log_probabilities(self, track: GeneTrack, way: str = POSITIONS) -> NDArray[np.float32]:
        """Uncalibrated log-probabilities at every exon base of a gene, block by block: float32 (L, 3).

        Args:
            track: the gene.
            way: `rows` masks the scores around a position, as rows are answered.
        """
        return np.concatenate(list(self.log_probability_blocks(track, way)))

    def log_probability_blocks(self, track: GeneTrack, way: str = POSITIONS) -> Iterator[NDArray[np.float32]]:
        """As `log_probabilities`, one float32 (n, 3) after the other, n at most `position_block`.

        Raises:
            InputError: other base models than those of the stack, or evidence that the model reads and is not there.
        """
        model, length = self.model, len(track)
        evidence = track.evidence_of(model.evidence) if model.evidence and way == POSITIONS else None
        scores, there = (np.empty_like(track.scores), 0) if self.stack else (track.scores, length)
        blocks = self.stack.blocks(track.bases) if self.stack else iter(())
        ahead = model.reach_bp + FEATURE_REACH_BP + 1
        for start in range(0, length, self.position_block):
            end = min(start + self.position_block, length)
            while there < min(length, end + ahead):  # what the network corrects
                block = next(blocks)
                scores[there : there + len(block)] = block
                there += len(block)
            letters, tracks, features, base = stretch_inputs(
                track.tokens, scores, start, end, model.reach_bp, model.reads_features, evidence
            )
            yield self._network.positions(letters, features, tracks, base, masked=way == ROWS)

    def calibrated(self, log_probabilities: NDArray[np.float32], way: str) -> NDArray[np.float32]:
        """Calibrated probabilities of the log-probabilities (n, 3) of a way of asking."""
        return self._network.calibrated(log_probabilities, way)

    def base_probabilities(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Base scores as the model reads them, (n, 3) to (n, 3): what it gives while it corrects nothing.

        Stored scores are rounded and add up to 1 only nearly; compared are distributions that do.
        """
        return self._network.base_probabilities(scores)

    @property
    def reach_bp(self) -> int:
        """Bases on either side of a position that its answer depends on, by letters and base scores."""
        reach = max(int(self.model.reach_bp), ARTIFACT_WINDOW_BP) + _BESIDE_BP
        return reach + (REACH_BP if self.stack else 0)

    @property
    def evidence(self) -> tuple[str, ...]:
        """Names of the evidence that it reads beside scores and letters."""
        return tuple(self.model.evidence)

    def check_evidence(self, given: Mapping[str, Any], setting: str = "data.evidence") -> None:
        """See that evidence is there, before anything is read.

        Args:
            given: by name; None or `none` of what the model is to answer without.
            setting: that names it, for messages.

        Raises:
            ConfigError: evidence that is not named, that the model does not read, or that it does not answer without.
        """
        reads = self.evidence
        needed = f"this model reads {', '.join(reads) or 'none'}"
        if unknown := [name for name in given if name not in reads]:
            raise ConfigError(f"{setting}: given {', '.join(unknown)}; {needed}")
        if absent := [name for name in reads if name not in given]:
            raise ConfigError(
                f"{setting}: no {', '.join(absent)}; {needed}. Name a file of each"
                + (f", or `{ABSENT}` to be answered without it" if self.model.evidence_dropout else "")
            )
        left = [name for name, source in given.items() if source is None or source == ABSENT]
        if left and not self.model.evidence_dropout:
            raise ConfigError(
                f"{setting}: given `{ABSENT}` for {', '.join(left)}; this model was trained with evidence_dropout 0, "
                "so it does not answer without. Name a file of each"
            )
        if left:
            logger.warning("evidence %s is missing: answered without it", ", ".join(left))

    @property
    def reads(self) -> dict[str, tuple[str, ...]]:
        """Scores that it reads, `schema.BASE_SCORES` or P(spliced), by base model."""
        if self.stack and len(self.stack.bases) > 1:
            return {name: BASE_SCORES if name in self.stack.telling else (SPLICED_SCORE,) for name in self.stack.bases}
        return {str(self.info.get("base_model")): BASE_SCORES}

    def best_base(self, track: GeneTrack) -> NDArray[np.float32]:
        """Scores (L, 3) of the base model; of several, of the one that was best on the training genes."""
        return track.several[self.stack.answering(track.several).best] if self.stack and track.several else track.scores

    def predict_tracks(
        self,
        sequence: str,
        base_scores: NDArray[np.floating] | Mapping[str, NDArray[np.floating]],
        evidence: Mapping[str, NDArray[np.floating]] | None = None,
    ) -> NDArray[np.float32]:
        """Calibrated probabilities at every base of a transcript-sense sequence.

        Args:
            sequence: letters (L), ACGTN.
            base_scores: (L, 3), donor, acceptor, neither of the base model at exon bases; of several base models by
                name, of those that do not tell donors from acceptors (L, 1), P(spliced).
            evidence: (L,) by name, NaN where missing; of all that the model reads.

        Returns:
            float32 (L, 3): donor, acceptor, neither at exon bases.

        Raises:
            InputError: other letters, lengths that differ, scores that are no probabilities, or of other base models,
                or evidence that is not there.
        """
        return self.predict_gene_track(sequence_track(sequence, base_scores, evidence))

    def predict_gene(
        self, sequence: str, base_model: BaseModel, upstream: str = "", downstream: str = ""
    ) -> NDArray[np.float32]:
        """As `predict_tracks`, with the scores of a base model, which sees the letters around the sequence too."""
        return self.predict_tracks(sequence, base_model.score(sequence, upstream, downstream))

    def predict_gene_track(self, track: GeneTrack) -> NDArray[np.float32]:
        """Calibrated probabilities at every exon base of a gene: float32 (L, 3)."""
        return self.calibrated(self.log_probabilities(track), POSITIONS)

    def predict_stretch(self, track: GeneTrack, start: int, end: int) -> NDArray[np.float32]:
        """As `predict_gene_track`, of positions [start, end) alone: float32 (end - start, 3)."""
        if self.stack:
            return self.predict_gene_track(track)[start:end]
        evidence = track.evidence_of(self.model.evidence) if self.model.evidence else None
        letters, tracks, features, base = stretch_inputs(
            track.tokens, track.scores, start, end, self.model.reach_bp, self.model.reads_features, evidence
        )
        return self.calibrated(self._network.positions(letters, features, tracks, base), POSITIONS)


def _in_chunks(
    features: NDArray[np.float32], windows: NDArray[np.uint8], size: int, forward: RowsForward
) -> NDArray[np.float32]:
    """Answers (n, 3) of passes of exactly `size` rows, the last one padded."""
    out = np.empty((len(features), 3), dtype=np.float32)
    letters = np.full((size, windows.shape[1]), N_TOKEN, dtype=np.uint8)
    numbers = np.zeros((size, features.shape[1]), dtype=np.float32)
    for start in range(0, len(out), size):
        n = min(size, len(out) - start)
        letters[:n] = windows[start : start + n]
        numbers[:n] = features[start : start + n]
        out[start : start + n] = forward(letters, numbers)[:n]
    return out


def sequence_track(
    sequence: str,
    base_scores: NDArray[np.floating] | Mapping[str, NDArray[np.floating]],
    evidence: Mapping[str, NDArray[np.floating]] | None = None,
) -> GeneTrack:
    """A transcript-sense sequence as a gene that lies nowhere; arguments and errors as in `predict_tracks`."""
    tokens = encode(sequence)
    given = base_scores if isinstance(base_scores, Mapping) else {"": base_scores}
    bases = {name: np.asarray(scores, dtype=np.float32) for name, scores in given.items()}
    for name, scores in bases.items():
        _check_scores(name, scores, len(tokens))
    nowhere = Gene("sequence", Interval("?", 0, len(tokens)), "+")
    labels = np.full(len(tokens), NEITHER, np.uint8)
    beside = {name: np.asarray(values, dtype=np.float32) for name, values in (evidence or {}).items()}
    first = next(iter(bases.values()))
    if len(bases) == 1 and tells_kinds(first):
        return GeneTrack(nowhere, tokens, first, labels, evidence=beside)
    return GeneTrack(nowhere, tokens, untrained_mean(bases), labels, several=bases, evidence=beside)


def _check_scores(base_model: str, scores: NDArray[np.float32], length: int) -> None:
    of = f"base scores of {base_model}" if base_model else "base scores"
    widths = (len(CLASSES), 1) if base_model else (len(CLASSES),)
    if scores.shape not in {(length, width) for width in widths} or not length:
        needed = " or ".join(f"({length}, {width})" for width in widths)
        raise InputError(
            f"{of} of shape {scores.shape} for a sequence of {length} letters; needs one row a letter, {needed}, and "
            "at least one letter"
        )
    refuse_no_probabilities("sequence", scores)
    if scores.shape[1] == 1:
        return
    off = np.abs(scores.sum(axis=1, dtype=np.float64) - 1.0) > PROBABILITY_SUM_TOLERANCE
    if off.any():
        raise InputError(
            f"{of} of {int(off.sum())} letters, the first at {int(np.argmax(off))}, do not add up to 1 within "
            f"{PROBABILITY_SUM_TOLERANCE}"
        )
