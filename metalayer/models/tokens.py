"""Nucleotides and a checkpoint's tokens, aligned: which token covers each letter.

Three kinds of vocabulary are told apart by what the tokenizer does with letters: single letters, which become a lookup
table; overlapping k-mers that are given as words, as DNABERT has them; and pieces that the tokenizer cuts a text into
(k-mers side by side, BPE). Axes: B batch, C letters, T tokens.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metalayer.errors import ModelError
from metalayer.genome import LETTERS, decode

_PROBE = "ACGTTGCATCGAGCTAACCGGTTAGACTGATCCATGGCAA"
"""Letters to try a tokenizer with."""
_MAX_K = 12


class NucleotideTokens:
    """Letters to tokens with a tokenizer of transformers.

    Attributes:
        k: letters of a word, each word one letter further; 0 where the tokenizer cuts the text itself.
        table: token of A, C, G, T, N, int64 (5,), of a vocabulary of single letters; else None.
    """

    def __init__(self, tokenizer: Any) -> None:
        """Find out what kind of vocabulary it is.

        Raises:
            ModelError: one that covers no DNA letters.
        """
        self._tokenizer = tokenizer
        self.pad = tokenizer.pad_token_id or 0
        self.k = 0
        ids, lengths = self._cut(_PROBE)
        if not self._covers(ids, lengths):
            self.k = next((k for k in range(1, _MAX_K + 1) if self._covers(*self._words(_PROBE, k))), 0)
            if not self.k:
                raise ModelError(
                    f"the tokenizer {type(tokenizer).__name__} covers no DNA letters: neither single ones, nor k-mers "
                    f"up to {_MAX_K}, nor pieces of a text; {_PROBE[:12]!r} becomes {tokenizer.tokenize(_PROBE[:12])}"
                )
        self.table: Tensor | None = None
        if self.k == 1 or (not self.k and set(lengths) == {1}):
            self.table = torch.tensor([self._row(letter)[0][0] for letter in LETTERS])
        text = self._spaced(_PROBE, self.k) if self.k else _PROBE
        plain, whole = (tokenizer(text, add_special_tokens=added)["input_ids"] for added in (False, True))
        start = next(i for i in range(len(whole)) if whole[i : i + len(plain)] == plain)
        self._before, self._after = whole[:start], whole[start + len(plain) :]

    @property
    def special(self) -> int:
        """Tokens around those of the letters."""
        return len(self._before) + len(self._after)

    def __call__(self, chunks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens of chunks.

        Args:
            chunks: letters uint8 (B, C), all of one length.

        Returns:
            Token ids int64 (B, T), whether each is one and no padding int64 (B, T), and the index of the token that
            covers each letter, int64 (B, C); all on the device of `chunks`. Of overlapping k-mers that is the one in
            whose middle the letter is, or is nearest to.
        """
        n, device = chunks.shape[1], chunks.device
        if self.table is not None:
            inner = self.table.to(device)[chunks.long()]
            ids = torch.cat([_row(self._before, inner), inner, _row(self._after, inner)], dim=1)
            at = len(self._before) + torch.arange(n, device=device)
            return ids, torch.ones_like(ids), at.expand(len(chunks), n)
        rows, indices = [], []
        for letters in chunks.cpu().numpy():
            tokens, at_letters = self._row(decode(letters))
            rows.append([*self._before, *tokens, *self._after])
            indices.append(at_letters + len(self._before))
        width = max(map(len, rows))
        ids = torch.tensor([row + [self.pad] * (width - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        return ids.to(device), mask.to(device), torch.from_numpy(np.stack(indices)).to(device)

    def _row(self, text: str) -> tuple[list[int], NDArray[np.int64]]:
        if self.k:
            ids, _ = self._words(text, self.k)
            middle = np.arange(len(text)) - (self.k - 1) // 2
            return ids, middle.clip(0, len(ids) - 1)
        ids, lengths = self._cut(text)
        if sum(lengths) != len(text):
            raise ModelError(
                f"the tokenizer {type(self._tokenizer).__name__} covers {sum(lengths)} of {len(text)} letters of "
                f"{text[:40]!r}...; it cannot be aligned"
            )
        return ids, np.repeat(np.arange(len(ids)), lengths)

    def _cut(self, text: str) -> tuple[list[int], list[int]]:
        """Tokens of a text as the tokenizer cuts it, and how many letters each covers."""
        if self._tokenizer.is_fast:
            found = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
            return found["input_ids"], [end - start for start, end in found["offset_mapping"]]
        tokens = self._tokenizer.tokenize(text)
        return self._tokenizer.convert_tokens_to_ids(tokens), [len(token) for token in tokens]

    def _words(self, text: str, k: int) -> tuple[list[int], list[int]]:
        """Tokens of the overlapping k-mers of a text, each of which steps on by one letter."""
        ids = self._tokenizer(self._spaced(text, k), add_special_tokens=False)["input_ids"]
        return ids, [*[1] * (len(ids) - 1), k]

    @staticmethod
    def _spaced(text: str, k: int) -> str:
        return " ".join(text[i : i + k] for i in range(len(text) - k + 1))

    def _covers(self, ids: list[int], lengths: list[int]) -> bool:
        return sum(lengths) == len(_PROBE) and self._tokenizer.unk_token_id not in ids


def _row(ids: list[int], like: Tensor) -> Tensor:
    return torch.tensor(ids, dtype=like.dtype, device=like.device).expand(len(like), len(ids))
