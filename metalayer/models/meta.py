"""MetaSpliceModel: what the scores, the letters and the tracks say, added to what the base model said.

log p_meta = log_softmax(log p_base + delta), delta = what the tracks correct + head(score features, letters,
track features), where the last layers start at zero: an untrained model equals its base, and a model that
learned nothing stays there. delta is multiplied by the shrinkage factors of donors and acceptors that
validation genes support. delta is read at row positions (intron bases), and exon bases take it from there
(`to_exon_bases`). Every part is optional and shift-equivariant: one set of weights serves windows, crops and
whole genes. Where the tracks are all that is read, their correction is delta, and there is no head. A model that is a
stack alone (see `stack.py`) reads nothing more, and delta is 0.
A model is asked in two ways: for positions, with the tracks, and for rows, which carry none, so that they are
masked. Those are other answers, and each way has a `Calibrator` of its own; without track encoder they are one.
Axes: B batch, n positions, W window, F features, C classes (donor, acceptor, neither).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from metalayer.errors import ConfigError, InputError
from metalayer.models.calibrator import Calibrator
from metalayer.models.encoders import build_encoder
from metalayer.models.fusion import FUSIONS
from metalayer.models.scores import FeatureNormaliser, NoScores, ScoreEncoder
from metalayer.models.tracks import TrackEncoder
from metalayer.schema import (
    ACCEPTOR,
    CLASSES,
    DONOR,
    FEATURES,
    NEITHER,
    POSITIONS,
    PROBABILITY_FLOOR,
    ROWS,
    WAYS,
)
from metalayer.settings.encoders import StageOptions
from metalayer.settings.network import ModelConfig, Network


class TrackView(NamedTuple):
    """What the tracks say of rows: features (..., T) and correction (..., C)."""

    features: Tensor
    correction: Tensor


class MetaSpliceModel(nn.Module):
    """Score encoder, sequence encoder and track encoder, fused, as a residual on the base's log-probabilities.

    Attributes:
        options: the arguments, from which `bundle.py` builds the model again.
        window_bp: letters a window holds, the labelled base at index window_bp // 2.
        context_bp: positions a window of tracks holds, the labelled base at index context_bp // 2; 0 without
            a track encoder.
        radius_bp: letters the sequence encoder and the fusion's neighbourhood see on either side of a base.
        reach_bp: letters and scores that any part sees on either side of a base.
        reads_features: whether there is a score encoder.
        reads_letters: whether there is a sequence encoder.
        evidence: names of the evidence that it reads, in the order of its channels.
        evidence_dropout: share of crops in which each was missing in training.
        is_fused: whether anything beside the tracks is read.
        calibrators: by way of asking; of a model without track encoder `positions` serves both.
    """

    def __init__(
        self,
        sequence_encoder: str = Network.model_fields["sequence_encoder"].default,
        num_score_features: int = len(FEATURES),
        num_classes: int = len(CLASSES),
        **options: Any,
    ) -> None:
        """Build the model.

        Args:
            sequence_encoder: name of the sequence encoder.
            num_score_features: must be the schema's count.
            num_classes: must be 3.
            options: the other fields of `Network`: hidden_dim, dropout, sequence_encoder_config, fusion,
                track_encoder ...

        Raises:
            ConfigError: counts that the schema does not have, all impossible options, parts that see further than
                their window, or a checkpoint that is not there.
        """
        super().__init__()
        if num_score_features != len(FEATURES) or num_classes != len(CLASSES):
            raise ConfigError(
                f"num_score_features={num_score_features}, num_classes={num_classes}: the feature schema has "
                f"{len(FEATURES)} features and {len(CLASSES)} classes"
            )
        network = Network(sequence_encoder=sequence_encoder, **options)
        self.window_bp, hidden_dim = network.window_bp, network.hidden_dim
        self.encoder = build_encoder(network.sequence_encoder_config, network.encoder_checkpoint)
        self.options: dict[str, Any] = {**network.model_dump(), "encoder_checkpoint": self.encoder.checkpoint}
        self.options["evidence"] = list(network.evidence)
        self.normaliser = FeatureNormaliser()
        scores = network.score_encoder
        self.score_encoder = ScoreEncoder(len(FEATURES), hidden_dim, network.dropout) if scores else NoScores()
        self.fusion = FUSIONS[network.fusion](self.score_encoder.output_dim, self.encoder)
        reach = self.fusion.reach_bp
        self.radius_bp = self.encoder.radius_bp if reach is None else self.encoder.radius_with(reach)
        if self.radius_bp > self.window_bp // 2 - 1:
            raise ConfigError(
                f"encoder {network.sequence_encoder!r} with fusion {network.fusion!r} sees {self.radius_bp} bp on "
                f"either side; a window of {self.window_bp} bp holds {self.window_bp // 2 - 1}. Lower `levels` or the "
                "kernel sizes, or `chunk_bp`"
            )
        tracks = network.track_encoder_config
        self.evidence, self.evidence_dropout = network.evidence, network.evidence_dropout
        self.tracks = None
        if isinstance(tracks, StageOptions):
            self.tracks = TrackEncoder(tracks, network.evidence, network.evidence_dropout)
        self.reads_features = scores
        joined = self.fusion.output_dim
        # A row reads the correction of the exon bases on either side of it.
        self.track_reach_bp = 0 if self.tracks is None else self.tracks.radius_bp + 1
        self.track_letters_bp = self.tracks.letters_bp + 1 if self.tracks and self.tracks.letters_bp else 0
        wide = max(self.track_reach_bp, self.track_letters_bp)
        self.context_bp = 0 if self.tracks is None else network.context_bp or 2 * wide + 1
        if self.tracks is not None and 2 * wide + 1 > self.context_bp:
            raise ConfigError(
                f"context_bp: given {self.context_bp}; the track encoder reads {wide} bp on either side, so "
                f"{2 * wide + 1} at least. Give more, or fewer stages or shorter distances"
            )
        self.reach_bp = max(self.radius_bp, wide)
        self.track_dropout = network.track_dropout
        self.fuse: nn.Sequential | None = None
        if joined:
            if self.tracks is not None:
                joined += self.tracks.output_dim
                # Stands for the features of tracks that are masked.
                self.no_tracks = nn.Parameter(torch.zeros(self.tracks.output_dim))
            self.fuse = nn.Sequential(nn.Linear(joined, hidden_dim), nn.GELU(), nn.Dropout(network.dropout))
            self.head = nn.Linear(hidden_dim, len(CLASSES))
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)
        self.is_fused, self.reads_letters = self.fuse is not None, bool(self.encoder.output_dim)
        self.calibrators = nn.ModuleDict({way: Calibrator() for way in (WAYS if self.masks_rows else WAYS[:1])})

    @property
    def pads(self) -> bool:
        """As of the sequence encoder."""
        return self.encoder.pads

    @property
    def masks_rows(self) -> bool:
        """Whether rows are answered on another path than positions: with the tracks masked."""
        return self.tracks is not None

    def calibrator(self, way: str) -> Calibrator:
        """The calibrator of a way of asking."""
        found = self.calibrators[way if self.masks_rows else POSITIONS]
        assert isinstance(found, Calibrator)
        return found

    def _scores(self, features: Tensor) -> Tensor:
        if not self.reads_features:
            return features[..., :0]
        encoded: Tensor = self.score_encoder(self.normaliser(features))
        return encoded

    def _delta(self, joined: Tensor, seen: TrackView | None) -> Tensor:
        """Correction of rows (..., C) from what the fusion joined (..., J) and the tracks, if there are any."""
        if self.fuse is None:
            return joined.new_zeros((*joined.shape[:-1], len(CLASSES))) if seen is None else seen.correction
        if seen is None:
            delta: Tensor = self.head(self.fuse(joined))
            return delta
        delta = self.head(self.fuse(torch.cat([joined, seen.features], dim=-1)))
        return delta + seen.correction

    def _look(self, tracks: Tensor, tokens: Tensor, spare: int) -> tuple[TrackView, Tensor]:
        """What the tracks (B, n + 2 * spare, C) and as many letters say of n rows, and the exon logits (B, n)."""
        assert self.tracks is not None
        features, correction, exon = self.tracks(
            _cropped(tracks, spare - self.track_reach_bp),
            _cropped(tokens, spare - self.track_letters_bp) if self.track_letters_bp else None,
        )
        rows = torch.stack(
            [correction[:, :-2, DONOR], correction[:, 2:, ACCEPTOR], torch.zeros_like(correction[:, 1:-1, DONOR])],
            dim=-1,
        )
        return TrackView(features[:, 1:-1], rows), exon[:, 1:-1]

    def _masked(self, like: Tensor) -> TrackView | None:
        """What stands for tracks that are not there, of rows (..., anything)."""
        if self.tracks is None:
            return None
        shape = like.shape[:-1]
        features = self.no_tracks.expand(*shape, -1) if self.fuse is not None else like[..., :0]
        return TrackView(features, torch.zeros((*shape, len(CLASSES)), device=like.device))

    def correction(self, windows: Tensor, features: Tensor, tracks: Tensor | None = None) -> Tensor:
        """What the model adds to the base's log-probabilities of rows.

        Args:
            windows: uint8 (B, W), the labelled base at W // 2, N (4) outside the gene; or the states of a frozen
                language model, float (B, D). With tracks whose encoder reads letters, W is `context_bp` too.
            features: float32 (B, F), raw, columns `FEATURES`.
            tracks: float32 (B, `context_bp`, C + E), base scores at exon bases, then the evidence that is read (NaN
                where missing), the labelled base at context_bp // 2, 0 outside the gene; None: masked, the model
                answers from what else it reads.

        Returns:
            float32 (B, C).
        """
        centre, reach = windows.shape[1] // 2, self.fusion.reach_bp
        spared = windows[:, centre - self.radius_bp : centre + self.radius_bp + 1]
        tokens = windows if windows.is_floating_point() else spared
        seen = self._masked(features)
        if self.tracks is not None and tracks is not None:
            middle, spare = tracks.shape[1] // 2, max(self.track_reach_bp, self.track_letters_bp)
            if self.track_letters_bp and windows.shape[1] != tracks.shape[1]:
                raise InputError(
                    f"windows of {windows.shape[1]} letters beside {tracks.shape[1]} positions of tracks; the track "
                    f"encoder reads letters, so both are as wide as context_bp, {self.context_bp}"
                )
            near = slice(middle - spare, middle + spare + 1)
            view, _ = self._look(tracks[:, near], windows[:, near], spare)
            seen = TrackView(view.features.squeeze(1), view.correction.squeeze(1))
        scores = self._scores(features)
        if reach is None:
            return self._delta(self.fusion(scores, self.encoder(tokens)), seen)
        letters, around = self.encoder.neighbourhood(tokens, reach)
        return self._delta(self.fusion(scores, letters, around), seen)

    def correction_dense(
        self, tokens: Tensor, features: Tensor, tracks: Tensor, masked: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """`correction` at every row position of stretches, equal to that of its windows.

        Args:
            tokens: uint8 (B, n + 2 * reach_bp): the stretches with what lies on either side, N outside the gene;
                or the states of a frozen language model, float (B, n, D).
            features: float32 (B, n, F), raw; not read without a score encoder.
            tracks: float32 (B, n + 2 * reach_bp, C + E), base scores and evidence, 0 outside the gene.
            masked: answer as rows are answered, which carry no tracks.

        Returns:
            float32 (B, n, C), and the logits that a position is of an exon, (B, n), of a track encoder that is read.
        """
        seen: TrackView | None = None
        exon: Tensor | None = None
        if masked:
            seen = self._masked(tracks[:, self.reach_bp : tracks.shape[1] - self.reach_bp])
        elif self.tracks is not None:
            seen, exon = self._look(tracks, tokens, self.reach_bp)
            if self.training and self.fuse is not None:  # also at 0: several processes want every parameter used
                other = self._masked(seen.correction)
                assert other is not None
                kept = torch.rand(len(tokens), 1, 1, device=tokens.device) >= self.track_dropout
                seen = TrackView(
                    torch.where(kept, seen.features, other.features),
                    torch.where(kept, seen.correction, other.correction),
                )
        if self.fuse is None:
            return self._delta(features[..., :0], seen), exon
        spare, reach = self.reach_bp - self.radius_bp, self.fusion.reach_bp
        near = tokens if tokens.is_floating_point() else tokens[:, spare : tokens.shape[1] - spare]
        scores = self._scores(features)
        if reach is None:
            return self._delta(self.fusion(scores, self.encoder.dense(near)), seen), exon
        letters, around = self.encoder.dense_neighbourhood(near, reach)
        joined = [self.fusion.dense(*stretch) for stretch in zip(scores, letters, around, strict=True)]
        return self._delta(torch.stack(joined), seen), exon

    def forward(
        self,
        tokens: Tensor,
        features: Tensor,
        tracks: Tensor | None = None,
        base: Tensor | None = None,
        with_exons: bool = False,
        masked: bool = False,
    ) -> Any:
        """Log-probabilities before calibration: of rows, or with `base` of every exon base of crops.

        Args:
            tokens: as in `correction`; of a crop of n exon bases, those of the n + 2 row positions around them.
            features: likewise.
            tracks: likewise.
            base: float32 (B, n, C), base scores of the exon bases of crops; None: rows.
            with_exons: return also the logits that the exon bases of crops are of an exon.
            masked: answer crops as rows are answered, without what the tracks say; they then only say where the
                gene is.

        Returns:
            float32 (B, C); of crops (B, n, C), with exons in a tuple with the logits, (B, n), None without tracks.
        """
        if base is None:
            correction = self.correction(tokens, features, tracks)
            against_neither = correction - correction[..., NEITHER:]
            shrinkage = self.calibrator(ROWS if tracks is None else POSITIONS).shrinkage
            return recalibrate(features[..., : len(CLASSES)], shrinkage * against_neither)
        assert tracks is not None
        rows, exon = self.correction_dense(tokens, features, tracks, masked)
        shrinkage = self.calibrator(ROWS if masked else POSITIONS).shrinkage
        inside = _cropped(tracks, self.reach_bp)[..., : len(CLASSES)].sum(dim=-1, keepdim=True) > 0
        answer = recalibrate(base, shrinkage * to_exon_bases(rows * inside))
        return (answer, None if exon is None else exon[:, 1:-1]) if with_exons else answer

    def calibrate(self, log_probabilities: Tensor, way: str) -> Tensor:
        """Calibrated probabilities, float32 (..., C) to (..., C), of what `forward` gave in a way of asking."""
        calibrated: Tensor = self.calibrator(way)(log_probabilities)
        return calibrated


def _cropped(values: Tensor, spare: int) -> Tensor:
    """(B, m, ...) without `spare` positions on either side."""
    return values[:, spare : values.shape[1] - spare]


def build_model(config: ModelConfig, evidence: Iterable[str] = ()) -> MetaSpliceModel:
    """The network that a configuration describes, untrained: its weights are drawn from torch's generator.

    Args:
        config: the network.
        evidence: names of `data.evidence`.

    Raises:
        ConfigError: as of `MetaSpliceModel`.
    """
    options = {name: getattr(config, name) for name in ModelConfig.model_fields}
    return MetaSpliceModel(**options, evidence=tuple(evidence))


def recalibrate(base: Tensor, correction: Tensor) -> Tensor:
    """log_softmax(log base + correction), base probabilities and correction (..., C) to (..., C)."""
    return torch.log_softmax(base.clamp_min(PROBABILITY_FLOOR).log() + correction, dim=-1)


def to_exon_bases(rows: Tensor) -> Tensor:
    """Corrections at row positions (intron bases) as corrections at exon bases, against neither.

    An exon base is a donor if its row one base downstream is, and an acceptor if its row one base
    upstream is: it takes the log-odds of each against neither from that row. A row beyond the gene holds
    0 and corrects nothing; a model that corrects nothing leaves the base's tracks as they are.

    Args:
        rows: float32 (B, n + 2, C), at the row positions from one before to one behind the exon bases.

    Returns:
        float32 (B, n, C) at exon bases.
    """
    donor = rows[:, 2:, DONOR] - rows[:, 2:, NEITHER]
    acceptor = rows[:, :-2, ACCEPTOR] - rows[:, :-2, NEITHER]
    assert (DONOR, ACCEPTOR) == (0, 1)
    return torch.stack([donor, acceptor, torch.zeros_like(donor)], dim=-1)
