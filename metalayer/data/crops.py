"""Whole genes as crops: every position labelled, at the prevalence of genes.

Genes lie one after the other in flat arrays (in memory, or mapped from disk), 15 bytes a position, 19 with the
weights of variants. An epoch takes every crop that has a site or a hard negative, and a share of the others, each of
which then stands for as many positions as were left out: the expected loss is that of whole genes. A position that a
variant touches counts that often times its own weight; which crops are taken does not depend on variants. A model that
reads the tracks may see augmented copies of the genes each epoch (`augment.py`).
Axes: B crops, n positions, C classes, F features.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metalayer.data.augment import Arrangement, introns, join_anew, shaken
from metalayer.data.states import GeneStates
from metalayer.data.stretches import stretch_inputs
from metalayer.data.tracks import TrackStore
from metalayer.data.variant_weights import VariantWeights
from metalayer.errors import ConfigError, TrainingError
from metalayer.features import FEATURE_REACH_BP, gene_feature_matrix, gene_row_scores
from metalayer.schema import ACCEPTOR, CLASSES, DONOR, NEITHER

UNKNOWN = 255
"""Whether such a position is of an exon is not known."""
HARD_SCORE = 0.1
"""A position that is no site is a hard negative if the base says donor or acceptor with this or more."""
_FEATURE_SAMPLE = 200_000
"""Positions from which a model's normalisation is fitted, beside the sites and hard negatives."""
_STRETCH = 1 << 20


@dataclass(frozen=True)
class CropBatch:
    """B crops of n exon bases, and the n + 2 row positions from which their corrections come.

    Attributes:
        tokens: uint8 (B, n + 2 + 2 * reach), N outside the gene; or states of a frozen language model, float16
            (B, n + 2, D).
        tracks: float32 (B, n + 2 + 2 * reach, C + E), base scores and evidence (NaN where missing), 0 outside the
            gene.
        features: float32 (B, n + 2, F), raw; (B, n + 2, 0) where the model reads none.
        base: float32 (B, n, C), base scores of the exon bases.
        labels: int64 (B, n).
        weights: float32 (B, n), positions that each stands for, times its own weight; 0 beyond the end of the gene.
        exons: uint8 (B, n), 1 in an exon, 0 in an intron, `UNKNOWN` where the sites do not say.
    """

    tokens: Tensor
    tracks: Tensor
    features: Tensor
    base: Tensor
    labels: Tensor
    weights: Tensor
    exons: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> CropBatch:
        """The same batch on `device`."""
        return CropBatch(*(getattr(self, name).to(device, non_blocking=True) for name in self.__dataclass_fields__))

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What the model is called with."""
        return self.tokens, self.features, self.tracks, self.base


@dataclass(frozen=True)
class GeneArrays:
    """Genes one after the other, transcript sense.

    Attributes:
        gene_ids: the genes.
        starts: int64 (G + 1,), where each begins; the last is the number of positions N.
        tokens: uint8 (N,).
        scores: float32 (N, C), base scores at exon bases.
        labels: uint8 (N,), classes of exon bases.
        exons: uint8 (N,), of `exon_states`.
        weights: float32 (N,), each position's own, from variants, and 0 where it is ignored; None:
            all weigh 1.
        evidence: float32 (N, E), NaN where missing; None: there is none.
    """

    gene_ids: tuple[str, ...]
    starts: NDArray[np.int64]
    tokens: NDArray[np.uint8]
    scores: NDArray[np.float32]
    labels: NDArray[np.uint8]
    exons: NDArray[np.uint8]
    weights: NDArray[np.float32] | None = None
    evidence: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return int(self.starts[-1])

    @classmethod
    def read(
        cls,
        store: TrackStore,
        gene_ids: Sequence[str],
        folder: Path | None = None,
        variants: VariantWeights | None = None,
        evidence: Sequence[str] = (),
    ) -> GeneArrays:
        """Genes of a store.

        Args:
            store: per-nucleotide scores with letters.
            gene_ids: which genes; those that the store lacks are left out.
            folder: gets the arrays, which are then mapped and not held; None holds them in memory.
            variants: what they weigh; None weighs all positions alike.
            evidence: names of that which is read, in the order of the model.

        Raises:
            InputError: evidence that the store lacks.
        """
        places = store.genes()
        there = [gene_id for gene_id in gene_ids if gene_id in store]
        starts = np.concatenate([[0], np.cumsum([len(places[gene_id]) for gene_id in there], dtype=np.int64)])
        byte = (np.uint8, ())
        shapes = {"tokens": byte, "scores": (np.float32, (len(CLASSES),)), "labels": byte, "exons": byte}
        weighed = None if variants is None else variants.positions(there)
        if weighed is not None or any(map(store.ignores, there)):
            shapes["weights"] = (np.float32, ())
        if evidence:
            shapes["evidence"] = (np.float32, (len(evidence),))
        arrays: dict[str, NDArray[np.generic]] = {}
        for name, (kind, axes) in shapes.items():
            shape = (int(starts[-1]), *axes)
            if folder is None:
                arrays[name] = np.empty(shape, kind)
            else:
                arrays[name] = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", kind, shape)
        for start, end, track in zip(starts[:-1], starts[1:], store.read_many(there), strict=True):
            for name in ("tokens", "scores", "labels"):
                arrays[name][start:end] = getattr(track, name)
            arrays["exons"][start:end] = exon_states(track.labels)
            if evidence:
                arrays["evidence"][start:end] = track.evidence_of(evidence)
            if "weights" in arrays:
                arrays["weights"][start:end] = 1.0
                at, weights = (weighed or {}).get(track.gene.gene_id, ([], []))
                arrays["weights"][start:end][at] = weights
                arrays["weights"][start:end][track.ignored] = 0.0
        return cls(tuple(there), starts, **arrays)  # type: ignore[arg-type]

    def sites(self) -> NDArray[np.int64]:
        """Positions that are a donor or an acceptor, ascending."""
        return self._where(lambda at: self.labels[at] != NEITHER)

    def hard_positions(self) -> NDArray[np.int64]:
        """Sites and hard negatives, ascending."""
        return self._where(
            lambda at: (self.labels[at] != NEITHER) | (self.scores[at, :NEITHER].max(axis=1) >= HARD_SCORE)
        )

    def _where(self, chosen: Callable[[slice], NDArray[np.bool_]]) -> NDArray[np.int64]:
        """Positions that are chosen, a stretch at a time."""
        found = [np.empty(0, np.int64)]
        for start in range(0, len(self), _STRETCH):
            found.append(start + np.flatnonzero(chosen(slice(start, start + _STRETCH))))
        return np.concatenate(found)


@dataclass(frozen=True)
class _Crops:
    """Where the crops of an arrangement of genes are: their own ends, those of their genes, and which are hard."""

    arrangement: Arrangement
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    gene: NDArray[np.int64]
    hard: NDArray[np.int64]
    easy: NDArray[np.int64]

    @classmethod
    def cut(cls, arrangement: Arrangement, hard: NDArray[np.int64], crop_bp: int, offset: int = 0) -> _Crops:
        """Crops of `crop_bp` positions, each gene's first one of `offset` where that is not 0, its last what is left.

        Args:
            arrangement: of the genes.
            hard: positions in the arrangement, ascending.
            crop_bp: positions a crop.
            offset: from 0 to crop_bp - 1.
        """
        starts = [
            np.concatenate([[start] if offset else [], np.arange(start + offset, end, crop_bp)]).astype(np.int64)
            for start, end in pairwise(arrangement.gene_starts.tolist())
        ]
        start = np.concatenate(starts)
        gene = np.repeat(np.arange(len(starts)), [len(one) for one in starts])
        end = np.append(start[1:], arrangement.gene_starts[-1])
        is_hard = np.searchsorted(hard, start) < np.searchsorted(hard, end)
        return cls(arrangement, start, end, gene, np.flatnonzero(is_hard), np.flatnonzero(~is_hard))


class CropLoader:
    """Batches of crops: all hard ones and a share of the others each epoch, or every crop in order.

    What an epoch takes is a function of seed and epoch and nothing else. In several processes each takes
    its share of every batch.

    Attributes:
        genes: where the crops are.
        reach_bp: letters and scores on either side of a row position that the model reads.
        augmented: whether augmented copies of the genes come each epoch.
    """

    def __init__(
        self,
        genes: GeneArrays,
        reach_bp: int,
        *,
        crop_bp: int = 2048,
        batch_crops: int = 4,
        easy_share: float = 1.0,
        shuffle: bool = False,
        seed: int = 42,
        with_features: bool = True,
        augmented: bool = False,
    ) -> None:
        """Cut genes into crops.

        Args:
            genes: of one part of a split.
            reach_bp: of the model.
            crop_bp: positions a crop; a gene's last crop may hold fewer.
            batch_crops: crops a batch, over all processes.
            easy_share: share of the crops without site or hard negative that an epoch takes.
            shuffle: draw crops and their order again each epoch.
            seed: draws them.
            with_features: compute the score features; a model without score encoder reads none.
            augmented: show augmented copies of the genes each epoch.

        Raises:
            TrainingError: no position, or neither donor nor acceptor.
            ConfigError: an impossible size.
        """
        if crop_bp < 1 or batch_crops < 1:
            raise ConfigError(f"crop_bp {crop_bp}, batch_crops {batch_crops}: each at least 1")
        if augmented and (with_features or not shuffle):
            raise ConfigError(
                f"augment_tracks: with_features {with_features}, shuffle {shuffle}; it is for training, without the "
                "score features, which are of the scores as they are: leave it off, or score_encoder false"
            )
        self.weights = np.broadcast_to(np.float32(1.0), len(genes)) if genes.weights is None else genes.weights
        """Of all positions, float32 (N,), beside what they stand for in an epoch."""
        sites = genes.sites()
        weight = float(self.weights[sites].sum(dtype=np.float64))
        if not weight > 0:
            raise TrainingError(
                f"{len(genes.gene_ids)} genes with per-nucleotide scores and letters have no site among them; check "
                "labels and split"
            )
        self.genes, self.reach_bp, self.with_features = genes, reach_bp, with_features
        self.crop_bp, self.batch_crops, self.seed, self.shuffle = crop_bp, batch_crops, seed, shuffle
        self.rank, self.world_size, self.epoch, self.augmented = 0, 1, 0, augmented
        self._states: GeneStates | None = None
        self._hard_positions = genes.hard_positions()
        in_order = Arrangement.of([[one] for one in pairwise(genes.starts.tolist())])
        self._in_order = _Crops.cut(in_order, self._hard_positions, crop_bp)
        self._introns = introns(genes.starts, genes.exons) if augmented else None
        easy = self._in_order.easy
        share = easy_share if shuffle else 1.0
        drawn = min(len(easy), max(1, round(share * len(easy))))
        taken = np.concatenate([self._in_order.hard, easy[:drawn]])
        self._taken = len(taken)
        self.loss_scale = float((self._in_order.end - self._in_order.start)[taken].sum()) / weight
        """Positions of an epoch a weighed site: losses are scaled to about one a site, whatever prevalence and
        weights."""

    def __len__(self) -> int:
        """Batches an epoch, at most."""
        return math.ceil(self._taken / self.batch_crops)

    def set_epoch(self, epoch: int) -> None:
        """The next pass is that of this epoch."""
        self.epoch = epoch

    def share(self, rank: int, world_size: int) -> None:
        """Give this process its share of every batch from now on."""
        self.rank, self.world_size = rank, world_size

    def use_states(self, states: GeneStates | None) -> None:
        """Give states of a frozen language model in place of letters from now on; or letters.

        Raises:
            ConfigError: states of augmented genes, which they are not of.
        """
        if self.augmented and states is not None:
            raise ConfigError("augment_tracks: a frozen language model read the genes as they are; leave it off")
        self._states = states

    def balance(self, on: bool = True) -> None:
        """Crops hold all positions of a stretch: there is nothing to balance.

        Raises:
            ConfigError: asked to.
        """
        if on:
            raise ConfigError(
                "balance_classes: crops of whole genes hold every position; leave it off, or train on rows"
            )

    @property
    def identity(self) -> bytes:
        """Of which positions these are: a hash of genes, letters, labels, what variants make them weigh, evidence."""
        total = hashlib.sha256(repr(self.genes.gene_ids).encode())
        for array in (self.genes.tokens, self.genes.labels, self.genes.weights, self.genes.evidence):
            total.update(b"" if array is None else array.data)
        return total.digest()

    @property
    def labels(self) -> NDArray[np.uint8]:
        """Classes of all positions, in the order of an epoch without shuffling."""
        return self.genes.labels

    @property
    def features(self) -> NDArray[np.float32]:
        """Raw features of a sample of row positions, float32 (m, F), for fitting a normalisation."""
        rng = np.random.default_rng([self.seed, 0])
        chosen = []
        share = min(1.0, _FEATURE_SAMPLE / len(self.genes))
        for start, end in pairwise(self.genes.starts.tolist()):
            at = slice(int(start), int(end))
            found = gene_feature_matrix(gene_row_scores(self.genes.scores[at]), self.genes.tokens[at])
            taken = rng.random(len(found)) < share
            taken[self._hard_positions[slice(*np.searchsorted(self._hard_positions, [start, end]))] - start] = True
            chosen.append(found[taken])
        return np.concatenate(chosen)

    def __iter__(self) -> Iterator[CropBatch]:
        rng = np.random.default_rng([self.seed, self.epoch])
        epoch, crops = self.epoch, self._in_order
        self.epoch += 1
        if self._introns is not None:
            arrangement = join_anew(self.genes.starts, self._introns, rng)
            offset = int(rng.integers(self.crop_bp))
            crops = _Crops.cut(arrangement, arrangement.moved(self._hard_positions), self.crop_bp, offset)
        order = np.arange(len(crops.start))
        stands_for = np.ones(len(order), dtype=np.float32)
        if self.shuffle:
            # Cut otherwise, genes may have more or fewer crops with sites or high scores: the epoch is as long.
            hard = rng.permutation(crops.hard)[: self._taken]
            easy = rng.choice(crops.easy, min(self._taken - len(hard), len(crops.easy)), replace=False)
            for drawn, all_of_them in ((hard, crops.hard), (easy, crops.easy)):
                stands_for[drawn] = len(all_of_them) / max(1, len(drawn))
            order = rng.permutation(np.concatenate([hard, easy]))
        for first in range(0, len(order), self.batch_crops):
            mine = slice(first + self.rank, first + self.batch_crops, self.world_size)
            numbers = range(len(order))[mine] if self.augmented else ()
            draws = [np.random.default_rng([self.seed, epoch, number]) for number in numbers]
            yield self._batch(crops, order[mine], stands_for[order[mine]], draws)

    def _batch(
        self,
        crops: _Crops,
        chosen: NDArray[np.int64],
        stands_for: NDArray[np.float32],
        draws: Sequence[np.random.Generator],
    ) -> CropBatch:
        if not len(chosen):  # this process's share of a short last batch
            one = self._batch(crops, np.zeros(1, dtype=np.int64), np.ones(1, dtype=np.float32), [])
            return CropBatch(*(getattr(one, name)[:0] for name in one.__dataclass_fields__))
        n, reach = self.crop_bp, self.reach_bp
        spare = reach + 1 + (FEATURE_REACH_BP if self.with_features else 0)
        labels = np.full((len(chosen), n), NEITHER, dtype=np.int64)
        weights = np.zeros((len(chosen), n), dtype=np.float32)
        exons = np.full((len(chosen), n), UNKNOWN, dtype=np.uint8)
        parts: list[tuple[NDArray[Any], ...]] = []
        for i, crop in enumerate(chosen):
            gene, start, end = int(crops.gene[crop]), int(crops.start[crop]), int(crops.end[crop])
            gene_start, gene_end = crops.arrangement.gene_starts[gene : gene + 2].tolist()
            low, high = max(gene_start, start - spare), min(gene_end, start + n + spare)
            tokens = crops.arrangement.take(self.genes.tokens, low, high)
            scores = crops.arrangement.take(self.genes.scores, low, high)
            known = self.genes.evidence
            evidence = None if known is None else crops.arrangement.take(known, low, high)
            inputs: tuple[NDArray[Any], ...] = stretch_inputs(
                tokens, scores, start - low, start - low + n, reach, self.with_features, evidence
            )
            if self._states is not None:
                inputs = (self._states.stretch(gene, start - gene_start, n + 2), *inputs[1:])
            parts.append(inputs)
            labels[i, : end - start] = crops.arrangement.take(self.genes.labels, start, end)
            weights[i, : end - start] = stands_for[i] * crops.arrangement.take(self.weights, start, end)
            exons[i, : end - start] = crops.arrangement.take(self.genes.exons, start, end)
            if draws:
                tracks, base = parts[-1][1][:, : len(CLASSES)], parts[-1][3]
                tracks[:] = shaken(tracks, draws[i])
                inner = tracks[reach + 1 :][:n]
                np.copyto(base, inner, where=inner.any(axis=-1, keepdims=True))
        arrays = [np.stack(part) for part in zip(*parts, strict=True)]
        return CropBatch(*(torch.from_numpy(array) for array in (*arrays, labels, weights, exons)))


def exon_states(labels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Whether each position of a gene lies in an exon, from its sites alone.

    Exons run from an acceptor (or the gene's start) to the next donor (or its end), introns from a donor to the
    next acceptor. Between two sites of one type, as in alternative transcripts, it is not known.

    Args:
        labels: uint8 (L,), classes of exon bases, transcript sense.

    Returns:
        uint8 (L,): 1 exon, 0 intron, `UNKNOWN`.
    """
    states = np.full(len(labels), UNKNOWN, dtype=np.uint8)
    sites = np.flatnonzero(labels != NEITHER).tolist()
    if not sites:
        return states
    before, start = ACCEPTOR, 0  # a gene begins with an exon
    for site in sites:
        if labels[site] == DONOR and before == ACCEPTOR:
            states[start : site + 1] = 1
        elif labels[site] == ACCEPTOR and before == DONOR:
            states[start:site] = 0
        before, start = int(labels[site]), site + 1 if labels[site] == DONOR else site
    if before == ACCEPTOR:
        states[start:] = 1
    return states
