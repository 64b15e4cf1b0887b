"""The same training in one process and in two."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

_HEAD = """
import sys; sys.path.insert(0, {root!r})
import json, os, torch
from pathlib import Path
torch.set_num_threads(1)
folder = Path(sys.argv[1])
"""
_TAIL = """
if int(os.environ.get("RANK", "0")) == 0:
    (folder / "losses.json").write_text(json.dumps([epoch["train_loss"] for epoch in history[1:]]))
"""


class Trained(NamedTuple):
    losses: list[float]
    weights: dict[str, torch.Tensor]


def train_in_one_and_two(folder: Path, body: str) -> list[Trained]:
    """Run `body`, which trains into `folder` and leaves `history`, plainly and by torchrun with two processes."""
    program = folder / "program.py"
    root = str(Path(__file__).resolve().parents[1])
    program.write_text(_HEAD.format(root=root) + textwrap.dedent(body) + _TAIL)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = []
    for name, command in (("one", [sys.executable]), ("two", torchrun)):
        place = folder / name
        place.mkdir()
        done = subprocess.run(
            [*command, str(program), str(place)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        weights = torch.load(place / "last_model.pt", weights_only=True)["model"]
        found.append(Trained(json.loads((place / "losses.json").read_text()), weights))
    return found


def assert_same(one: Trained, two: Trained) -> None:
    """Losses and weights are alike to 1e-5."""
    assert one.losses == pytest.approx(two.losses, abs=1e-5)
    for key, value in one.weights.items():
        assert torch.allclose(value, two.weights[key], atol=1e-5), key
