"""Frozen means once: the states of a frozen language model are computed before the first epoch, which reads them.

Rows are read at one offset each: that of a training row is drawn from the seed and its letters, once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metalayer.data.crops import CropLoader
from metalayer.data.dataset import RowLoader
from metalayer.data.states import GeneStates, MappedStates, StateStore, state_key
from metalayer.environment import state_dir
from metalayer.genome import N_TOKEN
from metalayer.models.encoders import SequenceEncoder
from metalayer.models.language import LanguageEncoder
from metalayer.provenance import code_hash
from metalayer.training.distributed import World

logger = logging.getLogger(__name__)

_PART_BYTES = 256 << 20
_PART_SECONDS = 30.0
"""A part is written when it holds so much or took so long: what a kill costs."""
_AT_ONCE = 64
"""Sequences that are computed together."""
_TOLD_SECONDS = 10.0

Compute = Callable[[Sequence[int]], Tensor]
"""Numbers of sequences to their states, float32 (n, *shape)."""


def read_frozen(
    encoder: SequenceEncoder, loaders: Sequence[RowLoader | CropLoader], seed: int, cache: Path | None, world: World
) -> None:
    """Let loaders give the states of a frozen language model in place of letters; of other encoders, letters.

    Args:
        encoder: on the device that computes what is not there yet.
        loaders: the first draws the offsets of its rows.
        seed: draws them.
        cache: folder of all stores; None: `embeddings` in the state directory.
        world: each process computes its share.

    Raises:
        ConfigError: the disk does not hold the states.
        TrainingError: states that are no numbers.
    """
    if not (isinstance(encoder, LanguageEncoder) and encoder.frozen):
        for loader in loaders:
            loader.use_states(None)
        return
    folder = (cache or state_dir() / "embeddings") / state_key(encoder.identity.encode(), code_hash().encode()).hex()
    for number, loader in enumerate(loaders):
        if isinstance(loader, RowLoader):
            loader.use_states(_row_states(encoder, loader, folder / "rows", None if number else seed, world))
        else:
            loader.use_states(_gene_states(encoder, loader, folder / "chunks", world))


def _row_states(
    encoder: LanguageEncoder, loader: RowLoader, folder: Path, seed: int | None, world: World
) -> MappedStates:
    windows, rows = loader.table.windows, loader.rows
    centre, radius = windows.shape[1] // 2, encoder.radius_bp
    offsets = np.full(len(rows), encoder.chunk_bp // 2, dtype=np.int64)
    keys = []
    for i, row in enumerate(rows.tolist()):
        seen = windows[row, centre - radius : centre + radius + 1]
        if seed is not None:
            drawn = int.from_bytes(state_key(str(seed).encode(), seen.tobytes())[:8], "little")
            offsets[i] = encoder.margin_bp + drawn % encoder.stride_bp
        first = radius - offsets[i]
        keys.append(state_key(seen[first : first + encoder.chunk_bp].tobytes(), str(offsets[i]).encode()))

    def compute(at: Sequence[int]) -> Tensor:
        seen = windows[rows[at], centre - radius : centre + radius + 1]
        return encoder.states_at(*_on_device(encoder, np.ascontiguousarray(seen), offsets[at]))

    return _computed(StateStore(folder, (encoder.states_dim,)), keys, compute, world)


def _gene_states(encoder: LanguageEncoder, loader: CropLoader, folder: Path, world: World) -> GeneStates:
    genes, stride = loader.genes, encoder.stride_bp
    counts = -(-(np.diff(genes.starts) + 2) // stride)  # with a row position on either side of a gene
    first_chunk = np.concatenate([[0], np.cumsum(counts)])
    gene_of = np.repeat(np.arange(len(counts)), counts)

    def chunk(i: int) -> NDArray[np.uint8]:
        """Letters of chunk i: that of row positions from -1 + k * stride in its gene, N outside the gene."""
        gene = gene_of[i]
        start = (i - first_chunk[gene]) * stride - encoder.margin_bp - 1
        letters = genes.tokens[genes.starts[gene] : genes.starts[gene + 1]]
        out = np.full(encoder.chunk_bp, N_TOKEN, dtype=np.uint8)
        low, high = max(0, start), min(len(letters), start + encoder.chunk_bp)
        out[low - start : max(low, high) - start] = letters[low:high]
        return out

    keys = [state_key(chunk(i).tobytes()) for i in range(len(gene_of))]

    def compute(at: Sequence[int]) -> Tensor:
        return encoder.inner_states(*_on_device(encoder, np.stack([chunk(i) for i in at])))

    store = StateStore(folder, (stride, encoder.states_dim))
    return GeneStates(_computed(store, keys, compute, world), first_chunk, stride, encoder.states_dim)


def _on_device(encoder: LanguageEncoder, *arrays: NDArray[np.generic]) -> list[Tensor]:
    return [torch.from_numpy(array).to(encoder.project.weight.device) for array in arrays]


@torch.inference_mode()
def _computed(store: StateStore, keys: Sequence[bytes], compute: Compute, world: World) -> MappedStates:
    """All items, those that are missing computed and written, part after part."""
    everyones = store.missing(keys)
    world.wait()  # or what another process has written already would shift the shares
    missing = everyones[world.rank :: world.size]
    if missing:
        logger.info("%s of %s sequences to embed, once, into %s", f"{len(missing):,}", f"{len(keys):,}", store.folder)
    begun = written = told = time.monotonic()
    part: list[Tensor] = []
    done = 0
    for start in range(0, len(missing), _AT_ONCE):
        part.append(compute(missing[start : start + _AT_ONCE]).float().cpu())
        end, now = min(start + _AT_ONCE, len(missing)), time.monotonic()
        full = (end - done) * store.item_bytes >= _PART_BYTES or now - written >= _PART_SECONDS
        if full or end == len(missing):
            store.add([keys[i] for i in missing[done:end]], torch.cat(part).numpy())
            part, done, written = [], end, now
        if now - told >= _TOLD_SECONDS or end == len(missing):
            logger.info("embedded %s of %s, %.0f/s", f"{end:,}", f"{len(missing):,}", end / max(now - begun, 1e-9))
            told = now
    world.wait()
    store.refresh()
    return store.read(keys)
