"""Small checkpoints made on the spot, in the published layouts."""

import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from metalayer.models.hyenadna import HyenaConfig, HyenaDna

TINY = HyenaConfig(d_model=8, n_layer=2, max_seq_len=400, d_inner=16, filter_order=8)


def hyenadna(path: Path, config: HyenaConfig = TINY, **changes: Any) -> Path:
    """A HyenaDNA checkpoint directory with random weights; `changes` replace tensors by name, None removes."""
    torch.manual_seed(3)
    model = HyenaDna(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    tensors = {f"hyena.backbone.{name}": value.contiguous() for name, value in model.state_dict().items()}
    tensors = {name.replace("filter_fn.freq", "filter_fn.implicit_filter.1.freq"): t for name, t in tensors.items()}
    tensors["lm_head.weight"] = torch.zeros(config.rows, config.d_model)
    tensors = {name: value for name, value in {**tensors, **changes}.items() if value is not None}
    path.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path / "model.safetensors")
    (path / "config.json").write_text(json.dumps({"model_type": "hyenadna", "hyena_order": 2, **vars(config)}))
    return path


def kmers(k: int) -> list[str]:
    return ["".join(letters) for letters in itertools.product("ACGT", repeat=k)]


def bert(path: Path, words: Iterable[str], positions: int = 512, head: bool = False) -> Path:
    """A tiny BERT with these words as its vocabulary, saved through transformers."""
    from transformers import BertConfig, BertForMaskedLM, BertModel, BertTokenizer

    path.mkdir(parents=True, exist_ok=True)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    BertTokenizer(vocab={word: i for i, word in enumerate(vocabulary)}, do_lower_case=False).save_pretrained(path)
    return _saved(BertForMaskedLM if head else BertModel, BertConfig(**_small(vocabulary, positions)), path)


def bpe_bert(path: Path, vocabulary_size: int = 60) -> Path:
    """A tiny BERT whose pieces of one to many letters were learned from random DNA."""
    from tokenizers import Tokenizer, models, trainers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    rng = np.random.default_rng(0)
    learned = Tokenizer(models.BPE(unk_token="[UNK]"))
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    trainer = trainers.BpeTrainer(vocab_size=vocabulary_size, special_tokens=special, initial_alphabet=list("ACGTN"))
    learned.train_from_iterator(("".join(rng.choice(list("ACGT"), 100)) for _ in range(50)), trainer)
    path.mkdir(parents=True, exist_ok=True)
    PreTrainedTokenizerFast(tokenizer_object=learned, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(path)
    return _saved(BertModel, BertConfig(**_small(range(vocabulary_size), 512)), path)


def esm(path: Path, words: Iterable[str]) -> Path:
    """A tiny ESM with these words as its vocabulary, cut side by side, as the Nucleotide Transformer has them."""
    from transformers import EsmConfig, EsmModel, EsmTokenizer

    path.mkdir(parents=True, exist_ok=True)
    vocabulary = ["<unk>", "<pad>", "<mask>", "<cls>", "<eos>", *words]
    (path / "vocab.txt").write_text("\n".join(vocabulary))
    EsmTokenizer(str(path / "vocab.txt")).save_pretrained(path)
    small = _small(vocabulary, 512) | {"pad_token_id": 1, "mask_token_id": 2, "position_embedding_type": "rotary"}
    return _saved(EsmModel, EsmConfig(**small), path)


def _small(vocabulary: Any, positions: int) -> dict[str, Any]:
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    return {**sizes, "vocab_size": len(vocabulary), "max_position_embeddings": positions, "initializer_range": 0.5}


def _saved(kind: Any, config: Any, path: Path) -> Path:
    torch.manual_seed(4)
    kind(config).save_pretrained(path)
    return path
