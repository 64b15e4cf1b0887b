"""Several processes that train one model, as `torchrun` starts them.

Each sees its share of every batch; gradients are added up over all, so that the model is that of one
process with the same batches. Outside torchrun there is one process, and nothing here does anything.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import nn

from metalayer.errors import ConfigError

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process among all."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def total(self, *values: float) -> list[float]:
        """Sums over all processes."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(tensor)
        return [float(value) for value in tensor]

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, by rank."""
        if self.size == 1:
            return [value]
        everyone: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(everyone, value)
        return everyone

    def agree(self, value: T) -> T:
        """The first process's value, so that all decide alike."""
        first: T = self.gather(value)[0]
        return first

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


def join(device: str) -> World:
    """The world that torchrun's environment names, joined; each process gets a GPU of its own.

    Args:
        device: `cpu`, `mps`, `cuda` or `cuda:N`, resolved.

    Raises:
        ConfigError: more processes than GPUs.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World(device=device)
    on_gpu = device.startswith("cuda")
    if on_gpu:
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise ConfigError(
                f"process {local} of this machine has no GPU of its own: there are {torch.cuda.device_count()}; start "
                "as many processes as GPUs, or train on the CPU (device: cpu)"
            )
        torch.cuda.set_device(local)
        device = f"cuda:{local}"
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if on_gpu else "gloo")
    return World(torch.distributed.get_rank(), size, device)
