"""Several processes that train one model, as `torchrun` starts them.

Each sees its share of every batch; gradients are added up over all, so that the model is that of one
process with the same batches. Outside torchrun there is one process, and nothing here does anything.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class World:
    """This process among all."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def device(self, name: str) -> str:
        """The device of this process: each has a GPU of its own."""
        return f"cuda:{self.local_rank}" if self.size > 1 and name == "cuda" else name

    def total(self, *values: float) -> list[float]:
        """Sums over all processes."""
        if self.size == 1:
            return list(values)
        device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
        tensor = torch.tensor(values, dtype=torch.float64, device=device)
        torch.distributed.all_reduce(tensor)
        return [float(value) for value in tensor]

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            torch.distributed.barrier()

    def share(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The model, its gradients averaged over the processes where there are several."""
        if self.size == 1:
            return model
        devices = [device.index] if device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=devices)

    @contextlib.contextmanager
    def apart(self, model: nn.Module, *, last: bool) -> Iterator[None]:
        """Gradients stay with each process until the last batch of an optimizer step."""
        if isinstance(model, nn.parallel.DistributedDataParallel) and not last:
            with model.no_sync():
                yield
        else:
            yield


def join() -> World:
    """The world that torchrun's environment names, joined."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World()
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return World(torch.distributed.get_rank(), size, int(os.environ.get("LOCAL_RANK", "0")))
