"""Small checkpoints made on the spot, in the published layouts."""

import json
from pathlib import Path
from typing import Any

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
