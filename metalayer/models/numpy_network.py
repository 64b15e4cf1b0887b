"""The trained network in numpy: what `MetaSpliceModel` answers, where torch is not installed.

Reads a model directory as it is, and gives the same probabilities as torch up to rounding (`tests/test_light.py` holds
every part of it to that). Nothing is trained here, and language models, which need torch, are refused. The meaning of
each part stands with its namesake in torch. Positions are the last axis but one here, channels the last.
Axes: B batch, n positions, C classes (donor, acceptor, neither), F features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from safetensors.numpy import load_file
from scipy.special import expit, log_softmax, softmax

from metalayer.errors import ConfigError, ModelError
from metalayer.extras import install
from metalayer.genome import N_TOKEN
from metalayer.models import constants
from metalayer.models.description import DESCRIPTION, check_shapes, read_description, read_weights
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
from metalayer.settings.encoders import CnnOptions, LanguageOptions, StageOptions
from metalayer.settings.network import Network

Floats = NDArray[np.float32]
Layer = Callable[[Floats], Floats]
_ROW_BLOCK = 32
"""Rows whose values between layers stay in a core's cache: a third less time than 256 together."""


class _Weights:
    """Tensors of a file, each asked for by name and shape; what does not fit is an error once all were asked for."""

    def __init__(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        self._tensors = tensors
        self.expected: dict[str, tuple[int, ...]] = {}

    def __call__(self, name: str, *shape: int) -> NDArray[Any]:
        self.expected[name] = shape
        found = self._tensors.get(name)
        return found if found is not None and found.shape == shape else np.zeros(shape, np.float32)

    def linear(self, name: str, inputs: int, outputs: int, bias: bool = True, kernel: tuple[int, ...] = ()) -> Layer:
        """(..., inputs) to (..., outputs); `kernel` is (1,) of what torch has as a convolution of width 1."""
        weight = self(f"{name}.weight", outputs, inputs, *kernel).reshape(outputs, inputs).T.copy()
        offset = self(f"{name}.bias", outputs) if bias else np.zeros(outputs, np.float32)
        return lambda x: x @ weight + offset

    def convolution(self, name: str, inputs: int, outputs: int, width: int) -> Layer:
        """(B, n + width - 1, inputs) to (B, n, outputs), in one product: for few channels."""
        layer = self(f"{name}.weight", outputs, inputs, width).reshape(outputs, inputs * width).T.copy()
        offset = self(f"{name}.bias", outputs)

        def convolve(x: Floats) -> Floats:
            seen = sliding_window_view(x, width, axis=1)
            found: Floats = seen.reshape(*seen.shape[:2], inputs * width) @ layer + offset
            return found

        return convolve


@dataclass(frozen=True)
class NumpyCalibrator:
    """As `Calibrator`: shrinkage (C,), scale (), bias (C,)."""

    shrinkage: Floats
    scale: Floats
    bias: Floats

    @property
    def changes_nothing(self) -> bool:
        """Whether probabilities come out as they went in."""
        return float(self.scale) == 1.0 and not bool(self.bias.any())

    def __call__(self, log_probabilities: Floats) -> Floats:
        """Calibrated probabilities, float32 (..., C) to (..., C)."""
        return _softmax(self.scale * log_probabilities + self.bias)


class NumpyNetwork:
    """A trained network that answers rows and positions, on the CPU.

    Attributes:
        window_bp, reach_bp, reads_features, reads_letters, is_fused, masks_rows: as of `MetaSpliceModel`.
        pads, eager_because: as of `SequenceEncoder`.
    """

    pads = False

    def __init__(self, network: Network, weights: _Weights) -> None:
        """Take the weights of each part.

        Raises:
            ConfigError: a language model.
        """
        if isinstance(network.sequence_encoder_config, LanguageOptions):
            raise ConfigError(
                f"the model reads letters with the language model {network.sequence_encoder}, which needs torch: "
                f"{install('language')}"
            )
        self.window_bp, self.reads_features = network.window_bp, network.score_encoder
        tracks = network.track_encoder_config
        self.evidence, self.evidence_dropout = network.evidence, network.evidence_dropout
        self._tracks = _Tracks(tracks, weights, len(network.evidence)) if isinstance(tracks, StageOptions) else None
        self.masks_rows = self._tracks is not None
        hidden, asked = network.hidden_dim, 0
        self._is_ratio = weights("normaliser.is_ratio", len(FEATURES)).astype(bool)
        self._centre, self._scale = (weights(f"normaliser.{name}", len(FEATURES)) for name in ("centre", "scale"))
        self._score_layers: list[Layer] = []
        if network.score_encoder:
            asked = hidden
            self._score_layers = [
                weights.linear("score_encoder.layers.0", len(FEATURES), hidden),
                weights.linear("score_encoder.layers.3", hidden, hidden),
            ]
        cnn = network.sequence_encoder_config
        self._encoder = _Cnn(cnn, weights) if isinstance(cnn, CnnOptions) else None
        letters = self._encoder.output_dim if self._encoder else 0
        self.reads_letters = bool(letters)
        self._fusion = _FUSIONS[network.fusion](asked, letters, weights)
        self._attends = isinstance(self._fusion, _CrossAttention)
        around = constants.ATTENTION_REACH_BP if self._attends else 0
        self._radius_bp = self._encoder.radius_with(around) if self._encoder else 0
        wide, letters_bp = (self._tracks.radius_bp + 1, self._tracks.letters_bp) if self._tracks else (0, 0)
        self.reach_bp = max(self._radius_bp, wide, letters_bp + 1 if letters_bp else 0)
        joined = self._fusion.output_dim
        self.is_fused = bool(joined)
        if joined:
            if self._tracks is not None:
                self._no_tracks = weights("no_tracks", self._tracks.output_dim)
                joined += self._tracks.output_dim
            self._fuse = weights.linear("fuse.0", joined, hidden)
            self._head = weights.linear("head", hidden, len(CLASSES))
        self._calibrators = {
            way: NumpyCalibrator(
                weights(f"calibrators.{way}.shrinkage", len(CLASSES)),
                weights(f"calibrators.{way}.scale"),
                weights(f"calibrators.{way}.bias", len(CLASSES)),
            )
            for way in (WAYS if self.masks_rows else WAYS[:1])
        }

    @classmethod
    def load(cls, directory: Path) -> tuple[NumpyNetwork, dict[str, Any]]:
        """The network of a model directory, and its description.

        Raises:
            ModelError: a missing or damaged file, or tensors that do not fit the description.
            SchemaError: a model of another feature schema.
            ConfigError: a language model.
        """
        info = read_description(directory)
        tensors = read_weights(directory, info, load_file)
        try:
            options = {name: value for name, value in info["model"].items() if name in Network.model_fields}
            network = Network(**options)
        except (KeyError, TypeError, AttributeError, ConfigError) as error:
            raise ModelError(
                f"model directory {directory}: {DESCRIPTION} describes no model that can be built: {error}"
            ) from None
        weights = _Weights(tensors)
        built = cls(network, weights)
        check_shapes(directory, weights.expected, {name: value.shape for name, value in tensors.items()})
        return built, info

    def calibrator(self, way: str) -> NumpyCalibrator:
        """The calibrator of a way of asking."""
        return self._calibrators[way if self.masks_rows else POSITIONS]

    def rows(self, letters: NDArray[np.uint8], features: Floats) -> Floats:
        """Log-probabilities before calibration of rows: letters (B, W) and features (B, F) to (B, C)."""
        starts = range(_ROW_BLOCK, len(features), _ROW_BLOCK)
        blocks = zip(np.split(letters, starts), np.split(features, starts), strict=True)
        return np.concatenate([self._rows(*block) for block in blocks])

    def _rows(self, letters: NDArray[np.uint8], features: Floats) -> Floats:
        centre = letters.shape[1] // 2
        near = letters[:, centre - self._radius_bp : centre + self._radius_bp + 1]
        # A product of its own for each row: its last bits depend on where in a larger one it would stand.
        encoder, scores = self._encoder, self._scores(features[:, None])
        if encoder is None:
            joined = self._fusion(scores, scores[..., :0], None)
        elif self._attends:
            found, around = encoder.crops(encoder.detect(near), constants.ATTENTION_REACH_BP)
            joined = self._fusion(scores, encoder.read(found), around)
        else:
            joined = self._fusion(scores, encoder.read(encoder.detect(near)), None)
        delta = self._delta(joined, self._masked((len(features), 1)))[:, 0]
        against_neither = delta - delta[:, NEITHER:]
        return _recalibrated(features[:, : len(CLASSES)], self.calibrator(ROWS).shrinkage * against_neither)

    def positions(
        self, letters: NDArray[np.uint8], features: Floats, tracks: Floats, base: Floats, masked: bool = False
    ) -> Floats:
        """Log-probabilities before calibration of n exon bases of a gene.

        Args:
            letters: uint8 (n + 2 + 2 * reach_bp,), N outside the gene.
            features: float32 (n + 2, F), raw.
            tracks: float32 (n + 2 + 2 * reach_bp, C + E), scores and evidence, 0 outside the gene.
            base: float32 (n, C).
            masked: answer as rows are answered.

        Returns:
            float32 (n, C).
        """
        rows, end = len(base) + 2, len(letters)
        seen = None
        if self._tracks is not None:
            seen = self._masked((rows,)) if masked else self._look(tracks, letters)
        if self.is_fused:
            spare = self.reach_bp - self._radius_bp
            joined = self._joined(self._scores(features), letters[None, spare : end - spare])
        else:
            joined = features[:, :0]
        inside = tracks[self.reach_bp : end - self.reach_bp, : len(CLASSES)].sum(axis=-1, keepdims=True) > 0
        delta = self._delta(joined, seen) * inside
        at_exon_bases = np.stack(
            [
                delta[2:, DONOR] - delta[2:, NEITHER],
                delta[:-2, ACCEPTOR] - delta[:-2, NEITHER],
                np.zeros(len(base), np.float32),
            ],
            axis=-1,
        )
        return _recalibrated(base, self.calibrator(ROWS if masked else POSITIONS).shrinkage * at_exon_bases)

    def calibrated(self, log_probabilities: Floats, way: str) -> Floats:
        """Calibrated probabilities of the log-probabilities (n, C) of a way of asking."""
        return self.calibrator(way)(log_probabilities)

    def base_probabilities(self, scores: Floats) -> Floats:
        """Base scores (n, C) as the network reads them: what it gives while it corrects nothing."""
        return _softmax(_recalibrated(scores, np.zeros_like(scores)))

    def _scores(self, features: Floats) -> Floats:
        if not self._score_layers:
            return features[..., :0]
        compressed = np.where(self._is_ratio, np.sign(features) * np.log1p(np.abs(features)), features)
        clip = constants.FEATURE_CLIP
        x: Floats = np.clip((compressed - self._centre) / self._scale, -clip, clip)
        for layer in self._score_layers:
            x = _gelu(layer(x))
        return x

    def _joined(self, scores: Floats, letters: NDArray[np.uint8]) -> Floats:
        encoder = self._encoder
        if encoder is None:
            return self._fusion(scores, scores[:, :0], None)
        if not isinstance(self._fusion, _CrossAttention):
            return self._fusion(scores, encoder.read_dense(encoder.detect(letters))[0], None)
        found, around = encoder.crops(encoder.detect(letters), constants.ATTENTION_REACH_BP)
        return self._fusion.dense(scores, encoder.read_dense(found)[0], around[0])

    def _masked(self, rows: tuple[int, ...]) -> tuple[Floats, Floats] | None:
        if self._tracks is None:
            return None
        features = self._no_tracks if self.is_fused else np.zeros(0, np.float32)
        return np.broadcast_to(features, (*rows, len(features))), np.zeros((*rows, len(CLASSES)), np.float32)

    def _look(self, tracks: Floats, letters: NDArray[np.uint8]) -> tuple[Floats, Floats]:
        assert self._tracks is not None
        spare, end = self.reach_bp - self._tracks.radius_bp - 1, len(tracks)
        letters_spare = self.reach_bp - self._tracks.letters_bp - 1
        near = letters[letters_spare : end - letters_spare] if self._tracks.letters_bp else None
        features, correction = self._tracks(tracks[spare : end - spare], near)
        rows = np.stack(
            [correction[:-2, DONOR], correction[2:, ACCEPTOR], np.zeros(len(correction) - 2, np.float32)], axis=-1
        )
        return features[1:-1], rows

    def _delta(self, joined: Floats, seen: tuple[Floats, Floats] | None) -> Floats:
        if not self.is_fused:
            return np.zeros((*joined.shape[:-1], len(CLASSES)), np.float32) if seen is None else seen[1]
        if seen is None:
            return self._head(_gelu(self._fuse(joined)))
        return self._head(_gelu(self._fuse(np.concatenate([joined, seen[0]], axis=-1)))) + seen[1]


class _Cnn:
    def __init__(self, options: CnnOptions, weights: _Weights) -> None:
        self.output_dim, self._kernels = options.output_dim, tuple(options.kernel_sizes)
        self._neighbour_radius_bp = max(self._kernels) // 2
        self._radius_bp = self._neighbour_radius_bp + (1 << options.levels) - 1
        filters = options.num_filters
        self._motifs = [
            weights.convolution(f"encoder.motifs.{i}", len("ACGT"), filters, kernel)
            for i, kernel in enumerate(self._kernels)
        ]
        self._mix = weights.linear("encoder.mix", filters * len(self._kernels), self.output_dim, kernel=(1,))
        self._pyramid = []
        for level in range(options.levels):
            weight = weights(f"encoder.pyramid.{level}.weight", self.output_dim, self.output_dim, 3)
            taps = [np.ascontiguousarray(weight[..., tap].T) for tap in range(3)]
            self._pyramid.append((taps, weights(f"encoder.pyramid.{level}.bias", self.output_dim)))

    def radius_with(self, reach_bp: int) -> int:
        return max(self._radius_bp, self._neighbour_radius_bp + reach_bp)

    def detect(self, letters: NDArray[np.uint8]) -> Floats:
        """Letters (B, L) to what the motif detectors find, (B, L - 2 * neighbour_radius_bp, E)."""
        one_hot = (letters[..., None] == np.arange(N_TOKEN, dtype=np.uint8)).astype(np.float32)
        found = [
            convolve(_cropped(one_hot, self._neighbour_radius_bp - kernel // 2))
            for convolve, kernel in zip(self._motifs, self._kernels, strict=True)
        ]
        return _gelu(self._mix(_gelu(np.concatenate(found, axis=-1))))

    def read(self, x: Floats) -> Floats:
        """At the centre of windows: (B, 2^(levels + 1) - 1, E) to (B, 1, E)."""
        for taps, bias in self._pyramid:
            n = (x.shape[1] - 1) // 2
            seen = _total(x[:, tap::2][:, :n] @ weight for tap, weight in enumerate(taps))
            x = x[:, 1::2][:, :n] + _gelu(seen + bias)
        return x

    def read_dense(self, x: Floats) -> Floats:
        """At every base: (B, n + 2^(levels + 1) - 2, E) to (B, n, E)."""
        for level, (taps, bias) in enumerate(self._pyramid):
            step = 2**level
            n = x.shape[1] - 2 * step
            seen = _total(x[:, tap * step : tap * step + n] @ weight for tap, weight in enumerate(taps))
            x = _cropped(x, step) + _gelu(seen + bias)
        return x

    def crops(self, found: Floats, reach_bp: int) -> tuple[Floats, Floats]:
        """What the pyramid reads, and the neighbourhood, of the motifs of `radius_with(reach_bp)` letters."""
        radius = self.radius_with(reach_bp)
        return _cropped(found, radius - self._radius_bp), _cropped(found, radius - self._neighbour_radius_bp - reach_bp)


class _Concat:
    def __init__(self, scores: int, letters: int, _: _Weights) -> None:
        self.output_dim = scores + letters

    def __call__(self, scores: Floats, letters: Floats, around: Floats | None) -> Floats:
        return np.concatenate([scores, letters], axis=-1)


class _Gated(_Concat):
    def __init__(self, scores: int, letters: int, weights: _Weights) -> None:
        self.output_dim = scores
        self._project = weights.linear("fusion.project", letters, scores) if letters else None
        self._gate = weights.linear("fusion.gate", scores + letters, scores)

    def __call__(self, scores: Floats, letters: Floats, around: Floats | None) -> Floats:
        gate: Floats = expit(self._gate(np.concatenate([scores, letters], axis=-1)))
        kept: Floats = gate * scores
        return kept if self._project is None else kept + (1 - gate) * self._project(letters)


class _CrossAttention(_Concat):
    def __init__(self, scores: int, letters: int, weights: _Weights) -> None:
        answer, neighbour = constants.ATTENTION_HEADS * constants.ATTENTION_HEAD_DIM, letters
        self.output_dim = scores + letters + answer
        self._query = weights.linear("fusion.query", scores + letters, answer)
        self._key = weights.linear("fusion.key", neighbour, answer, bias=False)
        self._value = weights.linear("fusion.value", neighbour, answer, bias=False)
        offsets = weights("fusion.offsets", 2 * constants.ATTENTION_REACH_BP + 1, neighbour)
        self._offset_keys, self._offset_values = _heads(self._key(offsets)), _heads(self._value(offsets))

    def __call__(self, scores: Floats, letters: Floats, around: Floats | None) -> Floats:
        assert around is not None
        return self._attend(np.concatenate([scores, letters], axis=-1), self._key(around), self._value(around))

    def dense(self, scores: Floats, letters: Floats, around: Floats) -> Floats:
        keys, values = (
            sliding_window_view(projected, 2 * constants.ATTENTION_REACH_BP + 1, axis=0).transpose(0, 2, 1)
            for projected in (self._key(around), self._value(around))
        )
        return self._attend(np.concatenate([scores, letters], axis=-1), keys, values)

    def _attend(self, asked: Floats, keys: Floats, values: Floats) -> Floats:
        query = self._query(asked).reshape(len(asked), constants.ATTENTION_HEADS, constants.ATTENTION_HEAD_DIM)
        query *= np.float32(constants.ATTENTION_HEAD_DIM**-0.5)
        weights = _softmax(
            np.einsum("bhc,bohc->bho", query, _heads(keys)) + np.einsum("bhc,ohc->bho", query, self._offset_keys)
        )
        answer = np.einsum("bho,bohc->bhc", weights, _heads(values))
        answer = answer + np.einsum("bho,ohc->bhc", weights, self._offset_values)
        return np.concatenate([asked, answer.reshape(*asked.shape[:-1], -1)], axis=-1)


_FUSIONS: dict[str, type[_Concat]] = {"concat": _Concat, "gated": _Gated, "cross_attention": _CrossAttention}


class _Tracks:
    """One gene or a stretch of it: (m, C + E) to features and corrections."""

    def __init__(self, options: StageOptions, weights: _Weights, evidence: int) -> None:
        self.output_dim, self._both_ways = options.channels, options.both_ways
        self._coding = _Coding(weights) if options.letters else None
        signals = 0 if self._coding is None else constants.CODING_CHANNELS
        self._evidence = _Evidence(weights, evidence) if evidence else None
        self._stages = [_Stage(options, signals, number, weights, 2 * evidence) for number in range(options.stages)]
        self.radius_bp = sum(stage.spare for stage in self._stages)
        self.letters_bp = 0 if self._coding is None else self.radius_bp + constants.CODING_REACH_BP

    def __call__(self, tracks: Floats, letters: NDArray[np.uint8] | None) -> tuple[Floats, Floats]:
        """Tracks (n + 2 * radius_bp, C + E) and letters to features (n, T) and corrections (n, 2)."""
        tracks, beside = tracks[:, : len(CLASSES)], tracks[:, len(CLASSES) :]
        logarithm = np.log(np.maximum(tracks, np.float32(constants.TRACK_FLOOR)))
        odds = np.clip(
            logarithm[:, :NEITHER] - logarithm[:, NEITHER:] + constants.LOG_ODDS_SHIFT, 0.0, constants.LOG_ODDS_LIMIT
        )
        inside = tracks.sum(axis=1, keepdims=True) > 0
        signals = np.zeros((len(tracks), 0), np.float32)
        if self._coding is not None:
            assert letters is not None
            signals = self._coding(letters)
        evidence = self._evidence(beside, inside) if self._evidence else np.zeros((len(tracks), 0), np.float32)
        given = (
            np.float32(constants.PROBABILITY_SCALE) * tracks[:, :NEITHER],
            np.float32(constants.LOG_ODDS_SCALE) * odds * inside,
            signals,
        )
        features, correction = self._read(given, evidence)
        if not self._both_ways:
            return features, correction
        back, turned = self._read((_mirrored(values) for values in given), evidence[::-1])
        half = np.float32(0.5)
        return half * (features + back[::-1]), half * (correction + _mirrored(turned))

    def _read(self, given: Iterable[Floats], evidence: Floats) -> tuple[Floats, Floats]:
        probabilities, odds, signals = given
        correction: Floats | None = None
        exon: Floats | None = None
        for stage in self._stages:
            features, change, exon = stage(probabilities, odds, signals, evidence, exon)
            spare = stage.spare
            correction = change if correction is None else correction[spare : len(correction) - spare] + change
            inner = slice(spare, len(odds) - spare)
            probabilities, signals, evidence = probabilities[inner], signals[inner], evidence[inner]
            odds = odds[inner] + np.float32(constants.LOG_ODDS_SCALE) * change
        assert correction is not None
        return features, correction


class _Stage:
    def __init__(self, options: StageOptions, signals: int, number: int, weights: _Weights, evidence: int) -> None:
        name, channels, near = f"tracks.stages.{number}", options.channels, (4 if number == 0 else 5) + evidence
        self._distances = tuple(options.distances)
        self.spare = max(self._distances[-1] - 1, constants.TRACK_WIDTH_BP // 2)
        self._local = weights.convolution(f"{name}.local", near, options.local_channels, constants.TRACK_WIDTH_BP)
        read = options.local_channels + 4 + 4 * (len(self._distances) - 1) + signals + evidence
        self._mix = [
            weights.linear(f"{name}.mix.0", read, channels, kernel=(1,)),
            weights.linear(f"{name}.mix.3", channels, channels, kernel=(1,)),
        ]
        self._out = weights.linear(f"{name}.out", channels, 3, kernel=(1,))

    def __call__(
        self, probabilities: Floats, odds: Floats, signals: Floats, evidence: Floats, exon: Floats | None
    ) -> tuple[Floats, Floats, Floats]:
        """As `TrackStage`, of one stretch: (n + 2 * spare, ...) to (n, ...)."""
        near = np.concatenate([probabilities, odds, evidence, *([] if exon is None else [exon])], axis=-1)
        x = np.maximum(self._local(_cropped(near[None], self.spare - constants.TRACK_WIDTH_BP // 2))[0], 0)
        far = self._maxima(odds) - np.float32(constants.LOG_ODDS_CENTRE)
        here = [values[self.spare : len(values) - self.spare] for values in (probabilities, odds, signals, evidence)]
        x = np.concatenate([x, far, *here], axis=-1)
        for layer in self._mix:
            x = np.maximum(layer(x), 0)
        out = self._out(x)
        return x, out[:, :NEITHER], out[:, NEITHER:]

    def _maxima(self, values: Floats) -> Floats:
        """The highest value at each range of distances upstream and downstream, see `maxima` of torch."""
        n = len(values) - 2 * self.spare
        doubled = [values]
        while 2 ** len(doubled) <= max(high - low for low, high in pairwise(self._distances)):
            last, step = doubled[-1], 2 ** (len(doubled) - 1)
            doubled.append(np.maximum(last[:-step], last[step:]))
        found = []
        for low, high in pairwise(self._distances):
            level = (high - low).bit_length() - 1
            covered = doubled[level]
            for first in (self.spare - high + 1, self.spare + low):
                second = first + (high - low) - 2**level
                found.append(np.maximum(covered[first : first + n], covered[second : second + n]))
        return np.concatenate(found, axis=-1)


class _Evidence:
    def __init__(self, weights: _Weights, count: int) -> None:
        self._centre, self._scale = (weights(f"tracks.evidence.{name}", count) for name in ("centre", "scale"))

    def __call__(self, evidence: Floats, inside: NDArray[np.bool_]) -> Floats:
        """Evidence (m, E), NaN where missing, to numbers and masks (m, 2 E); `inside` the gene (m, 1)."""
        known = ~np.isnan(evidence) & inside
        values = np.nan_to_num(evidence)
        scaled = (np.sign(values) * np.log1p(np.abs(values)) - self._centre) / self._scale
        clip = np.float32(constants.FEATURE_CLIP)
        return np.concatenate([np.clip(scaled, -clip, clip) * known, known], axis=1, dtype=np.float32)


class _Coding:
    def __init__(self, weights: _Weights) -> None:
        self._hexamers = weights("tracks.coding.hexamers", 4**constants.HEXAMER)

    def __call__(self, letters: NDArray[np.uint8]) -> Floats:
        """Letters (n + 2 * reach,) to signals (n, 6): pairs of upstream and downstream."""
        reach, hexamer = constants.CODING_REACH_BP, constants.HEXAMER
        n, count = len(letters) - 2 * reach, len(letters) - hexamer + 1
        number, known = np.zeros(count, np.int64), np.ones(count, bool)
        for i in range(hexamer):
            one = letters[i : i + count]
            number = 4 * number + np.minimum(one, 3)
            known &= one != N_TOKEN
        total = np.concatenate([[0.0], np.cumsum(self._hexamers[number] * known, dtype=np.float64)])
        signals = []
        for window in constants.CODING_WINDOWS:
            means = constants.CODING_SCALE * (total[window:] - total[:-window]) / window
            upstream = reach - hexamer + 1 - window + 1
            signals += [means[upstream : upstream + n], means[reach : reach + n]]
        signals += [np.log1p(bases) / 2 - 2 for bases in _open(letters, reach, n)]
        return np.stack(signals, axis=-1).astype(np.float32)


def _open(letters: NDArray[np.uint8], reach: int, n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Bases without a stop codon in the best frame, up to each base and from it on, (n,) each."""
    codons = len(letters) - 2
    stop = np.zeros(codons, bool)
    for codon in constants.STOP_CODONS:
        stop |= np.all([letters[i : i + codons] == letter for i, letter in enumerate(codon)], axis=0)
    places, far = np.arange(codons), 2 * codons
    here = (places % 3 == np.arange(3)[:, None]) & stop
    before = np.maximum.accumulate(np.where(here, places, -far), axis=1).min(axis=0)
    after = np.minimum.accumulate(np.where(here, places, far)[:, ::-1], axis=1)[:, ::-1].max(axis=0)
    base = np.arange(reach, reach + n)
    upstream = base - 2 - before[reach - 2 : reach - 2 + n]
    downstream = after[reach : reach + n] - base
    return np.clip(upstream, 0, constants.OPEN_BP), np.clip(downstream, 0, constants.OPEN_BP)


def _total(products: Iterator[Floats]) -> Floats:
    total = next(products)
    for product in products:
        total += product
    return total


def _softmax(x: Floats) -> Floats:
    found: Floats = softmax(x, axis=-1)
    return found


def _gelu(x: Floats) -> Floats:
    """`x` times the normal distribution's share below it: max(x, 0) - |x| erfc(|x| / sqrt(2)) / 2.

    erfc is formula 7.1.26 of Abramowitz and Stegun, "Handbook of Mathematical Functions" (1964), here as exact as
    float32 is: scipy's took two thirds of a row's time.
    """
    size = np.abs(x)
    t = 1 / (size * np.float32(0.3275911 * 2**-0.5) + np.float32(1))
    tail = t * np.float32(1.061405429)
    for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        tail += np.float32(coefficient)
        tail *= t
    np.multiply(x, x, out=t)
    t *= np.float32(-0.5)
    tail *= np.exp(t, out=t)
    size *= np.float32(0.5)
    tail *= size
    kept: Floats = np.maximum(x, 0)
    kept -= tail
    return kept


def _recalibrated(base: Floats, correction: Floats) -> Floats:
    floored = np.maximum(base, np.float32(PROBABILITY_FLOOR))
    found: Floats = log_softmax(np.log(floored) + correction, axis=-1)
    return found


def _cropped(values: Floats, spare: int) -> Floats:
    """(B, m, ...) without `spare` positions on either side."""
    return values[:, spare : values.shape[1] - spare]


def _heads(channels: Floats) -> Floats:
    """(..., A) to (..., heads, head_dim)."""
    return channels.reshape(*channels.shape[:-1], constants.ATTENTION_HEADS, constants.ATTENTION_HEAD_DIM)


def _mirrored(values: Floats) -> Floats:
    """Pairs of channels (n, 2 k) read backwards: see `mirrored` of torch."""
    n, channels = values.shape
    return values.reshape(n, channels // 2, 2)[::-1, :, ::-1].reshape(n, channels)
